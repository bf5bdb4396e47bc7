"""How analogies are written: templates, text forms, phrases."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass

from vlmreason.tasks.analogies.panels import (
    _POSITION,
    ATTRIBUTES,
    COLORS,
    LETTERS,
    LINE_TYPES,
    SHAPE_TYPES,
    SIZES,
    Panel,
    Pattern,
    Reading,
    _members,
)
from vlmreason.tasks.base import check_fields

_CODES: Mapping[str, str] = {
    **dict(zip(SHAPE_TYPES, ("CIR", "TRI", "REC", "PEN", "HEX"), strict=True)),
    **dict(zip(COLORS, ("BK", "DK", "GR", "LT", "WH"), strict=True)),
    **dict(zip(SIZES, ("S", "M", "L", "X"), strict=True)),
    **dict(zip(LINE_TYPES, ("FAL", "RIS", "HOR", "VER", "DIA", "RNG", "VUP", "VLE", "VDO", "VRI"), strict=True)),
}
"""Abbreviations of the lossless text."""


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


def lossy(reading: Reading, compact: bool) -> str:
    """Write the values of a panel, attribute by attribute; which object has which is lost."""
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
        """Return one item per attribute that the panels have, by the second template for those without pattern."""
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


_MARKER = re.compile(r"answer\s{0,3}:", re.IGNORECASE)


_MAX_PHRASES = 200_000


def _check_wording(wording: AnalogyWording) -> None:
    names = ("text", "legend", "attributes", "orders", "codes", "letter", "row", "attribute", "values")
    check_fields(wording, (*names, "verdict", "relation", "wanted", "first", "second", "pattern", "patterns"))
    given = [name.strip() for name in wording.attributes.split(",")]
    if len(set(given)) != len(ATTRIBUTES) or not all(given):
        raise ValueError(f"task.wording.attributes={wording.attributes!r}: seven different names, comma between")
    if len({name.strip() for name in wording.examples.split(",")}) != 2:
        raise ValueError(f"task.wording.examples={wording.examples!r}: two different names, comma between")
    if not _MARKER.search(wording.answer) or not wording.answer.endswith("option {letter}"):
        raise ValueError(f"task.wording.answer={wording.answer!r}: must hold Answer: and end with option {{letter}}")
