"""Means over runs and problems, and paired differences of them, with 95 % intervals.

Runs that differ in their seed answer the same problems, so the values form a table of seeds times problems, and both
are drawn from more. The variance of its mean is that of two crossed clusters (Cameron, Gelbach and Miller 2011: by seed
plus by problem less by single value), the degrees of freedom are Satterthwaite's. With one seed the interval is over
problems alone and says nothing about other seeds. Values per run, without problems, have Student's interval.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

from vlmreason.evaluation.statistics import wilson_interval

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Sample:
    """What one run gave: a value per problem (None: the measure does not exist for it), or one value."""

    seed: int
    values: tuple[float | None, ...]
    by_problem: bool


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval (None where one value is all there is). num_problems: None for values per run."""

    mean: float
    ci_low: float | None
    ci_high: float | None
    num_seeds: int
    num_problems: int | None


def estimate(samples: Sequence[Sample]) -> Estimate | None:
    """The mean over runs and problems; None where there is no value. Shares stay within 0 and 1."""
    table_SP = _table(samples)
    if table_SP is None:
        return None
    found = _mean(table_SP, samples[0].by_problem)
    present = table_SP[~np.isnan(table_SP)]
    if not samples[0].by_problem or not np.isin(present, (0.0, 1.0)).all():
        return found
    if (present == present[0]).all():  # no spread at all: what this many problems can say
        num = int((~np.isnan(table_SP)).any(axis=0).sum())
        low, high = wilson_interval(num if present[0] else 0, num, CONFIDENCE)
        return Estimate(found.mean, low, high, found.num_seeds, found.num_problems)
    assert found.ci_low is not None and found.ci_high is not None
    return Estimate(
        found.mean, max(0.0, found.ci_low), min(1.0, found.ci_high), found.num_seeds, found.num_problems
    )  # fmt: skip


def difference(left: Sequence[Sample], right: Sequence[Sample]) -> Estimate | None:
    """Mean of left minus right, paired by seed and problem; None where they share none."""
    pairs = [(a, b) for a in left for b in right if a.seed == b.seed]
    if not pairs or any(a.by_problem != b.by_problem for a, b in pairs):
        return None
    num = min(len(sample.values) for pair in pairs for sample in pair)
    samples = [
        Sample(
            a.seed,
            tuple(
                None if x is None or y is None else x - y for x, y in zip(a.values[:num], b.values[:num], strict=True)
            ),
            a.by_problem,
        )
        for a, b in pairs
    ]
    table_SP = _table(samples)
    return None if table_SP is None else _mean(table_SP, samples[0].by_problem)


def _table(samples: Sequence[Sample]) -> np.ndarray | None:
    """Seeds times problems, NaN for no value; the problems that all runs have."""
    if not samples:
        return None
    num = min(len(sample.values) for sample in samples)
    table_SP = np.array([[np.nan if v is None else v for v in sample.values[:num]] for sample in samples], dtype=float)
    return None if np.isnan(table_SP).all() else table_SP


def _mean(table_SP: np.ndarray, by_problem: bool) -> Estimate:
    present = ~np.isnan(table_SP)
    num_seeds, num_problems = int(present.any(axis=1).sum()), int(present.any(axis=0).sum())
    mean, num = float(table_SP[present].mean()), int(present.sum())
    errors_SP = np.where(present, table_SP - mean, 0.0)
    by_seed = _clustered(errors_SP.sum(axis=1), num_seeds, num)
    if not by_problem:
        variance, df = by_seed, float(num_seeds - 1)
    else:
        of_problem = _clustered(errors_SP.sum(axis=0), num_problems, num)
        if num_seeds == 1:
            variance, df = of_problem, float(num_problems - 1)
        else:
            single = float(np.square(errors_SP).sum()) / num**2
            rest = max(0.0, of_problem - single)
            variance = by_seed + rest
            weights = by_seed**2 / (num_seeds - 1) + rest**2 / max(1, num_problems - 1)
            df = variance**2 / weights if weights else 1.0
    if df < 1:
        return Estimate(mean, None, None, num_seeds, num_problems if by_problem else None)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, df)) * variance**0.5
    return Estimate(mean, mean - half, mean + half, num_seeds, num_problems if by_problem else None)


def _clustered(sums: np.ndarray, num_clusters: int, num: int) -> float:
    """Variance of the mean of `num` values whose errors add up to `sums` in each cluster."""
    return float(np.square(sums).sum()) / num**2 * num_clusters / max(1, num_clusters - 1)
