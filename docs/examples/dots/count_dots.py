"""Count the dots of a row: a whole task family in one small folder, as docs/adding.md tells it."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from vlmreason.pictures import Picture
from vlmreason.tasks.base import Belongs, Modality, Score, Task

STEP = re.compile(r"(\d{1,3})\b")
ANSWER = re.compile(r"Answer: (\d{1,3})\b")


@dataclass(frozen=True)
class Sizes:
    """`places` of a row, and the side of a `cell` in pixels; the row is at the top of a square picture."""

    places: int
    cell: int


@dataclass(frozen=True)
class Row:
    dots: tuple[bool, ...]


class CountDots(Task[Row]):
    """Half of the places at most have a dot on simple, any number on hard."""

    name = "count_dots"
    version = 1
    levels = ("simple", "hard")
    state_type = Row
    sizes_type = Sizes
    explained = True  # failures.py and regions.py lie beside this file

    def __init__(self, sizes: Sizes, trace: str = "terse", wording: Mapping[str, str] | None = None) -> None:
        if wording or trace not in ("terse", "verbose"):
            raise ValueError(f"task.trace={trace} task.wording={wording}: terse or verbose, without templates")
        self.sizes, self.between = sizes, " " if trace == "terse" else " and "

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> Row:
        most = self.sizes.places if level == "hard" else self.sizes.places // 2
        while True:
            chosen = set(rng.sample(range(self.sizes.places), rng.randint(0, most)))
            row = Row(tuple(place in chosen for place in range(self.sizes.places)))
            if belongs(self.key(row)):
                return row

    def key(self, state: Row) -> object:
        return list(state.dots)

    def draw(self, state: Row) -> Picture:
        side, edge = self.sizes.cell, self.sizes.cell // 4
        picture = np.full((self.sizes.places * side, self.sizes.places * side, 3), 255, np.uint8)
        for place, dot in enumerate(state.dots):
            if dot:
                picture[edge : side - edge, side * place + edge : side * (place + 1) - edge] = 0
        return picture

    def text(self, state: Row) -> str:
        return "".join("*" if dot else "." for dot in state.dots)

    def prompt(self, state: Row, modality: Modality) -> str:
        return "Count the dots." + (f" {self.text(state)}" if modality == "text" else "")

    def convert(self, state: Row) -> str:
        return "Convert the row:"

    def thought(self, state: Row) -> list[str]:
        return [f"{number}{self.between}" for number in range(1, sum(state.dots) + 1)]

    def answer(self, state: Row) -> str:
        return f"Answer: {sum(state.dots)}"

    def options(self, state: Row) -> tuple[str, ...]:
        return tuple(f"Answer: {number}" for number in range(len(state.dots) + 1))

    def groups(self, state: Row) -> Mapping[str, str]:
        return {"number": str(sum(state.dots))}

    def score(self, state: Row, response: str) -> Score:
        found = ANSWER.findall(response)
        return Score(bool(found) and int(found[-1]) == sum(state.dots), bool(found))
