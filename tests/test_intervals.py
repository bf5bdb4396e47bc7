"""Wilson intervals against their formula."""

import math
import random

import pytest
from scipy.stats import binomtest, pearsonr

from vlmreason.intervals import correlation, paired, wilson_interval


@pytest.mark.parametrize(("correct", "num"), [(0, 1), (1, 1), (0, 200), (100, 200), (199, 200), (3, 7), (0.6, 7.5)])
def test_interval_is_wilsons(correct, num):
    z, rate = 1.959963984540054, correct / num
    center = (rate + z * z / (2 * num)) / (1 + z * z / num)
    half = z / (1 + z * z / num) * math.sqrt(rate * (1 - rate) / num + z * z / (4 * num * num))
    low, high = wilson_interval(correct, num)
    assert (low, high) == pytest.approx((max(0, center - half), min(1, center + half)), abs=1e-9)
    assert 0 <= low <= rate <= high <= 1


@pytest.mark.parametrize(("correct", "num"), [(0, 0), (2, 1), (-1, 3)])
def test_no_rate_is_refused(correct, num):
    with pytest.raises(ValueError):
        wilson_interval(correct, num)


def pairs(both: int, lost: int, gained: int, neither: int) -> tuple[list[bool], list[bool]]:
    """Answers of two runs, by how many problems both, the first, the second, and none has right."""
    marks = [(True, True)] * both + [(True, False)] * lost + [(False, True)] * gained + [(False, False)] * neither
    return [one for one, _ in marks], [other for _, other in marks]


@pytest.mark.parametrize(
    ("counts", "interval"),
    [
        ((36, 12, 2, 0), (0.0569, 0.3404)),  # of first less second: Newcombe 1998, table III, method 10
        ((0, 0, 0, 30), (-0.1135, 0.1135)),
        ((30, 0, 0, 0), (-0.1135, 0.1135)),
    ],
)
def test_paired_interval_is_newcombes(counts: tuple[int, ...], interval: tuple[float, float]) -> None:
    found = paired(*pairs(*counts))
    assert (-found.ci_high, -found.ci_low) == pytest.approx(interval, abs=2e-3)


@pytest.mark.parametrize("counts", [(3, 2, 9, 6), (0, 0, 5, 0), (10, 4, 4, 1), (7, 0, 0, 3)])
def test_pairs_are_tested_exactly(counts: tuple[int, int, int, int]) -> None:
    both, lost, gained, _ = counts
    found = paired(*pairs(*counts))
    expected = binomtest(lost, lost + gained).pvalue if lost + gained else 1.0
    assert found.p == pytest.approx(expected) and (found.lost, found.gained) == (lost, gained)
    assert found.first == (both + lost) / sum(counts) and -1 <= found.ci_low <= found.difference <= found.ci_high <= 1
    swapped = paired(*reversed(pairs(*counts)))
    assert (-swapped.ci_high, -swapped.ci_low) == pytest.approx((found.ci_low, found.ci_high))


def test_paired_interval_covers(seed: int = 0) -> None:
    """Over many draws the interval holds the true difference about as often as it says."""
    rng, shares, num, times = random.Random(seed), (0.5, 0.1, 0.25, 0.15), 40, 600
    held = 0
    for _ in range(times):
        kinds = rng.choices(range(4), shares, k=num)
        found = paired(*pairs(*(kinds.count(kind) for kind in range(4))))
        held += found.ci_low <= shares[2] - shares[1] <= found.ci_high
    assert 0.93 <= held / times <= 0.99


@pytest.mark.parametrize("num", [4, 9, 40])
def test_a_correlation_is_that_of_scipy(num):
    rng = random.Random(num)
    first = [rng.random() for _ in range(num)]
    second = [value + rng.random() for value in first]
    found, wanted = correlation(first, second), pearsonr(first, second)
    assert (found.r, found.p) == pytest.approx((wanted.statistic, wanted.pvalue))
    assert (found.ci_low, found.ci_high) == pytest.approx(tuple(wanted.confidence_interval()))
    assert correlation(first, first).r == pytest.approx(1)


def test_there_is_no_correlation_of_few_or_equal_values():
    assert correlation([0.1, 0.2, 0.3], [0.1, 0.2, 0.3]) is None
    assert correlation([0.5] * 9, [0.1 * number for number in range(9)]) is None
