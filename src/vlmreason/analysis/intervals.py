"""Shares, means and ratios with 95 % intervals, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from vlmreason.evaluation.statistics import wilson_interval

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Share:
    """`count` of `num`, with Wilson's interval. `share` and interval are None where there was nothing to count."""

    count: int
    num: int
    share: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True)
class Mean:
    """The mean of `num` values with Student's interval; None where there are too few values for it."""

    num: int
    mean: float | None
    ci_low: float | None
    ci_high: float | None


@dataclass(frozen=True)
class Ratio:
    """A ratio of two sums over responses; the interval treats the responses as drawn, not what they hold."""

    numerator: float
    denominator: float
    ratio: float | None
    ci_low: float | None
    ci_high: float | None


def share(count: int, num: int) -> Share:
    if num == 0:
        return Share(0, 0, None, None, None)
    return Share(count, num, count / num, *wilson_interval(count, num, CONFIDENCE))


def mean(values: Sequence[float]) -> Mean:
    num = len(values)
    if num == 0:
        return Mean(0, None, None, None)
    middle = float(np.mean(values))
    if num == 1:
        return Mean(1, middle, None, None)
    half = _quantile(num) * float(np.std(values, ddof=1)) / num**0.5
    return Mean(num, middle, middle - half, middle + half)


def ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """Sum of the first numbers over the sum of the second, with the linearised (delta method) interval.

    The interval stays at 0 or above, and at 1 or below where no first number exceeds its second.
    """
    above, below = (np.array([pair[i] for pair in pairs], dtype=float) for i in (0, 1))
    total = float(below.sum())
    if total == 0:
        return Ratio(float(above.sum()), 0.0, None, None, None)
    value, num = float(above.sum()) / total, len(pairs)
    if num == 1:
        return Ratio(float(above.sum()), total, value, None, None)
    spread = float(np.sqrt(np.square(above - value * below).sum() * num / (num - 1)))
    half = _quantile(num) * spread / total
    high = value + half
    return Ratio(
        float(above.sum()), total, value, max(0.0, value - half), min(1.0, high) if (above <= below).all() else high
    )


def _quantile(num: int) -> float:
    return float(stats.t.ppf((1 + CONFIDENCE) / 2, num - 1))
