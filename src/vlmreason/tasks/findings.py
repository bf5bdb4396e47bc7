"""What a failure analysis finds out about one response, whatever the task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Finding:
    """One response. What does not apply to it is None.

    failure: of an incorrect response, what went wrong first. first_error: right items (cells read, steps of the
    trace) before the first wrong one. severity: 0 to 1, to put the worst first. shares, means, ratios: the task's
    measures by name; a ratio is (part, whole), summed over responses.
    """

    correct: bool
    failure: str | None
    first_error: int | None
    severity: float
    shares: Mapping[str, bool | None] = field(default_factory=dict)
    means: Mapping[str, float | None] = field(default_factory=dict)
    ratios: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Answered:
    """A problem of an evaluation with its response; "" where there is none that can be read.

    finished: whether the model ended it itself; None: not known.
    """

    id: str
    level: str
    view: str | None
    state: Any
    response: str
    finished: bool | None


def right_steps(steps: Sequence[str], thought: str) -> tuple[int, int] | None:
    """Count the steps of a trace that are the gold ones before the first that is not, and how many there should be.

    None where there is no trace. White space at the end of a step does not count.
    """
    thought = thought.strip()
    if not thought:
        return None
    at = 0
    for number, step in enumerate(steps):
        if not thought.startswith(step.strip(), at):
            return number, len(steps)
        at += len(step.strip())
        while at < len(thought) and thought[at].isspace():
            at += 1
    return len(steps), len(steps)
