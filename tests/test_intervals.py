"""Wilson intervals against their formula."""

import math

import pytest

from vlmreason.intervals import wilson_interval


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
