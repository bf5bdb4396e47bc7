"""What sets of pictures on the user's disk share: entries by split, pictures that are opened when they are drawn.

Nothing of a file is executed: files of numbers are read as numbers, pictures by readers that run no programs.
"""

from __future__ import annotations

import functools
import random
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image, ImageOps

from vlmreason.pictures import Picture
from vlmreason.streams import SPLITS
from vlmreason.tasks.base import Belongs
from vlmreason.tasks.images.base import PictureSizes, PictureTask
from vlmreason.tasks.on_disk import check_held_out, held_out_split

HELD_OUT = 0.1
MAX_BYTES = 1 << 30  # of a file of pictures
HIDDEN = "The picture is not shown."


@dataclass(frozen=True)
class Filed:
    """A picture of a file: its label, the file (or the class's folder and file), and its number in it."""

    label: str
    file: str
    number: int


class FiledPictures(PictureTask[Filed]):
    """A set on disk. data: its folder. held_out: share of what is for training that is kept for validation; where the
    set has no test pictures of its own, as much for test."""

    state_type = Filed
    sizes_type: ClassVar[type] = PictureSizes
    reads_files = True

    def __init__(
        self,
        sizes: PictureSizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        listed: str = "none",
        foreign: Sequence[str] | None = None,
        data: str | None = None,
        held_out: float = HELD_OUT,
    ) -> None:
        super().__init__(sizes, trace, wording, listed, foreign)
        check_held_out(held_out)
        self.data, self.held_out = data, held_out

    @abstractmethod
    def entries(self) -> Mapping[str, Sequence[Filed]]:
        """Return all pictures, in their order, by the split that they are published in: "train", "test", if they are
        "validation"; "": none. Raises ValueError."""

    @abstractmethod
    def image(self, state: Filed) -> Image.Image:
        """Open a picture. Raises ValueError."""

    @property
    def folder(self) -> Path:
        """Return the folder of the set. Raises ValueError where it is not given or none."""
        if self.data is None:
            raise ValueError(f"task.data: missing, the folder of {self.name}")
        if not Path(self.data).is_dir():
            raise ValueError(f"task.data={self.data}: no such folder")
        return Path(self.data)

    def key(self, state: Filed) -> object:
        return [state.file, state.number]

    def num_problems(self, level: str, split: str) -> int:
        return len(self._places[level, split])

    def draw(self, state: Filed) -> Picture:
        try:
            image = self.image(state)
        except ValueError as error:
            raise ValueError(f"task={self.name}: {state.file}: {error}") from error
        image = image.convert("RGB")
        if self.sizes.picture is not None:
            image = ImageOps.pad(image, self.sizes.picture, Image.Resampling.BICUBIC, color="white")
        return np.array(image)

    def text(self, state: Filed) -> str:
        """Return that there is none: a picture of a file has no text form."""
        return HIDDEN

    def _state(self, level: str, split: str, index: int) -> Filed:
        found = self._places[level, split]
        if not found:
            raise ValueError(f"task={self.name} level={level} split={split}: there is no picture")
        return found[index % len(found)]

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> Filed:
        raise AssertionError("pictures are not drawn")

    @functools.cached_property
    def _places(self) -> Mapping[tuple[str, str], list[Filed]]:
        published = self.entries()
        found: dict[tuple[str, str], list[Filed]] = {(level, split): [] for level in self.levels for split in SPLITS}
        levels = {label: [level for level in self.levels if label in self.of_level(level)] for label in self.labels}
        for own, states in published.items():
            for state in states:
                split = self._split(own, state, published)
                for level in levels[state.label]:
                    found[level, split].append(state)
        return found

    def _split(self, published: str, state: Filed, all_of_them: Mapping[str, Sequence[Filed]]) -> str:
        """The split of a picture: as it is published, what is not by a hash."""
        if published in ("test", "validation"):
            return published
        split = held_out_split(self.name, self.key(state), self.held_out)
        missing = [name for name in ("validation", "test") if not all_of_them.get(name)]
        return split if split in missing else "train"
