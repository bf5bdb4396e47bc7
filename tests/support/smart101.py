"""A miniature of SMART-101 in the layout in which it was released, with each of its quirks."""

import csv
import random
from pathlib import Path
from typing import Any

from PIL import Image

HEAD = ("id", "Question", "image", "A", "B", "C", "D", "E", "Answer", "Note")
ICONS = ("ant", "bird", "crab", "duck", "eel", "stray.file")
SKILLS = {1: "path", 2: "counting", 7: "algebra", 18: "order", 21: "measure", 24: "counting", 25: "measure", 35: "path",
          39: "path", 43: "math", 58: "math", 61: "algebra", 62: "logic", 63: "algebra", 65: "path", 77: "pattern",
          90: "math", 100: "logic"}  # fmt: skip
"""The puzzles of the miniature: each type of answer, held-out ones, the folder with the misnamed file."""


def options(puzzle: int, rng: random.Random) -> list[str]:
    """Five different options as the puzzle's file has them."""
    numbers = rng.sample(range(1, 30), 5)
    if puzzle == 1:
        return list(ICONS[:5])
    if puzzle == 18:
        return ["-".join(map(str, rng.sample(range(1, 6), 5))) for _ in range(5)]
    if puzzle == 21:
        return [f"{number} hours" for number in numbers]
    if puzzle == 25:
        return rng.sample([f"{hour}:00 {half}" for hour in range(1, 13) for half in ("AM", "PM")], 5)
    if puzzle == 35:
        return [", ".join(sorted(rng.sample("ABCDE", num))) for num in (1, 2, 3, 4, 2)]
    if puzzle in (39, 100):
        return ["".join(rng.sample("ABCDEFGHKLMNOPRSTU", 5)) for _ in range(5)]
    if puzzle == 58:
        return rng.sample([f"{sign}{number}" for sign in "+-x/" for number in range(1, 10)], 5)
    if puzzle == 63:
        return [f"{number}, {number + 3} and {number + 7}" for number in numbers]
    if puzzle == 65:
        return list("BADEC")
    if puzzle in (24, 77):
        return [""] * 5
    if puzzle == 90:
        return ["Impossible", *map(str, numbers[:4])]
    return list(map(str, numbers))


def write(root: Path, num_rows: int = 40, puzzles: dict[int, str] | None = None) -> dict[int, list[dict[str, Any]]]:
    """Write the miniature below `root`; returns the rows by puzzle, as they stand in the files."""
    root.mkdir(parents=True, exist_ok=True)
    found: dict[int, list[dict[str, Any]]] = {}
    used = SKILLS if puzzles is None else puzzles
    with (root / "puzzle_type_info.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("puzzle_id", "type"), *used.items()])
    (root / "icon-classes.txt").write_text("\n".join(ICONS) + "\n")
    for puzzle in used:
        rng, folder = random.Random(puzzle), root / "SMART101-Data" / str(puzzle)
        (folder / "img").mkdir(parents=True)
        from_one = puzzle % 2 == 1
        rows = []
        for row in range(num_rows):
            name = f"puzzle_{puzzle}_e_{row + 1}.png" if from_one else f"puzzle_{puzzle}_{row}.png"
            color = tuple(rng.randrange(256) for _ in range(3))
            Image.new("RGB", (20 + row % 3, 16), color).save(folder / "img" / name)
            question = f"Question {row + 1} of puzzle {puzzle}, with a comma?"
            some = options(puzzle, rng)
            rows.append(dict(zip(HEAD, (row + 1, question, name, *some, rng.choice("ABCDE"), ""), strict=True)))
        with (folder / f"puzzle_{63 if puzzle == 62 else puzzle}.csv").open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(HEAD)
            longer = ["one more"] if puzzle == 7 else []
            writer.writerows([*row.values(), *longer] for row in rows)
        found[puzzle] = rows
    return found
