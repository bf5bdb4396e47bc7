"""Intervals over seeds and problems."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from vlmreason.intervals import wilson_interval
from vlmreason.studies.estimates import Estimate, Sample, difference, estimate, of_run, of_shares


def runs(*rows: Sequence[float | None], by_problem: bool = True) -> list[Sample]:
    return [Sample(seed, tuple(row), by_problem) for seed, row in enumerate(rows)]


def interval(found: Estimate | None) -> tuple[float, float]:
    assert found is not None and found.ci_low is not None and found.ci_high is not None
    return found.ci_low, found.ci_high


def width(found: Estimate | None) -> float:
    low, high = interval(found)
    return high - low


def test_values_per_run_have_students_interval() -> None:
    found = estimate(runs([10.0], [12.0], [17.0], by_problem=False))
    assert found is not None and found.num_seeds == 3 and found.num_problems is None
    half = stats.t.ppf(0.975, 2) * np.std([10, 12, 17], ddof=1) / 3**0.5
    assert interval(found) == pytest.approx((13 - half, 13 + half))


def test_one_seed_has_the_interval_over_problems() -> None:
    values = [1.0, 0.0, 0.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]
    half = stats.t.ppf(0.975, 9) * np.std(values, ddof=1) / 10**0.5
    found = estimate(runs([*values]))
    assert found is not None and (found.num_seeds, found.num_problems) == (1, 10)
    assert interval(found) == pytest.approx((0.7 - half, min(1.0, 0.7 + half)))


def test_seeds_that_agree_on_every_problem_tell_as_much_as_one() -> None:
    values = [float(i % 3 == 0) for i in range(60)]
    assert interval(estimate(runs([*values], [*values], [*values]))) == pytest.approx(interval(estimate(runs(values))))


def test_two_way_variance_is_that_of_the_mean_squares() -> None:
    """The textbook's analysis of variance of a table of 3 seeds and 4 problems, written out."""
    table = np.array([[0.1, 0.4, 0.3, 0.9], [0.2, 0.6, 0.2, 0.8], [0.5, 0.7, 0.6, 0.9]])
    rows, columns, mean = table.mean(1), table.mean(0), table.mean()
    of_seed = 4 * np.square(rows - mean).sum() / 2
    of_problem = 3 * np.square(columns - mean).sum() / 3
    of_rest = np.square(table - rows[:, None] - columns + mean).sum() / 6
    assert of_rest < min(of_seed, of_problem)
    variance = (of_seed + of_problem - of_rest) / 12
    df = (12 * variance) ** 2 / (of_seed**2 / 2 + of_problem**2 / 3 + of_rest**2 / 6)
    assert width(estimate(runs(*table.tolist()))) == pytest.approx(2 * stats.t.ppf(0.975, df) * variance**0.5)


@pytest.mark.parametrize("right", [0.0, 1.0])
def test_all_alike_has_the_interval_of_as_many_problems(right: float) -> None:
    found = estimate(runs(*[[right] * 50] * 3))
    assert found is not None and found.mean == right
    assert interval(found) == pytest.approx(wilson_interval(int(50 * right), 50))


def test_no_difference_anywhere_is_not_taken_for_certain() -> None:
    low, high = interval(difference(runs([0.0] * 100, [0.0] * 100), runs([0.0] * 100, [0.0] * 100)))
    assert -0.05 < low < 0 < high < 0.05


def test_one_value_has_no_interval() -> None:
    found = estimate(runs([3.0], by_problem=False))
    assert found == Estimate(3.0, None, None, 1, None)


def shares(*values: float, num: int = 40) -> list[Sample]:
    return [of_run(seed, value, num) for seed, value in enumerate(values)]


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_runs_with_one_share_tell_what_their_problems_can(share: float) -> None:
    assert interval(estimate(shares(share, share, share))) == pytest.approx(wilson_interval(40 * share, 40))
    assert width(estimate(shares(share, share, num=10))) > width(estimate(shares(share, share)))
    assert estimate(shares(share)) == Estimate(share, None, None, 1, None)


def test_equal_differences_of_shares_have_newcombes_interval() -> None:
    """56 of 70 less 48 of 80, an example of his."""
    found = difference(shares(0.8, 0.8, num=70), shares(0.6, 0.6, num=80))
    assert interval(found) == pytest.approx((0.0524, 0.3339), abs=5e-5)
    low, high = interval(difference(shares(0.0, 0.0), shares(0.0, 0.0)))
    assert low < 0 < high


def test_the_interval_of_shares_is_students_where_that_is_wider() -> None:
    values = (0.1, 0.5, 0.9)
    assert estimate(shares(*values)) == estimate([Sample(seed, (v,), False) for seed, v in enumerate(values)])
    assert width(estimate(shares(0.0, 0.0, 0.025))) > width(estimate(shares(0.0, 0.0, 0.0))), "a success takes nothing"


def test_nothing_gives_nothing() -> None:
    assert estimate([]) is None
    assert estimate(runs([None, None])) is None
    assert difference(runs([1.0]), [Sample(7, (1.0,), True)]) is None
    assert difference(runs([1.0]), runs([1.0], by_problem=False)) is None


def test_only_the_problems_of_all_runs_count() -> None:
    ragged = runs([1.0, 0.0, 1.0, 0.0], [0.0, 0.0, 1.0])
    assert estimate(ragged) == estimate(runs([1.0, 0.0, 1.0], [0.0, 0.0, 1.0]))


def test_a_problem_without_a_value_does_not_count() -> None:
    found = estimate(runs([1.0, None, 0.0, 1.0], [0.0, None, 1.0, None], [None, None, None, None]))
    assert found is not None and (found.num_seeds, found.num_problems) == (2, 3)
    assert found.mean == pytest.approx(3 / 5)


@pytest.mark.parametrize("num_seeds", [2, 3])
def test_few_problems_still_have_an_interval(num_seeds: int) -> None:
    rng = np.random.default_rng(1)
    for _ in range(200):
        table = rng.integers(0, 2, (num_seeds, 2)).astype(float)
        low, high = interval(estimate(runs(*table.tolist())))
        assert 0 <= low <= table.mean() <= high <= 1


def coverage(num_seeds: int, draw: Callable[[], tuple[np.ndarray, float]]) -> float:
    """Share of 400 tables whose interval contains the truth."""
    held = 0
    for _ in range(400):
        table, truth = draw()
        rows = [[None if v != v else v for v in row] for row in table[:num_seeds].tolist()]
        low, high = interval(estimate(runs(*rows)))
        held += low <= truth <= high
    return held / 400


@pytest.mark.parametrize("num_seeds", [3, 5])
@pytest.mark.parametrize(("of_seed", "of_problem", "least", "most"), [
    (0.15, 1.0, 0.925, 0.975), (0.08, 1.0, 0.925, 0.98), (0.02, 1.0, 0.93, 0.985), (0.1, 0.3, 0.925, 0.985),
])  # fmt: skip
def test_coverage_with_crossed_effects(
    num_seeds: int, of_seed: float, of_problem: float, least: float, most: float
) -> None:
    rng = np.random.default_rng(11)

    def draw() -> tuple[np.ndarray, float]:
        seeds, problems = of_seed * rng.standard_normal((5, 1)), of_problem * rng.standard_normal(200)
        return 10 + seeds + problems + rng.standard_normal((5, 200)), 10.0

    assert least <= coverage(num_seeds, draw) <= most


@pytest.mark.parametrize("without", [0.0, 0.5])
def test_coverage_of_right_and_wrong_answers(without: float) -> None:
    """Also where the measure does not exist for half of them."""
    rng = np.random.default_rng(5)

    def draw() -> tuple[np.ndarray, float]:
        chance = stats.norm.cdf(0.3 * rng.standard_normal((3, 1)) + 1.5 * rng.standard_normal(200))
        right = (rng.random((3, 200)) < chance).astype(float)
        return np.where(rng.random((3, 200)) < without, np.nan, right), 0.5

    assert 0.925 <= coverage(3, draw) <= 0.985


def test_pairing_narrows_the_difference_of_runs_that_agree_on_problems() -> None:
    rng = np.random.default_rng(2)
    difficulty = 2 * rng.standard_normal(200)
    left, right = (
        runs(*[[float(v) for v in difficulty + shift + rng.standard_normal(200) > 0] for _ in range(3)])
        for shift in (0.3, 0.0)
    )
    paired, separate = difference(left, right), (width(estimate(left)) ** 2 + width(estimate(right)) ** 2) ** 0.5
    assert width(paired) < 0.8 * separate
    means = [estimate(side) for side in (left, right)]
    assert paired is not None and means[0] is not None and means[1] is not None
    assert paired.mean == pytest.approx(means[0].mean - means[1].mean)


def test_runs_are_paired_by_seed() -> None:
    left = [Sample(0, (10.0,), False), Sample(1, (20.0,), False), Sample(9, (99.0,), False)]
    right = [Sample(1, (18.0,), False), Sample(0, (9.0,), False)]
    found = difference(left, right)
    assert found is not None and found.mean == 1.5 and found.num_seeds == 2


def test_intervals_of_shares_stay_among_shares() -> None:
    found = of_shares(estimate([Sample(seed, (value,), False) for seed, value in enumerate((1.0, 0.9, 0.7))]))
    assert found is not None and found.ci_high == 1.0 and found.ci_low is not None and 0 < found.ci_low < found.mean
    assert of_shares(None) is None
    one = estimate([Sample(0, (0.7,), False)])
    assert of_shares(one) == one


def test_groups_take_the_place_of_problems() -> None:
    """Of groups whose problems are alike the interval is that of one problem of each, with one seed or several."""
    rng = np.random.default_rng(0)
    for num_seeds in (1, 3):
        of_groups = (rng.random((num_seeds, 40)) < rng.random(40)).astype(float)
        single = estimate([Sample(seed, tuple(row), True) for seed, row in enumerate(of_groups)])
        groups = tuple(str(group) for group in range(40) for _ in range(5))
        repeated = [Sample(seed, tuple(np.repeat(row, 5)), True) for seed, row in enumerate(of_groups)]
        grouped = estimate([replace(one, groups=groups) for one in repeated])
        alone = estimate(repeated)
        assert single is not None and grouped is not None and alone is not None
        assert (grouped.mean, grouped.num_problems) == (pytest.approx(single.mean), 40)
        assert (grouped.ci_low, grouped.ci_high) == pytest.approx((single.ci_low, single.ci_high))
        assert alone.ci_low is not None and grouped.ci_low is not None and alone.ci_low > grouped.ci_low


def test_groups_of_one_problem_change_nothing() -> None:
    samples = [Sample(seed, (1.0, 0.0, None, 1.0, float(seed)), True) for seed in (0, 1)]
    grouped = [replace(one, groups=("a", "b", "c", None, "e")) for one in samples]
    assert estimate(grouped) == estimate(samples)
