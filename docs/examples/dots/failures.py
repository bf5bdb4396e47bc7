"""What goes wrong when dots are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vlmreason.tasks.findings import Finding, right_steps

if TYPE_CHECKING:
    from dots.count_dots import CountDots, Row


def find(task: CountDots, state: Row, response: str, thought: str) -> Finding:
    """Find out whether a wrong count comes of the trace or of the answer alone."""
    score = task.score(state, response)
    steps = right_steps(task.thought(state), thought)
    counted = steps is not None and steps[0] == steps[1]
    failure = None if score.correct else "wrong_answer" if counted else "lost_count"
    return Finding(
        score.correct, failure, None if score.correct or steps is None else steps[0], float(not score.correct)
    )
