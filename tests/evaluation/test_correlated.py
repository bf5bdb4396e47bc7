"""Two runs that fail on the same kinds of problems correlate over the levels."""

from __future__ import annotations

from vlmreason.evaluation.paired import Marks, compare, correlations, format_comparison

LEVELS = ("orientation", "count", "color", "text", "state")


def marks(run: str, shares: tuple[int, ...]) -> Marks:
    """A run that has so many of ten problems of each level right."""
    rights = zip(LEVELS, shares, strict=True)
    return Marks(run, {}, {(level, "image"): {i: i < num for i in range(10)} for level, num in rights}, {})


def table(*runs: Marks) -> str:
    return format_comparison(runs, list(compare(runs, {(level, "image"): range(10) for level in LEVELS})))


def test_runs_correlate_over_levels() -> None:
    first = marks("clip", (1, 2, 9, 3, 6))
    same, other = marks("same", (2, 3, 10, 4, 7)), marks("other", (9, 8, 1, 7, 4))
    found = list(correlations(list(compare([first, same, other], {(level, "image"): range(10) for level in LEVELS}))))
    assert [(second, view, round(one.r, 6)) for second, view, one in found] == [(1, "image", 1), (2, "image", -1)]
    assert "A and B over 5 levels, image: correlation 1.00" in table(first, same)
    assert "correlation" not in table(first, marks("flat", (5,) * 5))
