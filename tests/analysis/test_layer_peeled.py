"""The layer-peeled model: a tight frame where classes are balanced, one row for the minority where they are not."""

import math

import pytest
import torch

from vlmreason.analysis.layer_peeled import MEASURES, Peeled, at_bound, frame_distance, mean_cosine, measures, solve

SHORT = Peeled(steps=1500)


@pytest.fixture(scope="module")
def found():
    ratios = (1, 3, 10, 30, 100)
    return {seed: dict(zip(ratios, solve(SHORT, ratios, seed), strict=True)) for seed in (0, 1)}


def test_balanced_classes_are_a_tight_frame(found):
    for by_ratio in found.values():
        balanced = by_ratio[1]
        assert balanced["minority cosine"] == pytest.approx(-1 / 9, abs=1e-3)
        assert balanced["majority cosine"] == pytest.approx(-1 / 9, abs=1e-3)
        assert balanced["distance to a tight frame"] < 0.01 and balanced["minority told apart"] == 1


def test_the_minority_comes_together_at_a_finite_ratio(found):
    for by_ratio in found.values():
        cosines = [values["minority cosine"] for values in by_ratio.values()]
        assert cosines == pytest.approx(sorted(cosines), abs=1e-6) and cosines[-2] > 0.999 > 0.6 > cosines[2]
        assert [values["minority told apart"] for values in by_ratio.values()] == [1, 1, 1, 0, 0]


def test_seeds_come_to_the_same_minimum(found):
    for ratio in (1, 3, 10):
        assert found[0][ratio]["minority cosine"] == pytest.approx(found[1][ratio]["minority cosine"], abs=2e-3)


def test_the_minimum_is_one():
    """From the minimum no direction of rows at their bound lowers the loss: balanced, its value is known."""
    rows = torch.eye(4, dtype=torch.float64) - 1 / 4
    assert frame_distance(rows) < 1e-12 and mean_cosine(rows) == pytest.approx(-1 / 3)
    bound = at_bound(rows[None], 5.0)[0]
    assert float(bound.pow(2).sum(dim=1).mean()) == pytest.approx(5.0)
    logit = math.sqrt(5.0)  # w h at bounds 1 and 5 in a tight frame, and -1/3 of it for other classes
    at_one = at_bound(rows[None], 1.0)[0]
    logits = bound @ at_one.T
    assert logits.diagonal() == pytest.approx([logit] * 4) and float(logits[0, 1]) == pytest.approx(-logit / 3)


def test_equal_rows_are_not_told_apart():
    rows = torch.eye(4, dtype=torch.float64)
    rows[3] = rows[2]
    values = measures(rows, rows, 2)
    assert (values["minority told apart"], values["minority cosine"]) == (0, pytest.approx(1))
    assert set(values) == set(MEASURES)


@pytest.mark.parametrize(
    ("changes", "said"),
    [({"majority": 9}, "majority=9: 1 to classes - 2 = 8"), ({"lr": 0.0}, "lr=0.0"), ({"steps": 0}, "steps=0")],
)
def test_settings_out_of_range_are_named(changes, said):
    with pytest.raises(ValueError, match=said):
        Peeled(**changes)
    with pytest.raises(ValueError, match="ratios="):
        solve(SHORT, (0.5,), 0)
