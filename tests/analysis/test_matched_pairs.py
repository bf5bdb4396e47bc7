"""Matching and reading off pairs: held against counts by hand, and against vectors that know the answer."""

from __future__ import annotations

import numpy as np
import pytest

from vlmreason.analysis.matching import RIDGES, Matched, choose_fit, fit, matched

RNG = np.random.default_rng(0)


@pytest.mark.parametrize(
    ("cosines", "texts", "pictures"),
    [
        # rows: pictures; columns: statements; [0, 0] and [1, 1] are the right ones
        ([[0.9, 0.1], [0.2, 0.8]], True, True),
        ([[0.9, 0.85], [0.2, 0.3]], False, True),  # the second statement takes the first picture
        ([[0.3, 0.2], [0.5, 0.9]], False, True),
        ([[0.9, 0.1], [0.8, 0.7]], True, False),  # the second picture takes the first statement
        ([[0.9, 0.1], [0.9, 0.8]], False, False),  # equal cosines take nothing
        ([[0.1, 0.9], [0.8, 0.2]], False, False),
    ],
)
def test_a_pair_is_right_where_both_take_their_own(cosines: list[list[float]], texts: bool, pictures: bool) -> None:
    """Vectors of two pictures that have these cosines with two statements at right angles."""
    wanted = np.array(cosines)
    scaled = wanted / np.linalg.norm(wanted, axis=1).max() * 0.99
    rest = np.sqrt(1 - (scaled**2).sum(axis=1))
    seen = np.column_stack([scaled, np.diag(rest)]).astype(np.float32)
    found = matched(7 * seen, np.eye(2, 4, dtype=np.float32) * [[3.0], [0.5]])
    assert found == Matched(texts, pictures) and found.both == (texts and pictures)


def vectors(values: list[str], known: tuple[str, ...], width: int, noise: float) -> np.ndarray:
    """Noise, with a direction of its own for each value; one column never varies."""
    ways = np.random.default_rng(1).normal(size=(len(known), width))
    found = ways[[known.index(value) for value in values]] + noise * RNG.normal(size=(len(values), width))
    found[:, 0] = 5.0
    return found.astype(np.float32)


@pytest.mark.parametrize("width", [12, 300])
def test_what_is_in_the_vectors_is_read(width: int) -> None:
    """With fewer and with more columns than pictures; among the two options alone."""
    known = ("left", "right", "up")
    train, test = ([str(RNG.choice(known)) for _ in range(num)] for num in (90, 60))
    options = [(value, known[known.index(value) - 1])[:: 1 if i % 2 else -1] for i, value in enumerate(test)]
    right = [pair.index(value) for pair, value in zip(options, test, strict=True)]
    seen, asked = vectors(train, known, width, 0.6), vectors(test, known, width, 0.6)
    made = choose_fit((seen, train), (asked, options, right))
    hits = np.mean(np.array(made.answers(asked, options)) == right)
    assert made.values == known and hits > 0.9
    shuffled = fit(seen, list(RNG.permutation(train)), RIDGES[1])
    assert 0.2 < np.mean(np.array(shuffled.answers(asked, options)) == right) < 0.8, "and what is not, is not"


@pytest.mark.parametrize("num", [20, 40])
def test_both_ways_to_solve_are_one(num: int) -> None:
    """Held against the normal equations, with 30 columns."""
    values = [str(RNG.choice(["a", "b"])) for _ in range(num)]
    seen = RNG.normal(size=(num, 30)).astype(np.float32)
    made = fit(seen, values, 0.5)
    inputs = (seen - seen.mean(0)) / seen.std(0)
    wanted = np.array([[value == "a", value == "b"] for value in values], float)
    weights = np.linalg.solve(inputs.T @ inputs + 0.5 * num * np.eye(30), inputs.T @ (wanted - wanted.mean(0)))
    assert np.allclose(made.scores(seen), inputs @ weights + wanted.mean(0), atol=1e-4)


def test_a_value_that_was_never_seen_is_not_read() -> None:
    made = fit(np.eye(4, dtype=np.float32), ["a", "b", "a", "b"], 0.1)
    assert made.answers(np.eye(2, 4, dtype=np.float32), [("c", "a"), ("b", "c")]) == [1, 0]
    with pytest.raises(ValueError, match="4 training pictures show one value"):
        fit(np.eye(4, dtype=np.float32), ["a"] * 4, 0.1)
