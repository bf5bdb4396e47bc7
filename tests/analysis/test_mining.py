"""Mined pairs are those of all pairs, whatever the block and wherever it goes on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from vlmreason.analysis import mining
from vlmreason.analysis.mining import Pairs, Search, Thresholds, search


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)


def towers(num: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    kinds = rng.normal(size=(5, 16))[rng.integers(5, size=num)]
    return unit(kinds + 0.1 * rng.normal(size=(num, 16))), unit(rng.normal(size=(num, 8)))


def last(*arguments: object, **settings: object) -> Search:
    return list(search(*arguments, **settings))[-1]  # type: ignore[arg-type]


def numbers(pairs: Pairs) -> list[tuple[int, int]]:
    return list(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))


@pytest.mark.parametrize("dense", [1, 10**9], ids=["pair by pair", "by a product"])
def test_all_pairs_are_found_once_in_blocks_of_any_size(dense: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mining, "DENSE", dense)
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
        found = last(first, second, limits, 5000, block=block)
        assert sorted(numbers(found.pairs)) == wanted and found.count == len(wanted) and found.next == 90
        for (i, j), alike, unlike in zip(numbers(found.pairs), found.pairs.alike, found.pairs.unlike, strict=True):
            assert alike == pytest.approx(float(first[i] @ first[j]), abs=1e-5)
            assert unlike == pytest.approx(float(second[i] @ second[j]), abs=1e-5)


def test_those_are_kept_whose_cosines_differ_most() -> None:
    first, second = towers(80)
    whole = last(first, second, Thresholds(0.9, 0.3), 10**6)
    gaps = whole.pairs.alike - whole.pairs.unlike
    assert (np.diff(gaps) <= 0).all()
    for block in (9, 100):
        few = last(first, second, Thresholds(0.9, 0.3), 20, block=block)
        assert numbers(few.pairs) == numbers(whole.pairs)[:20] and few.count == whole.count > 40


def test_equal_gaps_stand_by_number() -> None:
    same = np.full(3, 0.5, np.float32)
    pairs = Pairs().with_more(Pairs(np.array([2, 0, 0]), np.array([3, 5, 4]), same, same), 2)
    assert numbers(pairs) == [(0, 4), (0, 5)]


def test_a_search_goes_on_where_it_stopped(tmp_path: Path) -> None:
    first, second = towers(60)
    whole = last(first, second, Thresholds(), 50, block=16)
    begun = next(search(first, second, Thresholds(), 50, block=16))
    path = tmp_path / "search.npz"
    mining.save(path, begun, "this")
    held = mining.load(path, "this")
    assert held is not None and held.next == 16
    rest = last(first, second, Thresholds(), 50, held, block=16)
    assert numbers(rest.pairs) == numbers(whole.pairs) and rest.count == whole.count
    assert mining.load(path, "another") is None and mining.load(tmp_path / "none", "this") is None
    path.write_bytes(path.read_bytes()[:90])
    with pytest.raises(ValueError, match=r"search\.npz: damaged"):
        mining.load(path, "this")


def test_quantiles_become_cosines_of_random_pairs() -> None:
    first, second = towers(200)
    limits = mining.as_cosines(first, second, Thresholds(0.9, 0.5))
    pairs = [(i, j) for i in range(200) for j in range(200) if i != j]
    for threshold, vectors, at in ((limits.alike, first, 0.9), (limits.unlike, second, 0.5)):
        share = np.mean([vectors[i] @ vectors[j] < threshold for i, j in pairs])
        assert share == pytest.approx(at, abs=0.02)
    with pytest.raises(ValueError, match="as quantiles from 0 to 1"):
        mining.as_cosines(first, second, Thresholds(0.9, -0.5))


@pytest.mark.parametrize("wrong", [{"alike": 1.5}, {"unlike": -2.0}, {"alike": float("nan")}])
def test_thresholds_are_cosines(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="a cosine from -1 to 1"):
        Thresholds(**wrong)


def test_both_towers_see_the_same_pictures() -> None:
    first, second = towers(9)
    with pytest.raises(ValueError, match="saw 9 and 8 pictures"):
        next(search(first, second[:8], Thresholds(), 5))
