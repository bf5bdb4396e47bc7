"""Logic: an order by clues, a code read from a table, papers that are cut."""

from __future__ import annotations

import random

from vlmreason.tasks.puzzles.families.scene import CELL, COLORS, ICONS, Family, Made, Mark, label
from vlmreason.tasks.puzzles.values import LETTERS, Form


def _shelf(rng: random.Random) -> Made:
    num = rng.choice((5, 6))
    toys = rng.sample(ICONS, 3)
    while True:
        shown, middle, asked = (rng.randint(1, num) for _ in range(3))
        if len({shown, middle, asked}) == 3:
            break
    marks = [Mark("line", 24, CELL * row, 72, 0, "brown") for row in range(1, num + 1)]
    marks += [label(0, CELL * row, str(row + 1)) for row in range(num)]
    marks.append(Mark(toys[0], 48, CELL * (shown - 1), CELL, CELL, rng.choice(list(COLORS))))

    def clue(toy: str, row: int, than: str, other: int) -> str:
        num_rows = abs(row - other)
        return f"The {toy} is {num_rows} row{'s' * (num_rows > 1)} {'below' if row > other else 'above'} the {than}."

    clues = [clue(toys[1], middle, toys[0], shown), clue(toys[2], asked, toys[1], middle)]
    rng.shuffle(clues)
    question = rng.choice((
        "{} In which row is the {toy}?", "{} Which row is the {toy} in?", "{} Say the row of the {toy}.",
    )).format(" ".join(clues), toy=toys[2])  # fmt: skip
    steps = (f"{toys[0]} in row {shown}", f"{toys[1]} in row {middle}", f"{toys[2]} in row {asked}")
    mistakes = ((shown + asked - middle,), (2 * middle - asked,), (middle,), (shown,))
    text = f"shelf of {num} rows; {toys[0]} in row {shown}"
    return Made(tuple(marks), question, text, steps, (asked,), mistakes)


def _code(rng: random.Random) -> Made:
    letters = [rng.sample(LETTERS, 4) for _ in range(4)]
    columns = rng.sample("PQRSTUVW", 4)
    places = [(row, column) for row in range(4) for column in range(4)]
    word = rng.sample(places, 4)
    marks = [label(CELL * (i + 1), 0, name, color="blue") for i, name in enumerate(columns)]
    marks += [label(0, CELL * (i + 1), str(i + 1), color="blue") for i in range(4)]
    for row, column in places:
        marks += [
            Mark("frame", CELL * (column + 1), CELL * (row + 1), CELL, CELL, "grey"),
            label(CELL * (column + 1), CELL * (row + 1), letters[row][column]),
        ]
    code = " ".join(f"{columns[column]}{row + 1}" for row, column in word)
    question = rng.choice((
        "Which word is {} in the table?", "Read the word {} from the table.", "A word has the code {}. Which one?",
    )).format(code)  # fmt: skip
    text = "- " + " ".join(columns) + "\n" + "\n".join(f"{i + 1} " + " ".join(row) for i, row in enumerate(letters))

    def read(at: list[tuple[int, int]]) -> tuple[int, ...]:
        return tuple(LETTERS.index(letters[row][column]) for row, column in at)

    turned = [(column, row) for row, column in word]
    swapped = [word[1], word[0], *word[2:]]
    other = [*word[:3], ((word[3][0] + 1) % 4, word[3][1])]
    second = [word[0], (word[1][0], (word[1][1] + 1) % 4), *word[2:]]
    steps = tuple(f"{columns[c]}{r + 1}: {letters[r][c]}" for r, c in word)
    mistakes = tuple(map(read, (turned, swapped, other, second, list(reversed(word)))))
    return Made(tuple(marks), question, text, steps, read(word), mistakes)


def _papers(rng: random.Random) -> Made:
    while True:
        colors = rng.sample(list(COLORS), 3)
        numbers = [rng.randint(1, 6) for _ in colors]
        pieces = [2 * numbers[0], 2 * numbers[1], 4 * numbers[2]]
        if 4 <= sum(pieces) <= 40:
            break
    marks = [Mark("fill", 10 + 44 * i, 40, 36, 60, color) for i, color in enumerate(colors)]
    listed = rng.sample(list(zip(numbers, colors, strict=True)), 3)
    said = ", ".join(f"{number} {color}" for number, color in listed)
    question = rng.choice((
        "There are {s} papers. All but the {a} are cut in half, then all pieces but the {b}. How many pieces?",
        "Of {s} papers, first all but the {a} are cut in two, then all pieces but the {b}. How many pieces?",
        "{s} papers: whatever is not {a} is halved, and then whatever is not {b}. How many pieces are there then?",
    )).format(s=said, a=colors[0], b=colors[1])  # fmt: skip
    steps = tuple(f"{color}: {num}" for color, num in zip(colors, pieces, strict=True))
    mistakes = ((sum(numbers),), (2 * sum(numbers),), (sum(pieces) - 2 * numbers[2],), (4 * sum(numbers),))
    text = f"papers: {' '.join(colors)}"
    return Made(tuple(marks), question, text, steps, (sum(pieces),), mistakes)


FAMILIES = (
    Family("logic_shelf", "logic", Form("integer"), (1, 6), _shelf),
    Family("logic_code", "logic", Form("letters"), (0, 25), _code, length=4),
    Family("logic_papers", "logic", Form("integer"), (4, 40), _papers, split="test"),
)
