"""Mined pairs are those of all pairs, whatever the block and wherever it goes on."""

from __future__ import annotations

import numpy as np
import pytest

from vlmreason.analysis.mining import Mined, Thresholds, in_order, mine, normalised


def towers(num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(5, 16))[rng.integers(5, size=num)]
    first = normalised((kinds + 0.1 * rng.normal(size=(num, 16))).astype(np.float32), "first")
    return first, normalised(rng.normal(size=(num, 8)).astype(np.float32), "second")


def test_all_pairs_are_found_once_in_blocks_of_any_size() -> None:
    first, second = towers(90)
    limits = Thresholds(0.95, 0.2)
    wanted = [
        (i, j)
        for i in range(90)
        for j in range(i + 1, 90)
        if first[i] @ first[j] > limits.alike and second[i] @ second[j] < limits.unlike
    ]
    assert 50 < len(wanted) < 90 * 89 // 2
    for block in (1, 7, 64, 1000):
        found = [pair for _, some in mine(first, second, limits, block) for pair in some]
        assert sorted((pair.first, pair.second) for pair in found) == wanted
        for pair in found:
            assert pair.alike == pytest.approx(float(first[pair.first] @ first[pair.second]), abs=1e-5)
            assert pair.unlike == pytest.approx(float(second[pair.first] @ second[pair.second]), abs=1e-5)


def test_a_search_goes_on_where_it_stopped() -> None:
    first, second = towers(60)
    whole = [pair for _, some in mine(first, second, Thresholds(), 16) for pair in some]
    steps = mine(first, second, Thresholds(), 16)
    begun = [next(steps) for _ in range(2)]
    rest = list(mine(first, second, Thresholds(), 16, start=begun[-1][0]))
    assert [pair for _, some in [*begun, *rest] for pair in some] == whole and whole and rest[-1][0] == 60


def test_order_is_by_gap_then_number() -> None:
    pairs = [Mined(3, 4, 0.96, 0.5), Mined(0, 9, 0.97, 0.1), Mined(1, 2, 0.96, 0.5)]
    assert in_order(pairs) == [pairs[1], pairs[2], pairs[0]]


@pytest.mark.parametrize("name", ["alike", "unlike"])
@pytest.mark.parametrize("value", [-1.1, 1.5, float("nan")])
def test_thresholds_are_cosines(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}={value}"):
        Thresholds(**{name: value})


def test_vectors_without_direction_are_named() -> None:
    with pytest.raises(ValueError, match="clip: picture 2"):
        normalised(np.array([[1, 0], [0, 1], [0, 0]], np.float32), "clip")
