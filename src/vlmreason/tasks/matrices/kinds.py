"""Puzzles with numbered choices, of a kind: made by rules of a grammar (regular), or by one of its own.

A response may begin with the sentence that says the kind (conditional multi-task learning, LLaVA-AVR, arXiv
2504.01324).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, ClassVar, Protocol, TypeVar

from vlmreason.tasks.base import Task

REGULAR, IRREGULAR = KINDS = ("regular", "irregular")
SENTENCES = {
    "terse": {REGULAR: "Kinds rows\n", IRREGULAR: "Kinds free\n"},
    "verbose": {REGULAR: "Kind: regular.\n", IRREGULAR: "Kind: irregular.\n"},
}
"""By the trace of a task; all of one begin with the same word, which begins nothing else."""


class _Numbered(Protocol):
    @property
    def answer(self) -> int: ...


State = TypeVar("State", bound=_Numbered)


class NumberedPuzzle(Task[State]):
    """A puzzle whose answer is the number of a choice, and which has a kind."""

    kind: ClassVar[str]
    num_choices: ClassVar[int]
    sentences: Mapping[str, str]
    wording: Any

    def condition(self, state: State) -> str:
        return self.sentences[self.kind]

    def conditions(self) -> tuple[str, ...]:
        return tuple(self.sentences.values())

    def answer(self, state: State) -> str:
        return self._written(state.answer)

    def options(self, state: State) -> tuple[str, ...]:
        return tuple(map(self._written, range(self.num_choices)))

    def given(self, response: str, start: int) -> int | None:
        """Read which choice, from 0, an answer names that begins at `start`; None where it names none."""
        marker = self.answer_marker().match(response, start)
        number = rf"(?i:\s{{0,3}}(?:option|choice)?\s{{0,3}}:?\s{{0,3}}\(?)([1-{self.num_choices}])\)?(?!\w)"
        found = re.compile(number).match(response, marker.end()) if marker else None
        return int(found[1]) - 1 if found else None

    def says_kind(self, state: State, response: str) -> bool:
        """Say whether a response begins with the kind of the puzzle."""
        return response.lstrip().startswith(self.condition(state))

    def _written(self, choice: int) -> str:
        written: str = self.wording.answer.format(number=choice + 1)
        return written
