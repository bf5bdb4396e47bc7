"""Rules of a matrix, found from its eight panels alone, and the choice that obeys them.

A rule governs one attribute of one component along each row:

- Constant: as it is.
- Progression: the level rises or falls by 1 or 2 at each step; as a rule on Position all entities move on by so many
  slots, cyclically.
- Arithmetic: the third level is the sum or the difference of the first two; of Position the union or the difference.
- Distribute three: the same three values in each row, turned cyclically.

Number and Position have one rule between them, and the rule of Position is the stronger one: its sets decide the
numbers too. Types have no arithmetic. Where the entities of a layout are drawn anew and one by one, an attribute may
follow no rule at all: it is noise, and predicts nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from vlmreason.tasks.matrices.panels import CONFIGURATIONS, MIXED, MatrixSizes, MatrixState, Reading, read

CONSTANT, PROGRESSION, ARITHMETIC, DISTRIBUTE = RULES = ("constant", "progression", "arithmetic", "distribute three")
STEPS = (-2, -1, 1, 2)


class Found(NamedTuple):
    """A rule that rows show: `on` names its attribute (number or position of a place), `parameter` its step, sign or
    direction (0: none), `predicted` the level that the ninth panel must have."""

    on: str
    rule: str
    parameter: int
    predicted: int


class Ruled(NamedTuple):
    """Of one component the readings of eight panels and, for each of ATTRIBUTES, the rules that they may follow."""

    readings: tuple[Reading, ...]
    rules: tuple[tuple[Found, ...], ...]


class Solution(NamedTuple):
    """`broken`: for each choice the (component, attribute) whose rules it breaks; none of the right one."""

    components: tuple[Ruled, ...]
    broken: tuple[tuple[tuple[int, int], ...], ...]
    answer: int


def rules_of_levels(on: str, values: Sequence[int], least: int, most: int) -> tuple[Found, ...]:
    """Return the rules that eight levels of an attribute show, with predictions within its range."""
    a, b, c, d, e, f, g, h = values
    if a == b == c and d == e == f and g == h:
        return (Found(on, CONSTANT, 0, h),)
    if MIXED in values:
        return ()
    found = []
    step = b - a
    if step and step == c - b == e - d == f - e == h - g and -2 <= step <= 2 and least <= h + step <= most:
        found.append(Found(on, PROGRESSION, step, h + step))
    if on != "type":
        if a + b == c and d + e == f and least <= g + h <= most:
            found.append(Found(on, ARITHMETIC, 1, g + h))
        if a - b == c and d - e == f and least <= g - h <= most:
            found.append(Found(on, ARITHMETIC, -1, g - h))
    return (*found, *_distributed(on, values))


def _distributed(on: str, values: Sequence[int]) -> tuple[Found, ...]:
    a, b, c, d, e, f, g, h = values
    if a != b and b != c and a != c:
        if d == b and e == c and f == a and g == c and h == a:
            return (Found(on, DISTRIBUTE, 1, b),)
        if d == c and e == a and f == b and g == b and h == c:
            return (Found(on, DISTRIBUTE, -1, a),)
    return ()


def rules_of_places(masks: Sequence[int], num_slots: int) -> tuple[Found, ...]:
    """Return the rules that eight sets of slots show: those of Position, where there are none those of Number."""
    a, b, c, d, e, f, g, h = masks
    if a == b == c and d == e == f and g == h:
        return (Found("position", CONSTANT, 0, h),)
    found = [
        Found("position", PROGRESSION, step, turned(h, step, num_slots))
        for step in (STEPS if a.bit_count() == b.bit_count() else ())
        if turned(a, step, num_slots) == b
        and turned(b, step, num_slots) == c
        and turned(d, step, num_slots) == e
        and turned(e, step, num_slots) == f
        and turned(g, step, num_slots) == h
    ]
    if a | b == c and d | e == f:
        found.append(Found("position", ARITHMETIC, 1, g | h))
    if a & ~b == c and d & ~e == f and g & ~h:
        found.append(Found("position", ARITHMETIC, -1, g & ~h))
    found.extend(_distributed("position", masks))
    if found:
        return tuple(found)
    numbers = [mask.bit_count() for mask in masks]
    return tuple(one for one in rules_of_levels("number", numbers, 1, num_slots) if one.rule != CONSTANT)


def turned(mask: int, step: int, num_slots: int) -> int:
    """Move all members of a set on by `step` slots, cyclically."""
    step %= num_slots
    return (mask << step | mask >> (num_slots - step)) & ((1 << num_slots) - 1)


def rules_of(readings: Sequence[Reading], ranges: Sequence[tuple[int, int]]) -> Ruled:
    """Return what eight readings of a component show, for every attribute; ranges: of its levels (`MatrixSizes`)."""
    masks, types, widths, colors = zip(*readings, strict=True)
    (_, num_slots), of_types, of_sizes, of_colors = ranges
    return Ruled(
        tuple(readings),
        (
            rules_of_places(masks, num_slots) if num_slots > 1 else (Found("position", CONSTANT, 0, 1),),
            rules_of_levels("type", types, *of_types),
            rules_of_levels("size", widths, *of_sizes),
            rules_of_levels("color", colors, *of_colors),
        ),
    )


def solve(state: MatrixState, sizes: MatrixSizes) -> Solution:
    """Raise ValueError where not exactly one choice obeys all rules that the panels show."""
    components = tuple(
        rules_of([read(panel[number]) for panel in state.context], sizes.ranges(state.configuration, number))
        for number in range(len(CONFIGURATIONS[state.configuration].components))
    )
    ruled = [
        ((number, attribute), number, attribute, rules[0].on == "number", [found.predicted for found in rules])
        for number, component in enumerate(components)
        for attribute, rules in enumerate(component.rules)
        if rules
    ]
    broken: list[tuple[tuple[int, int], ...]] = []
    for panel in state.choices:
        readings = [read(entities) for entities in panel]
        failed = []
        for both, number, attribute, counted, predicted in ruled:
            value = readings[number][attribute]
            if (value.bit_count() if counted else value) not in predicted:
                failed.append(both)
        broken.append(tuple(failed))
    if broken.count(()) != 1:
        raise ValueError(f"{broken.count(())} choices obey the rules of the panels, and one is expected")
    return Solution(components, tuple(broken), broken.index(()))
