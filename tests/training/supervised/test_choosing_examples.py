"""Choosing examples by their gradients: scores against gradients example by example, what is kept, what a run does."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import TRAINER, nano_task, outcome, plan, processor, shared_learner, tiny_learner, tiny_run

from vlmreason.data.loader import StepData
from vlmreason.data.mixture import Mixture
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.processor import IGNORED
from vlmreason.structure import structure
from vlmreason.training.engine.optimizers import OptimizerSettings
from vlmreason.training.engine.settings import TrainerSettings
from vlmreason.training.supervised.choosing import alignments, best, without_rows
from vlmreason.training.supervised.stage import SupervisedStage

PARTS = {
    "simple": {"level": "simple", "views": ["text", "image"]},
    "hard": {"level": "hard", "views": ["text"]},
}
PHASE: dict[str, Any] = {"num_examples": 8, "parts": PARTS, "choose": {"toward": ["hard"], "share": 0.5}}


def mixture_of(phase: dict[str, Any] = PHASE) -> Mixture:
    return Mixture(plan(only=phase), "only", "table_readout", seed=0)


def step(micro_tokens: int = 10**9) -> tuple[list[dict[str, torch.Tensor]], list[torch.Tensor]]:
    """Micro-batches of a step of eight examples, and which of their rows are aimed at."""
    tasks = {"table_readout": nano_task()}
    data = StepData(mixture_of(), tasks, processor(), 8, micro_tokens, 1024, cut="shapes", toward=("hard",))
    micros = data[0]["micro_batches"]
    return micros, [micro.pop("toward") for micro in micros]


def gradient(loss: torch.Tensor, learner: Learner) -> torch.Tensor:
    parameters = list(learner.model.parameters())
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    pairs = zip(found, parameters, strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs]).double()


def test_rows_aimed_at_are_those_of_the_part() -> None:
    mixture, (micros, toward) = mixture_of(), step()
    parts = [mixture.part_of(i) for i in range(8)]
    assert parts.count("hard") == int(torch.cat(toward).sum()) == 4
    [micro], [rows] = micros, toward
    lengths = (micro["segments"] > 0).sum(dim=1)
    assert lengths[rows].min() > lengths[~rows].max(), "hard ones are longer"
    for i, part in enumerate(parts):
        assert mixture[i].level == part
    interleaved = Mixture(plan(only=PHASE | {"order": "interleave"}), "only", "table_readout", seed=0)
    assert [interleaved.part_of(i) for i in range(8)] == [interleaved[i].level for i in range(8)]


@pytest.mark.parametrize("micro_tokens", [10**9, 600])
def test_scores_are_inner_products_of_gradients(micro_tokens: int) -> None:
    """By hand: the gradient of each example's mean loss with that of the mean over tokens of all that are aimed at."""
    learner, (micros, toward) = shared_learner(), step(micro_tokens)
    found = alignments(learner, list(learner.model.parameters()), micros, toward)
    aimed = [without_rows(micro, rows) for micro, rows in zip(micros, toward, strict=True)]
    losses = torch.cat([learner.token_losses(micro)[0] for micro in aimed])
    h = gradient(losses.mean(), learner)
    for micro, scores in zip(micros, found, strict=True):
        for row, score in enumerate(scores.tolist()):
            alone = torch.arange(len(scores)) == row
            g = gradient(learner.token_losses(without_rows(micro, alone))[0].mean(), learner)
            assert score == pytest.approx(float(g @ h / (h @ h)), abs=0.02)
    assert torch.cat(found).std() > 0.02, "scores that are all alike would hide a fault"


def test_the_only_example_aimed_at_agrees_with_itself() -> None:
    learner, ([micro], [rows]) = shared_learner(), step()
    alone = torch.arange(len(rows)) == int(rows.nonzero()[0, 0])
    [scores] = alignments(learner, list(learner.model.parameters()), [micro], [alone])
    assert float(scores[alone]) == pytest.approx(1.0, abs=0.02)


def test_weights_and_mode_are_what_they_were() -> None:
    learner, (micros, toward) = tiny_learner(), step()
    learner.model.train()
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    alignments(learner, list(learner.model.parameters()), micros, toward)
    assert all(torch.equal(value, before[name]) for name, value in learner.model.state_dict().items())
    assert learner.model.training and all(p.grad is None for p in learner.model.parameters())


def test_the_best_of_the_others_are_kept_beside_all_that_are_aimed_at() -> None:
    scores = [torch.tensor([0.1, 0.9, 0.3]), torch.tensor([0.3, 0.2, -1.0, 0.8])]
    toward = [torch.tensor([False, True, False]), torch.tensor([False, False, False, True])]
    kept = best(scores, toward, 0.4)
    assert [rows.tolist() for rows in kept] == [[False, True, True], [True, False, False, True]]
    assert [rows.tolist() for rows in best(scores, toward, 0.01)] == [[False, True, True], [False, False, False, True]]


def test_rows_that_are_left_out_count_for_nothing() -> None:
    learner, ([micro], [rows]) = shared_learner(), step()
    expected = learner.token_losses(micro)[0]
    of_row = (micro["labels"][:, 1:] != IGNORED).nonzero()[:, 0]
    assert torch.allclose(learner.token_losses(without_rows(micro, rows))[0], expected[rows[of_row]], atol=1e-5)
    assert len(learner.token_losses(without_rows(micro, torch.zeros_like(rows)))[0]) == 0


def lines_of(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def test_a_run_trains_on_what_is_chosen_and_says_what_that_is(tmp_path: Path) -> None:
    by_chance = PHASE | {"choose": PHASE["choose"] | {"by": "chance"}}
    every = {key: value for key, value in PHASE.items() if key != "choose"}
    for name, phase in {"aligned": PHASE, "again": PHASE, "chance": by_chance, "all": every}.items():
        tiny_run(tmp_path / name, {"only": phase}, batch_size=8)
    assert outcome(tmp_path / "aligned") == outcome(tmp_path / "again")
    [aligned], [chance], [whole] = (lines_of(tmp_path / name) for name in ("aligned", "chance", "all"))
    assert aligned["alignment_chosen"] > aligned["alignment_offered"]
    assert not {"alignment_chosen", "alignment_offered"} & {*chance, *whole} and "tokens_chosen" not in whole
    assert aligned["tokens_offered"] == chance["tokens_offered"] != aligned["tokens_chosen"]
    learner, ([micro], [rows]) = tiny_learner(), step()
    parameters = [parameter for _, parameter in learner.trained_parameters("all")]
    [kept] = best(alignments(learner, parameters, [micro], [rows]), [rows], 0.5)
    assert int((kept & ~rows).sum()) == 2
    loss = float(learner.token_losses(without_rows(micro, kept))[0].mean())
    assert aligned["loss"] == pytest.approx(loss, rel=1e-4) != pytest.approx(whole["loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("choose", "words"),
    [
        (
            {"toward": ["hard"], "share": 1.0},
            r"phases\.only\.choose\.share=1\.0: more than 0 and less than 1 is expected",
        ),
        ({"toward": ["hard"], "share": 0}, r"choose\.share=0"),
        ({"toward": ["harder"]}, r"choose\.toward=.?harder.*simple, hard"),
        ({"toward": []}, r"choose\.toward=\[\]: some parts of the phase are expected, not none, not all"),
        ({"toward": ["simple", "hard"]}, r"choose\.toward=\['simple', 'hard'\]: some parts"),
        ({"toward": ["hard"], "by": "luck"}, r"choose\.by"),
    ],
)
def test_settings_without_sense_are_refused(choose: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan(only=PHASE | {"choose": choose})


def test_it_is_not_matched_as_well() -> None:
    with pytest.raises(ValueError, match=r"phases\.only\.choose: match and choose exclude each other"):
        plan(only=PHASE | {"match": 1.0})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"packing": "rows"}, r"choose: with trainer\.packing=rows dialogues share a row; allowed is off"),
        ({"strategy": "zero2"}, r"choose: trainer\.strategy=zero2 shards the model"),
        ({"precision": "bf16-true"}, r"choose: trainer\.precision=bf16-true keeps no weights in float32"),
    ],
)
def test_trainers_that_cannot_choose_are_refused(changes: dict[str, Any], words: str) -> None:
    settings = structure(TrainerSettings, vars(TRAINER) | changes)
    with pytest.raises(ValueError, match=words):
        stage_of(settings)
    with pytest.raises(ValueError, match=r"choose: examples are chosen in one process; trainer\.devices=1"):
        stage_of(TRAINER).place(0, 2)


def stage_of(settings: TrainerSettings) -> SupervisedStage:
    supervision = plan(only=PHASE)
    tasks, optimizer = {"table_readout": nano_task()}, OptimizerSettings("adamw", lr=1e-2)
    return SupervisedStage(shared_learner(), mixture_of(), tasks, supervision.phase("only"), optimizer, settings)
