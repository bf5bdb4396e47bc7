"""Bytes by formula are those of the true model; what is said to fit does, by the same formula."""

import dataclasses
import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.families import TINY, memorable, write_tiny
from support.tiny import ADAMW, SIZES, TRAINER, dialogues, nano_task, plan, tiny_learner, tiny_run

from vlmreason.data.loader import StepData
from vlmreason.data.mixture import Mixture
from vlmreason.models.composed.loading import NanoComposed
from vlmreason.models.contract import PARTS, AdapterSettings
from vlmreason.models.nano.model import build_nano, load_nano, read_vocabulary
from vlmreason.models.vlm.hugging_face import HuggingFace
from vlmreason.models.vlm.learner import Learner
from vlmreason.structure import structure
from vlmreason.training.engine import memory
from vlmreason.training.engine.memory import GB, Layers, Plan, Shape, advice, estimate, fits, shape_of, what_fits
from vlmreason.training.engine.optimizers import build_optimizers

LORA = AdapterSettings("lora", parts=("language_model",), frozen=("vision_tower", "projector"), r=4, alpha=8)

SEVEN = Shape(
    parameters={"vision_tower": 650_000_000, "projector": 45_000_000, "language_model": 7_600_000_000},
    adapters=dict.fromkeys(PARTS, 0),
    rank_units={"vision_tower": 300_000, "projector": 14_000, "language_model": 2_500_000},
    element=2,
    block=233_000_000,
    text=Layers(28, 3584, 512, 18944),
    vision=Layers(32, 1280, 1280, 3420),
    vocabulary=152_064,
)
"""About Qwen2.5-VL-7B in bfloat16."""


def family(name: str, directory: Path, dtype: str = "float32") -> Learner:
    data = {"name": name, "checkpoint": str(write_tiny(name, directory)), "dtype": dtype}
    return structure(HuggingFace, data | dict(TINY[name].settings), "model").load()


def num_bytes(tensors: Any) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@pytest.mark.parametrize("settings", [AdapterSettings(), LORA, AdapterSettings(frozen=("vision_tower",))])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_weights_gradients_and_optimizer_are_those_of_the_model(
    settings: AdapterSettings, dtype: str, tmp_path: Path
) -> None:
    learner = family("qwen2_5_vl", tmp_path, dtype)
    learner.adapt(settings, 0)
    trained = learner.trained_parameters("all")
    own = {name for name, _ in trained}
    for name, parameter in learner.model.named_parameters():
        parameter.requires_grad_(name in own)
        parameter.data = parameter.data.float() if name in own else parameter.data  # as a run does
    learner.model.train()
    batch = learner.processor.collate([learner.processor.encode(d) for d in memorable(4)])
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        learner.token_losses(batch)[0].sum().backward()
    [adamw] = build_optimizers(ADAMW, trained)
    adamw.step()
    state = [value for values in adamw.state.values() for key, value in values.items() if key != "step"]
    full = tuple(part for part in PARTS if part not in (*settings.frozen, *settings.parts))
    precision = "32-true" if dtype == "float32" else "bf16-mixed"
    found = estimate(shape_of(learner), Plan(trained=full, lora=settings.parts, precision=precision))
    casts = 2 * sum(p.numel() for _, p in trained) if precision == "bf16-mixed" else 0
    assert found.weights == num_bytes(learner.model.parameters()) + casts
    assert found.gradients == num_bytes(p.grad for _, p in trained)
    assert found.optimizer == num_bytes(state)


def test_an_adapter_that_is_not_there_yet_is_counted_as_if_it_were(tmp_path: Path) -> None:
    learner = family("qwen2_5_vl", tmp_path)
    planned = estimate(shape_of(learner), Plan(trained=(), lora=("language_model",), rank=4))
    learner.adapt(LORA, 0)
    assert planned == estimate(shape_of(learner), Plan(trained=(), lora=("language_model",), rank=4))


def kept(learner: Learner, batch: Any, mixed: bool) -> int:
    """Bytes that autograd keeps for the backward pass, weights and their casts left out."""
    sizes = {parameter.shape for parameter in learner.model.parameters()}
    found: dict[int, tuple[int, Any]] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if tensor.shape not in sizes and tensor.T.shape not in sizes:
            found[storage.data_ptr()] = (storage.nbytes(), storage)
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor),
        torch.autocast("cpu", torch.bfloat16, enabled=mixed),
    ):
        learner.token_losses(batch)
    return sum(size for size, _ in found.values())


@pytest.mark.filterwarnings("ignore:The use of `x.T`")
@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed"])
@pytest.mark.parametrize("checkpointing", [False, True])
def test_activations_are_about_what_autograd_keeps(precision: str, checkpointing: bool) -> None:
    sizes = dataclasses.replace(
        SIZES, hidden_size=128, vision_layers=4, decoder_layers=6, decoder_heads=4, decoder_inner=384
    )
    learner = Learner(*build_nano(sizes, read_vocabulary(), 0))
    learner.model.set_attn_implementation("sdpa")
    learner.model.train()
    batch = learner.processor.collate([learner.processor.encode(d) for d in dialogues(12)])
    plan_ = Plan(
        trained=PARTS,
        precision=precision,
        gradient_checkpointing=checkpointing,
        micro_tokens=batch["input_ids"].numel(),
        micro_patches=memory._num_patches(learner, batch),
        micro_targets=int((batch["labels"] >= 0).sum()),
    )
    found: float = kept(learner, batch, precision != "32-true")
    if checkpointing:
        learner.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        found = kept(learner, batch, precision != "32-true") + found / sizes.decoder_layers  # one is computed again
    assert found / 2 < memory.activations(shape_of(learner), plan_) < 2.5 * found


def test_each_change_helps() -> None:
    plan_ = Plan(trained=PARTS, micro_tokens=8192, micro_patches=4096)
    total = estimate(SEVEN, plan_).total
    assert 140 * GB < total < 260 * GB  # 18 bytes per parameter, and activations
    for better in (
        replace(plan_, gradient_checkpointing=True),
        replace(plan_, trained=("language_model",)),
        replace(plan_, trained=(), lora=("language_model",)),
        replace(plan_, sharded=True, num_devices=4),
        replace(plan_, micro_tokens=2048, micro_patches=1024),
        replace(plan_, optimizer="muon"),
    ):
        assert estimate(SEVEN, better).total < total
    assert estimate(SEVEN, replace(plan_, num_devices=4)).total == total, "whole on each"


def apply(plan_: Plan, words: str) -> Plan:
    """The plan with the settings of a suggestion."""
    if match := re.search(r"on (\d+) such devices", words):
        plan_ = replace(plan_, sharded=True, num_devices=int(match.group(1)))
    if match := re.search(r"scale.micro_tokens=(\d+)", words):
        plan_ = memory._cut(plan_, int(match.group(1)))
    if "adapter=lora" in words:
        plan_ = replace(plan_, trained=(), lora=("language_model",))
    return replace(plan_, gradient_checkpointing=plan_.gradient_checkpointing or "gradient_checkpointing=true" in words)


@pytest.mark.parametrize("capacity", [16, 24, 40, 48, 80, 141])
@pytest.mark.parametrize("micro_tokens", [4096, 65536])
def test_what_is_said_to_fit_does(capacity: int, micro_tokens: int) -> None:
    plan_ = Plan(trained=PARTS, micro_tokens=micro_tokens, micro_patches=micro_tokens // 2, longest=2000)
    options = list(what_fits(SEVEN, plan_, capacity * GB))
    assert options and len(set(options)) == len(options)
    for words in options:
        changed = apply(plan_, words)
        assert changed != plan_
        assert fits(SEVEN, changed, capacity * GB), words
        assert changed.micro_tokens >= 2000
    assert any("fsdp" in words for words in options)


def test_the_sentence() -> None:
    plan_ = Plan(trained=PARTS, micro_tokens=16384, micro_patches=8192, longest=1000)
    text = advice(SEVEN, plan_, 80 * GB, "Some GPU")
    assert text.startswith("out of memory on Some GPU (80.0 GB): the run needs about ")
    for words in ("weights", "gradients", "optimizer", "activations", "adapter=lora", "trainer.strategy=fsdp"):
        assert words in text
    assert "\n" not in text
    assert "nothing that is known here would fit" in advice(SEVEN, plan_, 0.01 * GB, "A watch")


def test_where_the_estimate_was_too_low_it_is_raised() -> None:
    """A plan that ran out of memory is never said to fit as it is, nor with a change that saves next to nothing."""
    plan_ = Plan(trained=("projector",), micro_tokens=4096, micro_patches=100)
    assert fits(SEVEN, plan_, 141 * GB)
    text = advice(SEVEN, plan_, 141 * GB, "Some GPU")
    assert "scale.micro_tokens=2048" in text or "trainer.gradient_checkpointing=true" in text


@pytest.mark.parametrize(
    "error",
    [torch.OutOfMemoryError("CUDA out of memory"), MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate")],
)
def test_a_run_out_of_memory_says_what_would_fit(
    error: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learner = tiny_learner()

    def fail(_: Any) -> Any:
        raise error

    monkeypatch.setattr(learner, "token_losses", fail)
    with pytest.raises(ValueError, match=r"out of memory on this machine \(.* GB\): the run needs about .*; would fit"):
        tiny_run(tmp_path, {"only": {"num_examples": 8}}, learner=learner)


def test_other_errors_stay_what_they_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = tiny_learner()

    def fail(_: Any) -> Any:
        raise RuntimeError("something else")

    monkeypatch.setattr(learner, "token_losses", fail)
    with pytest.raises(RuntimeError, match="something else"):
        tiny_run(tmp_path, {"only": {"num_examples": 8}}, learner=learner)


@pytest.mark.parametrize("name", TINY)
def test_shape_of_every_family(name: str, tmp_path: Path) -> None:
    learner = family(name, tmp_path)
    shape = shape_of(learner)
    assert sum(shape.parameters.values()) == sum(p.numel() for p in learner.model.parameters())
    assert shape.element == 4
    assert 0 < shape.block < sum(shape.parameters.values())
    for layers in (shape.text, shape.vision):
        assert layers.num >= 1 and layers.channels >= 8 and layers.inner >= layers.channels and layers.keys >= 8
    encoded = [learner.processor.encode(d) for d in memorable(4)]
    assert memory._num_patches(learner, learner.processor.collate(encoded)) > 0


def test_plan_of_a_phase() -> None:
    learner = tiny_learner()
    learner.adapt(AdapterSettings("lora", parts=("language_model",), frozen=("vision_tower",), r=4, alpha=8), 0)
    mixture = Mixture(plan(only={"num_examples": 14}), "only", "table_readout", seed=0)
    data = StepData(mixture, {"table_readout": nano_task()}, learner.processor, 4, 600, 1024)
    found = memory.plan_of(learner, "all", TRAINER, "adamw", 2, data)
    assert (found.trained, found.lora) == (("projector",), ("language_model",))
    assert (found.micro_tokens, found.num_devices, found.sharded) == (600, 2, False)
    assert 0 < found.micro_targets < 600 and 0 < found.micro_patches < 600
    assert memory.plan_of(learner, ["projector"], TRAINER, "adamw", 1, data).lora == ()


def test_memory_of_this_machine() -> None:
    capacity, name = memory.capacity_of(torch.device("cpu"))
    assert capacity > 2**28 and name == "this machine"
    assert capacity == os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_shape_of_a_composed_model() -> None:
    shape, nano = shape_of(NanoComposed().load()), shape_of(Learner(*load_nano()))
    assert shape == replace(nano, block=shape.block)
