"""Drawing matrices: rules, rows that show them and nothing else, entities with their noise.

`reference` draws the rules of every component as RAVEN's generator does: uniformly among what the entry of an attribute
allows (Number or Position seven, type three, size and color four) and the layout can carry. So in most puzzles only
type, size and color change. `balanced` first draws one pair of an attribute and a rule other than Constant, uniformly
among those that the configuration can carry, and a component for it; the rest is as in the reference. Where rules are
held out, puzzles have none of them, or one that is drawn first.
"""

from __future__ import annotations

import functools
import operator
import random
from collections.abc import Callable, Collection, Sequence
from typing import NamedTuple, TypeVar

from vlmreason.tasks.base import Belongs
from vlmreason.tasks.matrices.panels import ATTRIBUTES, CONFIGURATIONS, MIXED, Entity, MatrixSizes, Panel, members
from vlmreason.tasks.matrices.rules import (
    ARITHMETIC,
    CONSTANT,
    DISTRIBUTE,
    PROGRESSION,
    RULES,
    STEPS,
    rules_of_levels,
    rules_of_places,
    turned,
)

SAMPLING = ("balanced", "reference")
GOVERNED = ("number", "position", *ATTRIBUTES[1:])
_UNIFORM = 0.25  # of all layouts; of the others each entity has values of its own where no rule gives them
_TRIES = 200

T = TypeVar("T")

Kind = tuple[str, str]
"""What is governed (number, position, type, size, color) and a rule."""
Wanted = Callable[[Sequence[tuple[Entity, ...]]], bool]
"""Whether the first row of a component, three panels, is one to go on with."""


class Draft(NamedTuple):
    """Of one component nine panels, whether its place follows a rule of number or of position, and of which attributes
    the values are noise."""

    panels: tuple[tuple[Entity, ...], ...]
    place: str
    noise: tuple[int, ...]


class Sampler:
    """Draws the nine panels of one configuration. `without`: kinds that none of them follows. `one_of`: kinds of which
    at least one is followed, drawn first; None: any. Raises ValueError where no rule is left that changes anything."""

    def __init__(
        self,
        sizes: MatrixSizes,
        configuration: str,
        sampling: str,
        without: Collection[Kind] = (),
        one_of: Collection[Kind] | None = None,
    ) -> None:
        self.sizes, self.configuration = sizes, configuration
        self.ranges = [sizes.ranges(configuration, i) for i in range(len(CONFIGURATIONS[configuration].components))]
        self.without, self._first = without, sampling == "balanced" or one_of is not None
        self.kinds = [
            [[kind for kind in kinds if kind not in without] for kinds in _kinds(ranges)] for ranges in self.ranges
        ]
        pairs = {kind for entry in self.kinds for kinds in entry for kind in kinds if kind[1] != CONSTANT}
        self._pairs = sorted(pairs if one_of is None else pairs.intersection(one_of))
        if not self._pairs:
            raise ValueError(f"{configuration} has none of the rules that are wanted")

    def rules(self, rng: random.Random) -> list[list[Kind]]:
        """Draw what each component's place, type, size and color follow."""
        draw = rng.random
        drawn = [[kinds[int(draw() * len(kinds))] for kinds in entry] for entry in self.kinds]
        if self._first:
            pair = pick(rng, self._pairs)
            able = [(i, a) for i, entry in enumerate(self.kinds) for a, kinds in enumerate(entry) if pair in kinds]
            component, attribute = pick(rng, able)
            drawn[component][attribute] = pair
        return drawn

    def matrix(self, rng: random.Random, rules: Sequence[Sequence[Kind]], belongs: Belongs) -> list[Draft] | None:
        """Draw a matrix with these rules whose first row belongs to the wanted split; None: none was found."""
        drafts: list[Draft] = []

        def wanted(first_row: Sequence[tuple[Entity, ...]]) -> bool:
            rows = [*(draft.panels[:3] for draft in drafts), first_row]
            return belongs(key_of(list(zip(*rows, strict=True))))

        for number, kinds in enumerate(rules):
            draft = self._component(rng, number, kinds, wanted if number == len(rules) - 1 else None)
            if draft is None:
                return None
            drafts.append(draft)
        return drafts

    def _component(self, rng: random.Random, number: int, kinds: Sequence[Kind], wanted: Wanted | None) -> Draft | None:
        """Draw a component; None: it shows too much, or its first row is not `wanted`."""
        (_, num_slots), *ranges = self.ranges[number]
        masks = _places(rng, kinds[0], num_slots)
        if masks is None:
            return None
        uniform = num_slots == 1 or rng.random() < _UNIFORM
        columns: list[list[int]] = []
        own: list[int] = []  # attributes whose entities have values of their own
        for attribute, (kind, (least, most)) in enumerate(zip(kinds[1:], ranges, strict=True), start=1):
            if kind[1] == CONSTANT and not uniform and least < most:
                own.append(attribute)
                columns.append([])
                continue
            values = _levels(rng, kind, least, most)
            if values is None:
                return None
            columns.append(values)
        panels = _entities(rng, masks, columns, own, ranges, len(self.sizes.angles), kinds[0][1] == CONSTANT, wanted)
        if panels is None:
            return None
        noise = tuple(own) if kinds[0][1] != CONSTANT else ()  # else they stay along a row, as their rule says
        for attribute in noise:
            shown = _shown(panels, attribute)
            rules = rules_of_levels(ATTRIBUTES[attribute], shown[:8], *ranges[attribute - 1])
            if len(rules) > 1 or (rules and (shown[8] != rules[0].predicted or rules[0][:2] in self.without)):
                return None  # it looks like several rules, one that does not go on, or one that is held out
        return Draft(panels, kinds[0][0], noise)


def key_of(row: Sequence[Panel]) -> list[list[list[Entity]]]:
    """Return a row of panels without the angles, which no rule is about."""
    return [
        [[(slot, kind, size, color, 0) for slot, kind, size, color, _ in entities] for entities in panel]
        for panel in row
    ]


def rules_that_fit(sizes: MatrixSizes, configuration: str) -> frozenset[Kind]:
    """Return what some component of a configuration may follow."""
    parts = range(len(CONFIGURATIONS[configuration].components))
    return frozenset(kind for i in parts for kinds in _kinds(sizes.ranges(configuration, i)) for kind in kinds)


def _kinds(ranges: Sequence[tuple[int, int]]) -> list[list[Kind]]:
    """What each attribute of a component may follow, by the reference's entries."""
    num_slots = ranges[0][1]
    place = [("position", CONSTANT)]
    if num_slots > 1:
        on_number = [("number", rule) for rule in RULES[1:] if _rows("number", rule, 1, num_slots)]
        place += [*on_number, *(("position", rule) for rule in RULES[1:])]
    found = [place]
    for on, (least, most) in zip(ATTRIBUTES[1:], ranges[1:], strict=True):
        rules = [rule for rule in RULES[1:] if not (on == "type" and rule == ARITHMETIC)]
        found.append([(on, CONSTANT), *((on, rule) for rule in rules if _rows(on, rule, least, most))])
    return found


Row = tuple[int, int, int]


@functools.cache
def _rows(on: str, rule: str, least: int, most: int) -> tuple[tuple[Row, ...], ...]:
    """All rows that a rule can make of levels in a range, apart for each of its parameters."""
    levels = range(least, most + 1)
    if rule == PROGRESSION:
        found = [[(v, v + step, v + 2 * step) for v in levels if v + 2 * step in levels] for step in STEPS]
    elif rule == ARITHMETIC:
        pairs = [(a, b) for a in levels for b in levels]
        found = [[(a, b, a + sign * b) for a, b in pairs if a + sign * b in levels] for sign in (1, -1)]
    else:
        found = [[(a, b, c) for a in levels for b in levels for c in levels if len({a, b, c}) == 3]]
    return tuple(tuple(rows) for rows in found if len(rows) > (rule == ARITHMETIC))


def _levels(rng: random.Random, kind: Kind, least: int, most: int) -> list[int] | None:
    """Nine levels that show one rule and no other; None: none were found."""
    on, rule = kind
    draw = rng.random
    if rule == CONSTANT:
        span = most - least + 1
        a, b, c = least + int(draw() * span), least + int(draw() * span), least + int(draw() * span)
        return [a, a, a, b, b, b, c, c, c]
    rows = pick(rng, _rows(on, rule, least, most))
    num = len(rows)
    for _ in range(_TRIES):
        if rule == DISTRIBUTE:
            a, b, c = pick(rng, rows)
            values = [a, b, c, b, c, a, c, a, b] if rng.random() < 0.5 else [a, b, c, c, a, b, b, c, a]
        else:
            values = [*rows[int(draw() * num)], *rows[int(draw() * num)], *rows[int(draw() * num)]]
        found = rules_of_levels(on, values[:8], least, most)
        if len(found) == 1 and found[0].rule == rule:
            return values
    return None


def _places(rng: random.Random, kind: Kind, num_slots: int) -> list[int] | None:
    """Nine sets of slots that show one rule and no other."""
    on, rule = kind
    if num_slots == 1:
        return [1] * 9
    if rule == CONSTANT:
        a, b, c = (_some(rng, num_slots, 1 + int(rng.random() * num_slots)) for _ in range(3))
        return [a, a, a, b, b, b, c, c, c]
    for _ in range(_TRIES):
        if on == "number":
            numbers = _levels(rng, kind, 1, num_slots)
            masks = None if numbers is None else [_some(rng, num_slots, number) for number in numbers]
        else:
            masks = _sets(rng, rule, num_slots)
        if masks is not None:
            found = rules_of_places(masks[:8], num_slots)
            if len(found) == 1 and found[0].on == on and found[0].rule == rule:
                return masks
    return None


def _sets(rng: random.Random, rule: str, num_slots: int) -> list[int] | None:
    def some() -> int:
        return _some(rng, num_slots, 1 + int(rng.random() * (num_slots - 1)))

    if rule == PROGRESSION:
        step = pick(rng, STEPS)
        found = []
        for _ in range(3):
            first = some()
            second = turned(first, step, num_slots)
            found += [first, second, turned(second, step, num_slots)]
        return found
    if rule == DISTRIBUTE:
        a, b, c = some(), some(), some()
        return [a, b, c, b, c, a, c, a, b] if rng.random() < 0.5 else [a, b, c, c, a, b, b, c, a]
    union, found = rng.random() < 0.5, []
    while len(found) < 9:
        first, second = some(), some()
        third = first | second if union else first & ~second
        if third and third not in (first, second):
            found += [first, second, third]
    return found


@functools.cache
def _subsets(num_slots: int, size: int) -> tuple[int, ...]:
    return tuple(mask for mask in range(1, 1 << num_slots) if mask.bit_count() == size)


def _some(rng: random.Random, num_slots: int, size: int) -> int:
    """A set of so many slots."""
    sets = _subsets(num_slots, size)
    return sets[int(rng.random() * len(sets))]


def other_place(rng: random.Random, num_slots: int, size: int, used: Sequence[int]) -> int:
    """Draw a set of so many slots that was not used; 0: there is none."""
    left = [mask for mask in _subsets(num_slots, size) if mask not in used]
    return pick(rng, left) if left else 0


def _entities(
    rng: random.Random,
    masks: Sequence[int],
    columns: Sequence[Sequence[int]],
    own: Sequence[int],
    ranges: Sequence[tuple[int, int]],
    num_angles: int,
    kept: bool,
    wanted: Wanted | None,
) -> tuple[tuple[Entity, ...], ...] | None:
    """The entities of nine panels; None: the first row is not `wanted`, and the random numbers of the others are passed
    over. Values of an entity's own (`own`) stay along a row where its slots do (`kept`)."""
    if own:
        columns = [column or (0,) * len(masks) for column in columns]
    levels = list(zip(*columns, strict=True))
    spans = [(least, most - least + 1) for least, most in [ranges[attribute - 1] for attribute in own]]

    def some(begin: int, end: int) -> list[tuple[Entity, ...]]:
        if own:
            return _varied(rng.random, masks[begin:end], levels[begin:end], own, spans, num_angles, kept)
        return _alike(rng.random, masks[begin:end], levels[begin:end], num_angles)

    panels = some(0, 3)
    if wanted is not None and not wanted(panels):
        num_own = sum([mask.bit_count() for mask in (masks[3::3] if kept else masks[3:])]) * len(own)
        rng.getrandbits(64 * (num_own + sum([mask.bit_count() for mask in masks[3:]])))  # as so many `random()`
        return None
    return (*panels, *some(3, 9))


def _alike(
    draw: Callable[[], float], masks: Sequence[int], levels: Sequence[tuple[int, ...]], num_angles: int
) -> list[tuple[Entity, ...]]:
    """Panels whose entities share type, size and color."""
    return [
        tuple([(slot, kind, size, color, int(draw() * num_angles)) for slot in members(mask)])
        for mask, (kind, size, color) in zip(masks, levels, strict=True)
    ]


def _varied(
    draw: Callable[[], float],
    masks: Sequence[int],
    levels: Sequence[tuple[int, ...]],
    own: Sequence[int],
    spans: Sequence[tuple[int, int]],
    num_angles: int,
    kept: bool,
) -> list[tuple[Entity, ...]]:
    """Panels of whole rows whose entities have values of their own."""
    # of what a panel gives to all of its entities and what an entity has of its own: type, size and color
    ordered = operator.itemgetter(*[3 + own.index(at) if at in own else at - 1 for at in (1, 2, 3)])
    panels: list[tuple[Entity, ...]] = []
    values: list[tuple[int, ...]] = []  # of the entities of a panel, their own
    for number, (mask, given) in enumerate(zip(masks, levels, strict=True)):
        if kept and number % 3:
            own_values = zip(members(mask), values, strict=True)
            entities = [(slot, *ordered(given + value), int(draw() * num_angles)) for slot, value in own_values]
        else:
            values, entities = [], []
            for slot in members(mask):
                value = tuple([least + int(draw() * span) for least, span in spans])
                values.append(value)
                entities.append((slot, *ordered(given + value), int(draw() * num_angles)))
        panels.append(tuple(entities))
    return panels


def _shown(panels: Sequence[Sequence[Entity]], attribute: int) -> list[int]:
    """What panels show of an attribute whose values are the entities' own."""
    found = []
    for entities in panels:
        levels = {entity[attribute] for entity in entities}
        found.append(levels.pop() if len(levels) == 1 else MIXED)
    return found


def pick(rng: random.Random, some: Sequence[T]) -> T:
    """Draw one of a list; several times as fast as `choice`."""
    return some[int(rng.random() * len(some))]
