"""Who learns from what in SMART-101: which rows of which root puzzles are training, validation and test.

There are two readings of every partition (`Rule`). `published` is what the papers say of it; where they give a ratio
and no order, rows are put in an order by a hash. `coded` is what their programs do: rows in file order, the last of the
histogram's bins holding two values, held-out puzzles cut once more.
"""

from __future__ import annotations

import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vlmreason.streams import SPLITS, stream
from vlmreason.tasks.puzzles.smart101_tables import HELD_OUT, SEQUENCES, TEST_PUZZLES, VALIDATION_PUZZLES
from vlmreason.tasks.puzzles.values import Value

Partition = Literal["smarter", "development", "instance", "puzzle", "few_shot", "answer"]
Rule = Literal["published", "coded"]

Shares = tuple[int, int, int]
INSTANCE: Shares = (80, 5, 15)
SHARES: Mapping[str, tuple[int | None, Shares]] = {
    "smarter": (1000, (60, 20, 20)),
    "development": (20, (40, 20, 40)),
    "instance": (None, INSTANCE),
}
"""Partitions of the rows of each puzzle: how many are used (None: all), and the percentages of the splits."""

NO_MEDIAN = (58,)
"""Puzzles whose answers are no quantities, beside the sequences: the program divides their rows as `instance` does."""

FEW = 10
_LEAST_SHARE = 0.01  # of the rows that a value must have to be withheld

Place = tuple[int, int]
"""A root puzzle, and a row of it (from 0)."""


@dataclass(frozen=True)
class Rows:
    """The rows of a root puzzle that are used: how many its file has, and the right values by row (from 0)."""

    num: int
    values: Mapping[int, Value]


def places(rows: Mapping[int, Rows], partition: Partition, rule: Rule, few: int = FEW) -> dict[str, list[Place]]:
    """Return the problems of each split, row by row of all puzzles, so that any first few of them are balanced.

    few: rows of each held-out puzzle that training sees, of few_shot. Raises ValueError for a puzzle that cannot be
    divided so.
    """
    found: dict[str, list[tuple[int, int, int]]] = {split: [] for split in SPLITS}
    for puzzle, own in rows.items():
        order = list(range(own.num)) if rule == "coded" else _hashed(puzzle, own.num)
        for split, chosen in zip(SPLITS, _divided(puzzle, own, order, partition, rule, few), strict=True):
            used = (row for row in chosen if row in own.values)
            found[split] += [(rank, puzzle, row) for rank, row in enumerate(used)]
    return {split: [(puzzle, row) for _, puzzle, row in sorted(ranked)] for split, ranked in found.items()}


def withheld(values: Sequence[Value], rule: Rule) -> Value:
    """Return the answer that the partition `answer` keeps for the test, of the right answers of all rows of a puzzle.

    published: their (lower) median. coded: of the values that more than 1 % of the rows have the largest one whose
    number of rows is at most the median number; the two largest values are counted as one, the smaller of them, of
    which a puzzle may then have no row at all.
    """
    numbers = [value[0] for value in values]
    if rule == "published":
        return (statistics.median_low(numbers),)
    largest = max(numbers)
    counts = Counter(min(number, largest - 1) if largest else number for number in numbers)
    often = {number: num for number, num in counts.items() if num > _LEAST_SHARE * len(numbers)}
    middle = statistics.median(often.values())
    return (max(number for number, num in often.items() if num <= middle),)


def _divided(
    puzzle: int, rows: Rows, order: list[int], partition: Partition, rule: Rule, few: int
) -> tuple[list[int], list[int], list[int]]:
    """The rows of a puzzle in training, validation and test."""
    if partition in SHARES:
        most, shares = SHARES[partition]
        return _by_share(order[:most], shares)
    if partition == "answer":
        if puzzle in SEQUENCES or (rule == "coded" and puzzle in NO_MEDIAN):
            return _by_share(order, INSTANCE)
        return _without_answer(puzzle, rows, order, rule)
    if rule == "coded" and puzzle in SEQUENCES:
        return [], [], []  # one classifier over all values has none of theirs
    train, validation, test = _by_share(order, INSTANCE) if rule == "coded" else (order, order, order)
    if puzzle not in HELD_OUT:
        return train, [], []
    seen: list[int] = []
    if partition == "few_shot":
        seen, rest = order[:few], order[few:]
        if rule == "coded":
            seen = seen[: few * 80 // 100]
        _, validation, test = _by_share(rest, INSTANCE) if rule == "coded" else (rest, rest, rest)
    return seen, validation if puzzle in VALIDATION_PUZZLES else [], test if puzzle in TEST_PUZZLES else []


def _by_share(order: list[int], shares: Shares) -> tuple[list[int], list[int], list[int]]:
    first = len(order) * shares[0] // 100
    second = len(order) * (shares[0] + shares[1]) // 100
    return order[:first], order[first:second], order[second:]


def _without_answer(puzzle: int, rows: Rows, order: list[int], rule: Rule) -> tuple[list[int], list[int], list[int]]:
    if not rows.values:
        return [], [], []
    kept = withheld(list(rows.values.values()), rule)
    others = [row for row in order if rows.values.get(row) not in (None, kept)]
    test = [row for row in order if rows.values.get(row) == kept]
    if not others:
        raise ValueError(f"task.partition=answer: puzzle {puzzle} has no right answer but {kept[0]} to learn from")
    train, validation, _ = _by_share(others, (95, 5, 0))
    return train, validation, test


def _hashed(puzzle: int, num: int) -> list[int]:
    return sorted(range(num), key=lambda row: stream("smart101", puzzle, row).random())
