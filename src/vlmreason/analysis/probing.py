"""Say what can be read off vectors of pictures linearly, and how near pictures are that differ in one thing.

A probe is ridge regression on the values of a fact, its weight chosen on a quarter of the training pictures: the share
of other pictures whose value it names.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from vlmreason.analysis.matching import RIDGES, Readout, Vectors, fit


def probe(train: tuple[Vectors, Sequence[str]], test: tuple[Vectors, Sequence[str]]) -> float:
    """Return the share of test pictures whose value is read right. Raises ValueError for one value in training."""
    vectors_ND, values = train
    quarter = len(values) // 4
    made = [fit(vectors_ND[quarter:], values[quarter:], ridge) for ridge in RIDGES]
    held = vectors_ND[:quarter], values[:quarter]
    best = int(np.argmax([_right(one, held) for one in made]))
    return _right(fit(vectors_ND, values, RIDGES[best]), test)


def _right(readout: Readout, asked: tuple[Vectors, Sequence[str]]) -> float:
    named = np.asarray(readout.values)[readout.scores(asked[0]).argmax(axis=1)]
    return float(np.mean(named == np.asarray(asked[1])))


def cosines(first_ND: Vectors, second_ND: Vectors) -> NDArray[np.float32]:
    """Return the cosine of each row with the same row of the other."""
    one, other = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (first_ND, second_ND))
    return np.asarray(np.einsum("nd,nd->n", one, other), np.float32)
