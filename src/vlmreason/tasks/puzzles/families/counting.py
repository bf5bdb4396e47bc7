"""Counting: things of a kind, inside one frame and outside another, gaps in a wall."""

from __future__ import annotations

import itertools
import random

from vlmreason.tasks.cells import Cell
from vlmreason.tasks.puzzles.families.scene import CELL, COLORS, ICONS, Family, Made, Mark, cell
from vlmreason.tasks.puzzles.values import Form

_SIDE = 6
_CELLS = tuple(itertools.product(range(_SIDE), range(_SIDE)))


def _rows(shown: dict[Cell, str]) -> str:
    """The grid as text, row by row."""
    return "\n".join(" ".join(shown.get((row, column), "-") for column in range(_SIDE)) for row in range(_SIDE))


def _kind(rng: random.Random) -> Made:
    kinds = rng.sample(ICONS, 3)
    number = rng.randint(1, 9)
    others = [rng.randint(1, 5), rng.randint(1, 5)]
    if number + sum(others) > 16:
        others = [rng.randint(1, 3), rng.randint(1, 3)]
    icons = [kind for kind, num in zip(kinds, [number, *others], strict=True) for _ in range(num)]
    shown = dict(zip(rng.sample(_CELLS, len(icons)), icons, strict=True))
    color = dict(zip(kinds, rng.sample(list(COLORS), 3), strict=True))
    question = rng.choice(("How many {}s are there?", "Count the {}s.", "How many {}s does the picture show?"))
    totals = [sum(shown.get((row, c)) == kinds[0] for c in range(_SIDE)) for row in range(_SIDE)]
    steps = tuple(f"row {row + 1}: {num}" for row, num in enumerate(totals))
    marks = tuple(cell(row, column, icon, color[icon]) for (row, column), icon in shown.items())
    mistakes = ((others[0],), (others[1],), (len(icons),))
    return Made(marks, question.format(kinds[0]), _rows(shown), steps, (number,), mistakes)


def _square(rng: random.Random) -> set[Cell]:
    row, column = rng.randrange(3), rng.randrange(3)
    return set(itertools.product(range(row, row + 4), range(column, column + 4)))


def _bounds(cells: set[Cell]) -> tuple[int, int, int, int]:
    rows, columns = [row for row, _ in cells], [column for _, column in cells]
    return min(rows), max(rows), min(columns), max(columns)


def _frames(rng: random.Random) -> Made:
    one, other = _square(rng), _square(rng)
    while not 8 <= len(one - other) < 16:
        one, other = _square(rng), _square(rng)
    number = rng.randint(0, 8)
    colors = rng.sample(("red", "blue", "green", "purple"), 2)
    icon = rng.choice(ICONS)
    both, second = rng.randint(1, min(4, len(one & other))), rng.randint(1, 5)
    outside = [at for at in _CELLS if at not in one | other]
    places = [
        *rng.sample(sorted(one - other), number),
        *rng.sample(sorted(one & other), both),
        *rng.sample(sorted(other - one), second),
        *rng.sample(outside, min(len(outside), rng.randint(0, 2))),
    ]
    question = rng.choice((
        "How many {icon}s are inside the {a} frame but outside the {b} frame?",
        "How many {icon}s does the {a} frame hold that are not in the {b} frame?",
        "Count the {icon}s that only the {a} frame holds, not the {b} one.",
    )).format(icon=icon, a=colors[0], b=colors[1])  # fmt: skip
    marks = [cell(row, column, icon, "brown") for row, column in places]
    lines = []
    for name, square in zip(colors, (one, other), strict=True):
        top, bottom, left, right = _bounds(square)
        lines.append(f"{name} frame: rows {top + 1} to {bottom + 1}, columns {left + 1} to {right + 1}")
        width, height = (right - left + 1) * CELL, (bottom - top + 1) * CELL
        marks.append(Mark("bold", left * CELL, top * CELL, width, height, name))
    lines.append(_rows(dict.fromkeys(places, icon)))
    steps = (f"in the {colors[0]} frame: {number + both}", f"of these in the {colors[1]} frame: {both}")
    mistakes = ((number + both,), (second,), (len(places),), (both,))
    return Made(tuple(marks), question, "\n".join(lines), steps, (number,), mistakes)


def _bricks(rng: random.Random) -> Made:
    number, color = rng.randint(1, 12), rng.choice(("red", "orange", "brown"))
    holes = set(rng.sample([(row, column) for row in range(5) for column in range(_SIDE)], number))
    marks = [
        cell(row, column, "fill", color) for row in range(5) for column in range(_SIDE) if (row, column) not in holes
    ]
    marks.append(Mark("bold", 0, 0, _SIDE * CELL, 5 * CELL, "black"))
    rows = [["." if (row, column) in holes else "#" for column in range(_SIDE)] for row in range(5)]
    question = rng.choice((
        "How many bricks are missing from the wall?",
        "Some bricks of the wall are missing. How many?",
        "How many bricks are needed to close the wall?",
    ))  # fmt: skip
    steps = tuple(f"row {row + 1}: {cells.count('.')}" for row, cells in enumerate(rows))
    return Made(
        tuple(marks), question, "\n".join(" ".join(cells) for cells in rows), steps, (number,), ((30 - number,),)
    )


FAMILIES = (
    Family("counting_kind", "counting", Form("integer"), (1, 9), _kind),
    Family("counting_frames", "counting", Form("integer"), (0, 8), _frames, split="test"),
    Family("counting_bricks", "counting", Form("integer"), (1, 12), _bricks),
)
