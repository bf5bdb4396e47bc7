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


@dataclass(frozen=True)
class Trace:
    """How far a chain of thought is the one that is learned.

    right: its steps that are right before the first that is not, of `wanted`. stopped: it ends behind them, too soon:
    nothing in it is wrong but that it ends.
    """

    right: int
    wanted: int
    stopped: bool


def trace_of(steps: Sequence[str], thought: str) -> Trace:
    """Hold a thought against the steps that are learned. White space at the end of a step does not count."""
    thought, at, right = thought.strip(), 0, 0
    for step in steps:
        if not thought.startswith(step.strip(), at):
            break
        at, right = at + len(step.strip()), right + 1
        while at < len(thought) and thought[at].isspace():
            at += 1
    return Trace(right, len(steps), 0 < right < len(steps) and at == len(thought))


def right_steps(steps: Sequence[str], thought: str) -> tuple[int, int] | None:
    """Count the steps of a trace that are the gold ones before the first that is not, and how many there should be.

    None where there is no trace.
    """
    found = trace_of(steps, thought)
    return (found.right, found.wanted) if thought.strip() else None
