"""Held near its start: the divergence is that of two distributions, keeps the model near, and resumes exactly."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import dialogues, outcome, plan, shared_learner, tiny_learner, tiny_run

from vlmreason.models.nano.model import load_nano
from vlmreason.models.vlm import learner as learners
from vlmreason.models.vlm.learner import Learner
from vlmreason.segments import VIEWS
from vlmreason.structure import structure
from vlmreason.supervision import Supervision
from vlmreason.training.engine.console import Stopped
from vlmreason.training.engine.keeper import RunKeeper

TUNED = {"num_examples": 24, "parts": {"text": {"level": "simple", "views": ["text"], "distinct": 4}}}
PHASES = {"before": {"num_examples": 8}, "tuned": TUNED | {"kl_weight": 2.0}}


def anew(start: Path | None) -> Learner:
    return tiny_learner() if start is None else Learner(*load_nano(start))


def batch_of(num: int, views: tuple[str, ...] = VIEWS) -> dict[str, torch.Tensor]:
    processor = shared_learner().processor
    found: dict[str, torch.Tensor] = processor.collate([processor.encode(one) for one in dialogues(num, views)])
    return found


def lines_of(run_dir: Path, phase: str) -> list[dict[str, Any]]:
    lines = map(json.loads, (run_dir / "metrics.jsonl").read_text().splitlines())
    return [line for line in lines if line["phase"] == phase]


@pytest.mark.parametrize("pieces", [1, 3])
def test_it_is_the_divergence_of_two_distributions(pieces: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model, start, batch = tiny_learner(1), tiny_learner(2), batch_of(4)
    logits_NV, _, segments = model.target_logits(batch)
    other_NV = start.target_logits(batch)[0].detach()
    wanted_N = logits_NV.softmax(-1).mul(logits_NV.log_softmax(-1) - other_NV.log_softmax(-1)).sum(-1)
    wanted_N.sum().backward()
    head = model.model.lm_head.weight
    gradient, head.grad = head.grad.clone(), None
    if pieces > 1:
        monkeypatch.setattr(learners, "_ROWS_STEP", -(-len(wanted_N) // pieces))
        monkeypatch.setattr(learners, "MAX_LOGITS", 1)
    losses_N, found_N, segments_N = model.losses_and_divergences(batch, start)
    assert torch.allclose(found_N, wanted_N, atol=1e-6) and found_N.min() > 0
    assert torch.allclose(losses_N, model.token_losses(batch)[0], atol=1e-6)
    assert torch.equal(segments_N, segments)
    found_N.sum().backward()
    assert torch.allclose(head.grad, gradient, atol=1e-5)
    assert all(value.grad is None for value in start.model.parameters()), "the start learns nothing"
    assert model.losses_and_divergences(batch, model)[1].abs().max() < 1e-6


def test_the_start_is_that_of_the_phase_and_holds_the_model(tmp_path: Path) -> None:
    tiny_run(tmp_path / "near", PHASES | {"tuned": TUNED | {"kl_weight": 100.0}}, build=anew)
    tiny_run(tmp_path / "free", PHASES | {"tuned": TUNED})
    near = lines_of(tmp_path / "near", "tuned")
    assert near[0]["divergence"] == pytest.approx(0, abs=1e-6), "before its first step the model is its start"
    assert near[-1]["divergence"] > 1e-4
    assert all(
        "divergence" not in line
        for line in lines_of(tmp_path / "near", "before") + lines_of(tmp_path / "free", "tuned")
    )
    before, batch = anew(tmp_path / "near/checkpoints/before"), batch_of(4, ("text",))

    def distance(run: str) -> float:
        final = anew(tmp_path / run / "checkpoints/final")
        with torch.no_grad():
            return float(final.losses_and_divergences(batch, before)[1].mean())

    assert 0 < distance("near") < 0.7 * distance("free")


def test_a_step_weighs_loss_and_divergence(tmp_path: Path) -> None:
    """The gradient of the second step, computed here; of the first it is that of the loss alone."""
    one = {"tuned": TUNED | {"num_examples": 8, "kl_weight": 3.0}}
    made: list[Learner] = []

    def kept(start: Path | None) -> Learner:
        made.append(anew(start))
        return made[-1]

    tiny_run(tmp_path, one, build=kept)
    first, second = lines_of(tmp_path, "tuned")
    free = tmp_path / "free"
    tiny_run(free, {"tuned": TUNED | {"num_examples": 8}})
    other_first, other_second = lines_of(free, "tuned")
    assert first["grad_norm"] == pytest.approx(other_first["grad_norm"], rel=1e-4)
    assert second["loss"] == pytest.approx(other_second["loss"], rel=1e-4), "the first step was the same"
    assert second["grad_norm"] != pytest.approx(other_second["grad_norm"], rel=1e-2), "the second is not"
    assert len(made) == 1 and not made[0].model.training
    assert not any(value.requires_grad for value in made[0].model.parameters())
    begun = tiny_learner().model.state_dict()
    assert all(torch.equal(value, begun[name]) for name, value in made[0].model.state_dict().items()), "frozen"


def test_it_resumes_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny_run(tmp_path / "unbroken", PHASES, build=anew, checkpoint_every=1)
    write: Callable[..., None] = RunKeeper._write

    def stopped(self: RunKeeper, metrics: dict[str, Any], timing: dict[str, Any]) -> None:
        write(self, metrics, timing)
        if self.num_lines == 5:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(RunKeeper, "_write", stopped)
        tiny_run(tmp_path / "resumed", PHASES, build=anew, checkpoint_every=1)
    tiny_run(tmp_path / "resumed", PHASES, build=anew, checkpoint_every=1)
    assert outcome(tmp_path / "resumed") == outcome(tmp_path / "unbroken")


def test_what_it_has_no_effect_on_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"phases\.a\.kl_weight=-1\.0: 0 or more is expected"):
        plan(a={"num_examples": 4, "kl_weight": -1.0})
    captions = {"num_examples": 4, "train": ["vision_tower"], "captions": {"table_reading_skills": 1}, "kl_weight": 1.0}
    with pytest.raises(ValueError, match=r"kl_weight=1\.0: has no effect on captions; keep has"):
        structure(Supervision, {"name": "x", "phases": {"a": captions}})
    near = {"a": {"num_examples": 4, "kl_weight": 1.0}}
    with pytest.raises(ValueError, match="match and kl_weight exclude each other"):
        plan(
            a={
                "num_examples": 4,
                "kl_weight": 1.0,
                "match": 1.0,
                "parts": {"a": {"level": "simple", "views": ["image"]}},
            }
        )
    with pytest.raises(ValueError, match=r"kl_weight=1\.0: a pretraining has no model to stay near"):
        tiny_run(tmp_path, near)
    with pytest.raises(ValueError, match=r"kl_weight=1\.0: trainer\.strategy=fsdp shards the model"):
        tiny_run(tmp_path, near, build=anew, strategy="fsdp")
