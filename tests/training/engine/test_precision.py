"""Models as they come from the hub, in bfloat16: they train, answer and are read again with every precision."""

import functools
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from support.families import TINY, write_tiny
from support.parts import composed
from support.tiny import dialogues, nano_task, prompts, tiny_learner, tiny_run

from vlmreason.answering.settings import EvaluationSettings
from vlmreason.evaluation.evaluate import measure
from vlmreason.models.contract import AdapterSettings
from vlmreason.models.vlm.hugging_face import HuggingFace
from vlmreason.models.vlm.learner import Learner
from vlmreason.structure import structure
from vlmreason.training.engine.precision import computed, lightning_name, narrowed, prepare

NONE = AdapterSettings()
FROZEN = AdapterSettings(frozen=("vision_tower",))
LORA = AdapterSettings("lora", parts=("language_model",), frozen=("vision_tower", "projector"), r=4, alpha=8)
MIXED = AdapterSettings("lora", parts=("language_model",), frozen=("vision_tower",), r=4, alpha=8)
EVALUATION = EvaluationSettings(num=1, max_new_tokens=2, batch_size=2, levels=("simple",))
PLANS: list[tuple[str, AdapterSettings, dict[str, Any]]] = [
    ("bf16-mixed", FROZEN, {"packing": "rows"}),
    ("bf16-mixed", MIXED, {"gradient_checkpointing": True}),
    ("bf16-true", LORA, {"packing": "row"}),
    ("bf16-true", NONE, {"gradient_checkpointing": True}),
    ("32-true", LORA, {}),
]
NAMES = [*TINY, "composed"]


@functools.cache
def files(name: str) -> Path:
    return write_tiny(name, Path(tempfile.mkdtemp(prefix=f"{name}_")))


def half(name: str, adapter: AdapterSettings = NONE, trained: Path | None = None) -> Learner:
    if name == "composed":
        settings: Any = composed("clip", "convnext", dtype="bfloat16")
    else:
        data = {"name": name, "checkpoint": str(files(name)), "dtype": "bfloat16"}
        settings = structure(HuggingFace, data | dict(TINY[name].settings), "model")
    learner: Learner = settings.load(trained if adapter.name == "none" else None)
    learner.adapt(adapter, 0, trained)
    return learner


def unused(name: str) -> bool:
    """Last layers and norms of towers that give another hidden state."""
    return any(part in name for part in ("encoder.layers.1.", "post_layernorm", "vision_tower.1.layernorm"))


@pytest.mark.parametrize("number", range(len(PLANS)))
@pytest.mark.parametrize("name", NAMES)
def test_half_precision_trains_answers_and_is_read_again(name: str, number: int, tmp_path: Path) -> None:
    precision, adapter, more = PLANS[number]
    more = {key: value for key, value in more.items() if name != "mllama" or key != "packing"}
    learner = half(name, adapter)
    before = {key: value.detach().float().clone() for key, value in learner.model.named_parameters()}
    buffers = {key: value.clone() for key, value in learner.model.named_buffers()}
    final = tiny_run(
        tmp_path, {"only": {"num_examples": 8}}, learner=learner, precision=precision, micro_tokens=3000,
        max_length=4096, seed=1, evaluate_every=2, evaluate=lambda run: measure(run, nano_task(), EVALUATION), **more,
    )  # fmt: skip
    trained = dict(learner.trained_parameters("all"))
    expected = torch.bfloat16 if precision == "bf16-true" else torch.float32
    assert {parameter.dtype for parameter in trained.values()} == {expected}
    for key, value in learner.model.named_parameters():
        assert key in trained or torch.equal(value.float(), before[key]), key
        assert key not in trained or unused(key) or not torch.equal(value.float(), before[key]), key
    for key, value in learner.model.named_buffers():
        assert torch.equal(value, buffers[key]), key
    assert len(half(name, adapter, final).generate(prompts(2), 4)) == 2


@pytest.mark.parametrize("name", NAMES)
def test_checkpointing_leaves_frozen_towers_without_a_backward_pass(name: str, tmp_path: Path) -> None:
    learner = half(name, LORA)
    seen: list[bool] = []
    tower = learner.prefixes["vision_tower"]
    for key, module in learner.model.named_modules():
        if f"{key}.".startswith(tower) and isinstance(module, torch.nn.Linear):
            module.register_forward_hook(lambda _, __, output: seen.append(output.requires_grad))
    tiny_run(
        tmp_path, {"only": {"num_examples": 6}}, learner=learner, precision="bf16-mixed", gradient_checkpointing=True,
        micro_tokens=3000, max_length=4096,
    )  # fmt: skip
    assert seen and not any(seen)


def test_casts_carry_the_gradient_to_weights_in_float32() -> None:
    """Computed in bfloat16 throughout, summed in float32, the weights untouched."""
    learner, whole = half("qwen2_5_vl"), half("qwen2_5_vl")
    parameters = list(learner.model.parameters())
    prepare(learner.model, parameters, "bf16-mixed", sharded=False)
    batch = learner.processor.collate([learner.processor.encode(d) for d in dialogues(2)])
    kept = [parameter.detach().clone() for parameter in parameters]
    with narrowed(learner.model):
        for _ in range(2):  # two micro-batches through the same casts
            losses_N, _ = learner.token_losses(batch)
            losses_N.mean().backward()
    expected_N, _ = whole.token_losses(batch)
    assert torch.equal(losses_N, expected_N)
    expected_N.mean().backward()
    assert list(learner.model.parameters()) == parameters
    for parameter, other, old in zip(parameters, whole.model.parameters(), kept, strict=True):
        assert parameter.dtype == torch.float32 and torch.equal(parameter, old)
        assert parameter.grad is not None and parameter.grad.dtype == torch.float32 and other.grad is not None
        torch.testing.assert_close(parameter.grad, 2 * other.grad.float(), rtol=0.02, atol=1e-3)


def test_weights_are_themselves_again_after_an_error() -> None:
    model = tiny_learner().model
    before = [*model.parameters()]
    with pytest.raises(RuntimeError, match="on purpose"), narrowed(model):
        assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
        raise RuntimeError("on purpose")
    assert [*model.parameters()] == before


def test_autocast_is_for_models_in_float32() -> None:
    assert lightning_name("bf16-mixed", half=False) == "bf16-mixed"
    assert lightning_name("bf16-mixed", half=True) == lightning_name("bf16-true", half=True) == "32-true"


def test_unknown_precision(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"precision.*16-mixed.*32-true"):
        tiny_run(tmp_path, {"only": {"num_examples": 8}}, precision="16-mixed")


def test_pictures_come_in_the_type_that_the_model_computes_in() -> None:
    assert computed("bf16-mixed", half=True) == computed("bf16-true", half=False) == torch.bfloat16
    assert computed("bf16-mixed", half=False) == computed("32-true", half=True) == torch.float32


@pytest.mark.parametrize("name", NAMES)
def test_pictures_in_half_precision_give_the_same(name: str) -> None:
    learner = half(name)
    batch = learner.processor.collate([learner.processor.encode(d) for d in dialogues(3)])
    narrow = {key: value.bfloat16() if value.is_floating_point() else value for key, value in batch.items()}
    assert narrow["pixel_values"].dtype == torch.bfloat16 != batch["pixel_values"].dtype
    with torch.no_grad():
        assert torch.equal(learner.token_losses(batch)[0], learner.token_losses(narrow)[0])
