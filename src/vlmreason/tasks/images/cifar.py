"""CIFAR-10 and CIFAR-100 on the user's disk in their binary form; pickles, which can run anything, are refused."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmreason.files import read_bytes, read_text
from vlmreason.tasks.images.files import MAX_BYTES, Filed, FiledPictures
from vlmreason.tasks.images.labels import CIFAR10, CIFAR100

SIDE = 32
PIXELS = 3 * SIDE * SIDE
PAGE = "https://www.cs.toronto.edu/~kriz/cifar.html"


class Cifar(FiledPictures):
    """data: the unpacked folder of the binary version.

    files: by split; names: the file with the labels; head: bytes before the pixels of a row, of which the last is the
    label; pickled: a file of the version for Python.
    """

    files: ClassVar[Mapping[str, tuple[str, ...]]]
    names: ClassVar[str]
    all_labels: ClassVar[tuple[str, ...]]
    head: ClassVar[int]
    pickled: ClassVar[tuple[str, ...]]
    archive: ClassVar[str]

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(label.replace("_", " ") for label in self.all_labels)

    def entries(self) -> Mapping[str, Sequence[Filed]]:
        self._check_form()
        return {split: [one for file in files for one in self._entries(file)] for split, files in self.files.items()}

    def image(self, state: Filed) -> Image.Image:
        row = self._rows(state.file)[state.number, self.head :]
        return Image.fromarray(np.ascontiguousarray(row.reshape(3, SIDE, SIDE).transpose(1, 2, 0)))

    def _entries(self, file: str) -> list[Filed]:
        found = self._rows(file)[:, self.head - 1].tolist()
        if found and max(found) >= len(self.labels):
            raise ValueError(f"{self.folder / file}: label {max(found)}, and 0 to {len(self.labels) - 1} are expected")
        return [Filed(self.labels[label], file, number) for number, label in enumerate(found)]

    def _rows(self, file: str) -> NDArray[np.uint8]:
        return read_rows(self.folder / file, self.head + PIXELS)

    def _check_form(self) -> None:
        """Raise ValueError for the version for Python, and for labels in another order."""
        there = {path.name for path in self.folder.iterdir()}
        if there & set(self.pickled) and not there & set(self.files["train"]):
            raise ValueError(
                f"task.data={self.data}: the version for Python, whose pickles can run anything, is not read; the "
                f"binary version is {self.archive} at {PAGE}"
            )
        if self.names in there:
            named = tuple(read_text(self.folder / self.names, 100_000).split())
            if named != self.all_labels:
                raise ValueError(
                    f"{self.folder / self.names}: {len(named)} labels, other ones than those of {self.name}"
                )


class Cifar10(Cifar):
    name = "cifar10"
    version = 1
    files: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "train": tuple(f"data_batch_{number}.bin" for number in range(1, 6)),
        "test": ("test_batch.bin",),
    }
    names = "batches.meta.txt"
    all_labels = CIFAR10
    head = 1
    pickled = ("data_batch_1", "test_batch", "batches.meta")
    archive = "cifar-10-binary.tar.gz"


class Cifar100(Cifar):
    name = "cifar100"
    version = 1
    files: ClassVar[Mapping[str, tuple[str, ...]]] = {"train": ("train.bin",), "test": ("test.bin",)}
    names = "fine_label_names.txt"
    all_labels = CIFAR100
    head = 2
    pickled = ("train", "test", "meta")
    archive = "cifar-100-binary.tar.gz"


@functools.lru_cache(maxsize=8)
def read_rows(path: Path, width: int) -> NDArray[np.uint8]:
    """Read rows of so many bytes. Raises ValueError, as where the last one is cut off."""
    data = read_bytes(path, MAX_BYTES)
    if not data or len(data) % width:
        raise ValueError(f"{path}: cut off, {len(data)} bytes where rows have {width}")
    return np.frombuffer(data, np.uint8).reshape(-1, width)
