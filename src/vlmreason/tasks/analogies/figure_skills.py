"""Generic skills on pictures of panels with shapes and lines, to pretrain the nano model; no task of a paper.

One skill per level: describe single panels, name one attribute of several, transcribe all of them. Panels
are drawn independently of each other: there is no pattern, no query and no option to choose.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from vlmreason.pictures import Picture
from vlmreason.tasks.analogies.panels import AnalogySizes, AnalogyState, Panel
from vlmreason.tasks.analogies.visual_analogy import VisualAnalogy
from vlmreason.tasks.base import MAX_ATTEMPTS, Belongs, Modality, Score, Task

NUM_PANELS = 9
_BLANK = Panel((), ())


@dataclass(frozen=True)
class FigureState:
    """Nine panels in reading order and the numbers (from 1) of those asked for."""

    skill: str
    panels: tuple[Panel, ...]
    asked: tuple[int, ...]


class FigureSkills(Task[FigureState]):
    name = "figure_skills"
    version = 1
    levels = ("panel", "kinds", "transcribe")
    state_type = FigureState
    sizes_type: ClassVar[type] = AnalogySizes

    def __init__(self, sizes: AnalogySizes, trace: str = "terse", wording: Mapping[str, str] | None = None) -> None:
        self.sizes = sizes
        self._figures = VisualAnalogy(sizes, trace, wording)

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> FigureState:
        for _ in range(MAX_ATTEMPTS):
            panels = tuple(self._panel(rng) for _ in range(NUM_PANELS))
            if belongs(_key(panels)):
                break
        else:
            raise self.unreachable(level, "the panels are too few to be divided into splits")
        num = {"panel": (1, 4), "kinds": (3, 9)}.get(level)
        asked = tuple(rng.sample(range(1, NUM_PANELS + 1), rng.randint(*num))) if num else ()
        return FigureState(level, panels, asked)

    def _panel(self, rng: random.Random) -> Panel:
        s = self.sizes
        if rng.random() < 0.4:
            kinds = rng.sample(range(len(s.line_types)), min(rng.randint(*s.num_lines), len(s.line_types)))
            return Panel((), tuple((s.line_types[k], rng.choice(s.line_colors)) for k in sorted(kinds)))
        cells = [(r, c) for r in range(1, s.positions + 1) for c in range(1, s.positions + 1)]
        places = sorted(rng.sample(cells, min(rng.randint(*s.num_shapes), len(cells))))
        return Panel(
            tuple(
                (rng.choice(s.shape_types), rng.choice(s.shape_colors), rng.choice(s.shape_sizes), place)
                for place in places
            ),
            (),
        )

    def key(self, state: FigureState) -> object:
        return _key(state.panels)

    def draw(self, state: FigureState) -> Picture:
        p = state.panels
        blanks = (_BLANK,) * 3
        return self._figures.draw(AnalogyState(((p[0], p[1], p[2]), (p[3], p[4], p[5])), (p[6], p[7]), (p[8], *blanks)))

    def text(self, state: FigureState) -> str:
        return "\n".join(f"{number}: {describe(panel)}" for number, panel in enumerate(state.panels, start=1))

    def prompt(self, state: FigureState, modality: Modality) -> str:
        question = " ".join([state.skill.capitalize(), *map(str, state.asked)])
        return f"{self.text(state)}\n{question}" if modality == "text" else question

    def convert(self, state: FigureState) -> str:
        return "Transcribe"

    def thought(self, state: FigureState) -> list[str]:
        return []

    def answer(self, state: FigureState) -> str:
        match state.skill:
            case "transcribe":
                return self.text(state)
            case "panel":
                return "\n".join(f"{n}: {describe(state.panels[n - 1])}" for n in state.asked)
            case _:
                return "\n".join(f"{n}: {_kinds(state.panels[n - 1])}" for n in state.asked)

    def score(self, state: FigureState, response: str) -> Score:
        """Return exact match of the whole reply."""
        return Score(correct=response.strip() == self.answer(state), parsed=bool(response.strip()))


def describe(panel: Panel) -> str:
    """Return every object with its values."""
    shapes = [f"{kind} {color} {size} ({r},{c})" for kind, color, size, (r, c) in panel.shapes]
    return "; ".join(shapes + [f"{kind} {color}" for kind, color in panel.lines])


def _kinds(panel: Panel) -> str:
    return " ".join([shape[0] for shape in panel.shapes] + [line[0] for line in panel.lines])


def _key(panels: tuple[Panel, ...]) -> list[Any]:
    return [[panel.shapes, panel.lines] for panel in panels]
