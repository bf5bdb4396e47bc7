"""Table Readout (section C.3): read the numbers along a marked path of straight segments.

simple: one spiral or one sinusoid of few segments; hard: compositions of both with more segments. A spiral
turns always to the same side, a sinusoid to alternating sides with short runs between (algorithms 2 and 3).
Cells of a path that do not follow each other never touch, so the marks and the two ends determine the path.
"""

from __future__ import annotations

import random

from vlmreason.tasks.tables import Cell, TableTask, segments

_DIRECTIONS = ((0, 1), (1, 0), (0, -1), (-1, 0))
_SHORT_RUN = 2


class TableReadout(TableTask):
    name = "table_readout"
    version = 1
    levels = ("simple", "hard")
    kind = "the marked path"
    marks_text = True

    def _path(self, level: str, rng: random.Random, rows: int, cols: int) -> tuple[Cell, ...] | None:
        limits = self.sizes.levels[level]
        target = rng.randint(*limits.num_segments)
        path = walk(rng, rows, cols, target, limits.num_cells[1], composed=level == "hard")
        if path is None or not limits.num_cells[0] <= len(path) <= limits.num_cells[1]:
            return None
        return path if limits.num_segments[0] <= len(segments(path)) <= limits.num_segments[1] else None


def walk(
    rng: random.Random, rows: int, cols: int, num_segments: int, max_cells: int, composed: bool
) -> tuple[Cell, ...] | None:
    """A path of `num_segments` runs that never touches itself; None when it gets stuck before."""
    cell = (rng.randint(1, rows), rng.randint(1, cols))
    heading = rng.randrange(4)
    side = rng.choice((1, -1))
    spiral = rng.random() < 0.5
    switches = {i for i in range(2, num_segments) if rng.random() < 0.5} if composed else set()
    if composed and not switches and num_segments > 2:
        switches = {rng.randrange(2, num_segments)}
    path, taken = [cell], {cell}
    for i in range(num_segments):
        if i:
            if i in switches:
                spiral = not spiral
            if not spiral and i > 1:
                side = -side
            heading = (heading + side) % 4
        room = _room(cell, heading, rows, cols, taken)
        if room == 0 or (room == 1 and 0 < i < num_segments - 1):
            return None
        short = not spiral and i % 2 == 1
        if short and i < num_segments - 1:
            num_steps = min(_SHORT_RUN, room)
        else:
            num_steps = room if rng.random() < 0.4 else rng.randint(min(2, room), room)
        for _ in range(num_steps):
            cell = (cell[0] + _DIRECTIONS[heading][0], cell[1] + _DIRECTIONS[heading][1])
            path.append(cell)
            taken.add(cell)
        if len(path) > max_cells:
            return None
    return tuple(path)


def _room(cell: Cell, heading: int, rows: int, cols: int, taken: set[Cell]) -> int:
    """How many steps fit from `cell` without leaving the table or touching the path."""
    (dr, dc), room, previous = _DIRECTIONS[heading], 0, cell
    while True:
        r, c = previous[0] + dr, previous[1] + dc
        if not (1 <= r <= rows and 1 <= c <= cols) or (r, c) in taken:
            return room
        if any((r + a, c + b) in taken and (r + a, c + b) != previous for a, b in _DIRECTIONS):
            return room
        previous, room = (r, c), room + 1
