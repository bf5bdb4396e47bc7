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
from vlmreason.tasks.on_disk import shown

LETTERS = ("a", "b")
MAX_TEXT = 2000  # characters of a cell of a file
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

    def statements(self, state: Any) -> tuple[str, str]:
        """Return what holds of the picture if option (a) or (b) is right, as words after "a photo of".

        Raises ValueError for pairs that come with questions alone.
        """
        raise ValueError(f"task={self.name}: pairs have no statements; mmvp_vlm_files and visual_pairs have")

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
        given = self.answer_text(response)
        found = chosen(response[:MAX_RESPONSE_CHARS] if given is None else given, self.two_options(state))
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


def cell(row: Any, name: str) -> str:
    """Return the text of a row of a file. Raises ValueError for none and for more than MAX_TEXT characters."""
    value = row[name]
    if not isinstance(value, str) or not value.strip() or len(value) > MAX_TEXT:
        raise ValueError(f"{name}={shown(value)}: a text of 1 to {MAX_TEXT} characters is expected")
    return value
