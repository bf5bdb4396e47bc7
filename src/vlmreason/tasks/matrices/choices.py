"""Eight choices for the missing panel: with RAVEN's shortcut, or without it.

`raven`: every wrong choice differs from the answer in one attribute, so the answer is the mode of the set and can be
told without the matrix. `iraven` (attribute bisection): three attributes have one other value each, and the choices are
all eight combinations; every value occurs in four of them, so no choice stands out.

An attribute can be changed where a rule predicts it. Choices differ in what rules are about, never in angles alone.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence

from vlmreason.tasks.matrices.panels import MIXED, NUM_CHOICES, PLACE, Entity, MatrixSizes, Panel, members, read
from vlmreason.tasks.matrices.sampler import Draft, other_place, pick

CHOICES = ("raven", "iraven")
_NUMBER = "number"
Changeable = tuple[int, str]
"""A component and what of it: number, place, type, size, color."""
Entities = tuple[Entity, ...]
_LEVELS = ("type", "size", "color")


def changeable(drafts: Sequence[Draft], ranges: Sequence[Sequence[tuple[int, int]]]) -> list[Changeable]:
    """Return what of the answer may be changed so that a rule is broken."""
    found: list[Changeable] = []
    for number, draft in enumerate(drafts):
        (_, num_slots), *levels = ranges[number]
        if num_slots > 1:
            found.append((number, _NUMBER))
            if draft.place == "position":
                found.append((number, PLACE))
        for attribute, (least, most) in enumerate(levels, start=1):
            if least < most and attribute not in draft.noise:
                found.append((number, _LEVELS[attribute - 1]))
    return found


class Editor:
    """Changes attributes of one answer."""

    def __init__(
        self, rng: random.Random, answer: Panel, ranges: Sequence[Sequence[tuple[int, int]]], sizes: MatrixSizes
    ) -> None:
        self.rng, self.answer, self.ranges, self.num_angles = rng, answer, ranges, len(sizes.angles)
        self.readings = [read(entities) for entities in answer]

    def other_level(self, component: int, attribute: str, used: Sequence[int]) -> int | None:
        """Draw a level that no entity of the answer has and that was not used; None: there is none."""
        index = _LEVELS.index(attribute) + 1
        least, most = self.ranges[component][index]
        taken = {*used, *(entity[index] for entity in self.answer[component])}
        left = [level for level in range(least, most + 1) if level not in taken]
        return pick(self.rng, left) if left else None

    def other_number(self, component: int, used: Sequence[int]) -> int | None:
        """Draw a number of entities that the answer has not and that was not used."""
        mask, (_, num_slots) = self.readings[component][0], self.ranges[component][0]
        left = [n for n in range(1, num_slots + 1) if n != mask.bit_count() and n not in used]
        return pick(self.rng, left) if left else None

    def place(self, component: int, size: int, used: Sequence[int]) -> int:
        """Draw a set of so many slots that was not used; 0: there is none."""
        return other_place(self.rng, self.ranges[component][0][1], size, used)

    def moved(self, component: int, mask: int) -> Entities:
        """Put the answer's entities, in their order, into other slots; of further ones each is like one of them."""
        old = self.answer[component]
        slots = members(mask)
        found: list[Entity] = []
        for i, slot in enumerate(slots):
            _, kind, size, color, angle = old[i % len(old)]
            found.append((slot, kind, size, color, angle if i < len(old) else int(self.rng.random() * self.num_angles)))
        return tuple(found)


def leveled(entities: Entities, attribute: str, level: int) -> Entities:
    """Give all entities one level of an attribute."""
    if attribute == "type":
        return tuple([(slot, level, size, color, angle) for slot, _, size, color, angle in entities])
    if attribute == "size":
        return tuple([(slot, kind, level, color, angle) for slot, kind, _, color, angle in entities])
    return tuple([(slot, kind, size, level, angle) for slot, kind, size, _, angle in entities])


def raven(editor: Editor, changes: Sequence[Changeable]) -> list[Panel] | None:
    """Return seven panels that differ from the answer in one attribute each; None: there are not so many."""
    used: dict[Changeable, list[int]] = {change: [] for change in changes}
    open_changes = list(changes)
    found: list[Panel] = []
    while len(found) < NUM_CHOICES - 1:
        if not open_changes:
            return None
        change = pick(editor.rng, open_changes)
        component, attribute = change
        if attribute in (_NUMBER, PLACE):
            mask = editor.readings[component][0]
            size = mask.bit_count() if attribute == PLACE else editor.other_number(component, used[change])
            value = size and editor.place(component, size, [mask, *used[change]] if attribute == PLACE else ())
            if not value:
                open_changes.remove(change)
                continue
            assert size
            entities = editor.moved(component, value)
            used[change].append(value if attribute == PLACE else size)
        else:
            level = editor.other_level(component, attribute, used[change])
            if level is None:
                open_changes.remove(change)
                continue
            entities = leveled(editor.answer[component], attribute, level)
            used[change].append(level)
        found.append((*editor.answer[:component], entities, *editor.answer[component + 1 :]))
    return found


def iraven(editor: Editor, changes: Sequence[Changeable]) -> list[Panel] | None:
    """Return the seven other combinations of three changes; None: there are no three."""
    left = [change for change in changes if _possible(editor, *change)]
    if len(left) < 3:
        return None
    chosen = editor.rng.sample(left, 3)
    by_component = []
    for component in range(len(editor.answer)):
        names = [attribute for number, attribute in chosen if number == component]
        by_component.append(_combinations(editor, component, names))
        if not by_component[-1]:
            return None
    return [tuple(panel) for panel in itertools.product(*by_component)][1:]


def _possible(editor: Editor, component: int, attribute: str) -> bool:
    """Whether there is another place of as many slots; of all else there is another level."""
    if attribute != PLACE:
        return True
    mask = editor.readings[component][0]
    return mask.bit_count() < editor.ranges[component][0][1]


def _combinations(editor: Editor, component: int, names: Sequence[str]) -> list[Entities]:
    """All combinations of changes of one component, the answer's own first."""
    own = editor.answer[component]
    found = [own]
    mask = editor.readings[component][0]
    if PLACE in names:
        other = editor.place(component, mask.bit_count(), [mask])
        found.append(editor.moved(component, other))
    if _NUMBER in names:
        number = editor.other_number(component, ())
        assert number is not None
        masks: list[int] = []
        for _ in range(len(found)):
            masks.append(editor.place(component, number, masks))
            if not masks[-1]:
                return []
        found += [editor.moved(component, other) for other in masks]
    for attribute in names:
        if attribute in _LEVELS:
            level = editor.other_level(component, attribute, ())
            if level is None:
                return []
            found += [leveled(entities, attribute, level) for entities in found]
    return found


def most_similar(choices: Sequence[Panel]) -> list[int]:
    """Return the choices that share most attributes with the others: a guess without the matrix."""
    attributes = [_attributes(panel) for panel in choices]
    shared = [sum(a == b for other in attributes for a, b in zip(one, other, strict=True)) for one in attributes]
    return [number for number, count in enumerate(shared) if count == max(shared)]


def _attributes(panel: Panel) -> list[object]:
    found: list[object] = []
    for entities in panel:
        mask, *levels = read(entities)
        found += [mask.bit_count(), mask]
        for at, level in enumerate(levels, start=1):
            found.append(tuple(entity[at] for entity in entities) if level == MIXED else level)
    return found
