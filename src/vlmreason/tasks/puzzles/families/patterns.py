"""Pattern: a strip that repeats, colors exchanged, figures that grow."""

from __future__ import annotations

import random

from vlmreason.tasks.puzzles.families.scene import CELL, COLORS, ICONS, Family, Made, Mark, label
from vlmreason.tasks.puzzles.families.spatial import Pattern, candidates, drawn_pattern, pattern_marks, written
from vlmreason.tasks.puzzles.values import OPTIONS, Form

_SHOWN = 12


def _strip(rng: random.Random) -> Made:
    period = rng.randint(2, 4)
    icons = rng.sample(ICONS, 5)
    unit = icons[:period] if period < 4 or rng.random() < 0.5 else [*icons[:3], icons[rng.randrange(2)]]
    color = rng.choice(list(COLORS))
    covered = set(rng.sample(range(2 * period, _SHOWN), min(3, _SHOWN - 2 * period)))
    strip = [unit[i % period] for i in range(_SHOWN)]
    marks, names = [], []
    for i, icon in enumerate(strip):
        x, y = (i % 6) * CELL, (i // 6) * CELL
        marks.append(Mark("frame", x, y, CELL, CELL, "grey"))
        marks.append(Mark("fill", x, y, CELL, CELL, "grey") if i in covered else Mark(icon, x, y, CELL, CELL, color))
        names.append("?" if i in covered else icon)
    order = rng.sample(icons, 5)
    for i, icon in enumerate(order):
        marks += [label(2 + 29 * i, 88, OPTIONS[i]), Mark(icon, 2 + 29 * i, 112, CELL, CELL, color)]
    at = rng.randint(_SHOWN + 1, 40)
    question = rng.choice((
        "The strip goes on like this. Which icon is number {}?", "Which icon stands at place {} of the strip?",
        "If the strip goes on, what is at place {}?",
    )).format(at)  # fmt: skip
    wanted = unit[(at - 1) % period]
    text = "\n".join((" ".join(names), *(f"{letter}: {icon}" for letter, icon in zip(OPTIONS, order, strict=True))))
    steps = (
        f"it repeats after {period}: {' '.join(unit)}",
        f"place {at} is like place {(at - 1) % period + 1}: {wanted}",
    )
    return Made(tuple(marks), question, text, steps, (order.index(wanted),))


def exchanged(pattern: Pattern) -> Pattern:
    """Return a pattern with its two colors in each other's place."""
    return tuple(tuple((0, 2, 1)[value] for value in row) for row in pattern)


def _colors(rng: random.Random) -> Made:
    colors = tuple(rng.sample(list(COLORS), 2))
    while True:
        figure = drawn_pattern(rng, [1] * rng.randint(2, 4) + [2] * rng.randint(2, 4))
        right = exchanged(figure)
        near = [figure]
        for _ in range(8):
            cells = [list(row) for row in right]
            row, column = rng.randrange(3), rng.randrange(3)
            cells[row][column] = rng.choice([value for value in (0, 1, 2) if value != cells[row][column]])
            near.append(tuple(map(tuple, cells)))
        others = [one for one in dict.fromkeys(near) if one != right]
        if right != figure and len(others) >= 4:
            break
    others = others[:4]
    rng.shuffle(others)
    place, marks, text = candidates(rng, right, others, colors)
    marks += pattern_marks(figure, 45, 14, 18, colors)
    question = rng.choice((
        "In which figure are {} and {} exchanged?", "Which figure is the upper one with {} and {} exchanged?",
        "Paint {} what is {} and the other way round. Which figure is it?",
    )).format(*colors)  # fmt: skip
    steps = (f"exchanged: {written(right)}", f"that is {OPTIONS[place]}")
    return Made(
        tuple(marks), question, f"figure: {written(figure)}; a {colors[0]}, b {colors[1]}\n{text}", steps, (place,)
    )


def _growing(rng: random.Random) -> tuple[int, list[int]]:
    """Which figure is asked for, and the dots of all up to the one behind it."""
    while True:
        at, first, more, grows = rng.randint(4, 10), rng.randint(1, 4), rng.randint(1, 4), rng.random() < 0.3
        dots = [first + more * n + (n * (n + 1) // 2 if grows else 0) for n in range(at + 1)]
        if 5 <= dots[at - 1] <= 40:
            return at, dots


def _dots(rng: random.Random) -> Made:
    at, dots = _growing(rng)
    color = rng.choice(list(COLORS))
    marks = []
    for figure in range(3):
        for i in range(dots[figure]):
            marks.append(Mark("circle", 3 + 48 * figure + 14 * (i % 3), 4 + 14 * (i // 3), 14, 14, color))
        marks.append(label(48 * figure, 116, str(figure + 1), 48, CELL))
    question = rng.choice((
        "The figures grow like this. How many dots has figure {}?", "How many dots will figure {} have?",
        "Count on: the dots of figure {}.",
    )).format(at)  # fmt: skip
    steps = tuple(f"figure {n}: {num}" for n, num in enumerate(dots[:at], start=1))
    text = "\n".join(f"figure {n}: {num} dots" for n, num in enumerate(dots[:3], start=1))
    mistakes = ((dots[at - 2],), (dots[at],), (dots[2] * (at - 2),), (dots[at - 1] + 1,))
    return Made(tuple(marks), question, text, steps, (dots[at - 1],), mistakes)


FAMILIES = (
    Family("pattern_strip", "pattern", Form("letter"), (0, 4), _strip, drawn=True),
    Family("pattern_colors", "pattern", Form("letter"), (0, 4), _colors, split="test", drawn=True),
    Family("pattern_dots", "pattern", Form("integer"), (5, 40), _dots, split="validation"),
)
