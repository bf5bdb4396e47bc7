"""Failures on matrices: a level misread, a rule not found, a wrong prediction, a wrong choice behind right ones."""

from __future__ import annotations

from vlmreason.tasks.findings import Finding
from vlmreason.tasks.matrices.panels import NUM_CONTEXT, MatrixState
from vlmreason.tasks.matrices.raven import Raven
from vlmreason.tasks.matrices.statements import KINDS, lines

_FAILURES = dict(zip(KINDS, ("misread", "rule", "prediction", "elimination"), strict=True))


def find(task: Raven, state: MatrixState, response: str, thought: str) -> Finding:
    """Hold every statement of the trace against what the panels say.

    `failure` of an incorrect response: unparsed, misread (a level), rule, prediction, elimination (of a choice), choice
    (all statements are right, the answer is not), the first of these that holds; a response without a trace has the
    wrong choice. The first error is the first misread level. `read_<attribute>`: levels read rightly of all of it.
    """
    score, solution = task.score(state, response), task.solution(state)
    right = task.statements.right(state, solution, thought)
    has_trace = bool(thought.strip())
    wrong = [kind for kind in KINDS if has_trace and not all(right[kind])]
    failure = "unparsed" if not score.parsed else _FAILURES[wrong[0]] if wrong else "choice"
    levels = right["levels"]
    read: dict[str, tuple[float, float]] = {}
    for number, line in enumerate(lines(solution, state.configuration) if has_trace else ()):
        of_line = levels[NUM_CONTEXT * number : NUM_CONTEXT * (number + 1)]
        count, total = read.get(f"read_{line.on}", (0.0, 0.0))
        read[f"read_{line.on}"] = (count + sum(of_line), total + len(of_line))
    misread = not score.correct and has_trace and not all(levels)
    every = [one for kind in KINDS for one in right[kind]]
    return Finding(
        correct=score.correct,
        failure=None if score.correct else failure,
        first_error=levels.index(False) if misread else None,
        severity=1 - sum(every) / len(every) if has_trace else float(not score.correct),
        shares={f"{kind}_right": all(right[kind]) if has_trace else None for kind in KINDS},
        ratios=read,
    )
