"""Windows and pictures of one length at once give what the library gives one by one, in far fewer calls."""

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from support.families import picture, write_tiny

from vlmreason.models.vlm.hugging_face import HuggingFace
from vlmreason.models.vlm.learner import Learner

NAMES = ("qwen2_5_vl", "qwen2_vl")


def loaded(name: str, attention: Any = "sdpa") -> Learner:
    directory = write_tiny(name, Path(tempfile.mkdtemp(prefix=f"{name}_")))
    return HuggingFace(name, checkpoint=str(directory), dtype="float32", attention=attention).load()


def features(learner: Learner, images: list[Any]) -> torch.Tensor:
    inputs = learner.processor.pictures.inputs(torch.zeros(1, 1, dtype=torch.long), [images])
    inputs.pop("mm_token_type_ids")
    model = learner.model.model
    return torch.cat(model.get_image_features(**inputs).pooler_output)


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("numbers", [[0, 4], [0, 1, 2, 3, 1], [2]])
@pytest.mark.parametrize("name", NAMES)
def test_together_is_one_by_one(name: str, numbers: list[int], attention: str) -> None:
    learner = loaded(name, attention)
    blocks = learner.model.model.visual.blocks
    images = [picture(number) for number in numbers]
    gradients = []
    for alone in (False, True):
        if alone:
            for block in blocks:
                block.attn.forward = block.attn.alone
        learner.model.zero_grad()
        found = features(learner, images)
        found.square().sum().backward()
        gradients.append([found.detach(), *(block.attn.qkv.weight.grad.clone() for block in blocks)])
    for mine, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_calls_does_not_grow_with_the_pictures(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = loaded(name)
    calls = []
    whole = torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *a, **k: calls.append(1) or whole(*a, **k)
    )
    numbers = []
    for num in (1, 6):
        calls.clear()
        features(learner, [picture(2)] * num)
        numbers.append(len(calls))
    assert numbers[0] == numbers[1] > 0
