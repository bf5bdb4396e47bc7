"""Panels, their shapes and lines, and the patterns that rows of them follow."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from vlmreason.tasks.cells import Cell

Shape = tuple[str, str, str, Cell]
"""Type, color, size, position (row, column) counted from 1."""
Line = tuple[str, str]
"""Type, color."""
Pattern = tuple[str, str]
"""Attribute, relation."""

ATTRIBUTES = (
    "shape type",
    "shape color",
    "shape size",
    "shape quantity",
    "shape position",
    "line type",
    "line color",
)
RELATIONS = ("XOR", "OR", "AND", "Progression")
LETTERS = ("A", "B", "C", "D")

SHAPE_TYPES = ("circle", "triangle", "rectangle", "pentagon", "hexagon")
COLORS: Mapping[str, int] = {"black": 0, "dark": 90, "grey": 135, "light": 189, "white": 255}
"""Grey levels of table 2."""
SIZES = ("small", "medium", "large", "huge")
LINE_TYPES = (
    "falling",
    "rising",
    "horizontal",
    "vertical",
    "diamond",
    "ring",
    "upward",
    "leftward",
    "downward",
    "rightward",
)
"""Two diagonals, two straight lines, two outlines, and V-shapes by the side to which they open (table 2)."""
MAX_SIDE = 3
POSITIONS = tuple((r, c) for r in range(1, MAX_SIDE + 1) for c in range(1, MAX_SIDE + 1))
QUANTITIES = tuple(range(1, MAX_SIDE**2 + 1))


Reading = tuple[int, ...]
"""The sets of a panel in the order of ATTRIBUTES; bit i is value i of the attribute's list, 0: nothing there."""


@dataclass(frozen=True)
class AnalogySizes:
    """Ranges include both ends. In pixels: `picture` (width, height), `panel` its side with a frame of 1,
    `shape_px` the diameters from small to huge, `outline` and `line_width`.

    `positions` is the number of rows and of columns in which shapes lie; `num_values` the most different shape
    types, colors or sizes, and line colors, of a panel; `both_percent` the chance that a row of panels has
    shapes and lines; `compact_text` leaves attribute names (lossy) and abbreviations (lossless) out of the text.
    """

    picture: tuple[int, int]
    panel: int
    outline: int
    line_width: int
    shape_px: tuple[int, int, int, int]
    positions: int
    num_shapes: tuple[int, int]
    num_lines: tuple[int, int]
    num_values: int
    both_percent: int
    shape_types: tuple[str, ...]
    shape_colors: tuple[str, ...]
    shape_sizes: tuple[str, ...]
    line_types: tuple[str, ...]
    line_colors: tuple[str, ...]
    compact_text: bool


@dataclass(frozen=True)
class Panel:
    """Shapes in reading order of their positions, lines in the order of LINE_TYPES, each type once."""

    shapes: tuple[Shape, ...]
    lines: tuple[Line, ...]


@dataclass(frozen=True)
class AnalogyState:
    examples: tuple[tuple[Panel, Panel, Panel], tuple[Panel, Panel, Panel]]
    query: tuple[Panel, Panel]
    options: tuple[Panel, Panel, Panel, Panel]


class Solution(NamedTuple):
    """Readings per row of panels and the pattern of each example and of the query with each option."""

    examples: tuple[tuple[Reading, ...], ...]
    query: tuple[Reading, ...]
    options: tuple[Reading, ...]
    example_patterns: tuple[Pattern, Pattern]
    option_patterns: tuple[Pattern, ...]
    relation: str
    letter: str


def patterns(first: Panel, second: Panel, third: Panel) -> list[Pattern]:
    """Return every pattern that three panels show, from their values alone."""
    return _patterns(read(first), read(second), read(third))


def read(panel: Panel) -> Reading:
    """Return the set of every attribute. Raises KeyError for a value that does not exist."""
    types = colors = sizes = places = quantities = line_types = line_colors = 0
    counts: dict[str, int] = {}
    for kind, color, size, place in panel.shapes:
        counts[kind] = counts.get(kind, 0) + 1
        types |= _BITS[0][kind]
        colors |= _BITS[1][color]
        sizes |= _BITS[2][size]
        places |= _BITS[4][place]
    for count in counts.values():
        quantities |= _BITS[3][count]
    for kind, color in panel.lines:
        line_types |= _BITS[5][kind]
        line_colors |= _BITS[6][color]
    return (types, colors, sizes, quantities, places, line_types, line_colors)


def solve(state: AnalogyState) -> Solution:
    """Raise ValueError where not exactly one option shows the examples' relation, or patterns are not single."""
    examples = tuple(tuple(map(read, row)) for row in state.examples)
    query, options = tuple(map(read, state.query)), tuple(map(read, state.options))
    rows = [*examples, *((*query, option) for option in options)]
    found = [_patterns(*row) for row in rows]
    if any(len(one) != 1 for one in found):
        raise ValueError("each example, and the query with each option, must show exactly one pattern")
    (first,), (second,), *others = found
    right = [letter for letter, ((_, relation),) in zip(LETTERS, others, strict=True) if relation == first[1]]
    if first[1] != second[1] or len(right) != 1:
        raise ValueError("the examples must share a relation that exactly one option shows")
    return Solution(examples, query, options, (first, second), tuple(o[0] for o in others), first[1], right[0])


def _patterns(first: Reading, second: Reading, third: Reading) -> list[Pattern]:
    sets = zip(ATTRIBUTES, first, second, third, strict=True)
    return [(attribute, relation) for attribute, a, b, c in sets if a != b for relation in _relations(a, b, c)]


def _relations(a: int, b: int, c: int) -> tuple[str, ...]:
    """The relations that three sets show."""
    if a == b or not (a and b and c):
        return ()
    if a & b:
        return ("XOR",) if c == a ^ b else ("OR",) if c == a | b else ("AND",) if c == a & b else ()
    if c == a | b:
        return ("XOR", "OR")
    single = not (a & (a - 1) or b & (b - 1) or c & (c - 1))
    return ("Progression",) if a < b < c and single else ()


_VALUES: tuple[Sequence[Any], ...] = (
    SHAPE_TYPES,
    tuple(COLORS),
    SIZES,
    QUANTITIES,
    POSITIONS,
    LINE_TYPES,
    tuple(COLORS),
)
_BITS: tuple[Mapping[Any, int], ...] = tuple({v: 1 << i for i, v in enumerate(values)} for values in _VALUES)
_OPERATIONS: Mapping[str, Callable[[int, int], int]] = {
    "XOR": lambda a, b: a ^ b,
    "OR": lambda a, b: a | b,
    "AND": lambda a, b: a & b,
}
_TYPE, _COLOR, _SIZE, _QUANTITY, _POSITION, _LINE_TYPE, _LINE_COLOR = range(len(ATTRIBUTES))
_LONELY = (_POSITION, _LINE_TYPE)
"""A panel with one value of these has one object, and so one value of every attribute of its kind."""
_SHAPES, _LINES = range(_LINE_TYPE), range(_LINE_TYPE, len(ATTRIBUTES))


def _members(attribute: int, mask: int) -> list[Any]:
    return [value for i, value in enumerate(_VALUES[attribute]) if mask >> i & 1]


_solution = functools.lru_cache(maxsize=64)(solve)


def _flat(rows: Iterable[Iterable[Any]]) -> Iterable[Any]:
    return itertools.chain.from_iterable(rows)
