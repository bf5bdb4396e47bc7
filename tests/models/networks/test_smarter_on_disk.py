"""The network learns from a miniature of SMART-101 on disk, and what it answers is scored as the data set's own."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from support import smart101

from vlmreason.dialogue.build import build_dialogue
from vlmreason.models.contract import Example, Prompt
from vlmreason.models.networks.smarter_settings import Eye, Reader, Sizes
from vlmreason.models.networks.smarter_vlm import SmarterVlm
from vlmreason.tasks.puzzles.base import LEVEL
from vlmreason.tasks.puzzles.smart101 import Smart101, Smart101Sizes

PUZZLES = {2: "counting", 18: "order", 24: "counting", 62: "logic"}
NUM = 10  # rows of each: 6 for training, as the paper divides them


def test_a_miniature_is_learnt_and_scored(tmp_path: Path) -> None:
    rows = smart101.write(tmp_path / "set", NUM, PUZZLES)
    task = Smart101(
        Smart101Sizes(), data=str(tmp_path / "set"), puzzles=list(PUZZLES), partition="smarter", rule="coded"
    )
    problems = [task.sample(LEVEL, "train", i) for i in range(task.num_problems(LEVEL, "train"))]
    states = [problem.state for problem in problems]
    assert Counter(state.puzzle for state in states) == dict.fromkeys(PUZZLES, 6)
    settings = SmarterVlm(
        "smarter_vlm", {"tables": Eye("nano")}, Reader("nano", tokens=96), Sizes(repr=32, hidden=32, qf_width=32), 6,
        str(tmp_path / "features"),
    )  # fmt: skip
    learner = settings.untrained(Example(Prompt("", None), (), 0, task.kinds()))
    dialogues = [build_dialogue(task, problem, "image") for problem in problems]
    seen = learner.prepare(len(states), lambda number: number, lambda number: dialogues[number], progress=False)
    pictures = {state.image for state in states}
    assert 0 < len(learner.processor.towers[0].store) <= len(pictures)

    learner.model.train()
    optimizer = torch.optim.AdamW(learner.model.parameters(), lr=3e-3)
    batch, losses = learner.processor.collate([seen(i) for i in range(len(states))]), []
    for _ in range(80):
        loss = learner.token_losses(batch)[0].mean()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    assert losses[-1] < losses[0] / 3

    prompts = [Prompt(one.prompt, one.image, kind=one.kind) for one in dialogues]
    answers = [generation.text for generation in learner.generate(prompts)]
    scores = [task.score(state, answer) for state, answer in zip(states, answers, strict=True)]
    given = [answer.removeprefix("Answer: ") for answer in answers]
    right = [wanted(rows[state.puzzle][state.row]) for state in states]
    assert [score.correct for score in scores] == [one.split("-") == other.split("-") for one, other in
                                                   zip(map(dashed, given), right, strict=True)]  # fmt: skip
    assert all(score.parsed for score in scores)
    assert sum(score.correct for score in scores) / len(scores) > 0.5
    assert sum(score.parts["option"] for score in scores) >= sum(score.correct for score in scores)


def wanted(row: dict[str, Any]) -> str:
    """What stands in the file as the right answer; an option that is not written is its letter."""
    return str(row[row["Answer"]] or row["Answer"])


def dashed(text: str) -> str:
    """An order of cards as the file writes it."""
    return "-".join(text.replace(" ", "").replace("-", "")) if len(text) > 2 else text


@pytest.mark.parametrize("split", ["validation", "test"])
def test_the_splits_that_judge_are_as_large_as_the_papers(tmp_path: Path, split: str) -> None:
    smart101.write(tmp_path / "set", NUM, PUZZLES)
    task = Smart101(
        Smart101Sizes(), data=str(tmp_path / "set"), puzzles=list(PUZZLES), partition="smarter", rule="coded"
    )
    skills = Counter(task.groups(task.sample(LEVEL, split, i).state)["skill"] for i in range(8))
    assert task.num_problems(LEVEL, split) == 8 and skills == {"counting": 4, "order": 2, "logic": 2}
