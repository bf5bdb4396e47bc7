"""The search that grid navigation asks for, and walks that are tried on a grid."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from vlmreason.tasks.cells import Cell

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
    """Return the depth-first search of the module's docstring, given up (not solved) once it must exceed
    `max_steps`."""
    destination = state.destination
    content = dict.fromkeys(all_cells(state.rows, state.cols), "free")
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


def _dead_end(rows: int, cols: int, places: list[Cell], walls: set[Cell]) -> bool:
    """Whether one of the places has a single open neighbour or none: no path leads through it."""
    for r, c in places:
        closed = ((r + 1, c) in walls) + ((r - 1, c) in walls) + ((r, c + 1) in walls) + ((r, c - 1) in walls)
        if closed + (r == 1) + (r == rows) + (c == 1) + (c == cols) >= 3:
            return True
    return False


@functools.cache
def all_cells(rows: int, cols: int) -> tuple[Cell, ...]:
    """Return the cells of a grid in reading order."""
    return tuple((r, c) for r in range(1, rows + 1) for c in range(1, cols + 1))
