"""Path: tangled lines, a maze with exits, ways through a grid."""

from __future__ import annotations

import itertools
import random

from vlmreason.tasks.cells import Cell
from vlmreason.tasks.puzzles.families.scene import CELL, COLORS, ICONS, Family, Made, Mark, cell, grid_lines, label
from vlmreason.tasks.puzzles.values import OPTIONS, Form

_SIDE = 6


def _tangle(rng: random.Random) -> Made:
    icons = rng.sample(ICONS, 5)
    first, second = rng.sample(range(5), 5), rng.sample(range(5), 5)
    colors = rng.sample(list(COLORS), 5)
    step = 28
    marks = []
    for i in range(5):
        at = first[i]
        marks += [
            Mark(icons[i], 0, step * i + 2, CELL, CELL, colors[i]),
            Mark("line", CELL, step * i + 14, 42, step * (at - i)),
            Mark("line", CELL + 42, step * at + 14, 42, step * (second[at] - at)),
            label(110, step * i + 2, OPTIONS[i]),
        ]
    asked = rng.randrange(5)
    question = rng.choice((
        "Which letter is the {} joined to?", "Follow the line of the {}. At which letter does it end?",
        "To which letter does the line from the {} lead?",
    )).format(icons[asked])  # fmt: skip
    text = "\n".join((
        "; ".join(f"{icons[i]} to {first[i] + 1}" for i in range(5)),
        "; ".join(f"{i + 1} to {OPTIONS[second[i]]}" for i in range(5)),
    ))  # fmt: skip
    found = second[first[asked]]
    steps = (f"{icons[asked]} to {first[asked] + 1}", f"{first[asked] + 1} to {OPTIONS[found]}")
    return Made(tuple(marks), question, text, steps, (found,))


def _tree(rng: random.Random) -> dict[Cell, Cell | None]:
    """A maze as a random tree: each cell with the one through which it is reached."""
    start = (rng.randrange(_SIDE), rng.randrange(_SIDE))
    parents: dict[Cell, Cell | None] = {start: None}
    stack = [start]
    while stack:
        row, column = stack[-1]
        near = [(row + 1, column), (row - 1, column), (row, column + 1), (row, column - 1)]
        free = [at for at in near if at not in parents and 0 <= at[0] < _SIDE and 0 <= at[1] < _SIDE]
        if free:
            parents[chosen := rng.choice(free)] = (row, column)
            stack.append(chosen)
        else:
            stack.pop()
    return parents


def _trail(parents: dict[Cell, Cell | None], at: Cell) -> list[Cell]:
    """The cells from one up to the start."""
    found, here = [], at
    while (above := parents[here]) is not None:
        found.append(here)
        here = above
    return [*found, here]


def _maze(rng: random.Random) -> Made:
    while True:
        parents = _tree(rng)
        start = next(at for at, above in parents.items() if above is None)
        border = [at for at in parents if at != start and (at[0] in (0, _SIDE - 1) or at[1] in (0, _SIDE - 1))]
        exits = rng.sample(sorted(border), 5)
        reached = sorted(rng.sample(range(5), rng.randint(1, 4)))
        wanted = {at for number in reached for at in _trail(parents, exits[number])}
        closed = set()
        for number in set(range(5)) - set(reached):
            if exits[number] not in wanted:
                free = [at for at in _trail(parents, exits[number]) if at not in wanted]
                closed.add(rng.choice(free))
        if len({exits[n] for n in range(5) if exits[n] in wanted}) == len(reached):
            break
    open_between = {(at, above) for at, above in parents.items() if above is not None and at not in closed}
    return _drawn_maze(rng, start, exits, open_between, reached)


def _drawn_maze(
    rng: random.Random, start: Cell, exits: list[Cell], open_between: set[tuple[Cell, Cell]], reached: list[int]
) -> Made:
    def joined(one: Cell, other: Cell) -> bool:
        return (one, other) in open_between or (other, one) in open_between

    marks = [cell(*start, "dot", "red"), Mark("frame", 0, 0, 144, 144)]
    marks += [label(at[1] * CELL, at[0] * CELL, OPTIONS[n], color="blue") for n, at in enumerate(exits)]
    names = {start: "S", **{at: OPTIONS[n] for n, at in enumerate(exits)}}
    lines = []
    for row in range(_SIDE):
        across, below = "", ""
        for column in range(_SIDE):
            at, right, under = (row, column), (row, column + 1), (row + 1, column)
            across += names.get(at, "o")
            if column + 1 < _SIDE:
                across += "-" if joined(at, right) else " "
                if not joined(at, right):
                    marks.append(Mark("line", (column + 1) * CELL, row * CELL, 0, CELL))
            if row + 1 < _SIDE:
                below += "| " if joined(at, under) else "  "
                if not joined(at, under):
                    marks.append(Mark("line", column * CELL, (row + 1) * CELL, CELL, 0))
        lines += [across, below.rstrip()] if row + 1 < _SIDE else [across]
    question = rng.choice((
        "Which exits can be reached from the dot?", "Name all exits that the dot can get to.",
        "The dot walks through the maze. Which exits can it find?",
    ))  # fmt: skip
    steps = tuple(f"{letter} {'yes' if number in reached else 'no'}" for number, letter in enumerate(OPTIONS))
    others = [tuple(sorted(some)) for num in range(1, 5) for some in itertools.combinations(range(5), num)]
    near = sorted(others, key=lambda some: len(set(some) ^ set(reached)))[1:9]
    rng.shuffle(near)
    return Made(tuple(marks), question, "\n".join(lines), steps, tuple(reached), tuple(near))


def ways(rows: int, columns: int, blocked: set[Cell]) -> list[list[int]]:
    """Count the ways from the upper left to each cell, by moves right and down."""
    found = [[0] * columns for _ in range(rows)]
    for row, column in itertools.product(range(rows), range(columns)):
        if (row, column) not in blocked:
            above = found[row - 1][column] if row else 0
            left = found[row][column - 1] if column else 0
            found[row][column] = 1 if (row, column) == (0, 0) else above + left
    return found


def _grid(rng: random.Random) -> tuple[int, int, set[Cell], list[list[int]]]:
    rows, columns = rng.randint(3, 5), rng.randint(3, 5)
    cells = [at for at in itertools.product(range(rows), range(columns)) if at not in ((0, 0), (rows - 1, columns - 1))]
    blocked = set(rng.sample(cells, rng.randint(0, 5)))
    return rows, columns, blocked, ways(rows, columns, blocked)


def _ways(rng: random.Random) -> Made:
    by_number: dict[int, tuple[int, int, set[Cell], list[list[int]]]] = {}
    while len(by_number) < 6:
        drawn = _grid(rng)
        by_number.setdefault(drawn[3][-1][-1], drawn)
        by_number = {number: one for number, one in by_number.items() if 1 <= number <= 20}
    rows, columns, blocked, counts = by_number[number := rng.choice(sorted(by_number))]
    marks = [*grid_lines(rows, columns), label(0, 0, "S", color="blue")]
    marks += [cell(row, column, "fill", "black") for row, column in blocked]
    marks.append(label((columns - 1) * CELL, (rows - 1) * CELL, "G", color="blue"))
    shown = [["#" if (row, column) in blocked else "." for column in range(columns)] for row in range(rows)]
    shown[0][0], shown[-1][-1] = "S", "G"
    question = rng.choice((
        "By moves right and down, how many ways are there from S to G?",
        "How many ways lead from S to G, if every move is right or down?",
        "Count the ways from S to G. Only right and down are allowed, and no black cell.",
    ))  # fmt: skip
    steps = tuple(" ".join(map(str, row)) for row in counts)
    free = ways(rows, columns, set())[-1][-1]
    mistakes = ((free,), (counts[-2][-1],), (counts[-1][-2],), (rows + columns - 2,))
    return Made(tuple(marks), question, "\n".join(" ".join(row) for row in shown), steps, (number,), mistakes)


FAMILIES = (
    Family("path_tangle", "path", Form("letter"), (0, 4), _tangle, drawn=True),
    Family("path_maze", "path", Form("letters"), (0, 4), _maze, length=4),
    Family("path_ways", "path", Form("integer"), (1, 20), _ways, split="test"),
)
