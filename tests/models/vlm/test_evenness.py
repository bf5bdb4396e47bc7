"""Matrices of one size: the same function, within a phase and across a stop; what cannot be evened is refused."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import SIZES, dialogues, outcome, plan, tiny_learner, tiny_run
from transformers import AutoModelForImageTextToText, LlavaConfig

from vlmreason.models.contract import AdapterSettings
from vlmreason.models.nano.model import build_nano, load_nano, read_vocabulary
from vlmreason.models.vlm.evenness import check_even, even_sizes
from vlmreason.models.vlm.learner import Learner
from vlmreason.training.engine.console import Stopped
from vlmreason.training.engine.keeper import RunKeeper

DECODER = {"num_examples": 16, "train": ["language_model"], "parts": {"text": {"level": "simple", "views": ["text"]}}}
PICTURES = {"num_examples": 16, "train": ["projector"], "parts": {"image": {"level": "simple", "views": ["image"]}}}
PHASES = {"evened": DECODER | {"even": 0.25}, "after": PICTURES}


def sizes_of(learner: Learner, *words: str) -> list[float]:
    named = learner.model.named_parameters()
    return [float(value.detach().pow(2).mean().sqrt()) for name, value in named if any(word in name for word in words)]


def mean(sizes: list[float]) -> float:
    return float(torch.tensor(sizes).log().mean().exp())


@pytest.mark.parametrize("placed", [False, True])
def test_it_computes_the_same_with_matrices_of_the_size(placed: bool) -> None:
    settings = SIZES if not placed else SIZES.__class__(**{**vars(SIZES), "placed": True, "start": "composed"})
    learner = Learner(*build_nano(settings, read_vocabulary(), 0))
    with torch.no_grad():
        for i, parameter in enumerate(learner.model.parameters()):
            parameter.mul_(2 + i % 3)  # no two of a size
    learner.model.eval()
    batch = learner.processor.collate([learner.processor.encode(one) for one in dialogues(4, ("text", "image"))])
    with torch.no_grad():
        before = learner.target_logits(batch)[0]
        even_sizes(learner.model, 0.25)
        after = learner.target_logits(batch)[0]
        learner.model.model.language_model.norm.weight.mul_(1.1)
        wrong = learner.target_logits(batch)[0]
    assert torch.allclose(before, after, atol=1e-3 * float(before.abs().max()))
    assert not torch.allclose(before, wrong, atol=1e-3 * float(before.abs().max())), "the measure sees a tenth"
    for layer in range(SIZES.decoder_layers):
        place = f"layers.{layer}."
        for block, readers in (("self_attn", "qkv"), ("mlp", ("gate", "up"))):
            names = [f"language_model.{place}{block}.{name}_proj" for name in readers]
            assert mean(sizes_of(learner, *names)) == pytest.approx(0.25)
    assert mean(sizes_of(learner, "o_proj", "down_proj")) == pytest.approx(0.25)
    kept = {name: value.clone() for name, value in learner.model.named_parameters()}
    even_sizes(learner.model, 0.25)
    assert all(torch.allclose(value, kept[name]) for name, value in learner.model.named_parameters()), "twice is once"


def test_a_phase_ends_even_and_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_run(tmp_path / "unbroken", PHASES, checkpoint_every=1)
    evened = Learner(*load_nano(tmp_path / "unbroken/checkpoints/evened"))
    assert mean(sizes_of(evened, "o_proj", "down_proj")) == pytest.approx(0.25)
    write: Callable[..., None] = RunKeeper._write

    def stopped(self: RunKeeper, metrics: dict[str, Any], timing: dict[str, Any]) -> None:
        write(self, metrics, timing)
        if self.num_lines == 6:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(RunKeeper, "_write", stopped)
        tiny_run(tmp_path / "resumed", PHASES, checkpoint_every=1)
    lines = list(map(json.loads, (tmp_path / "resumed/metrics.jsonl").read_text().splitlines()))
    assert lines[-1]["phase"] == "after", "stopped where only the projector trains"
    tiny_run(tmp_path / "resumed", PHASES, checkpoint_every=1)
    assert outcome(tmp_path / "resumed") == outcome(tmp_path / "unbroken")


def test_what_cannot_be_evened_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"phases\.a\.even=0\.0: more than 0 is expected"):
        plan(a={"num_examples": 4, "even": 0.0})
    captions = {"num_examples": 4, "train": ["vision_tower"], "captions": {"table_reading_skills": 1}}
    with pytest.raises(ValueError, match=r"even=0\.2: has no effect on captions"):
        plan(a=captions | {"parts": {}, "even": 0.2})
    frozen = tiny_learner()
    frozen.adapt(AdapterSettings(frozen=("vision_tower",)), 0)
    with pytest.raises(ValueError, match=r"phases\.evened\.even=0\.25: .* no adapter and nothing frozen"):
        tiny_run(tmp_path, PHASES, learner=frozen)
    text = {"model_type": "qwen2", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "num_key_value_heads": 2, "intermediate_size": 16, "vocab_size": 32}  # fmt: skip
    vision = {"model_type": "siglip_vision_model", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
              "intermediate_size": 16, "image_size": 48, "patch_size": 24}  # fmt: skip
    other = AutoModelForImageTextToText.from_config(LlavaConfig(text_config=text, vision_config=vision))
    with pytest.raises(ValueError, match="llava with qwen2 is no Llama"):
        check_even(other)
