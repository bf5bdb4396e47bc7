"""Generic skills on panels of a matrix with a wording that varies, to pretrain the nano model; no task of a paper.

Panels and their attributes one by one, along rows and columns, counted and compared; and, in text alone, levels that go
on, that add up, that are missing. Panels are drawn independently of each other: no rule runs through them, and there is
nothing to choose. The upper nine are named by row and column, the lower eight by numbers.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from vlmreason.pictures import Picture
from vlmreason.structure import check_choice
from vlmreason.tasks.base import MAX_ATTEMPTS, Belongs, choose_wording
from vlmreason.tasks.captions import Captions, Slot, num_patches
from vlmreason.tasks.matrices.drawing import Artist
from vlmreason.tasks.matrices.panels import (
    CONFIGURATIONS,
    NUM_CHOICES,
    Entity,
    MatrixSizes,
    Panel,
    check_panel,
    members,
    read,
)
from vlmreason.tasks.matrices.sampler import key_of, pick
from vlmreason.tasks.matrices.wording import WORDINGS, MatrixWording, Phrases
from vlmreason.tasks.skills import Skills, ask

SIDE = 3
NAMES = (
    *(f"({row},{col})" for row in range(1, SIDE + 1) for col in range(1, SIDE + 1)),
    *(str(number) for number in range(1, NUM_CHOICES + 1)),
)
"""Of all panels, in the order of the picture."""
NUM_PANELS = len(NAMES)
COMPONENTS = ("One", "Two")
ATTRIBUTES: Mapping[str, str] = {
    "shape": "type",
    "size": "size",
    "color": "color",
    "number": "number",
    "place": "position",
}
"""What may be asked for, and what it is called where levels are written; the last two of grids alone."""
_IN_READING = {"place": 0, "number": 0, "shape": 1, "size": 2, "color": 3}
_SAME, _DIFFERENT = "same", "different"

VERBS: Mapping[str, tuple[str, ...]] = {
    "next": ("Next", "Follow"),
    "sums": ("Make", "Give"),
    "missing": ("Missing", "Tell"),
    "panels": ("Panel", "Describe"),
    "transcribe": ("Transcribe", "Write", "Render"),
    "attribute": ("Pick", "Get"),
    "row": ("Row", "Show"),
    "count": ("Count",),
    "compare": ("Compare", "Relate"),
}
_MOST_ASKED = 4


@dataclass(frozen=True)
class MatrixSkillSizes(MatrixSizes):
    """As those of matrices; `configurations`: which ones panels are drawn of."""

    configurations: tuple[str, ...]

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.configurations:
            check_choice("configurations", name, CONFIGURATIONS)
        if not self.configurations or len(set(self.configurations)) < len(self.configurations):
            raise ValueError(f"configurations={list(self.configurations)}: different ones are expected")


@dataclass(frozen=True)
class MatrixReadingState:
    """Panels in the order of NAMES, of which the text lists the first `num_listed`; the question and its reply."""

    skill: str
    configuration: str
    panels: tuple[Panel, ...]
    num_listed: int
    question: str
    reply: str


class MatrixReadingSkills(Skills[MatrixReadingState]):
    name = "matrix_reading_skills"
    version = 1
    text_only = ("next", "sums", "missing")
    levels = tuple(VERBS)
    state_type = MatrixReadingState
    sizes_type: ClassVar[type] = MatrixSkillSizes

    def __init__(self, sizes: MatrixSkillSizes, trace: str = "terse", wording: Mapping[str, str] | None = None) -> None:
        self.sizes = sizes
        check_choice("task.trace", trace, WORDINGS)  # without effect: questions and replies are part of a state
        chosen: MatrixWording = choose_wording(WORDINGS, "terse", wording or {})
        self.artist = Artist(sizes)
        self._phrases = Phrases(chosen, sizes)
        self._asks: Mapping[str, Callable[[random.Random, str, Sequence[Panel]], tuple[int, str, str]]] = {
            "panels": self._panels,
            "transcribe": self._transcribe,
            "attribute": self._attribute,
            "row": self._row,
            "count": self._count,
            "compare": self._compare,
        }
        self._bare: Mapping[str, Callable[[random.Random], tuple[str, str]]] = {
            "next": self._next,
            "sums": self._sums,
            "missing": self._missing,
        }

    def state_from_json(self, data: object) -> MatrixReadingState:
        state = super().state_from_json(data)
        num = 0 if state.skill in self.text_only else NUM_PANELS
        try:
            check_choice("configuration", state.configuration, ("", *CONFIGURATIONS))
            if (len(state.panels), bool(state.configuration)) != (num, num > 0) or not 0 <= state.num_listed <= num:
                raise ValueError(f"{num} panels are expected, and a number of them that is listed")
            for panel in state.panels:
                check_panel(panel, state.configuration, self.sizes)
        except ValueError as error:
            raise ValueError(f"problem of {self.name}: {error}") from error
        return state

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> MatrixReadingState:
        for _ in range(MAX_ATTEMPTS):
            if level in self.text_only:
                question, reply = self._bare[level](rng)
                if belongs(question):
                    return MatrixReadingState(level, "", (), 0, question, reply)
                continue
            configuration = pick(rng, self.sizes.configurations)
            panels = draw_several(rng, configuration, self.sizes, NUM_PANELS)
            if belongs(key_of(panels[:SIDE])):
                least, question, reply = self._asks[level](rng, configuration, panels)
                listed = rng.randint(max(2, least), NUM_PANELS)
                return MatrixReadingState(level, configuration, panels, listed, question, reply)
        raise self.unreachable(level, "there are too few different questions to be divided into splits")

    def key(self, state: MatrixReadingState) -> object:
        return key_of(state.panels[:SIDE]) if state.panels else state.question

    def picture(self, state: MatrixReadingState) -> Picture:
        return self.artist.panels(state.panels, state.configuration)

    def text(self, state: MatrixReadingState) -> str:
        if not state.panels:
            return state.question
        listed = zip(NAMES, state.panels[: state.num_listed], strict=False)
        return "\n".join(f"{name}: {self._phrases.panel(panel, state.configuration)}" for name, panel in listed)

    def captions(self, patch: int) -> Captions:
        """Return the form: a panel is one patch, free, with its configuration and each entity in slots of its own."""
        s = self.sizes
        across, _ = num_patches(s.picture, patch, f"task={self.name}")
        if s.panel != patch or any(x % patch or y % patch for x, y in self.artist.places):
            raise ValueError(f"task={self.name}: a panel is no patch of {patch} px, so it has no caption")
        numbers = (("type", len(s.types)), ("size", len(s.sizes)), ("color", len(s.colors)))
        slots = [Slot("configuration", 1 + len(s.configurations))]
        slots += [Slot(name, 1 + num) for most in self._most_slots for _ in range(most) for name, num in numbers]
        at = tuple(y // patch * across + x // patch for x, y in self.artist.places)
        return Captions(at, tuple(slots), slot_weight=1 / 3, nothing_weight=0.3, free=at)

    def caption(self, state: MatrixReadingState) -> tuple[list[list[int]], list[list[int]]]:
        number = 1 + self.sizes.configurations.index(state.configuration)
        return [[number, *self._classes(panel)] for panel in state.panels], [[] for _ in state.panels]

    @property
    def _most_slots(self) -> tuple[int, int]:
        """How many slots the first and the second component have at most."""
        parts = [CONFIGURATIONS[name].components for name in self.sizes.configurations]
        first, second = (max((part[i].grid ** 2 for part in parts if i < len(part)), default=0) for i in (0, 1))
        return first, second

    def _classes(self, panel: Panel) -> list[int]:
        found: list[int] = []
        for number, most in enumerate(self._most_slots):
            entities = {entity[0]: entity for entity in (panel[number] if number < len(panel) else ())}
            for slot in range(most):
                _, kind, size, color, _ = entities.get(slot, (0, 0, 0, -1, 0))
                found += [kind, size, color + 1]
        return found

    def _panels(self, rng: random.Random, configuration: str, panels: Sequence[Panel]) -> tuple[int, str, str]:
        """Some panels, each as a whole."""
        numbers = _some(rng)
        lines = [f"{NAMES[i]}: {self._phrases.panel(panels[i], configuration)}" for i in numbers]
        return max(numbers) + 1, ask(rng, VERBS["panels"], *(NAMES[i] for i in numbers)), "\n".join(lines)

    def _transcribe(self, rng: random.Random, configuration: str, panels: Sequence[Panel]) -> tuple[int, str, str]:
        """All panels, joined in rows of any length."""
        width = rng.randint(1, _MOST_ASKED)
        written = [self._phrases.panel(panel, configuration) for panel in panels]
        rows = [", ".join(written[at : at + width]) for at in range(0, NUM_PANELS, width)]
        return NUM_PANELS, ask(rng, VERBS["transcribe"], str(width)), "\n".join(rows)

    def _attribute(self, rng: random.Random, configuration: str, panels: Sequence[Panel]) -> tuple[int, str, str]:
        """One attribute of some panels."""
        numbers, (component, name, parts) = _some(rng), _name(rng, configuration)
        reply = self._levels([panels[i] for i in numbers], component, name)
        return max(numbers) + 1, ask(rng, VERBS["attribute"], *parts, *(NAMES[i] for i in numbers)), reply

    def _row(self, rng: random.Random, configuration: str, panels: Sequence[Panel]) -> tuple[int, str, str]:
        """One attribute along a row or a column of the upper panels, or along two."""
        lines = [_line(rng) for _ in range(rng.randint(1, 2))]
        component, name, parts = _name(rng, configuration)
        reply = ", ".join(self._levels([panels[i] for i in numbers], component, name) for numbers, _ in lines)
        where = ", ".join(words for _, words in lines)
        least = 1 + max(max(numbers) for numbers, _ in lines)
        return least, ask(rng, VERBS["row"], *_shuffled(rng, " ".join(parts), where)), reply

    def _count(self, rng: random.Random, configuration: str, panels: Sequence[Panel]) -> tuple[int, str, str]:
        """How many shapes panels have, or how many panels of a row or column have a level."""
        if any(part.grid > 1 for part in CONFIGURATIONS[configuration].components) and rng.random() < 0.5:
            numbers = _some(rng)
            found = [str(sum(map(len, panels[i]))) for i in numbers]
            return max(numbers) + 1, ask(rng, VERBS["count"], *(NAMES[i] for i in numbers)), " ".join(found)
        numbers, where = _line(rng)
        component, name, parts = _name(rng, configuration)
        levels = [self._levels([panels[i]], component, name) for i in numbers]
        level = pick(rng, levels)
        question = ask(rng, VERBS["count"], *_shuffled(rng, " ".join((*parts, level)), where))
        return max(numbers) + 1, question, str(levels.count(level))

    def _compare(self, rng: random.Random, configuration: str, panels: Sequence[Panel]) -> tuple[int, str, str]:
        """Which attributes two panels have in common."""
        numbers = rng.sample(range(NUM_PANELS), 2)
        found = []
        for component, part in enumerate(CONFIGURATIONS[configuration].components):
            one, other = (read(panels[i][component]) for i in numbers)
            names = ("place", *list(ATTRIBUTES)[:3]) if part.grid > 1 else tuple(ATTRIBUTES)[:3]
            words = [
                f"{name} {_SAME if one[_IN_READING[name]] == other[_IN_READING[name]] else _DIFFERENT}"
                for name in names
            ]
            found.append(" ".join((*_component(configuration, component), *words)))
        return max(numbers) + 1, ask(rng, VERBS["compare"], *(NAMES[i] for i in numbers)), ", ".join(found)

    def _levels(self, panels: Sequence[Panel], component: int, name: str) -> str:
        """A level of each panel, as they stand in rows of levels."""
        levels = [read(panel[component])[_IN_READING[name]] for panel in panels]
        if name == "number":
            levels = [len(members(level)) for level in levels]
        return " ".join(self._phrases.level(ATTRIBUTES[name], level) for level in levels)

    def _next(self, rng: random.Random) -> tuple[str, str]:
        """Two or three levels that rise or fall evenly, and the one that follows."""
        words, num = self._scale(rng), rng.choice((2, 2, 3))
        steps = [s for s in (-2, -1, 1, 2) if num * abs(s) < len(words)]
        step = pick(rng, steps)
        first = rng.randint(max(0, -num * step), len(words) - 1 - max(0, num * step))
        row = [words[first + i * step] for i in range(num + 1)]
        return ask(rng, VERBS["next"], *row[:-1]), row[-1]

    def _sums(self, rng: random.Random) -> tuple[str, str]:
        """Sums and differences of two levels, below ten."""
        asked, found = [], []
        for _ in range(rng.randint(1, 3)):
            large = rng.randint(0, 9)
            small = rng.randint(0, large)
            plus = rng.random() < 0.5
            asked.append(f"{small} + {large - small}" if plus else f"{large} - {small}")
            found.append(str(large if plus else large - small))
        return ask(rng, VERBS["sums"], ", ".join(asked)), " ".join(found)

    def _missing(self, rng: random.Random) -> tuple[str, str]:
        """Three or four different levels, and all but one of them once more."""
        words = self._scale(rng)
        row = rng.sample(words, rng.randint(3, 4))
        left = rng.sample(row, len(row) - 1)
        return ask(rng, VERBS["missing"], f"{' '.join(row)}, {' '.join(left)}"), next(w for w in row if w not in left)

    def _scale(self, rng: random.Random) -> Sequence[str]:
        return self.sizes.types if rng.random() < 0.4 else "0123456789"


def draw_several(rng: random.Random, configuration: str, sizes: MatrixSizes, num: int) -> tuple[Panel, ...]:
    """Draw panels of a configuration; in half of the cases of few different levels, so that some agree."""
    few = rng.random() < 0.5
    parts = []
    for number, part in enumerate(CONFIGURATIONS[configuration].components):
        _, *ranges = sizes.ranges(configuration, number)
        levels = [range(least, most + 1) for least, most in ranges]
        parts.append((part.grid**2, [rng.sample(some, min(len(some), 2)) if few else some for some in levels]))
    return tuple(tuple(_draw(rng, *part, len(sizes.angles)) for part in parts) for _ in range(num))


def _draw(rng: random.Random, num_slots: int, levels: Sequence[Sequence[int]], num_angles: int) -> tuple[Entity, ...]:
    """Entities of one component; in three of four panels alike."""
    slots = sorted(rng.sample(range(num_slots), rng.randint(1, num_slots))) if num_slots > 1 else [0]
    alike = [pick(rng, some) for some in levels]
    own = len(slots) > 1 and rng.random() < 0.25
    found: list[Entity] = []
    for slot in slots:
        kind, size, color = [pick(rng, some) for some in levels] if own else alike
        found.append((slot, kind, size, color, int(rng.random() * num_angles)))
    return tuple(found)


def _some(rng: random.Random) -> list[int]:
    return rng.sample(range(NUM_PANELS), rng.randint(1, _MOST_ASKED))


def _line(rng: random.Random) -> tuple[list[int], str]:
    """The panels of a row or a column, and its words."""
    at = rng.randint(1, SIDE)
    if rng.random() < 0.5:
        return [(at - 1) * SIDE + i for i in range(SIDE)], f"row {at}"
    return [i * SIDE + at - 1 for i in range(SIDE)], f"column {at}"


def _component(configuration: str, component: int) -> tuple[str, ...]:
    return (COMPONENTS[component],) if len(CONFIGURATIONS[configuration].components) > 1 else ()


def _name(rng: random.Random, configuration: str) -> tuple[int, str, tuple[str, ...]]:
    """A component, the name of one of its attributes, and the words for both."""
    parts = CONFIGURATIONS[configuration].components
    component = rng.randrange(len(parts))
    names = tuple(ATTRIBUTES) if parts[component].grid > 1 else tuple(ATTRIBUTES)[:3]
    name = pick(rng, names)
    return component, name, (*_component(configuration, component), name)


def _shuffled(rng: random.Random, first: str, second: str) -> tuple[str, str]:
    return (first, second) if rng.random() < 0.5 else (second, first)
