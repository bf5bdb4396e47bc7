"""Drawing analogies: attributes, relations and options within limits of time and size."""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from vlmreason.tasks.analogies.panels import (
    _BITS,
    _COLOR,
    _LINE_COLOR,
    _LINE_TYPE,
    _LINES,
    _LONELY,
    _OPERATIONS,
    _POSITION,
    _QUANTITY,
    _SHAPES,
    _SIZE,
    _TYPE,
    ATTRIBUTES,
    LETTERS,
    POSITIONS,
    QUANTITIES,
    RELATIONS,
    AnalogySizes,
    AnalogyState,
    Line,
    Panel,
    Pattern,
    Reading,
    Shape,
    _flat,
    _members,
    _patterns,
    _relations,
)
from vlmreason.tasks.base import Belongs

Draft = tuple[Reading, tuple[int, ...]]
"""What a panel shows, and how many shapes there are of each of its types (in any order)."""

_MAX_PROBLEMS = 60
_MAX_ROWS = 100
_MAX_KEYS = 60
_MAX_QUERIES = 40
_MAX_OPTIONS = 5
_MAX_PICKS = 8


class _Sampler:
    """Draws rows of panels by their sets first; objects that show the sets are put in place at the end."""

    def __init__(self, sizes: AnalogySizes) -> None:
        self.sizes = sizes
        chosen: list[Sequence[Any]] = [sizes.shape_types, sizes.shape_colors, sizes.shape_sizes, QUANTITIES]
        chosen += [[(r, c) for r, c in POSITIONS if max(r, c) <= sizes.positions], sizes.line_types, sizes.line_colors]
        most = [sizes.num_values] * 3 + [0, sizes.num_shapes[1], sizes.num_lines[1], sizes.num_values]
        most[_COLOR] = most[_SIZE] = min(sizes.num_values, sizes.num_shapes[1])
        most[_LINE_COLOR] = min(sizes.num_values, sizes.num_lines[1])
        num_types = min(len(sizes.shape_types), sizes.num_values)
        # Numbers of shapes per type: (number of shapes, number of types, set of quantities, the numbers).
        self._skeletons = [
            (n, len(counts), functools.reduce(lambda a, b: a | b, (_BITS[_QUANTITY][c] for c in counts)), counts)
            for n in range(sizes.num_shapes[0], sizes.num_shapes[1] + 1)
            for counts in _partitions(n, num_types)
        ]
        self._fitting: dict[tuple[int, int, int, int], list[list[tuple[int, int, int, tuple[int, ...]]]]] = {}
        # Per attribute the sets by number of values; the index is that number less one.
        self._sets: list[list[list[int]]] = []
        for attribute, values in enumerate(chosen):
            bits = sorted(_BITS[attribute][value] for value in values)
            if attribute == _QUANTITY:
                masks = sorted({skeleton[2] for skeleton in self._skeletons})
                by_number = [[m for m in masks if m.bit_count() == k] for k in range(1, 1 + len(QUANTITIES))]
            else:
                number = min(most[attribute], len(bits))
                by_number = [[sum(c) for c in itertools.combinations(bits, k)] for k in range(1, number + 1)]
            while by_number and not by_number[-1]:
                by_number.pop()
            self._sets.append(by_number)
        if sizes.num_shapes[0] > 1:  # so many positions are always taken
            self._sets[_POSITION][: sizes.num_shapes[0] - 1] = [[]] * (sizes.num_shapes[0] - 1)
        self._allowed: list[frozenset[int]] = [frozenset(_flat(by_number)) for by_number in self._sets]
        self._ascending = [list(itertools.combinations(by_number[0], 3)) for by_number in self._sets]
        self.words = frozenset(_flat((*chosen[:_QUANTITY], *chosen[_LINE_TYPE:])))
        self.supported = {(n, r) for i, n in enumerate(ATTRIBUTES) for r in RELATIONS if self._supports(i, r)}

    def _supports(self, attribute: int, relation: str) -> bool:
        allowed = self._allowed[attribute]
        if relation == "Progression":
            if attribute in _LONELY and not self.sizes.both_percent:
                return False
            return sum(mask.bit_count() == 1 for mask in allowed) >= 3
        operation = _OPERATIONS[relation]
        return any(a != b and a & b > 0 and operation(a, b) in allowed for a in allowed for b in allowed)

    def problem(
        self,
        rng: random.Random,
        relation: str,
        attributes: Sequence[str],
        excluded: frozenset[Pattern],
        belongs: Belongs,
    ) -> AnalogyState | None:
        """Return a problem whose examples and query show `relation` along three attributes; None when none was
        found."""
        first = self._keyed_row(rng, attributes[0], relation, belongs)
        second = self._row(rng, attributes[1], relation)
        third = self._query(rng, attributes[2], relation, excluded) if first and second else None
        if first is None or second is None or third is None:
            return None
        query, options = third
        put = functools.partial(self._panel, rng)
        return AnalogyState(
            examples=((put(first[0]), put(first[1]), put(first[2])), (put(second[0]), put(second[1]), put(second[2]))),
            query=(put(query[0]), put(query[1])),
            options=(put(options[0]), put(options[1]), put(options[2]), put(options[3])),
        )

    def _keyed_row(self, rng: random.Random, attribute: str, relation: str, belongs: Belongs) -> list[Draft] | None:
        for _ in range(_MAX_KEYS):
            row = self._row(rng, attribute, relation)
            if row is None or belongs([reading for reading, _ in row]):
                return row
        return None

    def _row(self, rng: random.Random, attribute: str, relation: str) -> list[Draft] | None:
        index = ATTRIBUTES.index(attribute)
        shapes, lines = self._kinds(rng, index)
        for _ in range(_MAX_ROWS):
            sets = self._triple(rng, index, relation)
            if sets is None:
                return None
            first = self._draft(rng, shapes, lines, {index: sets[0]})
            second = self._draft(rng, shapes, lines, {index: sets[1]})
            if first and second:
                third = self._draft(rng, shapes, lines, {index: sets[2]}, (first[0], second[0]))
                if third and _patterns(first[0], second[0], third[0]) == [(attribute, relation)]:
                    return [first, second, third]
        return None

    def _query(
        self, rng: random.Random, attribute: str, relation: str, excluded: frozenset[Pattern]
    ) -> tuple[list[Draft], list[Draft]] | None:
        """Two panels and four options in random order, exactly one of them with the relation."""
        index = ATTRIBUTES.index(attribute)
        shapes, lines = self._kinds(rng, index)
        if relation == "Progression" and index in _LONELY:
            shapes = lines = True  # there is no other relation for the confounders among one object's values
        others = [a for a in (*(_SHAPES if shapes else ()), *(_LINES if lines else ())) if a != index]
        rivals = [(a, r) for a in others for r in RELATIONS if r != relation and (ATTRIBUTES[a], r) not in excluded]
        for _ in range(_MAX_QUERIES):
            sets = self._triple(rng, index, relation)
            if sets is None:
                return None
            pairs = {index: (sets[0], sets[1])}
            for a, r in rng.sample(rivals, min(len(rivals), 1 + (rng.random() < 0.5))):
                rival = self._triple(rng, a, r)
                if rival is not None:
                    pairs[a] = (rival[0], rival[1])
            wrong = [
                (a, r, mask)
                for a, (one, two) in pairs.items()
                for r in RELATIONS
                if r != relation and (ATTRIBUTES[a], r) not in excluded
                for mask in self._completions(rng, a, r, one, two)
            ]
            if not wrong:
                continue
            chosen = rng.sample(wrong, 3) if len(wrong) >= 3 else wrong + rng.choices(wrong, k=3 - len(wrong))
            query = [self._draft(rng, shapes, lines, {a: pair[i] for a, pair in pairs.items()}) for i in (0, 1)]
            panels = [draft for draft in query if draft is not None]
            if len(panels) < 2 or panels[0] == panels[1]:
                continue
            wanted = [(index, relation, sets[2]), *chosen]
            rng.shuffle(wanted)
            options: list[Draft] = []
            for a, r, mask in wanted:
                option = self._option(rng, shapes, lines, panels, a, r, mask, options)
                if option is None:
                    break
                options.append(option)
            if len(options) == len(LETTERS):
                return panels, options
        return None

    def _option(
        self,
        rng: random.Random,
        shapes: bool,
        lines: bool,
        query: list[Draft],
        attribute: int,
        relation: str,
        mask: int,
        taken: list[Draft],
    ) -> Draft | None:
        """A panel that gives the query exactly one pattern and shows other sets than the options before."""
        wanted = [(ATTRIBUTES[attribute], relation)]
        for _ in range(_MAX_OPTIONS):
            draft = self._draft(rng, shapes, lines, {attribute: mask}, (query[0][0], query[1][0]))
            if draft is None:
                return None
            if _patterns(query[0][0], query[1][0], draft[0]) == wanted and all(draft[0] != t[0] for t in taken):
                return draft
        return None

    def _kinds(self, rng: random.Random, attribute: int) -> tuple[bool, bool]:
        both = rng.random() * 100 < self.sizes.both_percent
        return both or attribute in _SHAPES, both or attribute in _LINES

    def _triple(self, rng: random.Random, attribute: int, relation: str) -> tuple[int, int, int] | None:
        """Three sets of an attribute that show the relation and no other one."""
        sets, allowed = self._sets[attribute], self._allowed[attribute]
        if relation == "Progression":
            ascending = self._ascending[attribute]
            return ascending[int(rng.random() * len(ascending))] if ascending else None
        operation, draw, most = _OPERATIONS[relation], rng.random, len(sets)
        for _ in range(_MAX_ROWS):
            first, second = sets[int(draw() * most)], sets[int(draw() * most)]
            if first and second:
                a, b = first[int(draw() * len(first))], second[int(draw() * len(second))]
                if a != b and a & b and operation(a, b) in allowed:
                    return a, b, operation(a, b)
        return None

    def _completions(self, rng: random.Random, attribute: int, relation: str, a: int, b: int) -> list[int]:
        """A third set that gives two sets the relation, if there is any, as a list."""
        if relation == "Progression":
            if a & (a - 1) or b & (b - 1) or a >= b:
                return []
            later = [mask for mask in self._sets[attribute][0] if mask > b]
            return [rng.choice(later)] if later else []
        c = _OPERATIONS[relation](a, b)
        return [c] if a & b and c in self._allowed[attribute] else []

    def _draft(
        self,
        rng: random.Random,
        shapes: bool,
        lines: bool,
        fixed: Mapping[int, int],
        before: tuple[Reading, Reading] | None = None,
    ) -> Draft | None:
        """A random panel with the sets that are fixed, or None where they cannot be together.

        After two panels the other sets are drawn to show no relation with theirs, where that is quickly possible.
        """
        draw, sets, get, pick = rng.random, self._sets, fixed.get, self._pick
        types = colors = sizes = quantities = places = line_types = line_colors = 0
        counts: tuple[int, ...] = ()
        if shapes:
            types, colors, sizes, places = get(_TYPE, 0), get(_COLOR, 0), get(_SIZE, 0), get(_POSITION, 0)
            least = max(colors.bit_count(), sizes.bit_count())
            fitting = self._fit(types.bit_count(), get(_QUANTITY, 0), places.bit_count(), least)
            if not fitting:
                return None
            for _ in range(_MAX_PICKS):
                group = fitting[_few(draw, len(fitting))]
                number, num_types, quantities, counts = group[int(draw() * len(group))]
                if before is None or not _relations(before[0][_QUANTITY], before[1][_QUANTITY], quantities):
                    break
            types = types or pick(draw, _TYPE, sets[_TYPE][num_types - 1 : num_types], before)
            colors = colors or pick(draw, _COLOR, sets[_COLOR][:number], before)
            sizes = sizes or pick(draw, _SIZE, sets[_SIZE][:number], before)
            places = places or pick(draw, _POSITION, sets[_POSITION][number - 1 : number], before)
        if lines:
            line_types, line_colors = get(_LINE_TYPE, 0), get(_LINE_COLOR, 0)
            least = max(self.sizes.num_lines[0], line_colors.bit_count())
            if not line_types and least > len(sets[_LINE_TYPE]):
                return None
            line_types = line_types or pick(draw, _LINE_TYPE, sets[_LINE_TYPE][least - 1 :], before)
            number = line_types.bit_count()
            if number < least:
                return None
            line_colors = line_colors or pick(draw, _LINE_COLOR, sets[_LINE_COLOR][:number], before)
        return (types, colors, sizes, quantities, places, line_types, line_colors), counts

    def _pick(
        self,
        draw: Callable[[], float],
        attribute: int,
        groups: Sequence[Sequence[int]],
        before: tuple[Reading, Reading] | None,
    ) -> int:
        """A set from one of the groups, from the first ones more often."""
        for _ in range(_MAX_PICKS):
            group = groups[_few(draw, len(groups))]
            mask = group[int(draw() * len(group))]
            if before is None or not _relations(before[0][attribute], before[1][attribute], mask):
                break
        return mask

    def _fit(
        self, num_types: int, quantities: int, number: int, least: int
    ) -> list[list[tuple[int, int, int, tuple[int, ...]]]]:
        """The numbers of shapes per type that fit, grouped by their sum; 0 stands for any."""
        key = (num_types, quantities, number, least)
        if key not in self._fitting:
            fitting = [
                s
                for s in self._skeletons
                if s[0] >= least and number in (0, s[0]) and num_types in (0, s[1]) and quantities in (0, s[2])
            ]
            self._fitting[key] = [list(group) for _, group in itertools.groupby(fitting, key=lambda s: s[0])]
        return self._fitting[key]

    def _panel(self, rng: random.Random, draft: Draft) -> Panel:
        """Objects that show the sets of a draft, each value at least once."""
        (types, colors, sizes, _, places, line_types, line_colors), counts = draft
        shapes: tuple[Shape, ...] = ()
        if counts:
            names = list(_named(_TYPE, types))
            if len(names) > 1:
                rng.shuffle(names)
            kinds = [name for name, count in zip(names, counts, strict=True) for _ in range(count)]
            if len(names) > 1:
                rng.shuffle(kinds)
            num = len(kinds)
            shapes = tuple(
                zip(
                    kinds,
                    _spread(rng, _named(_COLOR, colors), num),
                    _spread(rng, _named(_SIZE, sizes), num),
                    _named(_POSITION, places),
                    strict=True,
                )
            )
        lines: tuple[Line, ...] = ()
        if line_types:
            kinds = list(_named(_LINE_TYPE, line_types))
            lines = tuple(zip(kinds, _spread(rng, _named(_LINE_COLOR, line_colors), len(kinds)), strict=True))
        return Panel(shapes, lines)


@functools.cache
def _named(attribute: int, mask: int) -> tuple[Any, ...]:
    return tuple(_members(attribute, mask))


def _few(draw: Callable[[], float], most: int) -> int:
    """0 to `most` - 1, small numbers more often."""
    if most == 1:
        return 0
    one, other = int(draw() * most), int(draw() * most)
    return one if one < other else other


def _spread(rng: random.Random, values: tuple[Any, ...], num: int) -> Sequence[Any]:
    """`num` values, each of the given ones at least once."""
    if len(values) == 1:
        return values * num
    draw = rng.random
    spread = [*values, *(values[int(draw() * len(values))] for _ in range(num - len(values)))]
    rng.shuffle(spread)
    return spread


def _partitions(number: int, most_parts: int, largest: int | None = None) -> Iterable[tuple[int, ...]]:
    """The ways to write a number as at most so many positive parts, largest first."""
    if number == 0:
        yield ()
    elif most_parts > 0:
        for part in range(min(number, largest or number), 0, -1):
            for rest in _partitions(number - part, most_parts - 1, part):
                yield (part, *rest)
