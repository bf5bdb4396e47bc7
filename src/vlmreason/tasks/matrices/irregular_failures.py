"""Failures on irregular puzzles: a value misread, a rule not found, a wrong prediction, a wrong choice behind them."""

from __future__ import annotations

from vlmreason.tasks.findings import Finding
from vlmreason.tasks.matrices.irregular import Irregular
from vlmreason.tasks.matrices.irregular_rules import IrregularState


def find(task: Irregular, state: IrregularState, response: str, thought: str) -> Finding:
    """Hold every statement of the trace against what the panels say.

    `failure` of an incorrect response: unparsed, misread (a value of the panels that are given), rule, prediction,
    misread_choice (a value of the choices), choice (all statements are right, the answer is not), the first of these
    that holds; a response without a trace has the wrong choice. The first error is the first misread value.
    """
    score, right = task.score(state, response), task.right(state, thought)
    has_trace = bool(thought.strip())
    wrong = {
        "misread": not all(right.context),
        "rule": not right.rule,
        "prediction": not right.prediction,
        "misread_choice": not all(right.choices),
    }
    failure = next((name for name, is_wrong in wrong.items() if is_wrong and has_trace), "choice")
    values = [*right.context, *right.choices]
    every = [*values, right.rule, right.prediction]
    return Finding(
        correct=score.correct,
        failure=None if score.correct else failure if score.parsed else "unparsed",
        first_error=values.index(False) if has_trace and not score.correct and not all(values) else None,
        severity=1 - sum(every) / len(every) if has_trace else float(not score.correct),
        shares={
            f"{name}_right": value if has_trace else None
            for name, value in (("values", all(values)), ("rule", right.rule), ("prediction", right.prediction))
        },
        ratios={
            f"read_{name}": (float(sum(of)), float(len(of)))
            for name, of in (("panels", right.context), ("choices", right.choices))
            if has_trace
        },
    )
