"""Pairs of pictures from the user's disk: a row is a picture with its question, rows 2k - 1 and 2k are a pair."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Hashable, Iterator, Mapping, Sized
from typing import Any, ClassVar

from vlmreason.pictures import Picture
from vlmreason.tasks.on_disk import DiskTask, Rows, shown
from vlmreason.tasks.pairs.base import PairTask


class PairFiles(PairTask, DiskTask[Any]):
    """A task over such rows; states have `number`, `choices`, `answer` and `image`. All pairs are for testing."""

    levels: ClassVar[tuple[str, ...]] = ("pairs",)

    @abstractmethod
    def _check_pairs(self, rows: Rows[Any]) -> None:
        """Raise ValueError for rows that are no pairs, once all are read."""

    def split(self, state: Any) -> str:
        return "test"

    def _rows(self, level: str, split: str) -> Rows[Any] | None:
        rows = super()._rows(level, split)
        if rows is not None:

            def check(places: Mapping[Hashable, Sized]) -> None:
                self._check_pairs(rows)

            rows.check = check  # type: ignore[method-assign]
        return rows

    def two_options(self, state: Any) -> tuple[str, str]:
        found: tuple[str, str] = state.choices
        return found

    def right(self, state: Any) -> int:
        found: int = state.answer
        return found

    def draw(self, state: Any) -> Picture:
        return self.picture(state.image)

    def text(self, state: Any) -> str:
        """Return nothing of the picture: it has no text form, and is not for views of text."""
        return "-"


def pair_of(state: Any) -> str:
    """Name the pair that a row belongs to."""
    return str((state.number + 1) // 2)


def row_number(name: str, text: str) -> int:
    """Return the number in a column of a row. Raises ValueError."""
    if not text.isascii() or not text.isdecimal() or not 1 <= int(text[:9]) <= 10**6:
        raise ValueError(f"{name}={shown(text)}: a row's number from 1 on is expected")
    return int(text)


def with_partners(rows: Rows[Any], name: str) -> Iterator[tuple[int, Any, Any]]:
    """Give place and state of each row and the state of its partner; `name`: of their numbers, for messages.

    Raises ValueError for a row that is there twice or has no partner.
    """
    by_number: dict[int, Any] = {}
    for state in rows.rows:
        if by_number.setdefault(state.number, state) is not state:
            raise ValueError(f"{rows.path}: {name} {state.number} is there twice")
    for place, state in enumerate(rows.rows):
        partner = by_number.get(state.number + (1 if state.number % 2 else -1))
        if partner is None:
            raise ValueError(f"{rows.path}: {name} {state.number} has no partner, and a pair is rows 2k - 1 and 2k")
        yield place, state, partner
