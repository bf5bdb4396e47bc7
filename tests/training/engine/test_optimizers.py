"""Each trained parameter has one optimizer; the rate rises and falls; what is frozen does not move."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import ADAMW, tiny_learner, tiny_run

from vlmreason.models.contract import PARTS
from vlmreason.models.vlm.learner import Learner
from vlmreason.structure import structure
from vlmreason.training.engine.optimizers import OptimizerSettings, build_optimizers, schedule
from vlmreason.training.engine.settings import TrainerSettings

MUON = OptimizerSettings("muon", lr=1e-3, muon_lr=0.02)


@pytest.mark.parametrize("num_steps", [1, 2, 33, 34, 1000])
def test_schedule(num_steps: int) -> None:
    factors = [schedule(step, num_steps, 0.03) for step in range(num_steps)]
    num_warmup = math.ceil(0.03 * num_steps)
    assert factors[:num_warmup] == pytest.approx([(i + 1) / num_warmup for i in range(num_warmup)])
    assert max(factors) == 1
    falling = factors[num_warmup - 1 :]
    assert falling == sorted(falling, reverse=True)
    if num_steps > 1:
        assert schedule(num_steps, num_steps, 0.03) == pytest.approx(0, abs=1e-12)
    assert all(0 < factor <= 1 for factor in factors)


def test_schedule_without_warmup() -> None:
    assert schedule(0, 10, 0.0) == 1
    assert schedule(5, 10, 0.0) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"lr": 0.0}, "optimizer.lr=0.0"),
        ({"lr": -1.0}, "optimizer.lr=-1.0"),
        ({"muon_lr": 0.1}, "optimizer.muon_lr=0.1: set with optimizer.name=muon and only then"),
        ({"name": "muon"}, "optimizer.muon_lr=None: set with optimizer.name=muon"),
        ({"name": "muon", "muon_lr": -0.1}, "optimizer.muon_lr=-0.1: a rate is more than 0"),
        ({"warmup": 1.0}, "optimizer.warmup=1.0"),
        ({"warmup": -0.1}, "optimizer.warmup=-0.1"),
        ({"name": "sgd"}, "optimizer.name='sgd': allowed are adamw, muon"),
        ({"learning_rate": 1.0}, "optimizer.learning_rate: no such key"),
        ({"part_lr": {"vision": 1e-6}}, "optimizer.part_lr.vision: no such part; there are vision_tower"),
        ({"part_lr": {"projector": 0.0}}, "optimizer.part_lr.projector=0.0: a rate is more than 0"),
        ({"name": "muon", "muon_lr": 0.1, "part_lr": {"projector": 0.1}}, "only with optimizer.name=adamw"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError) as raised:
        structure(OptimizerSettings, {"name": "adamw", "lr": 1e-3} | changes, "optimizer")
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("settings", [ADAMW, MUON], ids=["adamw", "muon"])
@pytest.mark.parametrize("parts", [tuple(PARTS), ("projector",), ("language_model",), ("vision_tower",)])
def test_every_trained_parameter_has_one_optimizer(settings: OptimizerSettings, parts: tuple[str, ...]) -> None:
    named = [named for part in parts for named in tiny_learner().part_parameters(part)]
    optimizers = build_optimizers(settings, named)
    found = [id(p) for optimizer in optimizers for group in optimizer.param_groups for p in group["params"]]
    assert sorted(found) == sorted(id(p) for _, p in named)
    assert len(set(found)) == len(found)
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            assert group["peak_lr"] == (0.02 if isinstance(optimizer, torch.optim.Muon) else settings.lr)


def test_muon_takes_hidden_matrices_alone() -> None:
    named = list(tiny_learner().model.named_parameters())
    [muon] = [o for o in build_optimizers(MUON, named) if isinstance(o, torch.optim.Muon)]
    taken = {id(p) for group in muon.param_groups for p in group["params"]}
    names = [name for name, p in named if id(p) in taken]
    assert len(names) > 10
    assert not [name for name in names if "embed" in name or "lm_head" in name]
    assert all(p.ndim == 2 for _, p in named if id(p) in taken)


def test_only_matrices() -> None:
    """A part without anything for AdamW has no empty AdamW."""
    [muon] = build_optimizers(MUON, [("layer.weight", torch.nn.Parameter(torch.ones(3, 3)))])
    assert isinstance(muon, torch.optim.Muon)


def weights(learner: Learner, part: str) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for _, p in learner.part_parameters(part)])


@pytest.mark.parametrize("train", [["language_model"], ["projector"], ["vision_tower", "projector"], "all"])
@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_frozen_parts_do_not_move(tmp_path: Path, train: Any, name: str) -> None:
    learner = tiny_learner()
    before = {part: weights(learner, part) for part in PARTS}
    override = {"weight_decay": 0.1} | ({"name": "muon", "muon_lr": 0.02} if name == "muon" else {})
    tiny_run(
        tmp_path, {"only": {"num_examples": 8, "train": train, "optimizer": override}}, learner=learner, batch_size=4
    )
    for part in PARTS:
        moved = not torch.equal(before[part], weights(learner, part))
        assert moved == (train == "all" or part in train), part
        assert moved or all(p.grad is None for _, p in learner.part_parameters(part)), "no work is spent on it"
    head, embedding = learner.model.lm_head.weight, learner.model.get_input_embeddings().weight
    assert head is embedding, "still tied"


def test_frozen_part_is_trained_in_a_later_phase(tmp_path: Path) -> None:
    learner = tiny_learner()
    before = weights(learner, "vision_tower")
    phases = {"first": {"num_examples": 4, "train": ["language_model"]}, "second": {"num_examples": 4}}
    tiny_run(tmp_path, phases, learner=learner)
    assert not torch.equal(before, weights(learner, "vision_tower"))


PART_LR = {"vision_tower": 2e-6, "projector": 0.5}


def test_parts_have_their_own_rates() -> None:
    learner = tiny_learner()
    settings = OptimizerSettings("adamw", lr=1e-2, part_lr=PART_LR | {"language_model": None})
    [adamw] = build_optimizers(settings, learner.trained_parameters("all"), learner.prefixes)
    rates = [(id(p), group["peak_lr"]) for group in adamw.param_groups for p in group["params"]]
    expected = {
        id(p): rate
        for part, rate in (PART_LR | {"language_model": 1e-2}).items()
        for _, p in learner.part_parameters(part)
    }
    assert len(rates) == len(expected)
    assert dict(rates) == expected
    assert all(group["lr"] == group["peak_lr"] for group in adamw.param_groups)


def test_rates_of_parts_reach_the_weights(tmp_path: Path) -> None:
    """A rate too small to matter leaves a part almost where it was; the others move as without it."""
    moved = {}
    for name, part_lr in (("one", {}), ("two", {"vision_tower": 1e-12})):
        learner = tiny_learner()
        before = {part: weights(learner, part) for part in PARTS}
        phases = {"only": {"num_examples": 4, "optimizer": {"part_lr": part_lr, "warmup": 0.0}}}
        tiny_run(tmp_path / name, phases, learner=learner)
        moved[name] = {part: float((weights(learner, part) - before[part]).abs().max()) for part in PARTS}
    assert moved["two"]["vision_tower"] < 1e-6 < 1e-3 < moved["one"]["vision_tower"]
    assert moved["two"]["language_model"] == moved["one"]["language_model"] > 1e-3


@pytest.mark.parametrize(
    ("base", "phases", "sentence"),
    [
        (
            {"part_lr": {"projector": 0.1}},
            {"a": {"train": ["language_model"]}, "b": {"train": ["vision_tower"]}},
            "optimizer.part_lr.projector: no effect, the projector is trained in no phase",
        ),
        (
            {},
            {"a": {}, "b": {"train": ["projector"], "optimizer": {"part_lr": {"vision_tower": 0.1}}}},
            "optimizer.part_lr.vision_tower: no effect",
        ),
    ],
)
def test_a_rate_without_effect_ends_before_the_first_step(
    tmp_path: Path, base: Any, phases: Any, sentence: str
) -> None:
    with pytest.raises(ValueError) as raised:
        tiny_run(
            tmp_path,
            {name: {"num_examples": 4} | phase for name, phase in phases.items()},
            optimizer=OptimizerSettings("adamw", lr=1e-2, **base),
        )
    assert sentence in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_rate_may_be_without_use_in_some_phase(tmp_path: Path) -> None:
    settings = OptimizerSettings("adamw", lr=1e-2, part_lr={"projector": 0.1})
    phases = {"first": {"num_examples": 4, "train": ["language_model"]}, "second": {"num_examples": 4}}
    assert tiny_run(tmp_path, phases, optimizer=settings).is_dir()


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ({"lrr": 0.1}, "supervision.phases.second.optimizer.lrr: no such key"),
        ({"lr": "big"}, "supervision.phases.second.optimizer.lr='big'"),
        ({"name": "muon"}, "optimizer.muon_lr=None"),
    ],
)
def test_mistake_in_a_later_phase_ends_before_the_first(tmp_path: Path, override: Any, sentence: str) -> None:
    phases = {"first": {"num_examples": 4}, "second": {"num_examples": 4, "optimizer": override}}
    with pytest.raises(ValueError) as raised:
        tiny_run(tmp_path, phases)
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_phases_have_their_own_rates(tmp_path: Path) -> None:
    phases = {"first": {"num_examples": 12}, "second": {"num_examples": 12, "optimizer": {"lr": 0.5}}}
    tiny_run(tmp_path, phases)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    rates = {name: [line["lr"] for line in lines if line["phase"] == name] for name in phases}
    assert rates["first"] == pytest.approx([ADAMW.lr * schedule(step, 3, 0.03) for step in range(3)])
    assert rates["second"] == pytest.approx([0.5 * schedule(step, 3, 0.03) for step in range(3)])


@pytest.mark.parametrize(
    "changes", [{"batch_size": 0}, {"micro_tokens": 0}, {"max_length": 0}, {"log_every": 0}, {"checkpoint_every": 0}]
)
def test_counts_of_the_trainer(changes: dict[str, int]) -> None:
    [(name, value)] = changes.items()
    with pytest.raises(ValueError, match=rf"trainer.{name}={value}: 1 or more is expected"):
        structure(TrainerSettings, {"batch_size": 1, "micro_tokens": 1, "max_length": 1} | changes, "trainer")


@pytest.mark.parametrize("changes", [{"accelerator": "abacus"}, {"strategy": "guess"}, {"precision": "7-mixed"}])
def test_settings_that_the_trainer_refuses(tmp_path: Path, changes: dict[str, str]) -> None:
    with pytest.raises(ValueError) as raised:
        tiny_run(tmp_path, {"only": {"num_examples": 4}}, **changes)
    [value] = changes.values()
    assert value in str(raised.value)
