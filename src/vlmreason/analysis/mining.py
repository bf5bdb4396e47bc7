"""Find pairs of pictures that one tower finds alike and another one does not (arXiv 2401.06209, section 3.1).

Never all pairs: cosines of the first tower are computed tile by tile, and those of the second for what passes alone.
Time grows with the square of the number of pictures, memory with a tile and the pairs that are kept.
"""

from __future__ import annotations

import io
import time
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from vlmreason.files import check_ordinary, write_bytes_atomic

Numbers = NDArray[np.int64]
Cosines = NDArray[np.float32]

BLOCK = 2048  # pictures along a side of a tile
DENSE = 64  # a tile is dense where one pair of so many is alike by the first tower
SAVE_EVERY = 20  # seconds
RANDOM_PAIRS = 20000  # from which quantiles are taken
QUANTILES = (0.5, 0.9, 0.99, 0.999)


class Vectors(Protocol):
    """Vectors of length 1 of all pictures, in memory or read when some are asked for."""

    def __len__(self) -> int:
        """Count the pictures."""

    def __getitem__(self, rows: Any) -> NDArray[np.float32]:
        """Give some of them, by a slice or by numbers."""


@dataclass(frozen=True)
class Thresholds:
    """A pair counts above `alike` by the first tower's cosine and below `unlike` by the second's. The paper's are those
    of CLIP ViT-L/14 and DINOv2 ViT-L/14; other towers have other cosines."""

    alike: float = 0.95
    unlike: float = 0.6

    def __post_init__(self) -> None:
        for name in ("alike", "unlike"):
            if not -1 <= getattr(self, name) <= 1:
                raise ValueError(f"{name}={getattr(self, name)}: a cosine from -1 to 1 is expected")


@dataclass(frozen=True)
class Pairs:
    """Pictures by number, the lower one first, with their cosines by the first and the second tower, (P) each."""

    first: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    second: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))
    alike: Cosines = field(default_factory=lambda: np.zeros(0, np.float32))
    unlike: Cosines = field(default_factory=lambda: np.zeros(0, np.float32))

    def __len__(self) -> int:
        return len(self.first)

    def at(self, places: Any) -> Pairs:
        """Return some of them, in this order."""
        return Pairs(self.first[places], self.second[places], self.alike[places], self.unlike[places])

    def with_more(self, others: Pairs, most: int) -> Pairs:
        """Return the `most` pairs of both whose cosines differ most, in this order, equal ones by number."""
        if len(self) == most:
            others = others.at(others.unlike - others.alike <= self.unlike[-1] - self.alike[-1])
        if not len(others):
            return self
        all_of = [np.concatenate([getattr(self, name), getattr(others, name)]) for name in vars(self)]
        found = Pairs(*all_of)
        gaps = found.unlike - found.alike
        if len(found) > most:
            near = gaps <= np.partition(gaps, most - 1)[most - 1]
            found, gaps = found.at(near), gaps[near]
        return found.at(np.lexsort((found.second, found.first, gaps))[:most])


@dataclass(frozen=True)
class Search:
    """How far a search has come: pictures before `next` are compared with all, `count` pairs were found, of which
    `pairs` are kept."""

    next: int = 0
    count: int = 0
    pairs: Pairs = field(default_factory=Pairs)


def search(
    first: Vectors, second: Vectors, thresholds: Thresholds, most: int, begun: Search | None = None, block: int = BLOCK
) -> Iterator[Search]:
    """Compare block after block of pictures with all later ones; each state can be gone on with.

    most: pairs that are kept, those whose cosines differ most. Raises ValueError.
    """
    if len(first) != len(second):
        raise ValueError(f"the towers saw {len(first)} and {len(second)} pictures: the same ones are expected")
    state = begun or Search()
    for top in range(state.next, len(first), block):
        rows, count, pairs = first[top : top + block], state.count, state.pairs
        for left in range(top, len(first), block):
            for found in _tile(rows, first[left : left + block], (top, left), second, thresholds, block):
                count += len(found)
                pairs = pairs.with_more(found, most)
        state = Search(min(top + block, len(first)), count, pairs)
        yield state


def _tile(
    rows: Cosines, columns: Cosines, corner: tuple[int, int], second: Vectors, thresholds: Thresholds, block: int
) -> Iterator[Pairs]:
    """The pairs of a tile; the second tower is asked for those that the first one finds alike, some at a time."""
    (top, left), width = corner, len(columns)
    cosines = (rows @ columns.T).ravel()
    i, j = np.divmod(np.flatnonzero(cosines > thresholds.alike), width)
    i, j = (one[i + top < j + left] for one in (i, j))
    if len(i) * DENSE > cosines.size:  # one product is then faster than pair by pair
        others = second[top : top + len(rows)] @ second[left : left + width].T
        parts = [(i, j, others[i, j])]
    else:
        places = [slice(at, at + block) for at in range(0, len(i), block)]
        parts = [(i[at], j[at], _along(second, i[at] + top, j[at] + left)) for at in places]
    for i, j, other in parts:
        kept = other < thresholds.unlike
        i, j, other = i[kept], j[kept], other[kept]
        yield Pairs(i + top, j + left, cosines[i * width + j], other)


def as_cosines(first: Vectors, second: Vectors, quantiles: Thresholds, seed: int = 0) -> Thresholds:
    """Return the cosines that stand at quantiles over random pairs. Raises ValueError for one below 0."""
    if min(quantiles.alike, quantiles.unlike) < 0:
        raise ValueError(f"alike={quantiles.alike} unlike={quantiles.unlike}: as quantiles from 0 to 1 are expected")
    i, j = _random_pairs(len(first), seed)
    given = ((first, quantiles.alike), (second, quantiles.unlike))
    return Thresholds(*(float(np.clip(np.quantile(_along(one, i, j), at), -1, 1)) for one, at in given))


def of_random_pairs(vectors: Vectors, seed: int = 0) -> dict[float, float]:
    """Return cosines of random pairs at QUANTILES: what thresholds of these vectors are to be compared with."""
    cosines = _along(vectors, *_random_pairs(len(vectors), seed))
    return {at: float(np.quantile(cosines, at)) for at in QUANTILES}


def _random_pairs(num: int, seed: int) -> tuple[Numbers, Numbers]:
    rng = np.random.default_rng(seed)
    i = rng.integers(num, size=RANDOM_PAIRS)
    return i, (i + rng.integers(1, num, size=RANDOM_PAIRS)) % num


def _along(vectors: Vectors, i: Numbers, j: Numbers) -> Cosines:
    """Cosines of pairs, some at a time."""
    parts = [slice(at, at + BLOCK) for at in range(0, len(i), BLOCK)]
    return np.concatenate([np.einsum("nd,nd->n", vectors[i[part]], vectors[j[part]]) for part in parts])


def save(path: Path, state: Search, what: str) -> None:
    """Keep how far a search of `what` has come, atomically."""
    held = io.BytesIO()
    np.savez(held, what=np.array(what), at=np.array([state.next, state.count]), **vars(state.pairs))
    write_bytes_atomic(path, held.getvalue())


def load(path: Path, what: str) -> Search | None:
    """Return how far a search of `what` has come; None: it has not begun, or the file is of another one.

    Raises ValueError for a damaged file.
    """
    if not path.exists():
        return None
    check_ordinary(path)
    try:
        with np.load(path, allow_pickle=False) as held:
            if str(held["what"]) != what:
                return None
            at, count = held["at"].tolist()
            return Search(at, count, Pairs(*(held[name] for name in vars(Pairs()))))
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: damaged; delete it, and the search begins anew") from error


def resumed(
    first: Vectors, second: Vectors, limits: Thresholds, most: int, path: Path, what: str, progress: bool = False
) -> Search:
    """Search to the end, from where an interrupted search of the same `what` has come to by its file."""
    state = begun = load(path, what) or Search()
    kept = time.monotonic()
    num = len(first)
    with tqdm(total=num, initial=state.next, desc="pairs", unit="pictures", disable=None if progress else True) as bar:
        for state in search(first, second, limits, most, begun):
            bar.update(state.next - bar.n)
            if state.next == num or time.monotonic() - kept > SAVE_EVERY:
                save(path, state, what)
                kept = time.monotonic()
    return state
