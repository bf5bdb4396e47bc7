"""One kernel computes what the library's operations do, in every family that has such norms."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from support.families import TINY, memorable, write_tiny
from support.parts import composed

from vlmreason.models.vlm import norms
from vlmreason.models.vlm.hugging_face import HuggingFace
from vlmreason.models.vlm.learner import Learner
from vlmreason.structure import structure


@functools.cache
def loaded(name: str, dtype: str) -> Learner:
    if name == "composed":
        return composed("clip", "convnext", language="llama", dtype=dtype).load()
    directory = write_tiny(name, Path(tempfile.mkdtemp(prefix=f"{name}_")))
    data = {"name": name, "checkpoint": str(directory), "dtype": dtype} | dict(TINY[name].settings)
    learner: Learner = structure(HuggingFace, data, "model").load()
    return learner


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", [*TINY, "composed"])
def test_one_kernel_is_all_steps(name: str, dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learner, calls = loaded(name, dtype), []
    batch = learner.processor.collate([learner.processor.encode(d) for d in memorable(3)])
    found = []
    for fused in (False, True):
        monkeypatch.setattr(norms, "_has_kernel", lambda *_, fused=fused: calls.append(fused) or fused)
        learner.model.zero_grad()
        losses_N, _ = learner.token_losses(batch)
        losses_N.sum().backward()
        grads = [p.grad.float().clone() for p in learner.model.parameters() if p.grad is not None]
        found.append([losses_N.detach(), *grads])
    assert calls.count(True) == calls.count(False) >= 2 * learner.model.config.get_text_config().num_hidden_layers
    tolerance: dict[str, Any] = {"rtol": 1e-4, "atol": 1e-5} if dtype == "float32" else {"rtol": 0.1, "atol": 0.1}
    for steps, kernel in zip(*found, strict=True):
        torch.testing.assert_close(steps, kernel, **tolerance)


def test_only_cuda_has_the_kernel() -> None:
    assert not norms._has_kernel(torch.ones(2), torch.ones(2))
