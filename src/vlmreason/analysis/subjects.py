"""What an analysis is about: the responses of an evaluation, or the weights of a run.

An analysis is a module of this folder with a function `run`, and is found by its name (`analyze what=<module>`):

    OVER       "responses" | "checkpoints" (all of a run, or one) | "model" (one; where none is named the last)
    Settings   a frozen dataclass: the command's keys that it takes. What has no default is the run's own: `view`,
               `max_new_tokens`
    run        (subject, settings) -> the rows of its result, as dataclasses
    table      those rows, read back from JSON, as a table for the terminal
    MEANING    if it likes, what the names in the table mean
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Literal

from vlmreason.models.vlm.learner import Learner
from vlmreason.tasks.base import Task
from vlmreason.tasks.findings import Answered

Over = Literal["responses", "checkpoints", "model"]


@dataclass(frozen=True)
class Responses:
    """Those of one evaluation, one at a time, and the task as it was evaluated."""

    task: Task[Any]
    answered: Iterable[Answered]


@dataclass(frozen=True)
class Weights:
    """Checkpoints of a run by name, in the order of training. load: the learner with those of a name."""

    task: Task[Any]
    names: tuple[str, ...]
    load: Callable[[str], Learner]

    @property
    def learner(self) -> Learner:
        """Return the one that there is."""
        (name,) = self.names
        return self.load(name)
