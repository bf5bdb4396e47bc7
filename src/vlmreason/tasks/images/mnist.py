"""MNIST on the user's disk, in its published form: files of the IDX format, packed by gzip or not."""

from __future__ import annotations

import functools
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vlmreason.files import read_bytes
from vlmreason.tasks.images.files import MAX_BYTES, Filed, FiledPictures
from vlmreason.tasks.images.labels import DIGITS

FILES = {"train": "train", "test": "t10k"}


class Mnist(FiledPictures):
    """data: the folder with train-images-idx3-ubyte, train-labels-idx1-ubyte and the two of t10k, each with or without
    .gz at its end."""

    name = "mnist"
    version = 1
    thing = "number"

    @property
    def labels(self) -> tuple[str, ...]:
        return DIGITS

    def entries(self) -> Mapping[str, Sequence[Filed]]:
        return {split: self._entries(begin) for split, begin in FILES.items()}

    def image(self, state: Filed) -> Image.Image:
        return Image.fromarray(self._pictures(state.file)[state.number])

    def _entries(self, begin: str) -> list[Filed]:
        labels = read_idx(_path(self.folder, f"{begin}-labels-idx1-ubyte"), 1)
        num = len(self._pictures(begin))
        if num != len(labels):
            raise ValueError(f"{self.folder}: {num} pictures and {len(labels)} labels of {begin}")
        if len(labels) and labels.max() >= len(DIGITS):
            raise ValueError(f"{self.folder}: labels of {begin} up to {labels.max()}, and 0 to 9 are expected")
        return [Filed(DIGITS[label], begin, number) for number, label in enumerate(labels.tolist())]

    def _pictures(self, begin: str) -> NDArray[np.uint8]:
        return _read(_path(self.folder, f"{begin}-images-idx3-ubyte"), 3)


def read_idx(path: Path, num_axes: int) -> NDArray[np.uint8]:
    """Read an IDX file of bytes with so many axes. Raises ValueError, as where it is cut off."""
    data = read_bytes(path, MAX_BYTES)
    if path.suffix == ".gz":
        unpacked = zlib.decompressobj(wbits=31)
        try:
            data = unpacked.decompress(data, MAX_BYTES)
        except zlib.error as error:
            raise ValueError(f"{path}: damaged ({error})") from error
        if unpacked.unconsumed_tail:
            raise ValueError(f"{path}: more than {MAX_BYTES >> 30} GB unpacked")
        if not unpacked.eof:
            raise ValueError(f"{path}: cut off")
    begin = 4 + 4 * num_axes
    if len(data) < begin or data[:4] != bytes((0, 0, 8, num_axes)):
        raise ValueError(f"{path}: no IDX file of bytes with {num_axes} axes")
    shape = tuple(int.from_bytes(data[at : at + 4], "big") for at in range(4, begin, 4))
    wanted = 1
    for size in shape:
        wanted *= size
    if len(data) - begin != wanted:
        what = "cut off" if len(data) - begin < wanted else "too long"
        sides = " x ".join(map(str, shape))
        raise ValueError(f"{path}: {what}, {len(data) - begin} bytes where its head says {sides}")
    return np.frombuffer(data, np.uint8, offset=begin).reshape(shape)


@functools.lru_cache(maxsize=2)
def _read(path: Path, num_axes: int) -> NDArray[np.uint8]:
    return read_idx(path, num_axes)


def _path(folder: Path, name: str) -> Path:
    """Where a file is: as it is published, packed or not, or with a dot in place of the hyphen before idx."""
    names = [name, f"{name}.gz", name.replace("-idx", ".idx"), f"{name.replace('-idx', '.idx')}.gz"]
    return next((folder / one for one in names if (folder / one).exists()), folder / name)
