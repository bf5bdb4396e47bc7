"""How matrices are written: text form, trace, answer, terse and verbose."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass

from vlmreason.tasks.base import ANSWER_MARKER, check_fields
from vlmreason.tasks.matrices.panels import CONFIGURATIONS, MIXED, Entity, MatrixSizes, Panel, members
from vlmreason.tasks.matrices.rules import RULES, Found

_CACHED = 2048  # levels as words; there are 511 sets of nine slots


@dataclass(frozen=True)
class MatrixWording:
    """Templates. Words are lists with commas between: `attributes` (number, position, type, size, color), `rules` (the
    four, and where there is none), `components` (first and second; "" stands for the only one).

    A line of the trace is `line`, with the levels of three rows; `no_rule` is its end where nothing is predicted. The
    choices that are ruled out follow `out`, each as `out_item` with the attribute whose rule it breaks.
    """

    prompt_text: str
    prompt_image: str
    convert: str
    entity: str
    entity_joint: str
    component_joint: str
    panel_joint: str
    choice: str
    attributes: str
    rules: str
    components: str
    mixed: str
    line: str
    rule: str
    no_rule: str
    row_joint: str
    out: str
    out_item: str
    out_joint: str
    out_end: str
    answer: str


_GIVEN = (
    "The three panels of every row follow a rule for each attribute of each component, which is {constant} with the "
    "same value, {progression} with the same step from each panel to the other, {arithmetic} where the third value is "
    "the sum of the first two or the first without the second, or {distribute} with the same three values in every "
    "row. To find the option that is the last panel, list the values and the rules. Finish with a line that begins "
    "with Answer: and gives the number of the option."
)

WORDINGS: Mapping[str, MatrixWording] = {
    "terse": MatrixWording(
        prompt_text="{text}\nWhich option fits?",
        prompt_image="Which option fits?",
        convert="Convert the picture to text:",
        entity="{type} {size} {color}",
        entity_joint="; ",
        component_joint=" | ",
        panel_joint=", ",
        choice="{number}: {panel}",
        attributes="number, place, shape, size, color",
        rules="same, step, sum, turn, any",
        components="One, Two",
        mixed="mixed",
        line="{component}: {attribute} {rows} {end}\n",
        rule="? {rule} {value}",
        no_rule="? {rule}",
        row_joint=", ",
        out="Not ",
        out_item="{number} {attribute}",
        out_joint=", ",
        out_end="\n",
        answer="Answer: {number}",
    ),
    "verbose": MatrixWording(
        prompt_text="Below is a puzzle of three rows of three panels, without the last one, and 8 options for it. A "
        "panel holds shapes, each with a size and a color.\n{text}\n" + _GIVEN,
        prompt_image="The picture shows a puzzle of three rows of three panels, without the last one, and 8 options "
        "for it in the two last rows. A panel holds shapes, each with a size and a color. " + _GIVEN,
        convert="Convert the puzzle in the picture to lists of shapes.",
        entity="{type} size {size} color {color}",
        entity_joint="; ",
        component_joint=" | ",
        panel_joint=", ",
        choice="Option {number}: {panel}",
        attributes="number, position, shape, size, color",
        rules="Constant, Progression, Arithmetic, Distribute three, no rule",
        components="first, second",
        mixed="mixed",
        line="The {component} component has {attribute} {rows}{end}\n",
        rule=" and ?. The rule is {rule}, so the last panel has {value}.",
        no_rule=" and ?, with {rule}.",
        row_joint=" / ",
        out="Not options ",
        out_item="{number} by {attribute}",
        out_joint=", ",
        out_end=".\n",
        answer="Answer: option {number}",
    ),
}


class Phrases:
    """What a wording says of entities, levels and rules. Raises ValueError for templates that do not fit."""

    def __init__(self, wording: MatrixWording, sizes: MatrixSizes) -> None:
        self.wording, self.sizes = wording, sizes
        _check(wording)
        names = [_listed(text) for text in (wording.attributes, wording.rules, wording.components)]
        on = ("number", "position", "type", "size", "color")
        self.attributes = dict(zip(on, names[0], strict=True))
        self.rules = dict(zip((*RULES, ""), names[1], strict=True))
        self.components = names[2]
        self._entities: dict[tuple[bool, int, int, int, int], str] = {}
        self.level = functools.lru_cache(maxsize=_CACHED)(self._level)

    def panel(self, panel: Panel, configuration: str) -> str:
        """Write what rules are about: no angles."""
        parts = CONFIGURATIONS[configuration].components
        found = []
        for part, entities in zip(parts, panel, strict=True):
            found.append(self.wording.entity_joint.join([self._entity(part.grid > 1, one) for one in entities]))
        return self.wording.component_joint.join(found)

    def _entity(self, slotted: bool, entity: Entity) -> str:
        slot, kind, size, color, _ = entity
        key = (slotted, slot, kind, size, color)
        text = self._entities.get(key)
        if text is None:
            text = self.wording.entity.format(type=self.sizes.types[kind - 1], size=size, color=color)
            text = self._entities[key] = f"{slot + 1} {text}" if slotted else text
        return text

    def _level(self, on: str, level: int) -> str:
        """Write a level of an attribute; a set of slots as their digits."""
        if level == MIXED:
            return self.wording.mixed
        if on == "position":
            return "".join([str(slot + 1) for slot in members(level)])
        return self.sizes.types[level - 1] if on == "type" else str(level)

    def line(self, component: str, on: str, levels: list[int], found: Found | None) -> str:
        """Write eight levels of an attribute and what follows from them."""
        wording, words = self.wording, [self.level(on, level) for level in levels]
        rows = wording.row_joint.join([" ".join(words[:3]), " ".join(words[3:6]), " ".join(words[6:])])
        if found is None:
            end = wording.no_rule.format(rule=self.rules[""])
        else:
            end = wording.rule.format(rule=self.rules[found.rule], value=self.level(on, found.predicted))
        return wording.line.format(component=component, attribute=self.attributes[on], rows=rows, end=end)


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _check(wording: MatrixWording) -> None:
    names = (
        "text",
        "type",
        "size",
        "color",
        "number",
        "panel",
        "component",
        "attribute",
        "rows",
        "end",
        "rule",
        "value",
    )
    check_fields(wording, (*names, "constant", "progression", "arithmetic", "distribute"))
    for name, num in (("attributes", 5), ("rules", 5), ("components", 2)):
        words = _listed(getattr(wording, name))
        if len(set(words)) != num or not all(words):
            raise ValueError(f"task.wording.{name}={getattr(wording, name)!r}: {num} different words, comma between")
    if not ANSWER_MARKER.search(wording.answer) or not wording.answer.endswith("{number}"):
        raise ValueError(f"task.wording.answer={wording.answer!r}: must hold Answer: and end with {{number}}")
