"""Grid Navigation (sections C.4, C.6.2, E.2): walk from start to destination, collect all objects, hit no obstacle.

The search is depth first over one stack. From a cell it heads for the nearest object that is not collected
yet (by rows plus columns; of equally near ones the first in reading order), or for the destination when all
are collected. Neighbours that come nearer to it are tried first, else in the order right, down, left, up;
the first one that is free is entered. When none is, the search goes back one cell. A cell is entered once;
an object is collected on entering its cell; the destination is entered last. The stack at the end is the
path: grids where an object was collected on a branch that the search gave up are not drawn, so the path
always solves the task. A search step is one move of the search, forward or back.

Cells are (row, column), counted from 1.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vlmreason.pictures import Picture, blank, text_sprite
from vlmreason.tasks.base import (
    MAX_RESPONSE_CHARS,
    Belongs,
    Modality,
    Score,
    Task,
    check_fields,
    choose_wording,
    pattern_of,
)
from vlmreason.tasks.cells import Cell, cell_name
from vlmreason.tasks.findings import Trace
from vlmreason.tasks.grids.search import (
    MOVES,
    OBJECTS,
    OBSTACLES,
    GridState,
    Head,
    Named,
    Search,
    _dead_end,
    all_cells,
    search,
    simulate,
)
from vlmreason.tasks.grids.wording import WORDINGS, GridWording, latex_grid

WHITE, BLACK, LINE = (255, 255, 255), (0, 0, 0), (150, 150, 150)
START_COLOR, DESTINATION_COLOR = (150, 205, 250), (0, 100, 0)

_MAX_SEARCHES = 3000
_MAX_DRAWS = 3000


@dataclass(frozen=True)
class GridLimits:
    """What a level allows, both ends included. `obstacle_percent` is the share of all cells."""

    num_objects: tuple[int, int]
    num_kinds: tuple[int, int]
    num_steps: tuple[int, int]
    obstacle_percent: tuple[int, int]


@dataclass(frozen=True)
class GridSizes:
    """Ranges include both ends. In pixels: `picture` (width, height), `cell` a side, `font` the symbols' size."""

    rows: tuple[int, int]
    cols: tuple[int, int]
    picture: tuple[int, int]
    cell: int
    font: int
    objects: tuple[str, ...]
    obstacles: tuple[str, ...]
    levels: dict[str, GridLimits]


def check_fits(grid: GridState, sizes: GridSizes, name: str) -> None:
    """Check that a grid from a file fits into the picture of these sizes. Raises ValueError."""
    width, height = sizes.picture
    if not (0 < (grid.rows + 1) * sizes.cell <= height and 0 < (grid.cols + 1) * sizes.cell <= width):
        raise ValueError(f"problem of {name}: {grid.rows} x {grid.cols} cells do not fit into the picture")


class GridNavigation(Task[GridState]):
    name = "grid_navigation"
    version = 1
    levels = ("simple", "hard")
    state_type = GridState
    explained = True
    sizes_type: ClassVar[type] = GridSizes

    def __init__(self, sizes: GridSizes, trace: str = "terse", wording: Mapping[str, str] | None = None) -> None:
        self.sizes = sizes
        self.wording: GridWording = choose_wording(WORDINGS, trace, wording or {})
        _check_sizes(sizes, self.levels)
        _check_wording(self.wording)
        self._tried: dict[tuple[str, Cell, str], str] = {}
        self._marker = re.compile(re.escape(self.wording.answer.removesuffix("{moves}").strip()), re.IGNORECASE)
        listed = pattern_of(self.wording.listed, {"name": _NAME, "cell": _CELL})
        several = f"(?:{listed}(?:{re.escape(self.wording.list_joint)}{listed})*)?"
        named = {"start": f"(?P<start>{_CELL})", "destination": f"(?P<destination>{_CELL})"}
        self._head = re.compile(pattern_of(self.wording.head.strip(), named | {"objects": f"(?P<objects>{several})"}))
        self._listed = re.compile(
            pattern_of(self.wording.listed, {"name": f"(?P<name>{_NAME})", "cell": f"(?P<cell>{_CELL})"})
        )

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> GridState:
        limits = self.sizes.levels[level]
        low, high = limits.num_steps
        most = 2 * self.sizes.rows[1] * self.sizes.cols[1] - 2
        if low > most:
            raise self.unreachable(level, f"num_steps={[low, high]}, but no search here has more than {most} steps")
        for _ in range(_MAX_SEARCHES):
            state = self._draw_state(level, limits, rng, belongs)
            if state is not None:
                found = search(state, high)
                if found.solved and low <= found.num_steps <= high:
                    return state
        raise self.unreachable(
            level,
            f"no grid of {_span(self.sizes.rows)} rows and {_span(self.sizes.cols)} columns with "
            f"{_span(limits.num_objects)} objects and {_span(limits.obstacle_percent)} % obstacles was found whose "
            f"search has num_steps={list(limits.num_steps)}",
        )

    def _draw_state(self, level: str, limits: GridLimits, rng: random.Random, belongs: Belongs) -> GridState | None:
        """One random grid; None when the numbers drawn do not fit, or an object lies in a dead end."""
        for _ in range(_MAX_DRAWS):
            rows, cols = rng.randint(*self.sizes.rows), rng.randint(*self.sizes.cols)
            num_objects = rng.randint(*limits.num_objects)
            if num_objects + 2 + limits.num_kinds[0] > rows * cols:
                return None
            cells = all_cells(rows, cols)
            start, destination, *places = rng.sample(cells, num_objects + 2)
            names = rng.sample(self.sizes.objects, num_objects)
            objects = tuple(sorted(zip(names, places, strict=True), key=_by_cell))
            if belongs(_key(rows, cols, start, destination, objects)):
                break
        else:
            raise self.unreachable(level, "the grids are too few to be divided into splits")
        num_kinds = rng.randint(*limits.num_kinds)
        num_obstacles = max(num_kinds, rows * cols * rng.randint(*limits.obstacle_percent) // 100)
        taken = {start, destination, *places}
        free = [cell for cell in cells if cell not in taken]
        if num_obstacles > len(free):
            return None
        kinds = rng.sample(self.sizes.obstacles, num_kinds)
        kinds += rng.choices(kinds, k=num_obstacles - num_kinds)
        walls = rng.sample(free, num_obstacles)
        if _dead_end(rows, cols, places, set(walls)):
            return None
        obstacles = tuple(sorted(zip(kinds, walls, strict=True), key=_by_cell))
        return GridState(rows, cols, start, destination, objects, obstacles)

    def key(self, state: GridState) -> object:
        return _key(state.rows, state.cols, state.start, state.destination, state.objects)

    def draw(self, state: GridState) -> Picture:
        width, height = self.sizes.picture
        side, size = self.sizes.cell, self.sizes.font
        picture = _empty_grid(state.rows, state.cols, width, height, side, size).copy()
        inner = side - 1  # the last pixel row and column of a cell are grid lines
        for (r, c), color in ((state.start, START_COLOR), (state.destination, DESTINATION_COLOR)):
            picture[r * side : r * side + inner, c * side : c * side + inner] = color
        for glyphs, items in ((OBJECTS, state.objects), (OBSTACLES, state.obstacles)):
            for name, (r, c) in items:
                sprite = text_sprite(glyphs[name], size, BLACK, WHITE, False, inner, inner)
                picture[r * side : r * side + inner, c * side : c * side + inner] = sprite
        return picture

    def text(self, state: GridState) -> str:
        return latex_grid(state)

    def prompt(self, state: GridState, modality: Modality) -> str:
        template = self.wording.prompt_text if modality == "text" else self.wording.prompt_image
        text = latex_grid(state) if modality == "text" else ""
        return template.format(text=text, obstacles=", ".join(self.sizes.obstacles))

    def convert(self, state: GridState) -> str:
        return self.wording.convert

    def thought(self, state: GridState) -> list[str]:
        """Return start, destination and objects; then one item per cell the search stands on, revisits included."""
        wording, steps = self.wording, _solution(state).steps
        targets = [(name, cell_name(cell)) for name, cell in state.objects]
        targets.append((wording.goal_name, cell_name(state.destination)))  # found as target -1
        items = [
            wording.head.format(
                start=cell_name(state.start),
                destination=cell_name(state.destination),
                objects=wording.list_joint.join(wording.listed.format(name=n, cell=c) for n, c in targets[:-1]),
            )
        ]
        for step in steps[:-1]:
            tried = [self._tried.get(one) or self._write_tried(one) for one in step.tried]
            if step.move == "back":
                tried.append(wording.back)
            target, target_cell = targets[step.target]
            items.append(
                wording.step.format(
                    cell=cell_name(step.cell),
                    target=target,
                    target_cell=target_cell,
                    tried=wording.tried_joint.join(tried),
                )
            )
        items.append(wording.done.format(cell=cell_name(steps[-1].cell)))
        return items

    def _write_tried(self, one: tuple[str, Cell, str]) -> str:
        move, cell, reason = one
        kind = "object" if reason in OBJECTS else "obstacle" if reason in OBSTACLES else reason
        template: str = getattr(self.wording, f"tried_{kind}")
        written = template.format(move=move, cell=cell_name(cell), name=reason)
        self._tried[one] = written
        return written

    def answer(self, state: GridState) -> str:
        cell, made = state.start, list[str]()
        for move in _solution(state).moves:
            cell = (cell[0] + MOVES[move][0], cell[1] + MOVES[move][1])
            made.append(self.wording.made.format(move=move, cell=cell_name(cell)))
        begin = self.wording.begin.format(start=cell_name(state.start))
        return self.wording.answer.format(moves=begin + " ".join(made))

    def score(self, state: GridState, response: str) -> Score:
        """Simulate the moves behind the last answer marker (appendix E.2).

        Only the words left, right, up and down count as an answer; cells among them are passed over. Parts:
        `inside` no move leaves the grid, `reaches_destination` the moves stay inside and end there,
        `objects_collected` the share of objects, `no_obstacle` no obstacle is entered.
        """
        moves = self.read_answer(response)
        names = ("reaches_destination", "objects_collected", "no_obstacle", "inside")
        if not moves:
            return Score(False, False, dict.fromkeys(names, 0.0))
        walk = simulate(state, moves)
        share = len(walk.collected) / len(state.objects) if state.objects else 1.0
        reaches = walk.inside and walk.end == state.destination
        correct = reaches and share == 1.0 and walk.num_obstacles == 0
        values = (float(reaches), share, float(walk.num_obstacles == 0), float(walk.inside))
        return Score(correct, True, dict(zip(names, values, strict=True)))

    def trace(self, state: GridState, thought: str) -> Trace | None:
        """Hold a thought against the search; None of a grid that the search does not solve."""
        return super().trace(state, thought) if search(state).solved else None

    def read_answer(self, response: str) -> list[str]:
        """Return the moves behind the last answer marker; [] when there is none or anything else stands there."""
        if len(response) > MAX_RESPONSE_CHARS:
            return []
        end = None
        for mark in self._marker.finditer(response):
            end = mark.end()
        words = [] if end is None else [word for word in response[end:].split() if not _IS_CELL.fullmatch(word)]
        return words if all(word in MOVES for word in words) else []

    def read_head(self, response: str) -> Head | None:
        """Return the start, destination and objects that a trace begins with; None where it does not begin like
        that."""
        found = self._head.search(response[:MAX_RESPONSE_CHARS])
        if found is None:
            return None
        places = found.groupdict()
        objects = [(m["name"], _read_cell(m["cell"])) for m in self._listed.finditer(places.get("objects") or "")]
        start, destination = (
            _read_cell(places[name]) if places.get(name) else None for name in ("start", "destination")
        )
        return Head(start, destination, tuple(objects))

    def state_from_json(self, data: object) -> GridState:
        state = super().state_from_json(data)
        named = [*state.objects, *state.obstacles]
        cells = [state.start, state.destination, *(cell for _, cell in named)]
        if any(not (1 <= r <= state.rows and 1 <= c <= state.cols) for r, c in cells):
            raise ValueError(f"problem of {self.name}: a cell lies outside the {state.rows} x {state.cols} grid")
        if len(set(cells)) < len(cells):
            raise ValueError(f"problem of {self.name}: two things share a cell")
        for items, known in ((state.objects, OBJECTS), (state.obstacles, OBSTACLES)):
            if unknown := [name for name, _ in items if name not in known]:
                raise ValueError(f"problem of {self.name}: {unknown[0]!r} is not one of {', '.join(known)}")
        check_fits(state, self.sizes, self.name)
        return state


_CELL = r"\([0-9]{1,3},[0-9]{1,3}\)"
_NAME = "[a-z]{1,40}"  # bounded, so that no response is slow to read
_IS_CELL = re.compile(_CELL)


def _read_cell(text: str) -> Cell:
    row, col = text.strip("()").split(",")
    return int(row), int(col)


def _solution(state: GridState) -> Search:
    found = search(state)
    if not found.solved:
        raise ValueError("this grid has no solution by the search of grid_navigation")
    return found


def _key(rows: int, cols: int, start: Cell, destination: Cell, objects: tuple[Named, ...]) -> object:
    return [rows, cols, start, destination, objects]


def _by_cell(item: Named) -> Cell:
    return item[1]


def _span(limits: tuple[int, int]) -> str:
    return str(limits[0]) if limits[0] == limits[1] else f"{limits[0]}-{limits[1]}"


@functools.lru_cache(maxsize=64)
def _empty_grid(rows: int, cols: int, width: int, height: int, side: int, font: int) -> Picture:
    """Lines, and the numbers of rows and columns in the first column and row of cells."""
    picture = blank(height, width, WHITE)
    bottom, right = (rows + 1) * side, (cols + 1) * side
    for r in range(1, rows + 1):
        picture[r * side : r * side + side - 1, : side - 1] = _tick(r, font, side)
    for c in range(1, cols + 1):
        picture[: side - 1, c * side : c * side + side - 1] = _tick(c, font, side)
    lines = np.array(LINE, dtype=np.uint8)
    picture[side - 1 : bottom, side - 1 : right : side] = lines
    picture[side - 1 : bottom : side, side - 1 : right] = lines
    picture.setflags(write=False)
    return picture


def _tick(number: int, font: int, side: int) -> Picture:
    return text_sprite(str(number), font * 2 // 3, BLACK, WHITE, False, side - 1, side - 1)


def _check_sizes(sizes: GridSizes, levels: tuple[str, ...]) -> None:
    if missing := [level for level in levels if level not in sizes.levels]:
        raise ValueError(f"task sizes of grid_navigation: no limits for level {missing[0]}")
    for what, names, known in (("objects", sizes.objects, OBJECTS), ("obstacles", sizes.obstacles, OBSTACLES)):
        if unknown := [name for name in names if name not in known]:
            raise ValueError(f"{what}={unknown[0]!r}: allowed are {', '.join(known)}")
        if len(set(names)) < len(names):
            raise ValueError(f"{what}={list(names)}: a name stands there twice")
    ranges = [("rows", sizes.rows, 1, sizes.picture[1] // sizes.cell - 1 if sizes.cell > 0 else 0)]
    ranges.append(("cols", sizes.cols, 1, sizes.picture[0] // sizes.cell - 1 if sizes.cell > 0 else 0))
    for level in levels:
        limits = sizes.levels[level]
        ranges.append((f"levels.{level}.num_objects", limits.num_objects, 1, len(sizes.objects)))
        ranges.append((f"levels.{level}.num_kinds", limits.num_kinds, 0, len(sizes.obstacles)))
        ranges.append((f"levels.{level}.num_steps", limits.num_steps, 1, 1_000_000))
        ranges.append((f"levels.{level}.obstacle_percent", limits.obstacle_percent, 0, 100))
    if sizes.cell < 4 or sizes.font < 3:
        raise ValueError(f"cell={sizes.cell}, font={sizes.font}: at least 4 and 3 pixels are needed")
    for what, (low, high), least, most in ranges:
        if not least <= low <= high <= most:
            raise ValueError(f"{what}={[low, high]}: allowed is a range within {least} to {most}")


def _check_wording(wording: GridWording) -> None:
    names = ("text", "obstacles", "start", "destination", "objects", "name", "cell", "target", "target_cell", "tried")
    check_fields(wording, (*names, "move", "moves"))
    if not wording.answer.endswith("{moves}") or not wording.answer.removesuffix("{moves}").strip():
        raise ValueError(f"task.wording.answer={wording.answer!r}: must be a marker followed by {{moves}}")
