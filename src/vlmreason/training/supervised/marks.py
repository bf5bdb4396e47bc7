"""How well a model has the skills that a phase asks for: whole responses, or kinds of tokens given the right ones."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from vlmreason.dialogue.build import Dialogue, build_dialogue
from vlmreason.models.contract import Prompt
from vlmreason.models.vlm.learner import Learner
from vlmreason.supervision import Mark
from vlmreason.tasks.base import Problem, Task
from vlmreason.training.engine.phase import Marks, PhaseModule

BATCH = 32  # problems asked at once
_CELL = re.compile(r" ?\(\d+,\d+\)")


class SkillMarks(Marks):
    def __init__(
        self, marks: Mapping[str, Mark], tasks: Mapping[str, Task[Any]], run_task: str | None, every: int | None
    ) -> None:
        """`every`: optimizer steps between two looks."""
        self.marks, self.tasks, self.run_task, self.every = marks, tasks, run_task, every

    def measure(self, module: PhaseModule) -> dict[str, float]:
        found = {}
        asked: dict[tuple[Any, ...], dict[str, float]] = {}
        for name, mark in self.marks.items():
            task = self.tasks[mark.task or str(self.run_task)]
            assert mark.level is not None and mark.view is not None
            written = mark.measure == "exact"
            key = (task.name, mark.level, mark.view, mark.num, written)
            if key not in asked and written:
                asked[key] = {"exact": exact_share(module.learner, task, mark.level, mark.view, mark.num)}
            elif key not in asked:
                dialogues = first_dialogues(task, mark.level, mark.view, mark.num)
                asked[key] = kind_shares(module.learner, dialogues)
            if mark.measure not in asked[key]:
                raise ValueError(
                    f"supervision.phases.{module.phase.name}.marks.{name}.measure={mark.measure}: replies of "
                    f"{mark.level} hold none; there are exact, {', '.join(asked[key])}"
                )
            found[name] = round(asked[key][mark.measure], 4)
        return found

    def missing(self, found: Mapping[str, float]) -> list[str]:
        return [
            f"{name} ({mark.measure}, {mark.view}) {found[name]:.1%} "
            + (f"of {mark.share:.1%}" if found[name] < mark.share else f"and {mark.most:.1%} at most")
            for name, mark in self.marks.items()
            if not mark.share <= found[name] <= mark.most
        ]


def first_problems(task: Task[Any], level: str, num: int) -> list[Problem[Any]]:
    """Return the first validation problems of a level."""
    return [task.sample(level, "validation", index) for index in task.first(level, "validation", num)]


def first_dialogues(task: Task[Any], level: str, view: str, num: int) -> list[Dialogue]:
    """Return the first validation problems of a level as dialogues."""
    return [build_dialogue(task, problem, view) for problem in first_problems(task, level, num)]


def exact_share(learner: Learner, task: Task[Any], level: str, view: str, num: int) -> float:
    """Return the share of the first validation problems whose response, written greedily to its end, is right by the
    task's own score."""
    num_right, problems = 0, first_problems(task, level, num)
    for at in range(0, len(problems), BATCH):
        asked = problems[at : at + BATCH]
        some = [build_dialogue(task, problem, view) for problem in asked]
        longest = max(len(learner.processor.response_ids(dialogue.response.text)) for dialogue in some)
        written = learner.generate([Prompt(dialogue.prompt, dialogue.image) for dialogue in some], longest + 1)
        pairs = zip(written, asked, strict=True)
        num_right += sum(one.finished and task.score(problem.state, one.text).correct for one, problem in pairs)
    return num_right / len(problems)


def kind_shares(learner: Learner, dialogues: Sequence[Dialogue]) -> dict[str, float]:
    """Return the share of response tokens right, given the right ones before them, by kind (TOKEN_KINDS)."""
    processor, found = learner.processor, dict[str, list[int]]()
    for token, (num_right, num) in token_counts(learner, dialogues).items():
        kind = "end" if token in processor.eos_ids else kind_of(processor.coder.decode([token]))
        count = found.setdefault(kind, [0, 0])
        count[0] += num_right
        count[1] += num
    return {kind: num_right / num for kind, (num_right, num) in sorted(found.items())}


@torch.no_grad()
def token_counts(learner: Learner, dialogues: Sequence[Dialogue]) -> dict[int, list[int]]:
    """Return how often each token of the responses is right, given the right ones before it, and how often it is
    there."""
    model, processor = learner.model, learner.processor
    was_training = model.training
    model.eval()
    counts: dict[int, list[int]] = {}
    for at in range(0, len(dialogues), BATCH):
        encoded = [processor.encode(dialogue) for dialogue in dialogues[at : at + BATCH]]
        batch = {name: value.to(model.device) for name, value in processor.collate(encoded).items()}
        logits_NV, targets_N, _ = learner.target_logits(batch)
        right_N = (logits_NV.argmax(-1) == targets_N).tolist()
        for token, right in zip(targets_N.tolist(), right_N, strict=True):
            count = counts.setdefault(token, [0, 0])
            count[0] += right
            count[1] += 1
    model.train(was_training)
    return counts


def kind_of(piece: str) -> str:
    """Say of which kind a token is by its text."""
    if _CELL.fullmatch(piece):
        return "cell"
    bare = piece.removeprefix(" &").strip()
    return "mark" if "\\cellcolor" in bare else "digit" if bare.isascii() and bare.isdigit() else "word"
