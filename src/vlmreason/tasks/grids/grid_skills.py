"""Generic skills on grids of symbols, to pretrain the nano model; not a task of any paper.

One skill per level: what a cell holds, what is in the grid, what lies next to a cell, transcription; and, in
grids where every object stands once, where things are (D, the objects and S), which moves lead nearer to a
thing, which objects are close to a cell, and from S walks with given moves and trails on to any open neighbour.
Grids are scattered with symbols at random; nothing is searched for and no path is found.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from vlmreason.pictures import Picture
from vlmreason.tasks.base import MAX_ATTEMPTS, Belongs, Modality, Score, Task
from vlmreason.tasks.cells import Cell, cell_name
from vlmreason.tasks.grids.grid_navigation import GridNavigation, GridSizes, check_fits
from vlmreason.tasks.grids.search import MOVES, GridState, all_cells

_SHARES = (0.1, 0.3, 0.5)
_DISTINCT = ("find", "things", "around", "toward", "closest", "walk", "trail")
"""Skills of grids where every object stands once."""
_MAX_CELLS = 12
_QUESTIONS = {"things": "Which objects", "toward": "Which moves", "closest": "Which object"}  # else the skill's name


@dataclass(frozen=True)
class GridSkillState:
    """A grid, the cells asked for, the things asked for, and the moves of a walk."""

    skill: str
    grid: GridState
    cells: tuple[Cell, ...]
    things: tuple[str, ...]
    moves: tuple[str, ...]


class GridSkills(Task[GridSkillState]):
    name = "grid_skills"
    version = 1
    levels = ("holds", "places", "near", "transcribe", *_DISTINCT)
    state_type = GridSkillState
    sizes_type: ClassVar[type] = GridSizes

    def __init__(self, sizes: GridSizes, trace: str = "terse", wording: Mapping[str, str] | None = None) -> None:
        self.sizes = sizes
        self._grids = GridNavigation(sizes, trace, wording)

    def state_from_json(self, data: object) -> GridSkillState:
        state = super().state_from_json(data)
        check_fits(state.grid, self.sizes, self.name)
        return state

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> GridSkillState:
        for _ in range(MAX_ATTEMPTS):
            rows, cols = rng.randint(*self.sizes.rows), rng.randint(*self.sizes.cols)
            every = all_cells(rows, cols)
            start, destination, *rest = rng.sample(every, len(every))
            if level in _DISTINCT:
                named = self._distinct(rng, rest)
            else:
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
            if belongs(key_of(grid)):
                break
        else:
            raise self.unreachable(level, "the grids are too few to be divided into splits")
        num = {"holds": (3, 12), "near": (1, 4), "around": (2, 5)}.get(level)
        cells = tuple(rng.sample(every, rng.randint(*num))) if num else ()
        things: tuple[str, ...] = ()
        if level == "find":
            first, *known = rng.sample(["S", "D"], 2) + [name for name, _ in grid.objects]
            things = (first, *rng.sample(known, rng.randint(1, len(known))))
        elif level in ("toward", "closest"):  # some cells in reading order
            begin = rng.randrange(len(every))
            cells = tuple(every[begin : begin + _MAX_CELLS])
        return GridSkillState(level, grid, cells, things, _moves(rng) if level == "walk" else ())

    def _distinct(self, rng: random.Random, places: list[Cell]) -> list[tuple[str, Cell]]:
        """A few objects, each once, and some obstacles, in reading order."""
        names = rng.sample(self.sizes.objects, rng.randint(1, min(4, len(self.sizes.objects), len(places))))
        num_obstacles = round(rng.choice(_SHARES) * (len(places) - len(names)))
        names += rng.choices(self.sizes.obstacles, k=num_obstacles)
        return sorted(zip(names, places, strict=False), key=lambda item: item[1])

    def key(self, state: GridSkillState) -> object:
        return key_of(state.grid)

    def draw(self, state: GridSkillState) -> Picture:
        return self._grids.draw(state.grid)

    def text(self, state: GridSkillState) -> str:
        return self._grids.text(state.grid)

    def prompt(self, state: GridSkillState, modality: Modality) -> str:
        cells = state.cells[:1] + state.cells[-1:] if state.skill in ("toward", "closest") else state.cells
        asked = [*map(cell_name, cells), *state.things, *state.moves]
        question = " ".join([_QUESTIONS.get(state.skill, state.skill.capitalize()), *asked])
        return f"{self.text(state)}\n{question}" if modality == "text" else question

    def convert(self, state: GridSkillState) -> str:
        return "Transcribe"

    def thought(self, state: GridSkillState) -> list[str]:
        return []

    def answer(self, state: GridSkillState) -> str:
        content = content_of(state.grid)
        match state.skill:
            case "transcribe":
                return self.text(state)
            case "holds":
                return " ".join(f"{cell_name(cell)} {content.get(cell, 'free')}" for cell in state.cells)
            case "places":
                return " ".join(f"{cell_name(cell)} {content[cell]}" for cell in sorted(content))
            case "find":
                where = _where(state.grid)
                return " ".join(f"{thing} {cell_name(where[thing])}" for thing in state.things)
            case "around":
                return " ".join(f"{cell_name(cell)} {around(state.grid, content, cell)}" for cell in state.cells)
            case "things":
                return _things(state.grid)
            case "toward":  # the things in turn
                things = itertools.cycle([*_where(state.grid).items()])
                ways = [
                    f"{cell_name(cell)} {thing} {cell_name(there)} {_toward(cell, there)}"
                    for cell, (thing, there) in zip(state.cells, things, strict=False)
                ]
                return " ".join([_things(state.grid), *ways])
            case "closest":
                return " ".join(
                    [_things(state.grid), *(f"{cell_name(c)} {_closest(state.grid, c)}" for c in state.cells)]
                )
            case "trail":
                return _trail(state)
            case "walk":
                return _walk(state)
            case _:
                return " ".join(f"{cell_name(cell)} {_near(state.grid, content, cell)}" for cell in state.cells)

    def score(self, state: GridSkillState, response: str) -> Score:
        """Return exact match of the whole reply."""
        return Score(correct=response.strip() == self.answer(state), parsed=bool(response.strip()))


def content_of(grid: GridState) -> dict[Cell, str]:
    return {grid.start: "S", grid.destination: "D"} | {cell: name for name, cell in grid.objects + grid.obstacles}


def _near(grid: GridState, content: Mapping[Cell, str], cell: Cell) -> str:
    """The neighbours of a cell, each as move and content."""
    found = []
    for move, (dr, dc) in MOVES.items():
        r, c = cell[0] + dr, cell[1] + dc
        inside = 1 <= r <= grid.rows and 1 <= c <= grid.cols
        found.append(f"{move} {content.get((r, c), 'free') if inside else 'outside'}")
    return " ".join(found)


def _where(grid: GridState) -> dict[str, Cell]:
    """The cells of destination, objects in reading order, and start."""
    return {"D": grid.destination} | dict(grid.objects) | {"S": grid.start}


def _things(grid: GridState) -> str:
    return " ".join(f"{thing} {cell_name(cell)}" for thing, cell in _where(grid).items())


def around(grid: GridState, content: Mapping[Cell, str], cell: Cell) -> str:
    """Write the neighbours of a cell, each as move, cell and content."""
    found = []
    for move, (dr, dc) in MOVES.items():
        there = (cell[0] + dr, cell[1] + dc)
        found.append(f"{move} {_seen(grid, content, there)}")
    return " ".join(found)


def _seen(grid: GridState, content: Mapping[Cell, str], cell: Cell) -> str:
    """What looking at a cell, or out of the grid, shows."""
    inside = 1 <= cell[0] <= grid.rows and 1 <= cell[1] <= grid.cols
    return f"{cell_name(cell)} {content.get(cell, 'free')}" if inside else "outside"


def _toward(cell: Cell, target: Cell) -> str:
    """All moves, those that come nearer to the target first."""
    rows, cols = target[0] - cell[0], target[1] - cell[1]
    return " ".join(sorted(MOVES, key=lambda move: MOVES[move][0] * rows + MOVES[move][1] * cols <= 0))


def _closest(grid: GridState, cell: Cell) -> str:
    """The objects from close to far by rows plus columns, equally close ones in reading order."""
    ordered = sorted(grid.objects, key=lambda one: (abs(one[1][0] - cell[0]) + abs(one[1][1] - cell[1]), one[1]))
    return " ".join(f"{name} {cell_name(there)}" for name, there in ordered)


def _moves(rng: random.Random) -> tuple[str, ...]:
    """Moves that keep their direction for a while."""
    moves = [rng.choice(list(MOVES))]
    for _ in range(rng.randint(3, 13)):
        moves.append(moves[-1] if rng.random() < 0.4 else rng.choice(list(MOVES)))
    return tuple(moves)


def _walk(state: GridSkillState) -> str:
    """Things with their places, the walk from S, and the moves made with their cells.

    A move that would lead outside, to an obstacle or to a cell visited before is not made.
    """
    grid, content = state.grid, content_of(state.grid)
    blocked, visited = {cell for _, cell in grid.obstacles}, set[Cell]()
    cell = grid.start
    written, made = [_things(grid), cell_name(cell)], list[str]()
    for move in state.moves:
        visited.add(cell)
        there = (cell[0] + MOVES[move][0], cell[1] + MOVES[move][1])
        written.append(f"{move} {_seen(grid, {**content, **dict.fromkeys(visited, 'visited')}, there)}")
        if written[-1].endswith("outside") or there in blocked or there in visited:
            continue
        cell = there
        written.append(cell_name(cell))
        made.append(f"{move} {cell_name(there)}")
    return " ".join([*written, ":", *(made or ["none"])])


def _trail(state: GridSkillState) -> str:
    """Things with their places, the trail from S, and the moves made with their cells.

    At every cell the moves are tried in the order of MOVES, and the first that leads to a cell without obstacle
    that was not visited before is made, until there is none.
    """
    grid, content = state.grid, content_of(state.grid)
    closed = {cell for _, cell in grid.obstacles}
    trail, made = [grid.start], list[str]()
    written = [_things(grid), cell_name(grid.start)]
    for cell in trail:  # grows on the way
        closed.add(cell)
        content[cell] = "visited"
        for move, (dr, dc) in MOVES.items():
            there = (cell[0] + dr, cell[1] + dc)
            written.append(f"{move} {_seen(grid, content, there)}")
            if there not in closed and not written[-1].endswith("outside"):
                trail.append(there)
                written.append(cell_name(there))
                made.append(f"{move} {cell_name(there)}")
                break
    return " ".join([*written, ":", *(made or ["none"])])


def key_of(grid: GridState) -> list[object]:
    return [grid.rows, grid.cols, [[name, *cell] for name, cell in grid.objects + grid.obstacles], [*grid.start]]
