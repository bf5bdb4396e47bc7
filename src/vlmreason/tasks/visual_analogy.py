"""Visual Analogy (sections C.5, C.6.3, E.3): find the option that continues a query as two examples go on.

A panel holds shapes (type, color, size, position), lines (type, color), or both. Everything else is derived
from these values. Per panel each attribute is a set of values, listed in a fixed order:

- shape type, shape color, shape size, shape position, line type, line color: the different values present;
- shape quantity: for every shape type present, how many shapes of it there are (a circle and two
  rectangles: 1 and 2), as in the description of appendix I.5.

A pattern is (attribute, relation), shown by three panels with sets A, B, C, none of them empty:

- XOR, OR, AND: A and B differ and C is their symmetric difference, union, intersection;
- Progression: each panel has one value, each further on in the attribute's list than the one before. The
  lists are the constants of this module: types by number of corners, colors from black to white, sizes and
  quantities upwards, positions in reading order, line types as in table 2.

Sets that stay the same show no pattern. Sets without common value have the same XOR and OR: such rows are
never drawn, because examples, and the query with each option, show exactly one pattern over all attributes.

simple: the examples and the query share attribute and relation, not held out, and no option shows a held-out
pattern. hard: all three patterns are held out and share the relation, over `num_domains` attributes. The eight
held-out patterns of the paper have two attributes for each relation, so the examples then differ and the
query repeats one of them (as figure 37 does); three distinct attributes need a larger held-out set. The
three other options each show one pattern of another relation. Panels with one shape or one line have single
values only, so a query with Progression over positions or line types has both shapes and lines: where
`both_percent` is 0 there are no such problems.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import random
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vlmreason.structure import check_choice, nearest
from vlmreason.tasks.base import (
    MAX_RESPONSE_CHARS,
    Belongs,
    Modality,
    Picture,
    Score,
    Task,
    choose_wording,
)
from vlmreason.tasks.drawing import blank, text_sprite

Cell = tuple[int, int]
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

_CODES: Mapping[str, str] = {
    **dict(zip(SHAPE_TYPES, ("CIR", "TRI", "REC", "PEN", "HEX"), strict=True)),
    **dict(zip(COLORS, ("BK", "DK", "GR", "LT", "WH"), strict=True)),
    **dict(zip(SIZES, ("S", "M", "L", "X"), strict=True)),
    **dict(zip(LINE_TYPES, ("FAL", "RIS", "HOR", "VER", "DIA", "RNG", "VUP", "VLE", "VDO", "VRI"), strict=True)),
}
"""Abbreviations of the lossless text."""

PAPER_HELD_OUT: tuple[Pattern, ...] = (
    ("line type", "XOR"),
    ("line color", "OR"),
    ("shape type", "AND"),
    ("shape size", "XOR"),
    ("shape color", "Progression"),
    ("shape position", "OR"),
    ("line type", "AND"),
    ("line color", "Progression"),
)

WHITE, BLACK, FRAME = (255, 255, 255), (0, 0, 0), (160, 160, 160)
_OVERSAMPLING = 8

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
    """Every pattern that three panels show, from their values alone."""
    return _patterns(read(first), read(second), read(third))


def read(panel: Panel) -> Reading:
    """The set of every attribute. Raises KeyError for a value that does not exist."""
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
    """Raises ValueError where not exactly one option shows the examples' relation, or patterns are not single."""
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


@dataclass(frozen=True)
class AnalogyWording:
    """Templates. A row of the trace is head, items, end; `attributes` names all seven, comma between.

    `examples` names two rows, comma between. An option's items are `item_option` for the attribute
    that gives the query a pattern and `item_option_none` for the others ("" leaves them out, as section K.3 does);
    its row ends with `match` or `mismatch`.
    """

    prompt_text: str
    prompt_image: str
    legend: str
    convert: str
    convert_lossless: str
    attributes: str
    value_joint: str
    panel_joint: str
    none: str
    examples: str
    query: str
    option: str
    head: str
    item: str
    item_query: str
    item_option: str
    item_option_none: str
    item_joint: str
    row_end: str
    summary: str
    match: str
    mismatch: str
    pattern: str
    answer: str
    answer_item: str
    answer_joint: str


_RULES = (
    "The three panels of each example follow one pattern, an attribute together with a relation. "
    "The attributes are {attributes}; in a panel each of them is the set of its values, and the quantity is how many "
    "shapes of each type there are. With XOR, OR and AND the set of the third panel is made of the sets of the first "
    "two. With Progression each panel has a single value that comes later in its list than the one before: {orders}; "
    "quantities rise and positions go in reading order. Both examples have the same relation, perhaps over different "
    "attributes. Exactly one of the options A, B, C, D gives the query a pattern with this relation. List the values "
    "and patterns of the examples, then those of the query with each option. Finish with a line that begins with "
    "Answer: and gives the pattern of example 1, of example 2 and of A, B, C and D, then the right option."
)

WORDINGS: Mapping[str, AnalogyWording] = {
    "terse": AnalogyWording(
        prompt_text="{text}\nWhich option fits?",
        prompt_image="Which option fits?",
        legend="",
        convert="Convert the picture to text:",
        convert_lossless="Convert the picture to text:",
        attributes="shape, color, size, number, place, line, ink",
        value_joint=" ",
        panel_joint=", ",
        none="none",
        examples="One, Two",
        query="Query",
        option="{letter}",
        head="{row}: ",
        item="{attribute} {values} {verdict}",
        item_query="{attribute} {values}",
        item_option="{attribute} {values} {verdict}",
        item_option_none="{attribute} {values} {verdict}",
        item_joint=" ",
        row_end="\n",
        summary="Relation: {relation}\n",
        match=" yes\n",
        mismatch=" no\n",
        pattern="{attribute} {relation}",
        answer="Answer: {patterns}; option {letter}",
        answer_item="{row} {pattern}",
        answer_joint="; ",
    ),
    "verbose": AnalogyWording(
        prompt_text="Below is a puzzle of panels that hold shapes, lines or both: two examples of three panels, a "
        "query of two panels, and four options for its third.\n{text}\n{legend}" + _RULES,
        prompt_image="The picture shows a puzzle of panels that hold shapes, lines or both: two examples of three "
        "panels in the upper rows, a query of two panels in the third row, and four options A to D for its third "
        "panel in the last row. " + _RULES,
        legend="Objects of a panel are joined by semicolons: a shape is written as type-color-size-(row,column), a "
        "line as type-color. The abbreviations are {codes}. ",
        convert="Convert the puzzle in the picture to lists of values.",
        convert_lossless="Convert the puzzle in the picture to codes of its objects.",
        attributes=", ".join(ATTRIBUTES),
        value_joint=", ",
        panel_joint=" | ",
        none="no pattern",
        examples="Example 1, Example 2",
        query="Query",
        option="Option {letter}",
        head="{row}:\n",
        item="- {attribute}: {values} -> {verdict}",
        item_query="- {attribute}: {values}",
        item_option="- {attribute}: {values} -> {verdict}",
        item_option_none="",
        item_joint="\n",
        row_end="\n",
        summary="The examples follow {first} and {second}, so the relation wanted is {relation}.\n",
        match="\nThe relation here is {relation}, the one wanted.\n",
        mismatch="\nThe relation here is {relation}, which is not {wanted}.\n",
        pattern="({attribute}, {relation})",
        answer="Answer: {patterns}; option {letter}",
        answer_item="{row} {pattern}",
        answer_joint="; ",
    ),
}
TEXT_FORMS = ("lossy", "lossless")


class VisualAnalogy(Task[AnalogyState]):
    name = "visual_analogy"
    version = 1
    levels = ("simple", "hard")
    state_type = AnalogyState
    sizes_type: ClassVar[type] = AnalogySizes

    def __init__(
        self,
        sizes: AnalogySizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        text_form: str = "lossy",
        held_out: Iterable[Sequence[str]] = PAPER_HELD_OUT,
        num_domains: int = 2,
    ) -> None:
        check_choice("task.text_form", text_form, TEXT_FORMS)
        check_choice("task.num_domains", num_domains, (1, 2, 3))
        self.sizes, self.text_form, self.num_domains = sizes, text_form, num_domains
        self.wording: AnalogyWording = choose_wording(WORDINGS, trace, wording or {})
        self.held_out = _check_held_out(held_out)
        _check_sizes(sizes)
        self._sampler = _Sampler(sizes)
        self._phrases = _Phrases(self.wording)
        self._parser = _Parser(self.wording, self._phrases)

    def domains(self, level: str) -> dict[str, list[str]]:
        """Per relation the attributes that a level may use; relations with too few of them are left out."""
        needed = self.num_domains if level == "hard" else 1
        found: dict[str, list[str]] = {}
        for relation in RELATIONS:
            pairs = [(a, relation) for a in ATTRIBUTES if (a, relation) in self._sampler.supported]
            usable = [pair[0] for pair in pairs if (pair in self.held_out) == (level == "hard")]
            if len(usable) >= needed:
                found[relation] = usable
        return found

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> AnalogyState:
        choices = self.domains(level)
        if not choices:
            number = self.num_domains if level == "hard" else 1
            raise self.unreachable(
                level,
                f"no relation has {number} {'' if level == 'hard' else 'not '}held-out attribute(s) that panels of "
                f"these sizes can show (held_out={[list(p) for p in sorted(self.held_out)]}, num_domains={number})",
            )
        excluded = self.held_out if level == "simple" else frozenset()
        for _ in range(_MAX_PROBLEMS):
            relation = rng.choice(list(choices))
            state = self._sampler.problem(rng, relation, self._three(level, rng, choices[relation]), excluded, belongs)
            if state is not None:
                return state
        raise self.unreachable(level, "no problem was found: the panels allow too few different values")

    def _three(self, level: str, rng: random.Random, attributes: list[str]) -> list[str]:
        """The attributes of both examples and of the query."""
        number = self.num_domains if level == "hard" else 1
        chosen = rng.sample(attributes, number)
        if number == 2:
            chosen.append(rng.choice(chosen))
        return chosen * 3 if number == 1 else chosen

    def key(self, state: AnalogyState) -> object:
        return [read(panel) for panel in state.examples[0]]

    def draw(self, state: AnalogyState) -> Picture:
        sizes = self.sizes
        picture = _frames(sizes.picture, sizes.panel).copy()
        places = _layout(sizes.picture, sizes.panel)
        rows = (*state.examples, state.query, state.options)
        for row, panels in zip(places, rows, strict=True):
            for (x, y), panel in zip(row, panels, strict=False):
                inner = sizes.panel - 2
                picture[y + 1 : y + 1 + inner, x + 1 : x + 1 + inner] = _draw_panel(sizes, panel)[:, :, None]
        return picture

    def text(self, state: AnalogyState) -> str:
        compact = self.sizes.compact_text
        if self.text_form == "lossy":
            found = _solution(state)
            written = [_lossy(reading, compact) for reading in (*_flat(found.examples), *found.query, *found.options)]
        else:
            panels = (*_flat(state.examples), *state.query, *state.options)
            written = [_lossless(panel, compact) for panel in panels]
        return (_COMPACT_TEXT if compact else _FULL_TEXT).format(*written)

    def prompt(self, state: AnalogyState, modality: Modality) -> str:
        if modality == "image":
            return self.wording.prompt_image.format(**self._rules)
        legend = self._legend if self.text_form == "lossless" and not self.sizes.compact_text else ""
        return self.wording.prompt_text.format(text=self.text(state), legend=legend, **self._rules)

    @functools.cached_property
    def _rules(self) -> dict[str, str]:
        used = self._sampler.words
        lists = [("shape types", _TYPE), ("colors", _COLOR), ("sizes", _SIZE), ("line types", _LINE_TYPE)]
        orders = (f"{name} {', '.join(word for word in _VALUES[a] if word in used)}" for name, a in lists)
        return {"attributes": ", ".join(self._phrases.attributes), "orders": "; ".join(orders)}

    @functools.cached_property
    def _legend(self) -> str:
        codes = (f"{code} {word}" for word, code in _CODES.items() if word in self._sampler.words)
        return self.wording.legend.format(codes=", ".join(codes))

    def convert(self, state: AnalogyState) -> str:
        return self.wording.convert if self.text_form == "lossy" else self.wording.convert_lossless

    def thought(self, state: AnalogyState) -> list[str]:
        """One item per row of panels and attribute; between the examples and the query the common relation."""
        return list(_flat(self.thought_rows(state).values()))

    def thought_rows(self, state: AnalogyState) -> dict[str, list[str]]:
        """The steps of the trace by what they are about: "1", "2" (examples), "relation", "query", "A" ... "D"."""
        found, phrases, wording = _solution(state), self._phrases, self.wording
        steps: dict[str, list[str]] = {}
        examples = zip(("1", "2"), phrases.examples, found.examples, found.example_patterns, strict=True)
        for name, row, readings, pattern in examples:
            items = phrases.items(wording.item, wording.item, readings, pattern)
            steps[name] = self._row(row, items, wording.row_end)
        first, second = (phrases.pattern(pattern) for pattern in found.example_patterns)
        steps["relation"] = [wording.summary.format(first=first, second=second, relation=found.relation)]
        items = phrases.items(wording.item_query, wording.item_query, found.query, None)
        steps["query"] = self._row(phrases.query, items, wording.row_end)
        options = zip(LETTERS, phrases.options, found.options, found.option_patterns, strict=True)
        for letter, row, reading, pattern in options:
            end = wording.match if pattern[1] == found.relation else wording.mismatch
            items = phrases.items(wording.item_option, wording.item_option_none, (reading,), pattern)
            steps[letter] = self._row(row, items, end.format(relation=pattern[1], wanted=found.relation))
        return steps

    def _row(self, row: str, items: list[str], end: str) -> list[str]:
        joint = self.wording.item_joint
        steps = [item + joint for item in items[:-1]]
        steps.append(items[-1] + end)
        steps[0] = self._phrases.heads[row] + steps[0]
        return steps

    def answer(self, state: AnalogyState) -> str:
        found, phrases = _solution(state), self._phrases
        rows = (*phrases.examples, *LETTERS)
        listed = (
            self.wording.answer_item.format(row=row, pattern=phrases.pattern(pattern))
            for row, pattern in zip(rows, (*found.example_patterns, *found.option_patterns), strict=True)
        )
        return self.wording.answer.format(patterns=self.wording.answer_joint.join(listed), letter=found.letter)

    def score(self, state: AnalogyState, response: str) -> Score:
        """All six patterns and the option are right (strict, section E.3); part `option` is the lenient figure.

        Patterns and option are read behind the last "Answer:". The parts follow table 14: `example_patterns`,
        `option_patterns`, `query_pattern` (that of the right option), `relation` and `domains_differ` (whether the
        examples' attributes were told apart or found equal, as they are); from the trace, `example_type` ...
        `query_position`: all values of shapes and lines right, and none invented; `trace`: all of it as it should be.
        """
        response = response[:MAX_RESPONSE_CHARS]
        found = _solution(state)
        named, letter = self._parser.answer(response)
        gold = (*found.example_patterns, *found.option_patterns)
        given = [named.get(row) for row in ("1", "2", *LETTERS)]
        one, two = given[:2]
        parts = {
            "option": letter == found.letter,
            "example_patterns": given[:2] == list(gold[:2]),
            "option_patterns": given[2:] == list(gold[2:]),
            "query_pattern": named.get(found.letter) == found.option_patterns[LETTERS.index(found.letter)],
            "relation": one is not None and two is not None and one[1] == two[1] == found.relation,
            "domains_differ": one is not None and two is not None and (one[0] == two[0]) == (gold[0][0] == gold[1][0]),
        }
        thought = "".join(self.thought(state))
        parts |= self._parser.values(response, thought)
        parts["trace"] = thought.strip() in response
        return Score(
            correct=given == list(gold) and letter == found.letter,
            parsed=letter is not None,
            parts={name: float(value) for name, value in parts.items()},
        )

    def read_answer(self, response: str) -> tuple[dict[str, Pattern | None], str | None]:
        """Patterns by row ("1", "2", "A" ... "D"; None: two different ones) and the option behind the last marker."""
        return self._parser.answer(response[:MAX_RESPONSE_CHARS])

    def option_values(self, state: AnalogyState, response: str) -> list[bool]:
        """Per option, whether the trace lists the right values of the attribute that gives the query its pattern."""
        found = _solution(state)
        wanted = self._parser.sections("".join(self.thought(state)))
        listed = self._parser.sections(response[:MAX_RESPONSE_CHARS])
        names = [self._phrases.attributes[ATTRIBUTES.index(attribute)] for attribute, _ in found.option_patterns]
        rows = zip(self._phrases.options, names, strict=True)
        return [name in listed.get(row, {}) and listed[row][name] == wanted[row].get(name) for row, name in rows]

    def panel_places(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Upper left corners (x, y) of the panels (px): both examples, query with its question mark, options."""
        return _layout(self.sizes.picture, self.sizes.panel)

    def state_from_json(self, data: object) -> AnalogyState:
        state = super().state_from_json(data)
        try:
            solve(state)
        except (KeyError, ValueError) as error:
            raise ValueError(f"problem of {self.name}: {error}") from error
        return state


_solution = functools.lru_cache(maxsize=64)(solve)


def _flat(rows: Iterable[Iterable[Any]]) -> Iterable[Any]:
    return itertools.chain.from_iterable(rows)


_COMPACT_TEXT = "One: {}, {}, {}\nTwo: {}, {}, {}\nQuery: {}, {}\nA: {}\nB: {}\nC: {}\nD: {}"
_FULL_TEXT = "\n".join(
    (
        *(line for n in (1, 2) for line in (f"Example {n}", *(f"Panel {p}: {{}}" for p in (1, 2, 3)))),
        *("Query", "Panel 1: {}", "Panel 2: {}"),
        *("Options", *(f"{letter}: {{}}" for letter in LETTERS)),
    )
)


@functools.lru_cache(maxsize=65536)
def _listed(attribute: int, mask: int, joint: str) -> str:
    if attribute == _POSITION:
        return joint.join(f"({r},{c})" for r, c in _members(attribute, mask))
    return joint.join(map(str, _members(attribute, mask)))


def _lossy(reading: Reading, compact: bool) -> str:
    if compact:
        return " ".join([_listed(a, mask, " ") for a, mask in enumerate(reading) if mask])
    return "; ".join([f"{ATTRIBUTES[a]} {_listed(a, mask, ', ')}" for a, mask in enumerate(reading) if mask])


def _lossless(panel: Panel, compact: bool) -> str:
    objects = [(kind, color, size, f"({r},{c})") for kind, color, size, (r, c) in panel.shapes]
    words: list[tuple[str, ...]] = [*objects, *panel.lines]
    if compact:
        return "; ".join([" ".join(one) for one in words])
    return ";".join(["-".join([_CODES.get(word, word) for word in one]) for one in words])


class _Phrases:
    """What a wording says of rows, attributes, items and patterns; every phrase is made once."""

    def __init__(self, wording: AnalogyWording) -> None:
        self._wording = wording
        _check_wording(wording)
        self.attributes = [name.strip() for name in wording.attributes.split(",")]
        self.examples = [name.strip() for name in wording.examples.split(",")]
        self.query = wording.query
        self.options = [wording.option.format(letter=letter) for letter in LETTERS]
        self.heads = {row: wording.head.format(row=row) for row in (*self.examples, self.query, *self.options)}
        self._items: dict[tuple[str, int, tuple[int, ...], str], str] = {}

    def items(
        self, template: str, template_none: str, readings: tuple[Reading, ...], pattern: Pattern | None
    ) -> list[str]:
        """One item per attribute that the panels have, by the second template for those without pattern."""
        found = []
        for attribute, masks in enumerate(zip(*readings, strict=True)):
            if masks[0]:
                relation = pattern[1] if pattern and pattern[0] == ATTRIBUTES[attribute] else ""
                key = (template if relation else template_none, attribute, masks, relation)
                item = self._items.get(key) or self._write(key)
                if item:
                    found.append(item)
        return found

    def _write(self, key: tuple[str, int, tuple[int, ...], str]) -> str:
        template, attribute, masks, relation = key
        wording = self._wording
        item = template.format(
            attribute=self.attributes[attribute],
            values=wording.panel_joint.join(_listed(attribute, mask, wording.value_joint) for mask in masks),
            verdict=relation or wording.none,
        )
        if len(self._items) < _MAX_PHRASES:
            self._items[key] = item
        return item

    def pattern(self, pattern: Pattern) -> str:
        attribute, relation = pattern
        return self._wording.pattern.format(attribute=self.attributes[ATTRIBUTES.index(attribute)], relation=relation)


class _Parser:
    """Reads patterns, option and listed values from a response."""

    def __init__(self, wording: AnalogyWording, phrases: _Phrases) -> None:
        self._rows = {phrases.examples[0].lower(): "1", phrases.examples[1].lower(): "2"}
        self._rows |= {"1": "1", "2": "2", "one": "1", "two": "2", "example 1": "1", "example 2": "2"}
        self._names = {name.lower(): name for name in ATTRIBUTES}
        self._names |= {name.replace(" ", "_"): name for name in ATTRIBUTES}
        self._names |= {given.lower(): name for given, name in zip(phrases.attributes, ATTRIBUTES, strict=True)}
        self._relations = {relation.lower(): relation for relation in RELATIONS}
        rows, names, relations = (_any_of(words) for words in (self._rows, self._names, self._relations))
        self._item = re.compile(
            rf"(?<!\w)(?:(?i:({rows}))|(?i:option\s?)?([A-D]))[\s:]{{1,3}}\(?(?i:({names})[\s,]{{1,3}}({relations}))(?!\w)"
        )
        self._name = re.compile(rf"(?<!\w)({_any_of(phrases.attributes)})(?!\w)")
        self._verdict = re.compile(rf"[\s>-]*(?<!\w)(?:{relations}|{re.escape(wording.none)})\s*\Z", re.IGNORECASE)
        heads = {**{head.strip(): row for row, head in phrases.heads.items()}}
        heads[wording.summary.partition("{")[0].strip()] = "summary"
        self._heads = heads
        self._stages = {"example": phrases.examples, "query": [phrases.query]}
        self._groups = {
            group: [given for given, name in zip(phrases.attributes, ATTRIBUTES, strict=True) if name.endswith(group)]
            for group in ("type", "color", "size", "quantity", "position")
        }

    def answer(self, response: str) -> tuple[dict[str, Pattern | None], str | None]:
        """Patterns by row ("1", "2", "A" ... "D"; None where two different ones are given) and the option.

        The option is None when none is given, or several different ones.
        """
        marks = list(_MARKER.finditer(response))
        if not marks:
            bare = _BARE.fullmatch(response.strip()) if len(response) < _MAX_BARE else None
            return {}, bare.group(1) if bare else None
        answer = response[marks[-1].end() :]
        named: dict[str, Pattern | None] = {}
        for match in self._item.finditer(answer):
            row = self._rows[match[1].lower()] if match[1] else match[2]
            pattern = (self._names[match[3].lower()], self._relations[match[4].lower()])
            named[row] = pattern if named.get(row, pattern) == pattern else None
        rest = self._item.sub("", answer)
        given = set(_OPTION.findall(rest))
        if not given and (bare := _BARE.fullmatch(rest.strip()[:_MAX_BARE])):
            given = {bare.group(1)}
        return named, given.pop() if len(given) == 1 else None

    def values(self, response: str, gold: str) -> dict[str, bool]:
        """Per stage and group of attributes whether the trace lists the same values as the gold one."""
        wanted, listed = self.sections(gold), self.sections(response)
        return {
            f"{stage}_{group}": all(
                wanted.get(row, {}).get(name) == listed.get(row, {}).get(name) for row in rows for name in names
            )
            and all(row in listed for row in rows)
            for stage, rows in self._stages.items()
            for group, names in self._groups.items()
        }

    def sections(self, response: str) -> dict[str, dict[str, str]]:
        """Row -> attribute -> its values in the trace; the last row of a name counts, the text form comes before."""
        marks = list(_MARKER.finditer(response))
        thought = response[: marks[-1].start()] if marks else response
        starts = sorted(
            (at, at + len(head), row) for head, row in self._heads.items() if (at := _last_line(thought, head)) >= 0
        )
        if not starts:
            return {}
        ends = [at for at, _, _ in starts[1:]] + [len(thought)]
        sections = {}
        for (_, begin, row), end in zip(starts, ends, strict=True):
            pieces = self._name.split(thought[begin:end])
            items: dict[str, str] = {}
            for name, item in zip(pieces[1::2], pieces[2::2], strict=True):
                items.setdefault(name, self._verdict.sub("", item.strip(" \n:-")).strip())
            sections[row] = items
        return sections


_MARKER = re.compile(r"answer\s{0,3}:", re.IGNORECASE)
_OPTION = re.compile(r"(?<!\w)(?i:option)\s{0,3}:?\s{0,3}\(?([A-D])(?!\w)")
_BARE = re.compile(r"(?:(?i:the )?(?i:final )?(?i:answer|option)(?i: is)?:?\s{0,3})?\(?([A-D])\)?\.?")
_MAX_BARE = 60
_MAX_PHRASES = 200_000


def _any_of(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _last_line(text: str, head: str) -> int:
    """Where the last line that begins with `head` starts, -1 when there is none."""
    at = text.rfind("\n" + head)
    if at >= 0:
        return at + 1
    return 0 if text.startswith(head) else -1


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
        """A problem whose examples and query show `relation` along three attributes; None when none was found."""
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


Ink = NDArray[np.uint8]
"""Grey levels, shape (height, width)."""


@functools.lru_cache(maxsize=16)
def _layout(picture: tuple[int, int], panel: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Upper left corners (x, y) of the panels, row by row; the third place of the query is the question mark's."""
    gap_x, gap_y = (picture[0] - 4 * panel) // 5, (picture[1] - 4 * panel) // 5
    return tuple(
        tuple((gap_x + c * (panel + gap_x), gap_y + r * (panel + gap_y)) for c in range(num))
        for r, num in enumerate((3, 3, 3, 4))
    )


@functools.lru_cache(maxsize=16)
def _frames(picture: tuple[int, int], panel: int) -> Picture:
    """White panels with frames, the question mark and, where there is room, the letters of the options."""
    canvas = blank(picture[1], picture[0], WHITE)
    places = _layout(picture, panel)
    for x, y in _flat(places):
        canvas[y : y + panel, x : x + panel] = FRAME
        canvas[y + 1 : y + panel - 1, x + 1 : x + panel - 1] = WHITE
    inner = panel - 2
    x, y = places[2][2]
    canvas[y + 1 : y + 1 + inner, x + 1 : x + 1 + inner] = text_sprite(
        "?", inner * 3 // 4, BLACK, WHITE, True, inner, inner
    )
    height = min(40, (picture[1] - 4 * panel) // 5 - 4)
    if height >= 10:
        for letter, (x, y) in zip(LETTERS, places[3], strict=True):
            canvas[y - 2 - height : y - 2, x : x + panel] = text_sprite(
                letter, height * 3 // 4, BLACK, WHITE, True, panel, height
            )
    canvas.setflags(write=False)
    return canvas


def _draw_panel(sizes: AnalogySizes, panel: Panel) -> Ink:
    """The inside of a panel: lines first (where they cross the darker shows), shapes above them."""
    inner, side = sizes.panel - 2, (sizes.panel - 2) // sizes.positions
    if panel.lines:
        ink = _line_sprite(*panel.lines[0], inner, sizes.line_width)
        for i, (kind, color) in enumerate(panel.lines[1:]):
            sprite = _line_sprite(kind, color, inner, sizes.line_width)
            ink = np.minimum(ink, sprite, out=ink if i else None)
        ink = ink.copy() if len(panel.lines) == 1 and panel.shapes else ink
    else:
        ink = np.full((inner, inner), 255, dtype=np.uint8)
    for kind, color, size, (r, c) in panel.shapes:
        sprite, covered = _shape_sprite(kind, color, sizes.shape_px[SIZES.index(size)], sizes.outline, side)
        target = ink[(r - 1) * side : r * side, (c - 1) * side : c * side]
        if panel.lines:
            np.copyto(target, sprite, where=covered)
        else:
            target[:] = sprite
    return ink


@functools.lru_cache(maxsize=1024)
def _shape_sprite(kind: str, color: str, diameter: int, outline: int, side: int) -> tuple[Ink, NDArray[np.bool_]]:
    """A shape in the middle of a square of `side` pixels, and which pixels it covers."""
    k = _OVERSAMPLING
    corner, size, edge = (side - diameter) // 2 * k, diameter * k, outline * k
    ink = Image.new("L", (side * k, side * k), 255)
    cover = Image.new("L", ink.size, 0)
    for shrink, target, fill in ((0, ink, 0), (edge, ink, COLORS[color]), (0, cover, 255)):
        pen = ImageDraw.Draw(target)
        middle = corner + size / 2
        if kind == "circle":
            far = corner + size - 1 - shrink
            pen.ellipse([corner + shrink, corner + shrink, far, far], fill)
        elif kind == "rectangle":
            low = size * 0.2
            pen.rectangle(
                [corner + shrink, corner + low + shrink, corner + size - 1 - shrink, corner + size - 1 - low - shrink],
                fill,
            )
        else:
            num = {"triangle": 3, "pentagon": 5, "hexagon": 6}[kind]
            radius = size / 2 - shrink / np.cos(np.pi / num)  # edges move inwards by `shrink`
            down = size / 8 if num == 3 else 0.0
            radius += size / 12 if num == 3 else 0.0
            angles = [2 * np.pi * i / num - np.pi / 2 for i in range(num)]
            pen.polygon([(middle + radius * np.cos(a), middle + down + radius * np.sin(a)) for a in angles], fill)
    sprite, covered = (np.array(image.reduce(k)) for image in (ink, cover))
    sprite.setflags(write=False)
    return sprite, covered > 0


@functools.lru_cache(maxsize=256)
def _line_sprite(kind: str, color: str, side: int, width: int) -> Ink:
    """A line across a white square of `side` pixels."""
    k = _OVERSAMPLING
    end, low, middle = side * k - 1, side * k // 16, side * k // 2
    high = end - low
    points: Mapping[str, list[tuple[int, int]]] = {
        "falling": [(0, 0), (end, end)],
        "rising": [(0, end), (end, 0)],
        "horizontal": [(0, middle), (end, middle)],
        "vertical": [(middle, 0), (middle, end)],
        "diamond": [(middle, low), (high, middle), (middle, high), (low, middle), (middle, low), (high, middle)],
        "upward": [(low, low), (middle, high), (high, low)],
        "leftward": [(low, low), (high, middle), (low, high)],
        "downward": [(low, high), (middle, low), (high, high)],
        "rightward": [(high, low), (low, middle), (high, high)],
    }
    image = Image.new("L", (side * k, side * k), 255)
    pen = ImageDraw.Draw(image)
    if kind == "ring":
        margin = side * k // 4
        pen.ellipse([margin, margin, end - margin, end - margin], outline=COLORS[color], width=width * k)
    else:
        pen.line(points[kind], fill=COLORS[color], width=width * k, joint="curve")
    sprite = np.array(image.reduce(k))
    sprite.setflags(write=False)
    return sprite


def _check_held_out(held_out: Iterable[Sequence[str]] | None) -> frozenset[Pattern]:
    found = set()
    pairs = [] if isinstance(held_out, str | None) else list(held_out)
    if not pairs:
        raise ValueError(f"task.held_out={held_out!r}: a list of pairs of attribute and relation is expected")
    for pair in pairs:
        if not isinstance(pair, list | tuple) or len(pair) != 2:
            raise ValueError(f"task.held_out: {pair!r} is not a pair of attribute and relation")
        attribute, relation = pair
        for what, value, allowed in (("attribute", attribute, ATTRIBUTES), ("relation", relation, RELATIONS)):
            if value not in allowed:
                hint = nearest(str(value), allowed)
                raise ValueError(f"task.held_out: no {what} {value!r}; there are {', '.join(allowed)}{hint}")
        found.add((attribute, relation))
    return frozenset(found)


def _check_sizes(sizes: AnalogySizes) -> None:
    lists: list[tuple[str, Sequence[str], Sequence[str]]] = [
        ("shape_types", sizes.shape_types, SHAPE_TYPES),
        ("shape_colors", sizes.shape_colors, tuple(COLORS)),
        ("shape_sizes", sizes.shape_sizes, SIZES),
        ("line_types", sizes.line_types, LINE_TYPES),
        ("line_colors", sizes.line_colors, tuple(COLORS)[:-1]),
    ]
    for what, names, allowed in lists:
        if unknown := [name for name in names if name not in allowed]:
            raise ValueError(f"{what}: no {unknown[0]!r}; there are {', '.join(allowed)}{nearest(unknown[0], allowed)}")
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{what}={list(names)}: one or more different names are expected")
    numbers = [
        ("positions", sizes.positions, 1, MAX_SIDE),
        ("num_values", sizes.num_values, 1, len(COLORS)),
        ("both_percent", sizes.both_percent, 0, 100),
        ("outline", sizes.outline, 1, sizes.panel),
        ("line_width", sizes.line_width, 1, sizes.panel),
        ("panel", sizes.panel, 8, min(sizes.picture) // 4),
    ]
    for what, value, least, most in numbers:
        if not least <= value <= most:
            raise ValueError(f"{what}={value}: allowed is {least} to {most}")
    side = (sizes.panel - 2) // sizes.positions
    px = sizes.shape_px
    if min(px) < 3 or max(px) > side or list(px) != sorted(set(px)):
        raise ValueError(f"shape_px={list(px)}: four growing diameters of 3 to {side} px are expected")
    shapes = ("num_shapes", sizes.num_shapes, sizes.positions**2)
    for what, (low, high), most in (shapes, ("num_lines", sizes.num_lines, len(sizes.line_types))):
        if not 1 <= low <= high <= most:
            raise ValueError(f"{what}={[low, high]}: allowed is a range within 1 to {most}")


def _check_wording(wording: AnalogyWording) -> None:
    names = ("text", "legend", "attributes", "orders", "codes", "letter", "row", "attribute", "values")
    fields = dict.fromkeys((*names, "verdict", "relation", "wanted", "first", "second", "pattern", "patterns"), "")
    for f in dataclasses.fields(wording):
        template = getattr(wording, f.name)
        try:
            template.format(**fields)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ValueError(
                f"task.wording.{f.name}={template!r}: a template with {{fields}} that do not exist"
            ) from error
    given = [name.strip() for name in wording.attributes.split(",")]
    if len(set(given)) != len(ATTRIBUTES) or not all(given):
        raise ValueError(f"task.wording.attributes={wording.attributes!r}: seven different names, comma between")
    if len({name.strip() for name in wording.examples.split(",")}) != 2:
        raise ValueError(f"task.wording.examples={wording.examples!r}: two different names, comma between")
    if not _MARKER.search(wording.answer) or not wording.answer.endswith("option {letter}"):
        raise ValueError(f"task.wording.answer={wording.answer!r}: must hold Answer: and end with option {{letter}}")
