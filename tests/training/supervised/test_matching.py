"""Matching of views: which tokens are compared, with what, which side learns by it, and what cannot be matched."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import TRAINER, nano_task, plan, processor, shared_learner, tiny_learner, tiny_run
from torch.nn import functional as F

from vlmreason.data.loader import BESIDE, StepData
from vlmreason.data.mixture import Mixture
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.processor import IGNORED
from vlmreason.structure import structure
from vlmreason.training.engine.optimizers import OptimizerSettings
from vlmreason.training.engine.settings import TrainerSettings
from vlmreason.training.supervised.matching import matched_losses
from vlmreason.training.supervised.stage import SupervisedStage

PHASE = {"num_examples": 8, "match": 2.0}


def data(task: Any = None, phase: Any = PHASE, **changes: Any) -> StepData:
    mixture = Mixture(plan(only=phase), "only", "table_readout", seed=0)
    given = {"batch_size": 8, "micro_tokens": 10**9, "max_length": 1024, "match": True, "cut": "shapes"} | changes
    return StepData(mixture, {"table_readout": task or nano_task()}, processor(), **given)


def one_micro() -> dict[str, torch.Tensor]:
    """All views in one micro-batch, some of its rows with a text beside them."""
    [micro] = data()[0]["micro_batches"]
    return micro


def own(micro: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value for name, value in micro.items() if not name.startswith(BESIDE)}


def text_of(micro: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name.removeprefix(BESIDE): value for name, value in micro.items() if name.startswith(BESIDE)}


def test_pictures_answered_directly_have_the_same_problem_as_text_beside_them() -> None:
    made = data()
    step = made[0]
    views = [made.mixture[i].view for i in range(8)]
    assert {"text", "image", "image_via_text"} == set(views)
    [micro] = step["micro_batches"]
    text = text_of(micro)
    assert len(text["rows"]) == views.count("image") and "pixel_values" not in text
    for row, labels in zip(text["rows"].tolist(), text["labels"], strict=True):
        assert labels[labels != IGNORED].tolist() == micro["labels"][row][micro["labels"][row] != IGNORED].tolist()
        asked = processor().decode(text["input_ids"][text["rows"].tolist().index(row)].tolist())
        assert "tabular" in asked and "tabular" not in processor().decode(micro["input_ids"][row].tolist())
    assert step["num_matched"] == int((text["labels"] != IGNORED).sum()) < step["num_targets"]
    assert "num_matched" not in data(match=False)[0] and not text_of(data(match=False)[0]["micro_batches"][0])


@pytest.mark.parametrize(("cut", "micro_tokens"), [("cost", 10**9), ("shapes", 600), ("cost", 600)])
def test_any_cut_has_the_same_pairs(cut: str, micro_tokens: int) -> None:
    micros = data(cut=cut, micro_tokens=micro_tokens)[0]["micro_batches"]
    found = [text_of(micro) for micro in micros]
    assert sum(len(text.get("rows", ())) for text in found) == len(text_of(one_micro())["rows"])
    whole = sum(matched_losses(shared_learner(), micro)[2].sum().item() for micro in micros)
    assert whole == pytest.approx(matched_losses(shared_learner(), one_micro())[2].sum().item(), rel=1e-3)


def test_divergence_is_that_of_the_text_from_the_picture_token_by_token() -> None:
    """By hand: each pair in a batch of its own, KL(text || picture) of their logits."""
    learner, micro = shared_learner(), one_micro()
    losses_N, segments_N, apart_M = matched_losses(learner, micro)
    expected_N, expected_segments_N = learner.token_losses(own(micro))
    assert torch.allclose(losses_N, expected_N, atol=1e-5) and torch.equal(segments_N, expected_segments_N)
    made, expected = data(), []
    for example in sorted(map(made.encode, range(8)), key=len, reverse=True):
        if example.beside is None:
            continue
        of_text, of_picture = (
            learner.target_logits(processor().collate([one]))[0].double().softmax(dim=-1)
            for one in (example.beside, replace(example, beside=None))
        )
        expected.append((of_text * (of_text.log() - of_picture.log())).sum(dim=-1))
    assert torch.allclose(apart_M.double(), torch.cat(expected), rtol=1e-3, atol=1e-6)
    assert apart_M.min() > -1e-6 and apart_M.sum() > 0


def test_equal_views_are_not_pulled() -> None:
    """The picture beside itself: no divergence, and no gradient of it."""
    learner, micro = tiny_learner(), one_micro()
    rows = text_of(micro)["rows"]
    pictures = own(micro)["labels"][rows], own(micro)["input_ids"][rows], own(micro)["segments"][rows]
    with_picture = [row for row in range(len(micro["labels"])) if (micro["input_ids"][row] == placeholder()).any()]
    at = [with_picture.index(row) for row in rows.tolist()]
    same = own(micro) | {f"{BESIDE}rows": rows, f"{BESIDE}pixel_values": micro["pixel_values"][at]}
    for name, value in zip(("labels", "input_ids", "segments"), pictures, strict=True):
        same[BESIDE + name] = value
    _, _, apart_M = matched_losses(learner, same)
    assert len(apart_M) and apart_M.abs().max() < 1e-5
    apart_M.sum().backward()
    assert max(float(p.grad.abs().max()) for p in learner.model.parameters() if p.grad is not None) < 1e-4


def placeholder() -> int:
    return processor().pictures.placeholder_id


def gradient(loss: torch.Tensor, learner: Learner) -> torch.Tensor:
    found = torch.autograd.grad(loss, list(learner.model.parameters()), allow_unused=True)
    pairs = zip(found, learner.model.parameters(), strict=True)
    return torch.cat([(torch.zeros_like(p) if g is None else g).flatten() for g, p in pairs])


def test_the_picture_comes_to_the_text_and_not_the_other_way() -> None:
    """The gradient is that of the picture's side with the text's as a constant; what reaches the text's side alone, an
    embedding that only its prompts have, gets none of it."""
    learner, micro = tiny_learner(), one_micro()
    apart = matched_losses(learner, micro)[2].sum()
    text = text_of(micro)
    rows_N = (micro["labels"][:, 1:] != IGNORED).nonzero()[:, 0]
    constant = F.log_softmax(learner.target_logits({k: v for k, v in text.items() if k != "rows"})[0], -1).detach()
    logs = F.log_softmax(learner.target_logits(own(micro))[0][torch.isin(rows_N, text["rows"])], -1)
    by_hand = gradient((constant.exp() * (constant - logs)).sum(), learner)
    found = gradient(apart, learner)
    assert by_hand.norm() > 0 and torch.allclose(found, by_hand, rtol=1e-3, atol=1e-5 * float(by_hand.norm()))
    tower = [n for n, p in learner.model.named_parameters() if "vision_tower" in n and p.requires_grad]
    assert tower, "the picture's side reaches the tower"
    embedding = learner.model.get_input_embeddings().weight
    [of_embedding] = torch.autograd.grad(matched_losses(learner, micro)[2].sum(), [embedding])
    head = learner.model.get_output_embeddings().weight
    if head is not embedding:
        pictures = {*micro["input_ids"][text["rows"]].flatten().tolist()}
        only_text = sorted({*text["input_ids"].flatten().tolist()} - pictures)
        assert only_text and of_embedding[only_text].abs().max() == 0


def test_dropout_of_the_learner_is_off_on_the_side_of_the_text_and_on_again_behind_it() -> None:
    learner, seen = tiny_learner(), []
    ask = learner.target_logits

    def asked(batch: Any) -> Any:
        seen.append((learner.model.training, "pixel_values" in batch))
        return ask(batch)

    learner.target_logits = asked  # type: ignore[method-assign]
    learner.model.train()
    matched_losses(learner, one_micro())
    assert seen == [(True, True), (False, False)] and learner.model.training


def test_a_run_with_it_says_the_divergence_and_is_another_one(tmp_path: Path) -> None:
    lines = {}
    for match in (0.0, 2.0):
        tiny_run(tmp_path / str(match), {"only": PHASE | {"match": match}})
        lines[match] = [json.loads(line) for line in (tmp_path / str(match) / "metrics.jsonl").read_text().splitlines()]
    assert all("divergence" not in line for line in lines[0.0])
    assert all(line["divergence"] > 0 for line in lines[2.0])
    assert lines[0.0][0]["loss"] == pytest.approx(lines[2.0][0]["loss"], rel=1e-5), "the cross entropy alone"
    assert lines[0.0][0]["grad_norm"] != pytest.approx(lines[2.0][0]["grad_norm"], rel=1e-4)
    learner, micro = tiny_learner(), data(batch_size=TRAINER.batch_size)[0]["micro_batches"]
    [micro] = micro
    losses_N, _, apart_M = matched_losses(learner, micro)
    assert lines[2.0][0]["divergence"] == pytest.approx(float(apart_M.mean()), rel=1e-3)
    norm = gradient(losses_N.mean() + 2.0 * apart_M.mean(), learner).norm()
    assert lines[2.0][0]["grad_norm"] == pytest.approx(float(norm), rel=1e-3)


@pytest.mark.parametrize(
    ("phase", "words"),
    [
        ({"match": -1.0}, r"supervision\.phases\.only\.match=-1\.0: 0 or more is expected"),
        ({"match": float("inf")}, r"match=inf: 0 or more"),
        (
            {"match": 1.0, "parts": {"simple": {"level": "simple", "views": ["text", "image_via_text"]}}},
            r"match=1\.0: has no effect, no part shows pictures in the view image",
        ),
        (
            {"match": 1.0, "parts": {}, "captions": {"table_skills": 4}, "train": ["vision_tower"]},
            r"match=1\.0: has no effect, no part shows",
        ),
    ],
)
def test_settings_without_sense_are_refused(phase: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        plan(only={"num_examples": 8} | phase)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"packing": "rows"}, r"match=2\.0: with trainer\.packing=rows dialogues share a row; allowed is off"),
        ({"strategy": "fsdp"}, r"match=2\.0: trainer\.strategy=fsdp shards the model; auto and ddp are allowed"),
    ],
)
def test_trainers_that_cannot_match_are_refused(changes: dict[str, Any], words: str) -> None:
    supervision = plan(only=PHASE)
    mixture = Mixture(supervision, "only", "table_readout", seed=0)
    settings = structure(TrainerSettings, vars(TRAINER) | changes)
    tasks, optimizer = {"table_readout": nano_task()}, OptimizerSettings("adamw", lr=1e-2)
    with pytest.raises(ValueError, match=words):
        SupervisedStage(shared_learner(), mixture, tasks, supervision.phase("only"), optimizer, settings)


def test_answers_that_differ_between_views_are_refused() -> None:
    class Differs(type(nano_task())):  # type: ignore[misc]
        def response(self, state: Any, view: str) -> Any:
            found = super().response(state, view)
            return type(found)(found.segments[1:]) if view == "image" else found

    task = Differs.__new__(Differs)
    task.__dict__.update(nano_task().__dict__)
    with pytest.raises(ValueError, match="is answered otherwise as text than as a picture"):
        data(task)[0]
