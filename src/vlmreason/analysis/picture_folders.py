"""Look at all pictures of a folder through several towers, once each: duplicates and files that are none are named."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vlmreason.models.networks.store import picture_key
from vlmreason.pictures import Picture, open_picture

if TYPE_CHECKING:
    from vlmreason.models.embedders import KeptVectors, UnitVectors

BATCH = 64  # pictures that are open at a time


@dataclass(frozen=True)
class Looked:
    """names: of the pictures, each content once, in order. duplicates: names of further files with the name of the
    first one of the same pixels; none: files that are no pictures, with the reason. vectors: of each tower; content: a
    hash of all pictures."""

    names: list[str]
    duplicates: list[tuple[str, str]]
    none: list[tuple[str, str]]
    vectors: list[UnitVectors]
    content: str


def look(folder: Path, towers: Sequence[KeptVectors], max_megapixels: float, progress: bool) -> Looked:
    """See the pictures of a folder and of all below it. Raises ValueError where there are fewer than two."""
    files = sorted(files_below(folder), key=lambda path: path.relative_to(folder).as_posix())
    first: dict[bytes, int] = {}
    looked = Looked([], [], [], [], "")
    rows: list[list[int]] = [[] for _ in towers]
    for start in tqdm(range(0, len(files), BATCH), "pictures", disable=None if progress else True, unit="batch"):
        new: list[Picture] = []
        for path in files[start : start + BATCH]:
            name = path.relative_to(folder).as_posix()
            try:
                if path.is_symlink():
                    raise ValueError("a link")
                picture = np.asarray(open_picture(path, max_megapixels, f"max_megapixels={max_megapixels:g}"))
            except ValueError as error:
                looked.none.append((name, str(error)))
                continue
            at = first.setdefault(picture_key(picture), len(looked.names))
            if at < len(looked.names):
                looked.duplicates.append((name, looked.names[at]))
                continue
            looked.names.append(name)
            new.append(picture)
        for tower, numbers in zip(towers, rows, strict=True):
            numbers += tower.numbers(new)
    if len(looked.names) < 2:
        raise ValueError(f"folder={folder}: {len(looked.names)} different pictures in {len(files)} files: 2 are needed")
    found = hashlib.blake2b(b"".join(first), digest_size=8)
    found.update("\n".join(looked.names).encode(errors="surrogatepass"))
    seen = [tower.of_length_1(np.asarray(some, np.int64)) for tower, some in zip(towers, rows, strict=True)]
    return Looked(looked.names, looked.duplicates, looked.none, seen, found.hexdigest())


def files_below(folder: Path) -> Iterator[Path]:
    """Go through all files of a folder and of those below it; links to folders are not followed."""
    for place, _, names in os.walk(folder):
        yield from (Path(place, name) for name in names)


def shown(path: Path, most: int) -> NDArray[np.uint8]:
    """Return a picture, made smaller where it is more than `most` px wide or high. Raises ValueError."""
    image = open_picture(path, 1e6, "a million")
    image.thumbnail((most, most))
    return np.asarray(image)
