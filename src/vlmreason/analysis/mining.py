"""Pairs of pictures that one tower finds alike and another one does not (Tong et al., arXiv 2401.06209, section 3.1).

Never all pairs: cosines of the first tower are computed block by block, and those of the second for what passes alone.
Time grows with the square of the number of pictures, memory with a block and the pairs that are found.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]


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
class Mined:
    """Two pictures by number, the lower one first, with their cosines by the first and the second tower."""

    first: int
    second: int
    alike: float
    unlike: float


def normalised(vectors: Vectors, name: str) -> Vectors:
    """Scale vectors (N, D) to length 1. Raises ValueError for one of length 0 or with numbers that are none."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or not lengths.all():
        bad = int(np.flatnonzero(~np.isfinite(lengths[:, 0]) | (lengths[:, 0] == 0))[0])
        raise ValueError(f"{name}: picture {bad} has a vector of no direction")
    return np.asarray(vectors / lengths, np.float32)


def mine(
    first: Vectors, second: Vectors, thresholds: Thresholds, block: int = 2048, start: int = 0
) -> Iterator[tuple[int, list[Mined]]]:
    """Find the pairs of each block of rows with all later pictures, and say where the next block starts.

    first, second: vectors of length 1, (N, D) and (N, E). start: where an earlier search would have gone on.
    """
    if len(first) != len(second):
        raise ValueError(f"the towers saw {len(first)} and {len(second)} pictures: the same ones are expected")
    for top in range(start, len(first), block):
        rows, found = first[top : top + block], list[Mined]()
        for left in range(top, len(first), block):
            cosines = rows @ first[left : left + block].T
            i, j = np.nonzero(cosines > thresholds.alike)
            alike, i, j = cosines[i, j], i + top, j + left
            later = i < j
            alike, i, j = alike[later], i[later], j[later]
            for at in range(0, len(i), block):  # of what is nearly all alike too, a block at a time
                part = slice(at, at + block)
                other = np.einsum("nd,nd->n", second[i[part]], second[j[part]])
                kept = np.flatnonzero(other < thresholds.unlike)
                found += [Mined(int(i[part][k]), int(j[part][k]), float(alike[part][k]), float(other[k])) for k in kept]
        yield min(top + block, len(first)), found


def in_order(pairs: list[Mined]) -> list[Mined]:
    """Sort pairs by the gap of their cosines, the largest first, then by number."""
    return sorted(pairs, key=lambda pair: (pair.unlike - pair.alike, pair.first, pair.second))
