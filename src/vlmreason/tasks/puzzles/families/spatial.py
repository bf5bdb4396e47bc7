"""Spatial: cards on a pile, holes in a turned sheet, cubes that towers hide."""

from __future__ import annotations

import itertools
import random

from vlmreason.tasks.cells import Cell
from vlmreason.tasks.puzzles.families.scene import CELL, COLORS, Family, Made, Mark, grid_lines, label
from vlmreason.tasks.puzzles.values import OPTIONS, Form

Pattern = tuple[tuple[int, ...], ...]
_WIDTH, _HEIGHT, _CORNER = 54, 42, 18


def _overlap(one: Cell, other: Cell, w: int = _WIDTH, h: int = _HEIGHT) -> bool:
    """Whether the upper left box of `w` x `h` at one place meets a card at another."""
    across = one[0] < other[0] + _WIDTH and other[0] < one[0] + w
    return across and one[1] < other[1] + _HEIGHT and other[1] < one[1] + h


def _pile(rng: random.Random) -> list[Cell]:
    """Places of five cards, each on the one before, with all their corners to be seen."""
    while True:
        places = [(rng.randint(0, 144 - _WIDTH), rng.randint(0, 144 - _HEIGHT))]
        for _ in range(60):
            x, y = places[-1][0] + rng.randint(-44, 44), places[-1][1] + rng.randint(-34, 34)
            inside = 0 <= x <= 144 - _WIDTH and 0 <= y <= 144 - _HEIGHT
            corners = all(not _overlap(at, (x, y), _CORNER, _CORNER) for at in places)
            if inside and corners and _overlap(places[-1], (x, y)):
                places.append((x, y))
                if len(places) == 5:
                    return places


def _cards(rng: random.Random) -> Made:
    places = _pile(rng)
    numbers = rng.sample(range(1, 6), 5)
    marks = []
    for (x, y), number, color in zip(places, numbers, rng.sample(list(COLORS), 5), strict=True):
        marks += [
            Mark("fill", x, y, _WIDTH, _HEIGHT, color),
            Mark("frame", x, y, _WIDTH, _HEIGHT),
            label(x, y, str(number), _CORNER, _CORNER, "white"),
        ]
    order = tuple(reversed(numbers))
    question = rng.choice((
        "The cards are taken from the pile, always the one on the top. In which order?",
        "Which card is on the top, which one comes next, and so on?",
        "Name the cards from the top of the pile to the bottom.",
    ))  # fmt: skip
    pairs = [f"{above} on {below}" for above, below in itertools.pairwise(order)]
    text = ", ".join(rng.sample(pairs, len(pairs)))
    steps = (f"top: {order[0]}", *(f"below it {number}" for number in order[1:]))
    mistakes = [tuple(numbers), (order[1], order[0], *order[2:]), (*order[:3], order[4], order[3])]
    mistakes += [(order[0], order[2], order[1], *order[3:]), (*order[:2], order[3], order[2], order[4])]
    return Made(tuple(marks), question, text, steps, order, tuple(mistakes))


def turned(pattern: Pattern, how: str) -> Pattern:
    """Return a pattern flipped (left for right) or turned by a quarter to the right, or by a half."""
    match how:
        case "flipped":
            return tuple(row[::-1] for row in pattern)
        case "quarter":
            return tuple(zip(*pattern[::-1], strict=True))
        case "half":
            return tuple(row[::-1] for row in pattern[::-1])
    return pattern


def pattern_marks(pattern: Pattern, x: int, y: int, size: int, colors: tuple[str, ...]) -> list[Mark]:
    """Return the cells of a pattern that are not 0, each in the color of its number."""
    marks = grid_lines(len(pattern), len(pattern[0]), size, x, y)
    for row, cells in enumerate(pattern):
        for column, value in enumerate(cells):
            if value:
                marks.append(Mark("fill", x + column * size, y + row * size, size, size, colors[value - 1]))
    return marks


def candidates(
    rng: random.Random, right: Pattern, others: list[Pattern], colors: tuple[str, ...]
) -> tuple[int, list[Mark], str]:
    """Put five patterns below each other's letters: where the right one is, their marks, their text."""
    place = rng.randrange(5)
    shown = [*others[:place], right, *others[place:4]]
    marks = []
    for i, one in enumerate(shown):
        marks += pattern_marks(one, 2 + 29 * i, 112, 9, colors)
        marks.append(label(2 + 29 * i, 90, OPTIONS[i], 27, 20, "black"))
    text = "\n".join(f"{letter}: {written(one)}" for letter, one in zip(OPTIONS, shown, strict=True))
    return place, marks, text


def written(pattern: Pattern) -> str:
    """Write a pattern row by row: - for 0, then a, b."""
    return " / ".join(" ".join("-ab"[value] for value in row) for row in pattern)


def drawn_pattern(rng: random.Random, values: list[int]) -> Pattern:
    """Return a pattern of 3 x 3 cells with these values in any places."""
    cells = values + [0] * (9 - len(values))
    rng.shuffle(cells)
    return tuple(tuple(cells[3 * row : 3 * row + 3]) for row in range(3))


_SEEN = {
    "flipped": ("seen from behind", "flipped over, left for right"),
    "quarter": ("turned by a quarter to the right",),
    "half": ("turned by a half", "put upside down by half a turn"),
}


def _holes(rng: random.Random) -> Made:
    how = rng.choice(sorted(_SEEN))
    color = rng.choice(list(COLORS))
    while True:
        sheet = drawn_pattern(rng, [1] * rng.randint(3, 4))
        right = turned(sheet, how)
        turns = [turned(sheet, other) for other in ("", *sorted(_SEEN)) if other != how]
        turns += [drawn_pattern(rng, [1] * sum(map(sum, sheet))) for _ in range(6)]
        others = [one for one in dict.fromkeys(turns) if one != right]
        if right != sheet and len(others) >= 4:
            break
    others = others[:4]
    rng.shuffle(others)
    place, marks, text = candidates(rng, right, others, (color,))
    question = rng.choice(("How does the sheet look {}?", "Which sheet is it, {}?", "Find the sheet {}.")).format(
        rng.choice(_SEEN[how])
    )
    marks += pattern_marks(sheet, 45, 14, 18, (color,))
    steps = (f"the sheet: {written(right)}", f"that is {OPTIONS[place]}")
    return Made(tuple(marks), question, f"sheet: {written(sheet)}\n{text}", steps, (place,))


def hidden_cubes(heights: tuple[tuple[int, ...], ...]) -> int:
    """Count the cubes behind which, towards the last row, a tower stands as high."""
    found = 0
    for row, cells in enumerate(heights):
        for column, height in enumerate(cells):
            front = max((heights[r][column] for r in range(row + 1, len(heights))), default=0)
            found += min(height, front)
    return found


def _towers(rng: random.Random) -> Made:
    by_number: dict[int, tuple[tuple[int, ...], ...]] = {}
    while len(by_number) < 7:
        heights = tuple(tuple(rng.randint(0, 4) for _ in range(3)) for _ in range(3))
        if (number := hidden_cubes(heights)) <= 12:
            by_number.setdefault(number, heights)
    number = rng.choice(sorted(by_number))
    heights = by_number[number]
    marks = grid_lines(3, 3, 36, 18)
    marks += [
        label(18 + 36 * column, 36 * row, str(height), 36, 36)
        for row, cells in enumerate(heights)
        for column, height in enumerate(cells)
    ]
    marks.append(label(18, 112, "front", 108, CELL, "red"))
    question = rng.choice((
        "Towers of cubes from above, with their heights. How many cubes are hidden from the front?",
        "The numbers are heights of towers. How many cubes can not be seen from the front?",
        "Seen from the front, how many cubes stand behind others?",
    ))  # fmt: skip
    columns = [tuple((row[column],) for row in heights) for column in range(3)]
    steps = tuple(f"column {i + 1}: {hidden_cubes(one)}" for i, one in enumerate(columns))
    total, highest = sum(map(sum, heights)), sum(max(column) for column in zip(*heights, strict=True))
    back = hidden_cubes(heights[::-1])
    text = "\n".join(" ".join(map(str, row)) for row in heights) + "\nfront"
    return Made(tuple(marks), question, text, steps, (number,), ((back,), (highest,), (total,), (total - highest,)))


FAMILIES = (
    Family("spatial_cards", "spatial", Form("digits"), (1, 5), _cards, length=5),
    Family("spatial_holes", "spatial", Form("letter"), (0, 4), _holes, split="test", drawn=True),
    Family("spatial_towers", "spatial", Form("integer"), (0, 12), _towers),
)
