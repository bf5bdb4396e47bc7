"""Means over runs and problems, and paired differences of them, with 95 % intervals.

Runs that differ in their seed answer the same problems, so the values form a table of seeds times problems, and both
are drawn from more. The variance of its mean is that of crossed random effects (Searle, Casella and McCulloch 1992,
chapter 4): by seed, plus by problem, less the single values that both contain; the degrees of freedom are
Satterthwaite's. The cluster formula for many clusters (Cameron, Gelbach and Miller 2011) takes deviations from the mean
for the single values and makes the intervals of three seeds too narrow. With one seed the interval is over problems
alone and says nothing about other seeds. Problems that share a group are drawn with it: groups take the place of
problems then. Values per run, without problems, have Student's interval; that of shares is
no narrower than what the problems behind them can tell, which are the same for all runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from vlmreason.intervals import student_quantile, wilson_interval

CONFIDENCE = 0.95
NUM_SWEEPS = 20  # exact after one where no value is missing
NUM_DRAWS = 1000  # of problems, for what has no formula


@dataclass(frozen=True)
class Sample:
    """What one run gave: a value per problem, 0 to 1 (None: the measure does not exist for it), or one value.

    groups: to which group each problem belongs, where not problems but groups are drawn. below, above: of one value
    that is a share, how far from it the problems behind it let the truth be.
    """

    seed: int
    values: tuple[float | None, ...]
    by_problem: bool
    below: float = 0.0
    above: float = 0.0
    groups: tuple[str | None, ...] | None = None


@dataclass(frozen=True)
class Estimate:
    """A mean with its interval (None where one value is all there is).

    num_problems: those behind it, or groups of them where groups are drawn; None for values per run.
    """

    mean: float
    ci_low: float | None
    ci_high: float | None
    num_seeds: int
    num_problems: int | None


def of_run(seed: int, value: float, num: int = 0) -> Sample:
    """Return one value of a run. num: problems of which it is a share; 0: it is none, or they are not known."""
    low, high = wilson_interval(value * num, num, CONFIDENCE) if num else (value, value)
    return Sample(seed, (value,), False, value - low, high - value)


def of_problems(samples: Sequence[Sample]) -> tuple[float, float]:
    """Return below and above of the mean of samples: those of one, as all have the same problems."""
    return sum(one.below for one in samples) / len(samples), sum(one.above for one in samples) / len(samples)


def estimate(samples: Sequence[Sample]) -> Estimate | None:
    """Return the mean over runs and the problems that all of them have; None where there is no value."""
    return _estimate(samples, lowest=0.0)


def of_shares(found: Estimate | None, lowest: float = 0.0) -> Estimate | None:
    """Return an estimate of values from `lowest` to 1: its interval goes no further."""
    if found is None or found.ci_low is None or found.ci_high is None:
        return found
    return replace(found, ci_low=max(lowest, found.ci_low), ci_high=min(1.0, found.ci_high))


def difference(left: Sequence[Sample], right: Sequence[Sample]) -> Estimate | None:
    """Return mean of left minus right, paired by seed and problem; None where they share none."""
    pairs = [(a, b) for a in left for b in right if a.seed == b.seed]
    if any(a.by_problem != b.by_problem for a, b in pairs):
        return None
    return _estimate([minus(a, b) for a, b in pairs], lowest=-1.0)


def correlation(left: Sequence[Sequence[Sample]], right: Sequence[Sequence[Sample]]) -> Estimate | None:
    """Return the rank correlation (Spearman's) of the means of some cells with those of as many others, in their order.

    It has a value for each seed that all cells have (0 where all of a side are equal). The interval is Student's over
    seeds, no narrower than what problems drawn anew tell (percentiles). None where no seed is in all cells.
    """
    cells = [{run.seed: run for run in samples if set(run.values) - {None}} for samples in (*left, *right)]
    seeds = [seed for seed in cells[0] if all(seed in cell for cell in cells)]
    if not seeds:
        return None
    rng = np.random.default_rng(0)
    sides: list[list[np.ndarray]] = []
    least: list[int] = []  # problems of a side that all of its runs have
    for side in (cells[: len(left)], cells[len(left) :]):
        least.append(min(len(cell[seed].values) for cell in side for seed in seeds))
        drawn_DP = np.vstack([np.arange(least[-1]), rng.integers(least[-1], size=(NUM_DRAWS, least[-1]))])
        sides.append([np.stack([_means(cell[seed], drawn_DP) for cell in side], axis=1) for seed in seeds])
    found_SD = np.array([_spearman(*both) for both in zip(*sides, strict=True)])
    found = _estimate([of_run(seed, value) for seed, value in zip(seeds, found_SD[:, 0], strict=True)], lowest=-1.0)
    if found is None or min(least) == 1:
        return of_shares(found, lowest=-1.0)
    tails = (50 - 50 * CONFIDENCE, 50 + 50 * CONFIDENCE)
    low, high = map(float, np.percentile(found_SD[:, 1:].mean(axis=0), tails))
    if found.ci_low is not None and found.ci_high is not None:
        low, high = min(low, found.ci_low), max(high, found.ci_high)
    return of_shares(replace(found, ci_low=low, ci_high=high), lowest=-1.0)


def _means(run: Sample, drawn_DP: np.ndarray) -> np.ndarray:
    """Mean of each draw of problems; one without a value counts as 0."""
    values_DP = np.array(run.values, dtype=float)[drawn_DP]
    there_DP = ~np.isnan(values_DP)
    means_D: np.ndarray = np.where(there_DP, values_DP, 0.0).sum(axis=1) / np.maximum(1, there_DP.sum(axis=1))
    return means_D


def _spearman(left_DM: np.ndarray, right_DM: np.ndarray) -> np.ndarray:
    """Correlation of the ranks of each row, equal values sharing theirs."""
    centred = []
    for values_DM in (left_DM, right_DM):
        others_DMM = values_DM[:, None, :]
        ranks_DM = (others_DMM < values_DM[:, :, None]).sum(2) + (others_DMM == values_DM[:, :, None]).sum(2) / 2
        centred.append(ranks_DM - ranks_DM.mean(axis=1, keepdims=True))
    norms_D = np.sqrt(np.square(centred[0]).sum(axis=1) * np.square(centred[1]).sum(axis=1))
    found_D: np.ndarray = (centred[0] * centred[1]).sum(axis=1) / np.where(norms_D > 0, norms_D, 1.0)
    return found_D


def minus(left: Sample, right: Sample) -> Sample:
    """Return value by value; the problems behind two shares tell of their difference what Newcombe's interval does
    (1998)."""
    both = zip(left.values, right.values, strict=False)
    values = tuple(None if None in (x, y) else x - y for x, y in both)  # type: ignore[operator]
    below, above = math.hypot(left.below, right.above), math.hypot(left.above, right.below)
    return Sample(left.seed, values, left.by_problem, below, above, left.groups)


def _estimate(samples: Sequence[Sample], lowest: float) -> Estimate | None:
    """Values by problem lie between `lowest` and 1, and so does their interval."""
    table_SP = _table(samples)
    if table_SP is None:
        return None
    by_problem = samples[0].by_problem
    found, low, high = _mean(table_SP, by_problem, samples[0].groups), np.nanmin(table_SP), np.nanmax(table_SP)
    if not by_problem:
        return _no_narrower(found, samples)
    if low < lowest or high > 1:
        return found
    if low == high:  # no spread to go by: what this many problems can say
        assert found.num_problems is not None
        _, others = wilson_interval(0, found.num_problems, CONFIDENCE)
        return replace(
            found,
            ci_low=found.mean - others * (found.mean - lowest),
            ci_high=found.mean + others * (1 - found.mean),
        )
    return of_shares(found, lowest)


def _no_narrower(found: Estimate, samples: Sequence[Sample]) -> Estimate:
    if found.ci_low is None or found.ci_high is None:
        return found
    below, above = of_problems(samples)
    return replace(found, ci_low=min(found.ci_low, found.mean - below), ci_high=max(found.ci_high, found.mean + above))


def _table(samples: Sequence[Sample]) -> np.ndarray | None:
    """Seeds times problems, NaN for no value; the problems that all runs have."""
    num = min((len(sample.values) for sample in samples), default=0)
    table_SP = np.array([[np.nan if v is None else v for v in sample.values[:num]] for sample in samples], dtype=float)
    return None if np.isnan(table_SP).all() else table_SP


def _mean(table_SP: np.ndarray, by_problem: bool, groups: Sequence[str | None] | None = None) -> Estimate:
    present = ~np.isnan(table_SP)
    num, mean = int(present.sum()), float(table_SP[present].mean())
    errors_SP = np.where(present, table_SP - mean, 0.0)
    if groups is not None:
        errors_SP, present = _add_up(errors_SP, present, groups)
    num_seeds, num_problems, num_sums = int(present.any(1).sum()), int(present.any(0).sum()), int(present.sum())
    by_seed, by_each = (_clustered(errors_SP.sum(axis), n, num) for axis, n in ((1, num_seeds), (0, num_problems)))
    variance, df = by_seed, float(num_seeds - 1)
    if by_problem and num_seeds == 1:
        variance, df = by_each, float(num_problems - 1)
    elif by_problem and num_problems > 1:
        rest = max(1, num_sums - num_seeds - num_problems + 1)
        single = float(np.square(_residuals(errors_SP, present)).sum()) / rest / num * (num_sums / num)
        single = min(single, by_seed, by_each)
        variance = by_seed + by_each - single
        spread = by_seed**2 / (num_seeds - 1) + by_each**2 / (num_problems - 1) + single**2 / rest
        df = max(1.0, variance**2 / spread) if spread else 1.0
    shown = num_problems if by_problem else None
    if df < 1:
        return Estimate(mean, None, None, num_seeds, shown)
    half = student_quantile((1 + CONFIDENCE) / 2, df) * variance**0.5
    return Estimate(mean, mean - half, mean + half, num_seeds, shown)


def _add_up(errors_SP: np.ndarray, present: np.ndarray, groups: Sequence[str | None]) -> tuple[np.ndarray, np.ndarray]:
    """Sum errors over the problems of each group; a problem without one is a group of its own. Seeds times groups."""
    names = [place if group is None else group for place, group in enumerate(groups[: errors_SP.shape[1]])]
    numbers = {name: number for number, name in enumerate(dict.fromkeys(names))}
    member_PG = np.eye(len(numbers))[[numbers[name] for name in names]]
    return errors_SP @ member_PG, (present @ member_PG) > 0


def _residuals(errors_SP: np.ndarray, present: np.ndarray) -> np.ndarray:
    """What neither the seed nor the problem explains."""
    rest_SP = errors_SP
    for _ in range(1 if present.all() else NUM_SWEEPS):
        for axis in (0, 1):
            mean = rest_SP.sum(axis, keepdims=True) / np.maximum(1, present.sum(axis, keepdims=True))
            rest_SP = np.where(present, rest_SP - mean, 0.0)
    return rest_SP


def _clustered(sums: np.ndarray, num_clusters: int, num: int) -> float:
    """Variance of the mean of `num` values whose errors add up to `sums` in each cluster."""
    return float(np.square(sums).sum()) / num**2 * num_clusters / max(1, num_clusters - 1)
