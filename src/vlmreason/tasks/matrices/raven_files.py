"""RAVEN and I-RAVEN from the user's disk: a folder for each configuration, two files for each puzzle.

Levels are the configurations, splits those that the files' names say. Puzzles are asked, written and judged as those of
`raven`, from the structure in the XML; pictures are the files' own. Puzzles that cannot be used (damaged, or with two
right answers, or with another one than the rules of their panels leave) are named or counted.
"""

from __future__ import annotations

import json
import os
import random
import re
import warnings
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image

from vlmreason.pictures import Picture
from vlmreason.tasks.base import Belongs
from vlmreason.tasks.matrices.drawing import Ink
from vlmreason.tasks.matrices.panels import CONFIGURATIONS, NUM_CONTEXT, MatrixSizes, MatrixState
from vlmreason.tasks.matrices.raven import Raven
from vlmreason.tasks.matrices.raven_xml import read_images, read_puzzle
from vlmreason.tasks.matrices.sampler import key_of
from vlmreason.tasks.on_disk import Limits, resolved

_NAME = re.compile(r"(RAVEN_\d{1,9}_(train|val|test))\.(npz|xml)", re.ASCII)
_SPLITS = {"train": "train", "validation": "val", "test": "test"}
_MOST_FILES = 1_000_000


@dataclass(frozen=True)
class MatrixFileState(MatrixState):
    """`stem`: name of the puzzle's files, without their ends."""

    stem: str


class RavenFiles(Raven):
    """data: the folder with a folder for each configuration. broken: what is done about puzzles that cannot be used."""

    name = "raven_files"
    version = 1
    state_type = MatrixFileState
    reads_files = True

    def __init__(
        self,
        sizes: MatrixSizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        data: str | None = None,
        broken: Literal["refuse", "skip"] = "refuse",
    ) -> None:
        super().__init__(sizes, trace, wording)
        self.data, self.limits = data, Limits(broken)
        self._read: dict[tuple[str, str], list[MatrixFileState]] = {}

    def num_problems(self, level: str, split: str) -> int:
        return len(self._puzzles(level, split))

    def met_in_training(self, trained: Collection[str], level: str, split: str) -> str:
        """Compare whole puzzles, less angles and the order of choices: splits are what the files' names say."""
        met = {_whole(state) for each in trained for state in self._puzzles(each, "train")}
        puzzles = self._puzzles(level, split)
        shared = sum(_whole(state) in met for state in puzzles)
        return f"{shared} of its {len(puzzles)} puzzles in task.data are there for training too" if shared else ""

    def _state(self, level: str, split: str, index: int) -> MatrixState:
        puzzles = self._puzzles(level, split)
        if not puzzles:
            raise ValueError(
                f"task={self.name} level={level} split={split}: there is no problem in task.data={self.data}"
            )
        return puzzles[index % len(puzzles)]

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> MatrixState:
        raise AssertionError("puzzles are not drawn")

    def _puzzles(self, level: str, split: str) -> list[MatrixFileState]:
        """All puzzles of a level and split that can be used, by their numbers. Raises ValueError."""
        if (level, split) not in self._read:
            self._read[level, split] = self._read_all(level, split)
        return self._read[level, split]

    def _read_all(self, level: str, split: str) -> list[MatrixFileState]:
        folder = self._folder(level)
        stems: dict[str, set[str]] = {}
        for number, name in enumerate(os.listdir(folder) if folder.is_dir() else ()):
            if number >= _MOST_FILES:
                raise ValueError(f"{folder}: more than {_MOST_FILES} files")
            found = _NAME.fullmatch(name)
            if found and found[2] == _SPLITS[split]:
                stems.setdefault(found[1], set()).add(found[3])
        puzzles, faults = [], []
        for stem in sorted(stems, key=lambda name: (int(name.split("_")[1]), name)):
            try:
                if len(stems[stem]) < 2:
                    raise ValueError(f"{stem}.{stems[stem].pop()} is alone, .npz and .xml are expected")
                state = read_puzzle(self._inside(folder / stem), level, self.sizes)
                puzzles.append(MatrixFileState(level, state.context, state.choices, state.answer, stem))
            except ValueError as error:
                faults.append(str(error))
        if faults and (self.limits.broken == "refuse" or not puzzles):
            raise ValueError(
                f"{folder}: {len(faults)} of {len(stems)} puzzles cannot be used (task.broken=skip leaves them out); "
                f"{faults[0]}"
            )
        if faults:
            warnings.warn(f"{folder}: {len(faults)} of {len(stems)} puzzles are left out; {faults[0]}", stacklevel=2)
        return puzzles

    def _folder(self, level: str) -> Path:
        if self.data is None:
            raise ValueError(f"task.data: missing, the folder of {self.name} with {CONFIGURATIONS[level].folder} in it")
        if not Path(self.data).is_dir():
            raise ValueError(f"task.data={self.data}: no such folder")
        return Path(self.data) / CONFIGURATIONS[level].folder

    def _inside(self, stem: Path) -> Path:
        """The name of a puzzle's files. Raises ValueError where one of them is a link out of the folder."""
        assert self.data is not None
        for end in (".npz", ".xml"):
            if not resolved(stem.with_suffix(end)).is_relative_to(Path(self.data).resolve()):
                raise ValueError(f"{stem.name}{end} leads out of task.data={self.data}")
        return stem

    def draw(self, state: MatrixState) -> Picture:
        """Return the files' own panels, brought to the size of the configuration. Raises ValueError."""
        assert isinstance(state, MatrixFileState)
        folder = self._folder(state.configuration)
        if not _NAME.fullmatch(f"{state.stem}.npz"):
            raise ValueError(f"task={self.name}: stem={state.stem[:40]!r} is no name of a puzzle")
        try:
            images = read_images(self._inside(folder / state.stem).with_suffix(".npz"))
        except (OSError, ValueError) as error:
            raise ValueError(f"task={self.name}: {folder.name}: {error}") from error
        panels = [self._sized(image) for image in images]
        return self.artist.inks([*panels[:NUM_CONTEXT], None, *panels[NUM_CONTEXT:]])

    def _sized(self, image: Ink) -> Ink:
        side = self.sizes.panel
        if image.shape == (side, side):
            return image
        return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BOX))


def _whole(state: MatrixState) -> str:
    """What makes a puzzle the same as another one."""
    choices = key_of(state.choices)
    return json.dumps([state.configuration, key_of(state.context), sorted(choices), choices[state.answer]])
