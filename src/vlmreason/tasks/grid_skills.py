"""Generic skills on grids of symbols, to pretrain the nano model; not a task of any paper.

One skill per level: what a cell holds, what is in the grid, what lies next to a cell, transcription. Grids
are scattered with symbols at random; nothing is searched for and no path is found.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from vlmreason.tasks.base import MAX_ATTEMPTS, Belongs, Modality, Picture, Score, Task
from vlmreason.tasks.grid_navigation import MOVES, Cell, GridNavigation, GridSizes, GridState

_SHARES = (0.1, 0.3, 0.5)


@dataclass(frozen=True)
class GridSkillState:
    """A grid and the cells asked for."""

    skill: str
    grid: GridState
    cells: tuple[Cell, ...]


class GridSkills(Task[GridSkillState]):
    name = "grid_skills"
    version = 1
    levels = ("holds", "places", "near", "transcribe")
    state_type = GridSkillState
    sizes_type: ClassVar[type] = GridSizes

    def __init__(self, sizes: GridSizes, trace: str = "terse", wording: Mapping[str, str] | None = None) -> None:
        self.sizes = sizes
        self._grids = GridNavigation(sizes, trace, wording)

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> GridSkillState:
        for _ in range(MAX_ATTEMPTS):
            rows, cols = rng.randint(*self.sizes.rows), rng.randint(*self.sizes.cols)
            every = [(r, c) for r in range(1, rows + 1) for c in range(1, cols + 1)]
            start, destination, *rest = rng.sample(every, len(every))
            filled = sorted(rest[: round(rng.choice(_SHARES) * len(rest))])
            named = [(rng.choice(self.sizes.objects + self.sizes.obstacles), cell) for cell in filled]
            grid = GridState(
                rows,
                cols,
                start,
                destination,
                tuple(item for item in named if item[0] in self.sizes.objects),
                tuple(item for item in named if item[0] in self.sizes.obstacles),
            )
            if belongs(_key(grid)):
                break
        else:
            raise self.unreachable(level, "the grids are too few to be divided into splits")
        num = {"holds": (3, 12), "near": (1, 4)}.get(level)
        return GridSkillState(level, grid, tuple(rng.sample(every, rng.randint(*num))) if num else ())

    def key(self, state: GridSkillState) -> object:
        return _key(state.grid)

    def draw(self, state: GridSkillState) -> Picture:
        return self._grids.draw(state.grid)

    def text(self, state: GridSkillState) -> str:
        return self._grids.text(state.grid)

    def prompt(self, state: GridSkillState, modality: Modality) -> str:
        question = " ".join([state.skill.capitalize(), *map(_name, state.cells)])
        return f"{self.text(state)}\n{question}" if modality == "text" else question

    def convert(self, state: GridSkillState) -> str:
        return "Transcribe"

    def thought(self, state: GridSkillState) -> list[str]:
        return []

    def answer(self, state: GridSkillState) -> str:
        content = _content(state.grid)
        match state.skill:
            case "transcribe":
                return self.text(state)
            case "holds":
                return " ".join(f"{_name(cell)} {content.get(cell, 'free')}" for cell in state.cells)
            case "places":
                return " ".join(f"{_name(cell)} {content[cell]}" for cell in sorted(content))
            case _:
                return " ".join(f"{_name(cell)} {_near(state.grid, content, cell)}" for cell in state.cells)

    def score(self, state: GridSkillState, response: str) -> Score:
        """Exact match of the whole reply."""
        return Score(correct=response.strip() == self.answer(state), parsed=bool(response.strip()))


def _name(cell: Cell) -> str:
    return f"({cell[0]},{cell[1]})"


def _content(grid: GridState) -> dict[Cell, str]:
    return {grid.start: "S", grid.destination: "D"} | {cell: name for name, cell in grid.objects + grid.obstacles}


def _near(grid: GridState, content: Mapping[Cell, str], cell: Cell) -> str:
    """The neighbours of a cell, each as move and content."""
    found = []
    for move, (dr, dc) in MOVES.items():
        r, c = cell[0] + dr, cell[1] + dc
        inside = 1 <= r <= grid.rows and 1 <= c <= grid.cols
        found.append(f"{move} {content.get((r, c), 'free') if inside else 'outside'}")
    return " ".join(found)


def _key(grid: GridState) -> list[object]:
    return [grid.rows, grid.cols, [[name, *cell] for name, cell in grid.objects + grid.obstacles], [*grid.start]]
