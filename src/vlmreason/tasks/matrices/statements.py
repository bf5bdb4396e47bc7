"""What the trace of a matrix states, and which of it a response has right.

A trace states levels of eight panels, a rule and what it predicts for every attribute of every component, and for every
wrong choice an attribute whose rule it breaks. What is right is derived from the panels.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from vlmreason.tasks.matrices.panels import CONFIGURATIONS, MatrixState
from vlmreason.tasks.matrices.rules import Found, Ruled, Solution
from vlmreason.tasks.matrices.wording import Phrases

_WORD = re.compile(r"[A-Za-z0-9]+")
_MAX_LINE = 1000
KINDS = ("levels", "rules", "predictions", "ruled_out")


class Line(NamedTuple):
    """Levels of an attribute of a component, and its rule (None: nothing is predicted)."""

    component: int
    on: str
    levels: list[int]
    found: Found | None


def lines(solution: Solution, configuration: str) -> list[Line]:
    """Return what the trace lists: every attribute, but not the place where there is one slot."""
    found = []
    parts = CONFIGURATIONS[configuration].components
    for number, (part, ruled) in enumerate(zip(parts, solution.components, strict=True)):
        for attribute in range(0 if part.grid > 1 else 1, 4):
            found.append(_line(number, attribute, ruled))
    return found


def _line(component: int, attribute: int, ruled: Ruled) -> Line:
    rules = ruled.rules[attribute]
    rule = rules[0] if rules else None
    on = rule.on if rule else ("position", "type", "size", "color")[attribute]
    levels = [reading[attribute] for reading in ruled.readings]
    return Line(component, on, [level.bit_count() for level in levels] if on == "number" else levels, rule)


class Statements:
    """Writes the trace and reads it."""

    def __init__(self, phrases: Phrases) -> None:
        self.phrases = phrases
        self.wording = phrases.wording
        self._head, _, self._rest = self.wording.line.partition("{rows}")
        self._words = {on: tuple(_WORD.findall(word.lower())) for on, word in phrases.attributes.items()}

    def written(self, state: MatrixState, solution: Solution) -> list[str]:
        """Return the trace in steps: a line for each attribute, then one for the choices that are ruled out."""
        phrases, parts = self.phrases, CONFIGURATIONS[state.configuration].components
        found = [
            phrases.line(phrases.components[line.component], line.on, line.levels, line.found)
            for line in lines(solution, state.configuration)
        ]
        items = []
        for number, broken in enumerate(solution.broken):
            if broken:
                component, attribute = broken[0]
                item = self._attribute(solution.components[component], attribute)
                name = f"{phrases.components[component]} {item}" if len(parts) > 1 else item
                items.append(self.wording.out_item.format(number=number + 1, attribute=name))
        found.append(self.wording.out + self.wording.out_joint.join(items) + self.wording.out_end)
        return found

    def _attribute(self, ruled: Ruled, attribute: int) -> str:
        return self.phrases.attributes[ruled.rules[attribute][0].on]

    def right(self, state: MatrixState, solution: Solution, response: str) -> Mapping[str, list[bool]]:
        """Tell statement by statement, for each of KINDS, what a response has right; the last line of a name counts."""
        given = response.splitlines()
        found: dict[str, list[bool]] = {kind: [] for kind in KINDS}
        for line in lines(solution, state.configuration):
            levels, rule, value = self.read(given, line)
            wanted = [self.phrases.level(line.on, level) for level in line.levels]
            found["levels"] += [i < len(levels) and levels[i] == word for i, word in enumerate(wanted)]
            found["rules"].append(rule == (line.found.rule if line.found else ""))
            if line.found:
                found["predictions"].append(value == self.phrases.level(line.on, line.found.predicted))
        out = self._ruled_out(given)
        for number, broken in enumerate(solution.broken):
            if broken:
                names = [self._words[self._on(solution, *one)] for one in broken]
                said = out.get(number, ())
                found["ruled_out"].append(any(said[-len(name) :] == name for name in names))
        return found

    def _on(self, solution: Solution, component: int, attribute: int) -> str:
        return solution.components[component].rules[attribute][0].on

    def read(self, given: Sequence[str], line: Line) -> tuple[list[str], str | None, str]:
        """Return levels, rule (None: none that there is) and prediction that a response gives for an attribute."""
        head = self._head.format(
            component=self.phrases.components[line.component], attribute=self.phrases.attributes[line.on]
        ).strip()
        text = next((one for one in reversed(given) if one.startswith(head)), "")[len(head) :][:_MAX_LINE]
        rows, _, end = text.partition("?")
        levels = [word for word in _WORD.findall(rows) if word != "and"]
        words = " ".join(_WORD.findall(end))
        named = [
            name for name, word in self.phrases.rules.items() if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", words)
        ]
        return levels, named[0] if len(named) == 1 else None, words.rpartition(" ")[2]

    def _ruled_out(self, given: Sequence[str]) -> dict[int, tuple[str, ...]]:
        """The words that a response has for each choice that it rules out."""
        head = self.wording.out.strip()
        text = next((one for one in reversed(given) if one.startswith(head)), "")[len(head) :][:_MAX_LINE]
        found: dict[int, tuple[str, ...]] = {}
        for item in text.split(self.wording.out_joint.strip() or "\n"):
            words = [word.lower() for word in _WORD.findall(item)]
            if len(words) > 1 and words[0].isdecimal() and len(words[0]) == 1:
                found[int(words[0]) - 1] = tuple(words[1:])
        return found
