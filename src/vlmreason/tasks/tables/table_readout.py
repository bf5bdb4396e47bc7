"""Table Readout (section C.3): read the numbers along a marked path of straight segments.

simple: one spiral or one sinusoid of few segments; hard: compositions of both with more segments. A spiral
turns always to the same side. A sinusoid runs to and fro: it turns twice to one side, twice to the other,
and its two runs are joined by one of two steps (algorithms 2 and 3, any starting direction and side).
Cells of a path that do not follow each other never touch, so the marks and the two ends determine the path.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections.abc import Sequence

from vlmreason.tasks.cells import Cell
from vlmreason.tasks.tables.base import TableTask, segments

_TRIES = 30  # of one number of segments, so that hard ones are not drawn less often
_MAX_RUNS = 24  # runs placed in one try
_MAX_LENGTHS = 2  # lengths tried of one run
_SWITCH, _FULL = 0.35, 0.6  # chance to change the pattern; chance that a run first goes as far as it can

Turn = tuple[int, bool]
"""1 (to the right) or -1 (to the left), and whether the run behind the turn joins two runs of a sinusoid."""


class TableReadout(TableTask):
    name = "table_readout"
    version = 1
    levels = ("simple", "hard")
    kind = "the marked path"
    marks_text = True

    def _path(self, level: str, rng: random.Random, rows: int, cols: int) -> tuple[Cell, ...] | None:
        limits = self.sizes.levels[level]
        num_segments = rng.randint(*limits.num_segments)
        for _ in range(_TRIES):
            turns = draw_turns(rng, num_segments - 1, composed=level == "hard")
            path = turns is not None and walk(rng, rows, cols, turns, *limits.num_cells)
            if path:
                return path if rng.random() < 0.5 else path[::-1]
        return None


def pattern(path: Sequence[Cell]) -> str:
    """Say how a path turns: "spiral" (also where it turns once or never), "sinusoid" or "composition"."""
    runs = segments(path)
    sides = [d[0] * e[1] - d[1] * e[0] for (d, _), (e, _) in itertools.pairwise(runs)]
    return _pattern(sides)


def _pattern(sides: list[int]) -> str:
    if len(set(sides)) <= 1:
        return "spiral"
    waves = len(sides) > 2 and sides[2:] == [-side for side in sides[:-2]]
    return "sinusoid" if waves else "composition"


def draw_turns(rng: random.Random, num_turns: int, composed: bool) -> tuple[Turn, ...] | None:
    """Return the turns of one spiral or sinusoid or, `composed`, of several; None where the draw is not composed."""
    side = 1 if rng.random() < 0.5 else -1
    spiral = rng.random() < 0.5
    turns: list[Turn] = []
    while len(turns) < num_turns:
        if composed and turns and rng.random() < _SWITCH:
            spiral = not spiral
        if spiral:
            turns.append((side, False))
        else:
            side = -side
            turns += (side, True), (side, False)
    del turns[num_turns:]
    if composed and _pattern([side for side, _ in turns]) != "composition":
        return None
    return tuple(turns)


def walk(
    rng: random.Random, rows: int, cols: int, turns: Sequence[Turn], fewest: int, most: int
) -> tuple[Cell, ...] | None:
    """Return a path with these turns and `fewest` to `most` cells that never touches itself; None where the try fails.

    Runs are placed one after the other from a random cell; where one does not fit, another length of the run
    before is tried. Cells are bits of an integer, row by row with a spare column between rows.
    """
    width, inside = cols + 1, _inside(rows, cols)
    steps = (1, width, -1, -width)
    cross = 1 | 5 << width - 1 | 1 << 2 * width  # the neighbours of cell number `width`
    num_placed = 0

    def place(i: int, cell: int, heading: int, taken: int, num_cells: int) -> list[int] | None:
        """Return lengths of the runs from number i on, the last one first."""
        nonlocal num_placed
        num_placed += 1
        num_left = len(turns) - i
        joint = 0 < i <= len(turns) and turns[i - 1][1] and num_left > 0
        limit = 2 if joint else most - num_cells - num_left
        step, masks, tip = steps[heading], [taken], cell
        while len(masks) <= limit:
            target = tip + step
            if not inside >> target & 1 or cross << target - width & taken != 1 << tip:
                break
            taken |= 1 << target
            masks.append(taken)
            tip = target
        room = len(masks) - 1
        if num_left == 0:
            least = max(1, fewest - num_cells)
            return [least + int(rng.random() * (room - least + 1))] if room >= least else None
        least = 2 if i and turns[i - 1][0] == turns[i][0] else 1
        if room < least:
            return None
        for attempt in range(min(_MAX_LENGTHS, room - least + 1)):
            full = attempt == 0 and rng.random() < _FULL
            length = room if full else least + int(rng.random() * (room - least + 1))
            after = place(i + 1, cell + length * step, (heading + turns[i][0]) % 4, masks[length], num_cells + length)
            if after is not None:
                after.append(length)
                return after
            if num_placed > _MAX_RUNS:
                return None
        return None

    row, col, heading = int(rng.random() * rows) + 1, int(rng.random() * cols) + 1, int(rng.random() * 4)
    start = row * width + col
    lengths = place(0, start, heading, 1 << start, 1)
    if lengths is None:
        return None
    cells, at = [start], start
    for i, length in enumerate(reversed(lengths)):
        if i:
            heading = (heading + turns[i - 1][0]) % 4
        for _ in range(length):
            at += steps[heading]
            cells.append(at)
    return tuple(divmod(at, width) for at in cells)


@functools.lru_cache(maxsize=1024)
def _inside(rows: int, cols: int) -> int:
    """The cells of a table as bits: cell (r, c) is number r * (cols + 1) + c."""
    return sum(1 << r * (cols + 1) + c for r in range(1, rows + 1) for c in range(1, cols + 1))
