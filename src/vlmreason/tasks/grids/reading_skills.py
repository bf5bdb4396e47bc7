"""Generic skills on grids of symbols with a wording that varies, to pretrain the nano model; not a task of any paper.

What cells hold, which cells hold something, what lies around them, where things are, transcription; and walks, trails,
ways toward things and the closest things as in `grid_skills`, worded anew. Long walks and trails are of text; pictures
get the short ones. Grids are scattered with symbols at random; nothing is searched for and no path is found.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from vlmreason.pictures import Picture
from vlmreason.tasks.base import MAX_ATTEMPTS, Belongs
from vlmreason.tasks.captions import Captions, Slot, num_patches
from vlmreason.tasks.cells import Cell, cell_name
from vlmreason.tasks.grids.grid_navigation import GridNavigation, GridSizes, check_fits
from vlmreason.tasks.grids.grid_skills import GridSkills, around, content_of, key_of
from vlmreason.tasks.grids.search import GridState, all_cells
from vlmreason.tasks.skills import Skills, ask

MOST_MOVES = 6
"""Of a short walk or trail."""

VERBS: Mapping[str, tuple[str, ...]] = {
    "holds": ("Holds", "Contains"),
    "filled": ("Holds", "Contains"),
    "near": ("Near", "Around"),
    "things": ("Things", "Objects"),
    "transcribe": ("Transcribe", "Write", "Render"),
}
OLDER = {"walk": "walk", "short_walk": "walk", "trail": "trail", "short_trail": "trail"}
OLDER |= {"toward": "toward", "closest": "closest"}
"""Skills whose problems are those of a level of `grid_skills`."""

SHARES = (0.1, 0.3, 0.5)
"""How much of a grid is filled."""


@dataclass(frozen=True)
class GridReadingState:
    """A grid, what is asked of it, and the reply."""

    skill: str
    grid: GridState
    question: str
    reply: str


class GridReadingSkills(Skills[GridReadingState]):
    name = "grid_reading_skills"
    version = 1
    levels = (*VERBS, *OLDER)
    state_type = GridReadingState
    sizes_type: ClassVar[type] = GridSizes

    def __init__(self, sizes: GridSizes, trace: str = "terse", wording: Mapping[str, str] | None = None) -> None:
        self.sizes = sizes
        self._grids, self._older = GridNavigation(sizes, trace, wording), GridSkills(sizes, trace, wording)

    def state_from_json(self, data: object) -> GridReadingState:
        state = super().state_from_json(data)
        check_fits(state.grid, self.sizes, self.name)
        return state

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> GridReadingState:
        for _ in range(MAX_ATTEMPTS):
            if level in OLDER:
                old = self._older._sample(OLDER[level], rng, belongs)
                verb, *parts = self._older.prompt(old, "image").split(" ")
                reply = self._older.answer(old)
                if not level.startswith("short") or reply.rpartition(":")[2].count("(") <= MOST_MOVES:
                    return GridReadingState(level, old.grid, ask(rng, (verb,), *parts), reply)
                continue
            grid = self._grid(rng)
            if belongs(key_of(grid)):
                question, reply = self._ask(level, rng, grid)
                return GridReadingState(level, grid, question, reply)
        raise self.unreachable(level, "the grids are too few to be divided into splits")

    def _grid(self, rng: random.Random) -> GridState:
        """A grid of scattered symbols, in half of the cases with few objects, each once."""
        s = self.sizes
        rows, cols = rng.randint(*s.rows), rng.randint(*s.cols)
        start, destination, *rest = rng.sample(all_cells(rows, cols), rows * cols)
        num = round(rng.choice(SHARES) * len(rest))
        if rng.random() < 0.5:
            names = rng.sample(s.objects, rng.randint(1, min(4, len(s.objects))))
            kinds = rng.sample(s.obstacles, rng.randint(1, len(s.obstacles)))
            names += rng.choices(kinds, k=num)
        else:
            names = rng.choices(s.objects + s.obstacles, k=num)
        items = sorted(zip(names, rest, strict=False), key=lambda item: item[1])
        kinds_of = (s.objects, s.obstacles)
        objects, obstacles = (tuple(item for item in items if item[0] in kind) for kind in kinds_of)
        return GridState(rows, cols, start, destination, objects, obstacles)

    def _ask(self, level: str, rng: random.Random, grid: GridState) -> tuple[str, str]:
        content, verbs = content_of(grid), VERBS[level]
        match level:
            case "holds":
                cells = _some(rng, grid, 3, 12)
                return ask(rng, verbs, *map(cell_name, cells)), _each(cells, lambda cell: content.get(cell, "free"))
            case "near":
                cells = _some(rng, grid, 1, 4)
                return ask(rng, verbs, *map(cell_name, cells)), _each(cells, lambda cell: around(grid, content, cell))
            case "filled":
                return ask(rng, verbs, "all"), " ".join(f"{cell_name(cell)} {name}" for name, cell in _things(grid))
            case "things":
                return ask(rng, verbs), " ".join(f"{name} {cell_name(cell)}" for name, cell in _things(grid))
            case _:
                return ask(rng, verbs), self._grids.text(grid)

    def key(self, state: GridReadingState) -> object:
        return key_of(state.grid)

    def picture(self, state: GridReadingState) -> Picture:
        return self._grids.draw(state.grid)

    def captions(self, patch: int) -> Captions:
        """Return the form: every cell is a patch, empty, a symbol, S or D, or a number at the border."""
        across, down = num_patches(self.sizes.picture, patch, f"task={self.name}")
        if self.sizes.cell != patch:
            raise ValueError(f"task={self.name}: a cell is no patch of {patch} px, so patches have no captions")
        return Captions(tuple(range(across * down)), (Slot("cell", 1 + len(self._signs())),))

    def caption(self, state: GridReadingState) -> tuple[list[list[int]], list[list[int]]]:
        grid, signs = state.grid, self._signs()
        content, found = content_of(grid), []
        (width, height), side = self.sizes.picture, self.sizes.cell
        for row, col in itertools.product(range(height // side), range(width // side)):
            if row > grid.rows or col > grid.cols or row == col == 0:
                found.append(0)
            else:
                shown = str(row + col) if 0 in (row, col) else content.get((row, col), "free")
                found.append(1 + signs.index(shown))
        return [[one] for one in found], [[] for _ in found]

    def _signs(self) -> list[str]:
        numbers = range(1, max(self.sizes.rows[1], self.sizes.cols[1]) + 1)
        return ["free", "S", "D", *map(str, numbers), *self.sizes.objects, *self.sizes.obstacles]

    def text(self, state: GridReadingState) -> str:
        return self._grids.text(state.grid)


def _things(grid: GridState) -> list[tuple[str, Cell]]:
    """S, D and the objects with their cells in reading order."""
    return sorted([("S", grid.start), ("D", grid.destination), *grid.objects], key=lambda item: item[1])


def _some(rng: random.Random, grid: GridState, least: int, most: int) -> list[Cell]:
    return rng.sample(all_cells(grid.rows, grid.cols), rng.randint(least, most))


def _each(cells: list[Cell], write: Callable[[Cell], str]) -> str:
    return " ".join(f"{cell_name(cell)} {write(cell)}" for cell in cells)
