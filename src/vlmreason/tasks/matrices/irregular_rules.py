"""Irregular puzzles: what their panels count, in which layouts, by which rules; and the choice that obeys the rule.

A panel has a value, which a rule is about, and a look, which none is. Patterns and layouts are those of MARVEL (arXiv
2404.13591) in the plane: quantities, mathematics, geometry, places, movement.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

SEQUENCE, TWO_ROW, MATRIX, GROUP = LAYOUTS = ("sequence", "two_row", "matrix", "group")
STEP, ALTERNATE, SAME, SUM, DIFFERENCE, DISTRIBUTE = RULES = (
    "step",
    "alternate",
    "same",
    "sum",
    "difference",
    "distribute",
)
NUM_CHOICES = 4
_NUM_SHOWN = {TWO_ROW: 5, MATRIX: 8, GROUP: 3}
_SEQUENCE_LENGTHS = (4, 5)

Panel = tuple[int, int]
"""Value and look."""


class Pattern(NamedTuple):
    """`values` and `looks`: least and most. `code`: MARVEL's number of the pattern. `ordered`: values can rise and
    fall; `cyclic`: the first follows the last."""

    code: int
    values: tuple[int, int]
    looks: tuple[int, int]
    rules: tuple[str, ...]
    layouts: tuple[str, ...] = LAYOUTS
    ordered: bool = True
    cyclic: bool = False


_COUNTED = (STEP, ALTERNATE, SAME, DISTRIBUTE)
PATTERNS: Mapping[str, Pattern] = {
    "counting": Pattern(1, (1, 6), (1, 5), _COUNTED),
    "arithmetic": Pattern(2, (1, 9), (1, 5), (SUM, DIFFERENCE), (SEQUENCE, TWO_ROW, MATRIX)),
    "symmetry": Pattern(3, (0, 3), (1, 6), (ALTERNATE, SAME, DISTRIBUTE), ordered=False),
    "closed": Pattern(3, (0, 5), (0, 3), _COUNTED),
    "inside": Pattern(4, (0, 5), (0, 4), _COUNTED),
    "rotation": Pattern(5, (0, 7), (1, 5), (STEP, SAME), cyclic=True),
}
"""How many shapes; sums of them; axes of a figure (none, vertical, horizontal, both); closed lines among open ones;
dots inside a ring among others outside; where a hand points, in eighths of a turn."""


@dataclass(frozen=True)
class IrregularState:
    """Panels in reading order, without the one that is asked for; four choices and which of them is right (from 0)."""

    pattern: str
    layout: str
    context: tuple[Panel, ...]
    choices: tuple[Panel, ...]
    answer: int


class Solution(NamedTuple):
    """The rule that the panels show, the value that it leaves, and the choice that has it."""

    rule: str
    predicted: int
    answer: int


def rows_of(layout: str, values: Sequence[int]) -> list[Sequence[int]]:
    """Cut values into rows: three to each, but a sequence and a group are one row."""
    if layout in (SEQUENCE, GROUP):
        return [values]
    return [values[at : at + 3] for at in range(0, len(values), 3)]


def shown_rules(pattern: str, layout: str, values: Sequence[int]) -> list[tuple[str, int]]:
    """Return every rule that the values of the panels show, with the value that it leaves for the next one."""
    known, rows = PATTERNS[pattern], rows_of(layout, values)
    least, most = known.values
    if layout == GROUP:
        return [(SAME, values[0])] if len(set(values)) == 1 else []
    found = []
    last = rows[-1]
    if known.ordered:
        size = most - least + 1
        steps = [b - a for row in rows for a, b in itertools.pairwise(row)]
        if known.cyclic:
            steps = [(step + size // 2) % size - size // 2 for step in steps]
        after = last[-1] + steps[0]
        after = least + (after - least) % size if known.cyclic else after
        if steps[0] and len(set(steps)) == 1:
            found.append((STEP, after))
        if not known.cyclic:
            triples = [row[i : i + 3] for row in rows for i in range(len(row) - 2)]
            if triples and all(a + b == c for a, b, c in triples):
                found.append((SUM, last[-2] + last[-1]))
            if triples and all(a - b == c for a, b, c in triples):
                found.append((DIFFERENCE, last[-2] - last[-1]))
    if layout == SEQUENCE:
        if values[0] != values[1] and all(a == b for a, b in zip(values, values[2:], strict=False)):
            found.append((ALTERNATE, values[-2]))
    elif all(len(set(row)) == 1 for row in rows) and len({row[0] for row in rows}) > 1:
        found.append((SAME, last[0]))
    if layout == MATRIX and len(set(rows[0])) == 3 and sorted(rows[0]) == sorted(rows[1]):
        turns = [
            (rows[0].index(rows[1][0]), rows[0].index(last[0])),
            (rows[0].index(rows[1][1]), rows[0].index(last[1])),
        ]
        if turns[0] in ((1, 2), (2, 1)) and turns[1] == tuple((turn + 1) % 3 for turn in turns[0]):
            found.append((DISTRIBUTE, next(value for value in rows[0] if value not in last)))
    return [(rule, value) for rule, value in found if least <= value <= most]


def solve(state: IrregularState) -> Solution:
    """Raise ValueError where the panels show no rule or several, or not exactly one choice obeys."""
    rules = shown_rules(state.pattern, state.layout, [value for value, _ in state.context])
    if len(rules) != 1:
        raise ValueError(f"the panels show {len(rules)} rules, and one is expected")
    rule, predicted = rules[0]
    fitting = [number for number, (value, _) in enumerate(state.choices) if value == predicted]
    if len(fitting) != 1:
        raise ValueError(f"{len(fitting)} choices obey the rule of the panels, and one is expected")
    return Solution(rule, predicted, fitting[0])


def draw_values(rng: random.Random, pattern: str, layout: str, rule: str) -> list[int] | None:
    """Draw values that may show a rule, the one that is asked for last; None: they leave the range."""
    known = PATTERNS[pattern]
    least, most = known.values
    num = rng.choice(_SEQUENCE_LENGTHS) if layout == SEQUENCE else _NUM_SHOWN[layout]
    num += 1

    def any_value() -> int:
        return rng.randint(least, most)

    if rule == SAME:
        rows = 1 if layout == GROUP else num // 3
        return [value for value in (any_value() for _ in range(rows)) for _ in range(num // rows)]
    if rule == ALTERNATE:
        pair = [any_value(), any_value()]
        return [pair[i % 2] for i in range(num)]
    if rule == DISTRIBUTE:
        three, turn = rng.sample(range(least, most + 1), 3), rng.choice((1, 2))
        return [three[(column + row * turn) % 3] for row in range(3) for column in range(3)]
    step, values = rng.choice((-2, -1, 1, 2)), list[int]()
    for at in range(num):
        position = at if layout == SEQUENCE else at % 3
        if rule == STEP:
            values.append(any_value() if position == 0 else values[-1] + step)
        elif position < 2:
            values.append(any_value())
        else:
            values.append(values[-2] + (values[-1] if rule == SUM else -values[-1]))
    if known.cyclic:
        return [least + (value - least) % (most - least + 1) for value in values]
    return values if all(least <= value <= most for value in values) else None


def rules_for(pattern: str, layout: str) -> list[str]:
    """Return the rules that puzzles of a pattern in a layout may have; none in one that it has not."""
    known = PATTERNS[pattern]
    if layout not in known.layouts:
        return []
    without = {SEQUENCE: {SAME, DISTRIBUTE}, TWO_ROW: {ALTERNATE, DISTRIBUTE}, MATRIX: {ALTERNATE}}
    found = [rule for rule in known.rules if rule not in without.get(layout, set())]
    return [SAME] if layout == GROUP else found
