"""Pairs of pictures with one question and opposite answers (Tong et al., arXiv 2401.06209): asking and judging them.

A pair counts where both of its questions are right (the group `pair`): 25 % by guessing, 0 % for a constant answer. The
share of right questions is another measure, with 50 % by guessing; summaries have both, the second with an interval
over pairs.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from vlmreason.tasks.base import MAX_RESPONSE_CHARS, Score, Task

LETTERS = ("a", "b")
PATTERNS = (
    "orientation", "feature", "state", "count", "position", "color", "structure", "text", "viewpoint",
)  # fmt: skip
"""The nine visual patterns of section 3.3, in the order of table 3.1."""

_LETTER = re.compile(r"\(\s?([a-z])\s?\)|([a-z])(?=[).:,\s]|$)")


class PairTask(Task[Any]):
    """A task with two options, asked and judged in the same way whether pairs are drawn or read."""

    @abstractmethod
    def two_options(self, state: Any) -> tuple[str, str]:
        """Return the words of both options, (a) first."""

    @abstractmethod
    def right(self, state: Any) -> int:
        """Say which option is right, 0 or 1."""

    def asked(self, state: Any, question: str) -> str:
        """Write question and options as the benchmark does, and how to answer."""
        first, second = self.two_options(state)
        return f"{question}\n\n(a) {first} (b) {second}\nFinish with Answer: (a) or Answer: (b)."

    def convert(self, state: Any) -> str:
        return "Convert the picture to text."

    def thought(self, state: Any) -> list[str]:
        return []

    def answer(self, state: Any) -> str:
        return f"Answer: ({LETTERS[self.right(state)]})"

    def options(self, state: Any) -> tuple[str, ...] | None:
        return tuple(f"Answer: ({letter})" for letter in LETTERS)

    def score(self, state: Any, response: str) -> Score:
        """Judge what is behind the last "Answer:", or all of a response without one (`chosen`)."""
        response = response[:MAX_RESPONSE_CHARS]
        marker = self.answer_marker().match(response, self.answer_start(response, 0))
        found = chosen(response[marker.end() :] if marker else response, self.two_options(state))
        return Score(found == self.right(state), found is not None)


def chosen(response: str, options: Sequence[str]) -> int | None:
    """Say which option a response takes: by a letter in brackets or alone at its start, else by the words of exactly
    one of them, as a phrase; None: neither."""
    given = " ".join(response.lower().split())
    if letter := _LETTER.match(given):
        found = letter[1] or letter[2]
        if letter[1] or found != "a" or len(given) <= letter.end() or given[letter.end()] != " ":
            return LETTERS.index(found) if found in LETTERS else None
    named = [
        number
        for number, option in enumerate(options)
        if re.search(rf"(?<!\w){re.escape(' '.join(option.lower().split()))}(?!\w)", given)
    ]
    return named[0] if len(named) == 1 else None
