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

import dataclasses
import functools
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import ClassVar, NamedTuple

import numpy as np

from vlmreason.tasks.base import (
    MAX_RESPONSE_CHARS,
    Belongs,
    Modality,
    Picture,
    Score,
    Task,
    choose_wording,
)
from vlmreason.tasks.drawing import blank, text_sprite

Cell = tuple[int, int]
Named = tuple[str, Cell]

MOVES: Mapping[str, Cell] = {"right": (0, 1), "down": (1, 0), "left": (0, -1), "up": (-1, 0)}
"""Moves as (rows, columns), in the order in which equally good ones are tried."""

OBJECTS: Mapping[str, str] = {
    "heart": "\u2665",
    "crown": "\u2654",
    "flag": "\u2691",
    "star": "\u2605",
    "flower": "\u273f",
    "umbrella": "\u2602",
    "plane": "\u2708",
    "phone": "\u260e",
    "spark": "\u2747",
    "diamond": "\u2666",
    "queen": "\u265b",
    "hammer": "\u2692",
    "club": "\u2663",
    "gear": "\u2699",
    "arrow": "\u2794",
    "sun": "\u2600",
    "bishop": "\u265d",
    "note": "\u266b",
    "coffee": "\u2615",
    "anchor": "\u2693",
    "cloud": "\u2601",
    "pawn": "\u265f",
    "castle": "\u265c",
    "horse": "\u265e",
    "infinity": "\u221e",
    "moon": "\u263e",
    "null": "\u2205",
    "approx": "\u2248",
    "integral": "\u222b",
    "product": "\u220f",
    "sum": "\u2211",
}
OBSTACLES: Mapping[str, str] = {
    "dot": "\u25cf",
    "cross": "\u2716",
    "square": "\u25a0",
    "triangle": "\u25b2",
    "plus": "\u271a",
}

_CLOSED = frozenset({"outside", "visited", "later", *OBSTACLES})

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


@dataclass(frozen=True)
class GridState:
    """Objects as (name, cell) and obstacles as (kind, cell), in reading order of their cells."""

    rows: int
    cols: int
    start: Cell
    destination: Cell
    objects: tuple[Named, ...]
    obstacles: tuple[Named, ...]


class Step(NamedTuple):
    """The search at one cell: the target it heads for, the neighbours tried as (move, cell, reason), the move made.

    `target` indexes the state's objects, -1 is the destination. A reason is "outside", "visited", "later" (the
    destination before all objects are collected), "free", "goal", or the name of the obstacle or object there.
    `move` is a move, "back", or "" at the destination.
    """

    cell: Cell
    target: int
    tried: tuple[tuple[str, Cell, str], ...]
    move: str


class Search(NamedTuple):
    """A finished search: one step per cell it stood on, and the moves of the path without retraces.

    `solved`: the destination was reached and every object lies on the path.
    """

    steps: tuple[Step, ...]
    moves: tuple[str, ...]
    solved: bool

    @property
    def num_steps(self) -> int:
        return len(self.steps) - 1


@dataclass(frozen=True)
class GridWording:
    """Templates. Each `tried_*` is a neighbour with its reason. Thought steps are head, step..., done.

    `step` may also show {target_cell}. The answer's moves are `begin`, where {start} may
    stand, and one `made` for each, which may show {cell}, to which the move leads.
    """

    prompt_text: str
    prompt_image: str
    convert: str
    head: str
    listed: str
    list_joint: str
    goal_name: str
    step: str
    tried_joint: str
    tried_outside: str
    tried_visited: str
    tried_obstacle: str
    tried_later: str
    tried_free: str
    tried_object: str
    tried_goal: str
    back: str
    done: str
    begin: str
    made: str
    answer: str


WORDINGS: Mapping[str, GridWording] = {
    "terse": GridWording(
        prompt_text="{text}\nCollect all objects from S to D.",
        prompt_image="Collect all objects from S to D.",
        convert="Convert the picture to LaTeX:",
        head="D {destination} {objects} S {start} ",
        listed="{name} {cell}",
        list_joint=" ",
        goal_name="D",
        step="{cell} {target} {target_cell} {tried} ",
        tried_joint=" ",
        tried_outside="{move} outside",
        tried_visited="{move} {cell} visited",
        tried_obstacle="{move} {cell} {name}",
        tried_later="{move} {cell} later",
        tried_free="{move} {cell} free",
        tried_object="{move} {cell} {name}",
        tried_goal="{move} {cell} D",
        back="back",
        done="{cell} done ",
        begin="{start} ",
        made="{move} {cell}",
        answer="Answer: {moves}",
    ),
    "verbose": GridWording(
        prompt_text="Below is a grid as LaTeX code; its first row and first column number the columns and rows. "
        "S is the start cell and D is the destination.\n{text}\n"
        "Cells with {obstacles} are obstacles, any other name is an object. Moving left, right, up or down by one "
        "cell, find a path from the start to the destination that collects every object and enters no obstacle. "
        "A cell is (row, column). Search depth first: at each cell say which neighbours you try and what is there, "
        "and go back when no neighbour is left. Finish with a line that begins with Answer: and gives only the "
        "moves of the path, without the ones you took back.",
        prompt_image="The picture shows a grid with numbered rows and columns. The light blue cell is the start and "
        "the dark green cell is the destination. "
        "Cells with {obstacles} are obstacles, any other symbol is an object. Moving left, right, up or down by one "
        "cell, find a path from the start to the destination that collects every object and enters no obstacle. "
        "A cell is (row, column). Search depth first: at each cell say which neighbours you try and what is there, "
        "and go back when no neighbour is left. Finish with a line that begins with Answer: and gives only the "
        "moves of the path, without the ones you took back.",
        convert="Convert the grid in the picture to LaTeX code.",
        head="The start is {start} and the destination is {destination}. To collect: {objects}.\n",
        listed="{name} at {cell}",
        list_joint=", ",
        goal_name="destination",
        step="At {cell}, heading for {target}: {tried}.\n",
        tried_joint="; ",
        tried_outside="{move} outside",
        tried_visited="{move} {cell} visited",
        tried_obstacle="{move} {cell} is blocked by {name}",
        tried_later="{move} {cell} is the destination, too early",
        tried_free="{move} {cell} is free",
        tried_object="{move} {cell} is free and has {name}",
        tried_goal="{move} {cell} is the destination",
        back="go back",
        done="At {cell}, all collected and arrived.\n",
        begin="",
        made="{move}",
        answer="Answer: {moves}",
    ),
}


class GridNavigation(Task[GridState]):
    name = "grid_navigation"
    version = 1
    levels = ("simple", "hard")
    state_type = GridState
    sizes_type: ClassVar[type] = GridSizes

    def __init__(self, sizes: GridSizes, trace: str = "terse", wording: Mapping[str, str] | None = None) -> None:
        self.sizes = sizes
        self.wording: GridWording = choose_wording(WORDINGS, trace, wording or {})
        _check_sizes(sizes, self.levels)
        _check_wording(self.wording)
        self._tried: dict[tuple[str, Cell, str], str] = {}
        self._marker = re.compile(re.escape(self.wording.answer.removesuffix("{moves}").strip()), re.IGNORECASE)
        listed = _pattern(self.wording.listed, {"name": r"[a-z]+", "cell": _CELL})
        several = f"(?:{listed}(?:{re.escape(self.wording.list_joint)}{listed})*)?"
        named = {"start": f"(?P<start>{_CELL})", "destination": f"(?P<destination>{_CELL})"}
        self._head = re.compile(_pattern(self.wording.head.strip(), named | {"objects": f"(?P<objects>{several})"}))
        self._listed = re.compile(
            _pattern(self.wording.listed, {"name": r"(?P<name>[a-z]+)", "cell": f"(?P<cell>{_CELL})"})
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
            cells = _cells(rows, cols)
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
        """Start, destination and objects; then one item per cell the search stands on, revisits included."""
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

    def read_answer(self, response: str) -> list[str]:
        """The moves behind the last answer marker; [] when there is none or anything else stands there."""
        if len(response) > MAX_RESPONSE_CHARS:
            return []
        end = None
        for mark in self._marker.finditer(response):
            end = mark.end()
        words = [] if end is None else [word for word in response[end:].split() if not _IS_CELL.fullmatch(word)]
        return words if all(word in MOVES for word in words) else []

    def read_head(self, response: str) -> Head | None:
        """The start, destination and objects that a trace begins with; None where it does not begin like that."""
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
        width, height = self.sizes.picture
        if (state.rows + 1) * self.sizes.cell > height or (state.cols + 1) * self.sizes.cell > width:
            raise ValueError(f"problem of {self.name}: {state.rows} x {state.cols} cells do not fit into the picture")
        return state


class Head(NamedTuple):
    """What the head of a trace says; None where the wording does not name it."""

    start: Cell | None
    destination: Cell | None
    objects: tuple[Named, ...]


class Walk(NamedTuple):
    """What moves lead to: the last cell, the objects' cells entered, how often an obstacle was entered."""

    end: Cell
    collected: frozenset[Cell]
    num_obstacles: int
    inside: bool


def simulate(state: GridState, moves: list[str]) -> Walk:
    """Make the moves from the start. Outside the grid there is nothing, and coming back does not undo it."""
    obstacles, objects = {cell for _, cell in state.obstacles}, {cell for _, cell in state.objects}
    (r, c), collected, num_obstacles, inside = state.start, set(), 0, True
    for move in moves:
        dr, dc = MOVES[move]
        r, c = r + dr, c + dc
        inside = inside and 1 <= r <= state.rows and 1 <= c <= state.cols
        num_obstacles += (r, c) in obstacles
        if (r, c) in objects:
            collected.add((r, c))
    return Walk((r, c), frozenset(collected), num_obstacles, inside)


@functools.lru_cache(maxsize=16)
def search(state: GridState, max_steps: int = 1_000_000) -> Search:
    """The depth-first search of the module's docstring, given up (not solved) once it must exceed `max_steps`."""
    destination = state.destination
    content = dict.fromkeys(_cells(state.rows, state.cols), "free")
    content.update([(cell, kind) for kind, cell in state.obstacles])
    content.update([(cell, name) for name, cell in state.objects])
    content[state.start] = "visited"
    content[destination] = "later" if state.objects else "goal"
    left = {cell: i for i, (_, cell) in sorted(enumerate(state.objects), key=lambda item: item[1][1])}
    places = frozenset(left)
    steps: list[Step] = []
    stack, moves = [state.start], list[str]()
    while True:
        cell = stack[-1]
        (r, c), goal, target = cell, destination, -1
        nearest = 1_000_000 if left else abs(destination[0] - r) + abs(destination[1] - c)
        for there, i in left.items():
            distance = abs(there[0] - r) + abs(there[1] - c)
            if distance < nearest:
                goal, target, nearest = there, i, distance
        if len(steps) + nearest > max_steps:
            break
        tried = []
        tr, tc = goal
        for move, dr, dc in _PREFERENCES[(tr > r) - (tr < r), (tc > c) - (tc < c)]:
            there = (r + dr, c + dc)
            reason = content.get(there, "outside")
            tried.append((move, there, reason))
            if reason not in _CLOSED:
                break
        else:
            steps.append(Step(cell, target, tuple(tried), "back"))
            stack.pop()
            if not stack or cell in places:
                return Search(tuple(steps), (), False)
            moves.pop()
            continue
        steps.append(Step(cell, target, tuple(tried), move))
        stack.append(there)
        moves.append(move)
        if there == destination:
            steps.append(Step(there, -1, (), ""))
            return Search(tuple(steps), tuple(moves), True)
        content[there] = "visited"
        if there in left:
            del left[there]
            if not left:
                content[destination] = "goal"
    return Search(tuple(steps), (), False)


def latex_grid(state: GridState) -> str:
    """A LaTeX tabular whose first row and column number the columns and rows; S, D, names, or nothing in a cell."""
    written = {cell: f" & {name}" for name, cell in state.objects + state.obstacles}
    written[state.start], written[state.destination] = " & S", " & D"
    columns = range(1, state.cols + 1)
    lines = [f"\\begin{{tabular}}{{{'c' * (state.cols + 1)}}}", "".join(f" & {c}" for c in columns) + " \\\\"]
    get = written.get
    for r in range(1, state.rows + 1):
        lines.append(f"{r}{''.join([get((r, c), ' &') for c in columns])} \\\\")
    lines.append("\\end{tabular}")
    return "\n".join(lines)


@functools.cache
def cell_name(cell: Cell) -> str:
    return f"({cell[0]},{cell[1]})"


def _preferences() -> dict[Cell, tuple[tuple[str, int, int], ...]]:
    """Moves as (name, rows, columns) in the order tried, by the signs of (rows, columns) to the target."""
    signs = [(a, b) for a in (-1, 0, 1) for b in (-1, 0, 1)]
    return {
        (a, b): tuple(
            (move, dr, dc) for move, (dr, dc) in sorted(MOVES.items(), key=lambda m: m[1][0] * a + m[1][1] * b <= 0)
        )
        for a, b in signs
    }


_PREFERENCES = _preferences()
_CELL = r"\(\d{1,3},\d{1,3}\)"
_IS_CELL = re.compile(_CELL)


def _pattern(template: str, fields: Mapping[str, str]) -> str:
    """A regular expression for what a template writes; each field is matched by its own the first time."""
    pieces, seen = [], set[str]()
    for literal, field, _, _ in Formatter().parse(template):
        pieces.append(re.escape(literal))
        if field:
            once = re.sub(r"\?P<\w+>", "?:", fields[field]) if field in seen else fields[field]
            pieces.append(once)
            seen.add(field)
    return "".join(pieces)


def _read_cell(text: str) -> Cell:
    row, col = text.strip("()").split(",")
    return int(row), int(col)


def _solution(state: GridState) -> Search:
    found = search(state)
    if not found.solved:
        raise ValueError("this grid has no solution by the search of grid_navigation")
    return found


def _dead_end(rows: int, cols: int, places: list[Cell], walls: set[Cell]) -> bool:
    """Whether one of the places has a single open neighbour or none: no path leads through it."""
    for r, c in places:
        closed = ((r + 1, c) in walls) + ((r - 1, c) in walls) + ((r, c + 1) in walls) + ((r, c - 1) in walls)
        if closed + (r == 1) + (r == rows) + (c == 1) + (c == cols) >= 3:
            return True
    return False


def _key(rows: int, cols: int, start: Cell, destination: Cell, objects: tuple[Named, ...]) -> object:
    return [rows, cols, start, destination, objects]


def _by_cell(item: Named) -> Cell:
    return item[1]


def _span(limits: tuple[int, int]) -> str:
    return str(limits[0]) if limits[0] == limits[1] else f"{limits[0]}-{limits[1]}"


@functools.cache
def _cells(rows: int, cols: int) -> tuple[Cell, ...]:
    return tuple((r, c) for r in range(1, rows + 1) for c in range(1, cols + 1))


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
    fields = dict.fromkeys((*names, "move", "moves"), "")
    for f in dataclasses.fields(wording):
        template = getattr(wording, f.name)
        try:
            template.format(**fields)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ValueError(
                f"task.wording.{f.name}={template!r}: a template with {{fields}} that do not exist"
            ) from error
    if not wording.answer.endswith("{moves}") or not wording.answer.removesuffix("{moves}").strip():
        raise ValueError(f"task.wording.answer={wording.answer!r}: must be a marker followed by {{moves}}")
