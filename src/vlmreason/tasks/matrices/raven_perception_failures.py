"""Failures of perception: which kind of question about a matrix is the first whose answer is wrong or missing."""

from __future__ import annotations

from vlmreason.tasks.findings import Finding
from vlmreason.tasks.matrices.raven_perception import PerceptionState, RavenPerception


def find(task: RavenPerception, state: PerceptionState, response: str, thought: str) -> Finding:
    """Hold every answer of a dialogue, or the one that is asked for, against what the panels show.

    `failure` of an incorrect response: unparsed, left_out (the first question without its right answer has none), or
    that question's kind. The first error are the right answers before it. `read_<kind>`: questions of a kind that are
    answered rightly; `one_level_off`: of wrong levels those that are next to the right one.
    """
    score, given = task.score(state, response), task.given(state, response)
    right = {number: answer == task.reply(state, number) for number, answer in given.items()}
    first = next((number for number, is_right in right.items() if not is_right), None)
    read: dict[str, tuple[float, float]] = {}
    for number, is_right in right.items():
        name = f"read_{state.questions[number][0]}"
        part, whole = read.get(name, (0.0, 0.0))
        read[name] = (part + is_right, whole + 1)
    levels = [
        (_level(answer), _level(task.reply(state, number)))
        for number, answer in given.items()
        if not right[number] and state.questions[number][0] in ("number", "size", "color")
    ]
    steps = [abs(level - wanted) for level, wanted in levels if level is not None and wanted is not None]
    failure = ""
    if first is not None:
        failure = "left_out" if given[first] is None else state.questions[first][0]
    return Finding(
        correct=score.correct,
        failure=None if score.correct else failure if score.parsed else "unparsed",
        first_error=None if first is None or state.asked is not None else first,
        severity=1 - sum(right.values()) / len(right),
        ratios={**read, "one_level_off": (float(steps.count(1)), float(len(steps)))},
    )


def _level(text: str | None) -> int | None:
    return int(text) if text is not None and len(text) == 1 and text.isascii() and text.isdecimal() else None
