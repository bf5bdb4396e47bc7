"""Algebra: balances, a table of sums, a queue."""

from __future__ import annotations

import random

from vlmreason.tasks.puzzles.families.scene import COLORS, ICONS, Family, Made, Mark, label
from vlmreason.tasks.puzzles.values import Form

_NAMES = ("Ann", "Ben", "Cleo", "Dan", "Eve", "Finn", "Gina", "Hugo", "Ida", "Jack")


def _balances(rng: random.Random) -> Made:
    known, asked = rng.sample(ICONS, 2)
    num, one, other = rng.randint(2, 3), rng.randint(1, 9), rng.randint(1, 9)
    colors = dict(zip((known, asked), rng.sample(list(COLORS), 2), strict=True))
    sides = ([known] * num, [known, asked])
    totals = (num * one, one + other)
    marks = []
    for i, (icons, total) in enumerate(zip(sides, totals, strict=True)):
        y = 20 + 66 * i
        marks += [Mark(icon, 4 + 24 * k, y, 24, 24, colors[icon]) for k, icon in enumerate(icons)]
        marks += [
            Mark("line", 4, y + 26, 136, 0),
            Mark("triangle", 72, y + 26, 18, 18, "grey"),
            label(104, y, str(total), 32, 24),
        ]
    question = rng.choice((
        "Both balances are level. What is the weight of the {}?", "How heavy is the {}, if both balances are level?",
        "The balances are level. Find the weight of one {}.",
    )).format(asked)  # fmt: skip
    text = "\n".join(f"{' '.join(icons)} = {total}" for icons, total in zip(sides, totals, strict=True))
    steps = (f"{known}: {totals[0]} / {num} = {one}", f"{asked}: {totals[1]} - {one} = {other}")
    mistakes = ((one,), (totals[1],), (abs(totals[0] - totals[1]),), (one + 1,))
    return Made(tuple(marks), question, text, steps, (other,), mistakes)


def _table(rng: random.Random) -> Made:
    across, down = rng.sample(range(1, 16), 3), rng.sample(range(1, 16), 3)
    row, column = rng.randrange(3), rng.randrange(3)
    seen = rng.choice([c for c in range(3) if c != column])
    size = 36
    marks, lines = [], [["+", *map(str, across)]]
    for r in range(3):
        sums = [str(down[r] + across[c]) for c in range(3)]
        sums = [
            "?" if (r, c) == (row, column) else text if r != row or c == seen else "-" for c, text in enumerate(sums)
        ]
        lines.append(["-" if r == row else str(down[r]), *sums])
    for r, cells in enumerate(lines):
        for c, text in enumerate(cells):
            marks.append(Mark("frame", c * size, r * size, size, size, "grey"))
            if text != "-":
                marks.append(label(c * size, r * size, text, size, size, "blue" if not r or not c else "black"))
    question = rng.choice((
        "In the table of sums, which number belongs to the question mark?",
        "The table adds its heads. What is the question mark?",
        "Each cell is the sum of the heads of its row and column. Which number is the question mark?",
    ))  # fmt: skip
    known = down[row] + across[seen]
    total = down[row] + across[column]
    steps = (f"head of the row: {known} - {across[seen]} = {down[row]}", f"{down[row]} + {across[column]} = {total}")
    mistakes = ((known,), (known + across[column],), (down[row],), (across[column] + across[seen],))
    return Made(tuple(marks), question, "\n".join(" ".join(cells) for cells in lines), steps, (total,), mistakes)


def _queue(rng: random.Random) -> Made:
    one, other = rng.sample(_NAMES, 2)
    behind, before, between = rng.randint(0, 12), rng.randint(0, 9), rng.randint(0, 3)
    total = before + 1 + between + 1 + behind
    marks = [Mark("circle", 6 + 34 * i, 60, 26, 26, color) for i, color in enumerate(("grey", "red", "grey", "blue"))]
    thing = rng.choice(("queue", "line", "row"))
    question = rng.choice((
        "{m} children stand in a {q}, {n} before {a}. {b} comes later, {k} between them. How many are behind {b}?",
        "In a {q} of {m} children {n} stand before {a}; {b} comes later, {k} between. How many are behind {b}?",
        "A {q} has {m} children: {n}, then {a}, then {k}, then {b}, then the others. How many others are there?",
    )).format(m=total, q=thing, n=before, a=one, b=other, k=between)  # fmt: skip
    place = before + between + 2
    steps = (f"{other} is number {place}", f"{total} - {place} = {behind}")
    mistakes = ((behind + 1,), (total - before,), (behind + 2,), (behind + between,))
    text = f"a {thing} with two children in colors"
    return Made(tuple(marks), question, text, steps, (behind,), mistakes)


FAMILIES = (
    Family("algebra_balances", "algebra", Form("integer"), (1, 9), _balances),
    Family("algebra_table", "algebra", Form("integer"), (2, 30), _table, split="test"),
    Family("algebra_queue", "algebra", Form("integer"), (0, 12), _queue),
)
