"""Generic skills on panels of shapes and lines with a wording that varies, to pretrain the nano model; no task of a
paper.

Objects and values of panels, all panels of a picture, single attributes of several of them, and sets of values side by
side. Panels are drawn independently of each other: there is no pattern, no query and no option to choose.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from vlmreason.pictures import Picture
from vlmreason.tasks.analogies.figure_skills import describe
from vlmreason.tasks.analogies.panels import AnalogySizes, AnalogyState, Panel, read
from vlmreason.tasks.analogies.visual_analogy import VisualAnalogy
from vlmreason.tasks.analogies.wording import lossy
from vlmreason.tasks.base import MAX_ATTEMPTS, Belongs
from vlmreason.tasks.captions import Captions, Slot, num_patches
from vlmreason.tasks.skills import Skills, ask

NUM_PANELS = 12
NUM_NAMED = 9
"""Panels that are asked for by their number where one of them is described."""

WORDS = ("shape", "color", "size", "number", "place", "line", "ink")
"""Names of a panel's attributes; the first five are of shapes, the others of lines."""
_NUM_OF_SHAPES = 5

VERBS: Mapping[str, tuple[str, ...]] = {
    "objects": ("Panel", "Describe"),
    "values": ("Kinds", "Summary"),
    "transcribe": ("Transcribe", "Write", "Render"),
    "attribute": ("Sort", "Pick"),
    "attributes": ("Sort", "Pick"),
    "relate": ("Compare", "Relate"),
}
NUM_ASKED = {"objects": (1, 3), "values": (1, 5)}


@dataclass(frozen=True)
class PanelReadingState:
    """Panels in reading order, of which the text lists the first `num_listed`; what is asked of them, and the reply."""

    skill: str
    panels: tuple[Panel, ...]
    num_listed: int
    question: str
    reply: str


class PanelReadingSkills(Skills[PanelReadingState]):
    name = "panel_reading_skills"
    version = 1
    text_only = ("relate",)
    levels = tuple(VERBS)
    state_type = PanelReadingState
    sizes_type: ClassVar[type] = AnalogySizes

    def __init__(self, sizes: AnalogySizes, trace: str = "terse", wording: Mapping[str, str] | None = None) -> None:
        self.sizes = sizes
        self._figures = VisualAnalogy(sizes, trace, wording)

    def state_from_json(self, data: object) -> PanelReadingState:
        state = super().state_from_json(data)
        num = 0 if state.skill in self.text_only else NUM_PANELS
        if len(state.panels) != num or not 0 <= state.num_listed <= num:
            raise ValueError(f"problem of {self.name}: {num} panels are expected, and a number of them that is listed")
        for panel in state.panels:
            try:
                read(panel)
            except KeyError as error:
                raise ValueError(f"problem of {self.name}: a panel has no value {error}") from error
        return state

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> PanelReadingState:
        for _ in range(MAX_ATTEMPTS):
            if level in self.text_only:
                question, reply = self._relate(rng)
                if belongs(question):
                    return PanelReadingState(level, (), 0, question, reply)
                continue
            panels = tuple(draw_panel(rng, self.sizes) for _ in range(NUM_PANELS))
            if belongs(_key(panels)) and (found := self._ask(level, rng, panels)) is not None:
                numbers, question, reply = found
                return PanelReadingState(level, panels, rng.randint(max(2, *numbers), NUM_PANELS), question, reply)
        raise self.unreachable(level, "the panels are too few to be divided into splits")

    def _ask(self, level: str, rng: random.Random, panels: tuple[Panel, ...]) -> tuple[Sequence[int], str, str] | None:
        """The panels' numbers, question and reply; None where no panel has what the skill is about."""
        verbs = VERBS[level]
        if level == "transcribe":
            width = rng.randint(1, 4)  # joined in rows of different lengths
            values = [lossy(read(panel), True) for panel in panels]
            rows = [", ".join(values[at : at + width]) for at in range(0, NUM_PANELS, width)]
            return [NUM_PANELS], ask(rng, verbs, str(width)), "\n".join(rows)
        if level in NUM_ASKED:
            numbers = rng.sample(range(1, NUM_NAMED + 1), rng.randint(*NUM_ASKED[level]))
            if rng.random() < 0.5:
                numbers.sort()
            written = [self._describe(level, panels[number - 1]) for number in numbers]
            reply = "\n".join(f"{number}: {one}" for number, one in zip(numbers, written, strict=True))
            return numbers, ask(rng, verbs, *map(str, numbers)), reply
        found = [self._attributes(panel) for panel in panels]
        if level == "attribute":
            name = rng.choice(WORDS[:_NUM_OF_SHAPES] if rng.random() < 0.7 else WORDS[_NUM_OF_SHAPES:])
            having, most, parts = [i for i, one in enumerate(found, 1) if name in one], 4, [name]
        else:
            lines = rng.random() < 0.4
            having, most, parts = [i for i, panel in enumerate(panels, 1) if bool(panel.lines) == lines], 3, []
        if not having:
            return None
        numbers = rng.sample(having, rng.randint(1, min(most, len(having))))
        names = parts or list(found[numbers[0] - 1])
        values = [", ".join(found[number - 1][name] for number in numbers) for name in names]
        reply = values[0] if parts else " ".join(f"{name} {one}" for name, one in zip(names, values, strict=True))
        return numbers, ask(rng, verbs, *parts, *map(str, numbers)), reply

    def _describe(self, level: str, panel: Panel) -> str:
        return describe(panel) if level == "objects" else lossy(read(panel), True)

    def _attributes(self, panel: Panel) -> dict[str, str]:
        """The values of a panel by the names of its attributes, in the order of the configuration."""
        found = {}
        for name, values, have in zip(WORDS, values_of(self.sizes), sets_of(panel), strict=True):
            if have:
                found[name] = " ".join(_word(value) for value in values if value in have)
        return found

    def _relate(self, rng: random.Random) -> tuple[str, str]:
        """Two sets of values, what is in both, in either and in one of them alone."""
        values = [_word(value) for value in rng.choice(values_of(self.sizes))]
        sets = [set(rng.sample(values, rng.randint(1, min(3, len(values))))) for _ in range(2)]
        a, b = sets

        def listed(some: set[str]) -> str:
            return " ".join(value for value in values if value in some) or "none"

        reply = f"both {listed(a & b)}, either {listed(a | b)}, one {listed(a ^ b)}"
        return ask(rng, VERBS["relate"], f"{listed(a)}, {listed(b)}"), reply

    def key(self, state: PanelReadingState) -> object:
        return _key(state.panels) if state.panels else state.question

    def picture(self, state: PanelReadingState) -> Picture:
        return self._figures.draw(_arranged(state.panels))

    def captions(self, patch: int) -> Captions:
        """Return the form: a panel is read from the first patch that lies wholly within it, all of its objects in
        slots of their own, and which values it has in bits. All tokens are free: what a decoder that was taught
        skills one by one reads of panels is too little to be kept."""
        s = self.sizes
        across, down = num_patches(s.picture, patch, f"task={self.name}")
        rows = self._figures.panel_places()
        corners = [corner for number, row in enumerate(rows) for corner in (row[:2] if number == 2 else row)]
        places = []
        for x, y in corners:
            col, row = -(-x // patch), -(-y // patch)
            if (col + 1) * patch > x + s.panel or (row + 1) * patch > y + s.panel:
                raise ValueError(f"task={self.name}: no patch of {patch} px lies within a panel, so it has no caption")
            places.append(row * across + col)
        of_shapes = (("type", s.shape_types), ("color", s.shape_colors), ("size", s.shape_sizes))
        slots = [Slot(name, 1 + len(values)) for name, values in of_shapes for _ in range(s.positions**2)]
        slots += [Slot("line", 1 + len(s.line_colors)) for _ in s.line_types]
        num_bits = sum(map(len, values_of(s)))
        everywhere = tuple(range(across * down))
        return Captions(tuple(places), tuple(slots), num_bits, 1 / 3, 0.3, bits_weight=3.0, free=everywhere)

    def caption(self, state: PanelReadingState) -> tuple[list[list[int]], list[list[int]]]:
        classes = [self._classes(panel) for panel in state.panels]
        bits = [
            [
                int(value in have)
                for values, have in zip(values_of(self.sizes), sets_of(panel), strict=True)
                for value in values
            ]
            for panel in state.panels
        ]
        return classes, bits

    def _classes(self, panel: Panel) -> list[int]:
        s = self.sizes
        num, shapes = s.positions**2, [0] * (3 * s.positions**2)
        for kind, color, size, (row, col) in panel.shapes:
            at = (row - 1) * s.positions + col - 1
            found = (s.shape_types.index(kind), s.shape_colors.index(color), s.shape_sizes.index(size))
            for attribute, value in enumerate(found):
                shapes[attribute * num + at] = 1 + value
        lines = [0] * len(s.line_types)
        for kind, color in panel.lines:
            lines[s.line_types.index(kind)] = 1 + s.line_colors.index(color)
        return shapes + lines

    def text(self, state: PanelReadingState) -> str:
        if not state.panels:
            return state.question
        listed = state.panels[: state.num_listed]
        return "\n".join(f"{number}: {lossy(read(panel), True)}" for number, panel in enumerate(listed, 1))


def draw_panel(rng: random.Random, sizes: AnalogySizes) -> Panel:
    """Draw a panel: lines in a fifth, else shapes, in half of the cases with few different values."""
    s = sizes
    if rng.random() < 0.2:
        kinds = rng.sample(range(len(s.line_types)), min(rng.randint(*s.num_lines), len(s.line_types)))
        return Panel((), tuple((s.line_types[kind], rng.choice(s.line_colors)) for kind in sorted(kinds)))
    cells = [(r, c) for r in range(1, s.positions + 1) for c in range(1, s.positions + 1)]
    places = sorted(rng.sample(cells, min(rng.randint(*s.num_shapes), len(cells))))
    few = rng.random() < 0.5
    types, colors, widths = (
        rng.choices(rng.sample(values, min(rng.randint(1, 2), len(values))) if few else values, k=len(places))
        for values in (s.shape_types, s.shape_colors, s.shape_sizes)
    )
    return Panel(tuple(zip(types, colors, widths, places, strict=True)), ())


def values_of(sizes: AnalogySizes) -> tuple[Sequence[object], ...]:
    """Return the values that each attribute of a panel may have, in the order of WORDS."""
    places = [(r, c) for r in range(1, sizes.positions + 1) for c in range(1, sizes.positions + 1)]
    counts = range(1, len(places) + 1)
    return (
        sizes.shape_types,
        sizes.shape_colors,
        sizes.shape_sizes,
        counts,
        places,
        sizes.line_types,
        sizes.line_colors,
    )


def sets_of(panel: Panel) -> tuple[set[object], ...]:
    """Return the values that a panel has of each attribute, in the order of WORDS; the number is of shapes of a
    type."""
    kinds = [shape[0] for shape in panel.shapes]
    counts: set[object] = {kinds.count(kind) for kind in kinds}
    kind_sets: list[set[object]] = [{shape[i] for shape in panel.shapes} for i in range(4)]
    types, colors, widths, places = kind_sets
    return types, colors, widths, counts, places, {line[0] for line in panel.lines}, {line[1] for line in panel.lines}


def _word(value: object) -> str:
    return f"({value[0]},{value[1]})" if isinstance(value, tuple) else str(value)


def _arranged(panels: tuple[Panel, ...]) -> AnalogyState:
    p = panels
    return AnalogyState(((p[0], p[1], p[2]), (p[3], p[4], p[5])), (p[6], p[7]), (p[8], p[9], p[10], p[11]))


def _key(panels: tuple[Panel, ...]) -> list[object]:
    return [[panel.shapes, panel.lines] for panel in panels]
