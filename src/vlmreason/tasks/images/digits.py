"""Handwritten digits: the 1,797 pictures of 8 x 8 grey values that scikit-learn carries; no other set here is real.

They are the test set of UCI's "Optical Recognition of Handwritten Digits" (CC BY 4.0). The file is read from where the
package lies, without importing it. Splits are a hash of the picture, and one that comes twice counts once.
"""

from __future__ import annotations

import functools
import gzip
import importlib.util
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from vlmreason.pictures import Picture
from vlmreason.tasks.base import Belongs
from vlmreason.tasks.images.base import PictureSizes, PictureTask
from vlmreason.tasks.images.labels import DIGITS

SIDE = 8
WHITE = 16  # the largest grey value of the file


@dataclass(frozen=True)
class Digit:
    """label: the number; rows: its grey values from 0 (ground) to 16 (ink), row by row."""

    label: str
    rows: tuple[tuple[int, ...], ...]


class Digits(PictureTask[Digit]):
    name = "digits"
    version = 1
    state_type = Digit
    sizes_type: ClassVar[type] = PictureSizes
    thing = "number"

    @property
    def labels(self) -> tuple[str, ...]:
        return DIGITS

    def key(self, state: Digit) -> object:
        return [list(row) for row in state.rows]

    def num_problems(self, level: str, split: str) -> int:
        return len(self._places[level, split])

    def draw(self, state: Digit) -> Picture:
        values = np.array(state.rows, dtype=np.float32) * (255 / WHITE)
        image = Image.fromarray(values.round().astype(np.uint8))
        if self.sizes.picture is not None:
            image = image.resize(self.sizes.picture, Image.Resampling.BICUBIC)
        return np.array(image.convert("RGB"))

    def text(self, state: Digit) -> str:
        """Return the grey values, a line for each row."""
        return "\n".join(" ".join(map(str, row)) for row in state.rows)

    def state_from_json(self, data: object) -> Digit:
        state = super().state_from_json(data)
        known = all(len(row) == SIDE and all(0 <= value <= WHITE for value in row) for row in state.rows)
        if state.label not in DIGITS or len(state.rows) != SIDE or not known:
            raise ValueError(f"problem of {self.name}: a label and {SIDE} x {SIDE} values up to {WHITE} are expected")
        return state

    def _state(self, level: str, split: str, index: int) -> Digit:
        found = self._places[level, split]
        return found[index % len(found)]

    @functools.cached_property
    def _places(self) -> Mapping[tuple[str, str], list[Digit]]:
        by_split = [(self.split_of(self.key(one)), one) for one in read_digits()]
        return {
            (level, split): [one for own, one in by_split if own == split and one.label in self.of_level(level)]
            for level in self.levels
            for split in ("train", "validation", "test")
        }

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> Digit:
        raise AssertionError("pictures are not drawn")


@functools.cache
def read_digits() -> tuple[Digit, ...]:
    """Return the pictures, each once, in the order of the file. Raises ValueError where the package is missing."""
    spec = importlib.util.find_spec("sklearn")
    folder = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else None
    path = folder and folder / "datasets" / "data" / "digits.csv.gz"
    if path is None or not path.is_file():
        raise ValueError('task=digits: the pictures come with scikit-learn; pip install "vlmreason[digits]"')
    with gzip.open(path) as file:
        table = np.loadtxt(file, delimiter=",").astype(int)
    found: dict[tuple[tuple[int, ...], ...], Digit] = {}
    for row in table.tolist():
        rows = tuple(tuple(row[at : at + SIDE]) for at in range(0, SIDE * SIDE, SIDE))
        found.setdefault(rows, Digit(str(row[-1]), rows))
    return tuple(found.values())
