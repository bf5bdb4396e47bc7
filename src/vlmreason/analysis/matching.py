"""Match pairs of pictures with statements of them, and read pairs off vectors linearly (arXiv 2401.06209, 2506.08008).

A contrastive model matches a pair as MMVP-VLM asks: each statement takes the picture whose cosine with it is higher,
and the pair counts where both take their own (25 % for two independent guesses). That each picture takes its own
statement is another figure, and that both hold the strictest. A linear read-out says whether what is asked can be told
from what a tower sees: ridge regression on the values of a detail, learned on training pictures, answers between the
two options. So a failure is one of the eye or of what stands behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vectors = NDArray[np.float32]

RIDGES = (1e-3, 1e-1, 1e1, 1e3)
"""Weights of the squared coefficients, in units of a column's number of pictures; validation pictures choose."""


@dataclass(frozen=True)
class Matched:
    """Whether the statements of a pair take their own pictures, and the pictures their own statements."""

    texts: bool
    pictures: bool

    @property
    def both(self) -> bool:
        return self.texts and self.pictures


def matched(pictures_2D: Vectors, statements_2D: Vectors) -> Matched:
    """Match two pictures and the statements of them, in the same order; nothing is taken where cosines are equal."""
    pictures, texts = (one / np.linalg.norm(one, axis=1, keepdims=True) for one in (pictures_2D, statements_2D))
    cosines = pictures @ texts.T
    own = np.diag(cosines)
    return Matched(bool((own > cosines[::-1].diagonal()).all()), bool((own > cosines[:, ::-1].diagonal()).all()))


@dataclass(frozen=True)
class Readout:
    """A linear map from standardised vectors onto values of a detail; `values`: in the order of its columns."""

    values: tuple[str, ...]
    mean_D: Vectors
    scale_D: Vectors
    weights_DV: Vectors
    offset_V: Vectors

    def scores(self, vectors_ND: Vectors) -> Vectors:
        """Say how much each value holds of pictures, (N, V)."""
        return np.asarray((vectors_ND - self.mean_D) / self.scale_D @ self.weights_DV + self.offset_V, np.float32)

    def answers(self, vectors_ND: Vectors, options: Sequence[tuple[str, str]]) -> list[int]:
        """Return the option, 0 or 1, that is read off each picture; one that was never seen is not."""
        scores_NV = self.scores(vectors_ND)
        at = {value: column for column, value in enumerate(self.values)}
        pairs = [
            [row_V[at[value]] if value in at else -np.inf for value in some]
            for row_V, some in zip(scores_NV, options, strict=True)
        ]
        return [int(second > first) for first, second in pairs]


def fit(vectors_ND: Vectors, values: Sequence[str], ridge: float) -> Readout:
    """Learn a read-out: least squares onto 1 for the right value and 0 for others. Raises ValueError for one value."""
    known = tuple(sorted(set(values)))
    if len(known) < 2:
        raise ValueError(f"readout: {len(values)} training pictures show one value, two or more are expected")
    mean_D, scale_D = vectors_ND.mean(axis=0), vectors_ND.std(axis=0)
    scale_D = np.where(scale_D > 1e-6, scale_D, 1).astype(np.float32)
    inputs_ND = ((vectors_ND - mean_D) / scale_D).astype(np.float64)
    wanted_NV = np.array([[float(value == one) for one in known] for value in values])
    offset_V = wanted_NV.mean(axis=0)
    num, width = inputs_ND.shape
    if width <= num:
        inner = inputs_ND.T @ inputs_ND + ridge * num * np.eye(width)
        weights_DV = np.linalg.solve(inner, inputs_ND.T @ (wanted_NV - offset_V))
    else:  # the same solution, of the size of the pictures
        inner = inputs_ND @ inputs_ND.T + ridge * num * np.eye(num)
        weights_DV = inputs_ND.T @ np.linalg.solve(inner, wanted_NV - offset_V)
    return Readout(known, mean_D, scale_D, weights_DV.astype(np.float32), offset_V.astype(np.float32))


def choose_fit(
    train: tuple[Vectors, Sequence[str]], validation: tuple[Vectors, Sequence[tuple[str, str]], Sequence[int]]
) -> Readout:
    """Learn with each of RIDGES, and return what answers most validation pictures (vectors, options, right ones)."""
    made = [fit(*train, ridge) for ridge in RIDGES]
    vectors_ND, options, right = validation
    hits = [sum(map(int.__eq__, one.answers(vectors_ND, options), right)) for one in made]
    return made[int(np.argmax(hits))]
