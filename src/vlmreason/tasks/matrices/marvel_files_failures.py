"""Failures on MARVEL's questions: a wrong choice, a detail that is not there, panels that are counted wrongly."""

from __future__ import annotations

from vlmreason.tasks.findings import Finding
from vlmreason.tasks.matrices.marvel_files import MarvelFiles, MarvelState

COUNTS = ("context", "choices", "total")


def find(task: MarvelFiles, state: MarvelState, response: str, thought: str) -> Finding:
    """Return `failure` of an incorrect response: unparsed; choice, detail; or which of the three numbers of panels is
    the first that is wrong (context, choices, total).

    Of three numbers `adds_up` says whether the last is the sum of the others, right or not, and `<which>_right` which
    of them are right.
    """
    score, numbers = task.score(state, response), task.numbers(response)
    failure = {"reasoning": "choice", "fine": "detail"}.get(state.asked)
    right: dict[str, bool | None] = dict.fromkeys(COUNTS)
    adds_up = None
    if state.asked == "coarse" and score.parsed:
        right = {name: numbers[i] == state.counts[i] for i, name in enumerate(COUNTS)}
        failure = next((name for name, is_right in right.items() if not is_right), None)
        adds_up = sum(numbers[:2]) == numbers[2]
    return Finding(
        correct=score.correct,
        failure=None if score.correct else failure if score.parsed else "unparsed",
        first_error=None,
        severity=0.0 if score.correct else 0.5 if score.parsed else 1.0,
        shares={**{f"{name}_right": value for name, value in right.items()}, "adds_up": adds_up},
    )
