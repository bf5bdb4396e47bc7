"""Shares, means and ratios with 95 % intervals, as plain values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import special  # scipy.stats takes half a second to import

CONFIDENCE = 0.95

Array = np.ndarray[Any, Any]


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


@dataclass(frozen=True)
class Paired:
    """How much more often the second of two answers to the same `num` problems is right.

    lost, gained: problems that the first, the second alone has right. p: of McNemar's exact test.
    """

    num: int
    first: float
    second: float
    lost: int
    gained: int
    difference: float
    ci_low: float
    ci_high: float
    p: float


@dataclass(frozen=True)
class Correlation:
    """Pearson's correlation of `num` pairs of values, with Fisher's interval and Student's p of none."""

    num: int
    r: float
    ci_low: float
    ci_high: float
    p: float


def correlation(first: Sequence[float], second: Sequence[float]) -> Correlation | None:
    """Correlate pairs of values; None for fewer than four pairs, and where one side does not vary."""
    num = len(first)
    if num < 4 or min(np.ptp(first), np.ptp(second)) == 0:
        return None
    r = float(np.clip(np.corrcoef(first, second)[0, 1], -1, 1))
    if abs(r) > 1 - 1e-12:
        return Correlation(num, r, r, r, 0.0)
    half = float(special.ndtri((1 + CONFIDENCE) / 2)) / (num - 3) ** 0.5
    low, high = (float(np.tanh(np.arctanh(r) + sign * half)) for sign in (-1, 1))
    t = abs(r) * ((num - 2) / (1 - r * r)) ** 0.5
    return Correlation(num, r, low, high, 2 * float(special.stdtr(num - 2, -t)))


def paired(first: Sequence[bool], second: Sequence[bool]) -> Paired:
    """Compare two runs on one or more problems, with Newcombe's interval (1998, method 10) of the difference.

    It is made of Wilson's intervals of both shares and their correlation, and so holds for few problems, and where one
    of the two has none or all of them right.
    """
    pairs = list(zip(first, second, strict=True))
    num, both, lost, gained = len(pairs), *(pairs.count(one) for one in ((True, True), (True, False), (False, True)))
    left, right = both + lost, both + gained
    (low, high), (other_low, other_high) = wilson_interval(left, num), wilson_interval(right, num)
    rates, product = (left / num, right / num), left * (num - left) * right * (num - right)
    above = both * (num - both - lost - gained) - lost * gained
    correlation = (max(above - num / 2, 0.0) if above > 0 else above) / product**0.5 if product else 0.0
    below = _joint(rates[1] - other_low, high - rates[0], correlation)
    beyond = _joint(other_high - rates[1], rates[0] - low, correlation)
    difference = (gained - lost) / num
    p = min(1.0, 2 * float(special.bdtr(min(lost, gained), lost + gained, 0.5))) if lost + gained else 1.0
    return Paired(num, *rates, lost, gained, difference, difference - below, difference + beyond, p)


def _joint(a: float, b: float, correlation: float) -> float:
    """The length of the difference of two errors."""
    return float(max(a * a - 2 * correlation * a * b + b * b, 0.0) ** 0.5)


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


def clustered_mean(groups: Sequence[Sequence[float]]) -> Mean:
    """Return the mean of all values; the interval treats the groups as drawn, not the values in them (as `ratio`)."""
    above, below = _sums(groups)
    num = int(below.sum())
    if num == 0:
        return Mean(0, None, None, None)
    value = float(above.sum()) / num
    if len(above) == 1:
        return Mean(num, value, None, None)
    half = _quantile(len(above)) * _error(above, below, value)
    return Mean(num, value, value - half, value + half)


def clustered_share(groups: Sequence[Sequence[bool]]) -> Share:
    """Say how many values hold, where the groups are drawn and not the values in them.

    The interval is Wilson's for as many independent values as would have the share's variance (at most those there
    are); where all values are the same, for as many as there are groups.
    """
    above, below = _sums(groups)
    count, num = int(above.sum()), int(below.sum())
    if num == 0:
        return Share(0, 0, None, None, None)
    value, size = count / num, float(len(above))
    if 0 < count < num and len(above) > 1:
        single = value * (1 - value)
        size = single / max(single / num, _error(above, below, value) ** 2)
    return Share(count, num, value, *wilson_interval(value * size, size, CONFIDENCE))


def ratio(pairs: Sequence[tuple[float, float]]) -> Ratio:
    """Return sum of the first numbers over the sum of the second, with the linearised (delta method) interval.

    The interval stays at 0 or above, and at 1 or below where no first number exceeds its second.
    """
    above, below = (np.array([pair[i] for pair in pairs], dtype=float) for i in (0, 1))
    total = float(below.sum())
    if total == 0:
        return Ratio(float(above.sum()), 0.0, None, None, None)
    value, num = float(above.sum()) / total, len(pairs)
    if num == 1:
        return Ratio(float(above.sum()), total, value, None, None)
    half = _quantile(num) * _error(above, below, value)
    high = value + half
    return Ratio(
        float(above.sum()), total, value, max(0.0, value - half), min(1.0, high) if (above <= below).all() else high
    )


def _sums(groups: Sequence[Sequence[float]]) -> tuple[Array, Array]:
    """Sum and number of the values of each group that has some."""
    there = [group for group in groups if group]
    return np.array([float(sum(group)) for group in there]), np.array([float(len(group)) for group in there])


def _error(above: Array, below: Array, value: float) -> float:
    """Standard error of `value`, the sum of `above` over that of `below`, which are drawn in pairs (two or more)."""
    num = len(above)
    return float(np.sqrt(np.square(above - value * below).sum() * num / (num - 1)) / below.sum())


def _quantile(num: int) -> float:
    return student_quantile((1 + CONFIDENCE) / 2, num - 1)


def student_quantile(probability: float, df: float) -> float:
    """Return the quantile of Student's t distribution."""
    return float(special.stdtrit(df, probability))


def wilson_interval(correct: float, num: float, confidence: float = 0.95) -> tuple[float, float]:
    """Return the Wilson score interval of `correct` out of `num` (above 0), without continuity correction.

    Neither need be whole: values that depend on each other count for fewer independent ones.
    """
    if not 0 <= correct <= num or num <= 0:
        raise ValueError(f"correct={correct} of num={num}: no rate")
    share, z = correct / num, float(special.ndtri((1 + confidence) / 2))
    middle = (2 * num * share + z**2) / (2 * (num + z**2))
    half = z / (2 * (num + z**2)) * (4 * num * share * (1 - share) + z**2) ** 0.5
    return 0.0 if correct == 0 else middle - half, 1.0 if correct == num else middle + half
