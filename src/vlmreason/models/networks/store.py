"""What frozen encoders see, kept on disk by content: computed once, however often and in how many runs it is asked for.

One file per encoder: a head that names it, then rows of a key and a vector in float16. A row is whole or is passed
over, so an interruption costs nothing but the rows of one batch; several processes may write to a file in turn.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlmreason.files import check_ordinary
from vlmreason.pictures import Picture

KEY = 16
"""Bytes of a key, the hash of a content."""
_HEAD = 512

BATCH = 32  # contents that are encoded together

Vectors = NDArray[np.float16]


def content_key(content: bytes) -> bytes:
    """Return the key of a content."""
    return hashlib.blake2b(content, digest_size=KEY).digest()


def picture_key(picture: Picture) -> bytes:
    """Return the key of a picture: the same for the same pixels, whatever file they are in."""
    return content_key(repr(picture.shape).encode() + picture.tobytes())


class FeatureStore:
    """Vectors of `width` numbers by key. what: names the encoder to the last weight; folder: None for this run only.

    Raises ValueError where the file is of another encoder.
    """

    def __init__(self, folder: Path | None, what: str, width: int) -> None:
        if folder is None:
            self._temporary = tempfile.TemporaryDirectory(prefix="vlmreason-features-")
            folder = Path(self._temporary.name)
        folder.mkdir(parents=True, exist_ok=True)
        self.path, self.width = folder / f"{what}.features", width
        self._head = json.dumps({"encoder": what, "width": width, "version": 1}).encode().ljust(_HEAD - 1) + b"\n"
        self._row = np.dtype([("key", np.uint8, (KEY,)), ("vector", np.float16, (width,))])
        self._numbers: dict[bytes, int] = {}
        self._rows: NDArray[np.void] | None = None
        if not self.path.exists():
            with self._locked("a+b") as size:
                if size == 0:
                    self.path.write_bytes(self._head)
        check_ordinary(self.path)
        with self.path.open("rb") as file:
            if file.read(_HEAD) != self._head:
                raise ValueError(f"features: {self.path} holds features of another encoder; delete it")
        self._read_new()

    def __len__(self) -> int:
        return len(self._numbers)

    def missing(self, keys: Sequence[bytes]) -> list[int]:
        """Return the places of the keys that are not there, each content once."""
        found: dict[bytes, int] = {}
        for place, key in enumerate(keys):
            if key not in self._numbers:
                found.setdefault(key, place)
        return list(found.values())

    def add(self, keys: Sequence[bytes], vectors_NF: Vectors) -> None:
        """Append rows that are not there."""
        with self._locked("r+b") as size:
            self._read_new()
            new = self.missing(keys)
            rows = np.zeros(len(new), self._row)
            for row, place in zip(rows, new, strict=True):
                row["key"], row["vector"] = np.frombuffer(keys[place], np.uint8), vectors_NF[place]
            with self.path.open("r+b") as file:
                whole = _HEAD + (size - _HEAD) // self._row.itemsize * self._row.itemsize
                file.truncate(whole)  # half a row of a run that was killed
                file.seek(whole)
                file.write(rows.tobytes())
        self._read_new()

    def numbers(self, keys: Sequence[bytes]) -> list[int]:
        """Return the row numbers of keys that are there."""
        return [self._numbers[key] for key in keys]

    def computed(self, keys: Sequence[bytes], see: Callable[[Sequence[int]], Vectors]) -> list[int]:
        """Return the row numbers of keys. `see` gives the vectors of those that are not there, some at a time, by their
        places among the keys."""
        missing = self.missing(keys)
        for some in (missing[at : at + BATCH] for at in range(0, len(missing), BATCH)):
            self.add([keys[place] for place in some], see(some))
        return self.numbers(keys)

    def vectors(self, numbers: Sequence[int]) -> Vectors:
        """Return the vectors (N, width) of row numbers, read from disk."""
        assert self._rows is not None
        found: Vectors = self._rows["vector"][np.asarray(numbers, dtype=np.int64)]
        return found

    def _read_new(self) -> None:
        num = (self.path.stat().st_size - _HEAD) // self._row.itemsize
        if num <= len(self._numbers):
            return
        self._rows = np.memmap(self.path, self._row, "r", _HEAD, (num,))
        first = len(self._numbers)
        keys = np.ascontiguousarray(self._rows["key"][first:]).tobytes()
        for i in range(num - first):
            self._numbers[keys[KEY * i : KEY * (i + 1)]] = first + i

    @contextlib.contextmanager
    def _locked(self, mode: str) -> Iterator[int]:
        """The file, for this process alone; gives its size."""
        with self.path.open(mode) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield self.path.stat().st_size
