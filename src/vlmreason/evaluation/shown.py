"""The answers of an evaluation one by one: prompt, expected response, the model's own, verdict, first difference."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vlmreason.dialogue.build import modality
from vlmreason.dialogue.compare import Compared, Span, details
from vlmreason.envs.episodes import compare_response
from vlmreason.evaluation.predictions import Prediction, prediction_path
from vlmreason.evaluation.problems import SampledProblems
from vlmreason.evaluation.scores import Verdict, judged_cell
from vlmreason.segments import VIEWS
from vlmreason.structure import check_choice
from vlmreason.tasks.base import MAX_RESPONSE_CHARS, Task
from vlmreason.terminal import columns, printable, styled

MAX_CHARS = 4000  # of a text that are shown on a terminal, around the first difference
What = Literal["unparsed", "cut_off"]


@dataclass(frozen=True)
class Exhibit:
    """One answer. prompt: as it was asked; where it was no text, or too long a one, it is held to be empty."""

    level: str
    view: str
    prediction: Prediction
    verdict: Verdict
    prompt: str
    compared: Compared

    @property
    def cut_off(self) -> bool:
        return self.prediction.finished is False

    def to_json(self, run: str, task: str) -> dict[str, Any]:
        """Return a flat object: one row of a data frame, its columns in the order in which they are asked about."""
        wanted, got = self.compared.words
        return {
            "run": run, "task": task, "level": self.level, "view": self.view, "id": self.prediction.id,
            "correct": self.verdict.correct, "parsed": self.verdict.parsed, "cut_off": self.cut_off,
            **self.verdict.parts, "conversion_exact": self.verdict.conversion_exact, **self.verdict.groups,
            "num_tokens": self.prediction.num_tokens, "expected_word": wanted, "first_other_word": got,
            "response": self.prediction.response, "expected": self.compared.expected.text, "prompt": self.prompt,
        }  # fmt: skip


@dataclass
class Selection:
    """Which answers are shown: the first `wrong` and `right` ones (None: all) of those that `what` names; and what was
    gone through, by level and view."""

    wrong: int | None
    right: int | None
    what: What | None = None
    tallies: dict[tuple[str, str], Counter[str]] = field(default_factory=dict)

    def take(self, level: str, view: str, prediction: Prediction, verdict: Verdict) -> bool:
        """Count an answer, and tell whether it is shown."""
        kind = "right" if verdict.correct else "wrong"
        marks = {kind: True, "unparsed": not verdict.parsed, "cut_off": prediction.finished is False}
        tally = self.tallies.setdefault((level, view), Counter())
        tally.update(name for name, holds in marks.items() if holds)
        most = self.right if verdict.correct else self.wrong
        before = sum(one[f"shown {kind}"] for one in self.tallies.values())
        taken = (self.what is None or marks[self.what]) and (most is None or before < most)
        tally[f"shown {kind}"] += taken
        return taken

    def table(self) -> str:
        """Return a row per level and view: how many answers there are, of what kind, and how many were shown."""
        rows = [
            (level, view, *map(str, (t["right"] + t["wrong"], t["wrong"], t["unparsed"], t["cut_off"])),
             str(t["shown right"] + t["shown wrong"]))
            for (level, view), t in self.tallies.items()
        ]  # fmt: skip
        return columns(("level", "view", "answers", "wrong", "unparsed", "cut off", "shown"), rows, left=2)


def answers(
    folder: Path, task: Task[Any], split: str, selection: Selection, level: str | None = None, view: str | None = None
) -> Iterator[Exhibit]:
    """Go through the answers of an evaluation, by level, view and problem. Raises ValueError."""
    for one, shown in cells(folder, task, level, view):
        for prediction, verdict in judged_cell(folder, task, one, shown, split):
            if selection.take(one, shown, prediction, verdict):
                yield show(task, one, shown, split, prediction, verdict)


def show(task: Task[Any], level: str, view: str, split: str, prediction: Prediction, verdict: Verdict) -> Exhibit:
    """Put a response beside its problem, which is made again."""
    problem, text = SampledProblems(task, (level,), split)[prediction.id], prediction.response or ""
    compared = compare_response(task, problem, view, text if len(text) <= MAX_RESPONSE_CHARS else "")
    return Exhibit(level, view, prediction, verdict, task.prompt(problem.state, modality(view)), compared)


def cells(folder: Path, task: Task[Any], level: str | None = None, view: str | None = None) -> list[tuple[str, str]]:
    """Return levels and views that were answered, of those that are wanted. Raises ValueError."""
    there = [(one, shown) for one in task.levels for shown in VIEWS if prediction_path(folder, one, shown).exists()]
    for name, value, at in (("level", level, 0), ("view", view, 1)):
        if value is not None:
            check_choice(name, value, dict.fromkeys(cell[at] for cell in there))
            there = [cell for cell in there if cell[at] == value]
    return there


def format_answer(shown: Exhibit, prompt_lines: int) -> str:
    """Return an answer for a terminal; `prompt_lines`: last lines of the prompt that are shown."""
    verdict, difference = shown.verdict, shown.compared.difference
    kind = "right" if verdict.correct else "wrong"
    said = details(verdict.parsed, verdict.parts, shown.cut_off)
    head = f"{shown.level}, {shown.view}, {printable(shown.prediction.id)}: "
    lines = [styled(head, "bold") + styled(kind, kind) + (f"; {said}" if said else "")]
    prompt = shown.prompt.rstrip("\n").splitlines()
    asked = prompt[-prompt_lines:] if prompt_lines else []
    lines += [*_block("prompt", "\n".join(["..."] * (len(asked) < len(prompt)) + asked))] if asked else []
    spans = (difference.expected, difference.response) if difference else (None, None)
    lines += _block("expected", _marked(shown.compared.expected.text, spans[0]))
    lines += _block("response", _marked(shown.compared.response.text, spans[1]))
    return "\n".join([*lines, _parting(shown.compared)])


def _parting(compared: Compared) -> str:
    wanted, got = (None if word is None else printable(word[:80]) for word in compared.words)
    if compared.difference is None:
        return "  no difference"
    if got is None:
        return f"  ends where {wanted} is expected"
    at = f"  first difference: {got} at character {(compared.difference.response or (0, 0))[0] + 1}"
    return at + (", where nothing more is expected" if wanted is None else f", expected {wanted}")


def _block(name: str, text: str) -> list[str]:
    first, *rest = text.splitlines() or [""]
    return [f"  {styled(f'{name:<8}', 'soft')}  {first}", *(f"  {'':<8}  {line}" for line in rest)]


def _marked(text: str, span: Span | None) -> str:
    """The text with the characters of `span` marked; of a long one what lies around them."""
    left, right = span or (0, 0)
    start = max(0, left - MAX_CHARS // 2) if right > MAX_CHARS else 0
    right, end = min(right, left + MAX_CHARS // 2), start + MAX_CHARS
    before, word, after = text[start:left], text[left:right], text[right:end]
    mark = styled(printable(word), "mark")
    mark = f">>{mark}<<" if word and mark == printable(word) else mark
    return ("... " if start else "") + printable(before) + mark + printable(after) + ("..." if len(text) > end else "")
