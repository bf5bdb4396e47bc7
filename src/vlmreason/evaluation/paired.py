"""Several runs on the same problems: how often each is right, and how often one where the other is not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vlmreason.evaluation.predictions import shorten
from vlmreason.intervals import Correlation, Paired, correlation, paired
from vlmreason.terminal import columns

Place = tuple[str, str]
"""A level and a view."""


@dataclass(frozen=True)
class Marks:
    """What a run got right.

    run: its name, with that of the evaluation where it is not the run's own. problems: what decides the problem of an
    index. right: by level and view, by index. responses: those that there are, a record keeps few.
    """

    run: str
    problems: Mapping[str, Any]
    right: Mapping[Place, Mapping[int, bool]]
    responses: Mapping[Place, Mapping[int, str]] = field(repr=False)


@dataclass(frozen=True)
class Comparison:
    """The `second` run of a list against the first, on the problems of a level in a view."""

    level: str
    view: str
    second: int
    found: Paired

    def to_json(self, runs: Sequence[Marks]) -> dict[str, Any]:
        return {
            "first_run": runs[0].run, "second_run": runs[self.second].run,
            "level": self.level, "view": self.view, **vars(self.found),
        }  # fmt: skip


def check_same(runs: Sequence[Marks]) -> None:
    """Raise ValueError where runs answer different problems, or none in common."""
    first = runs[0]
    for other in runs[1:]:
        for key in dict.fromkeys([*first.problems, *other.problems]):
            held, wanted = other.problems.get(key), first.problems.get(key)
            if held != wanted:
                raise ValueError(
                    f"run: {other.run} answers other problems than {first.run}: {key} is {shorten(held)} there and "
                    f"{shorten(wanted)} here"
                )
        if not common([first, other]):
            raise ValueError(f"run: {other.run} answers none of the levels and views that {first.run} answers")


def common(runs: Sequence[Marks]) -> dict[Place, list[int]]:
    """Return the problems that all runs answer, by level and view."""
    found = {}
    for place, rights in runs[0].right.items():
        if indices := set(rights).intersection(*(run.right.get(place, {}) for run in runs[1:])):
            found[place] = sorted(indices)
    return found


def compare(runs: Sequence[Marks], problems: Mapping[Place, Sequence[int]]) -> Iterator[Comparison]:
    """Compare every further run with the first, by level and view."""
    for second in range(1, len(runs)):
        for place, indices in problems.items():
            rights = ([bool(run.right[place][index]) for index in indices] for run in (runs[0], runs[second]))
            yield Comparison(*place, second, paired(*rights))


def differing(runs: Sequence[Marks], problems: Mapping[Place, Sequence[int]], num: int) -> Iterator[tuple[Place, int]]:
    """Return the first `num` problems of each level and view that some run has right and another one wrong, where
    their responses are there."""
    for place, indices in problems.items():
        found = [
            index
            for index in indices
            if len({run.right[place][index] for run in runs}) > 1
            and all(index in run.responses.get(place, {}) for run in runs)
        ]
        yield from ((place, index) for index in found[:num])


def letter(number: int) -> str:
    """Name the runs of a table A, B, C ... Z, 27, 28 ..."""
    return chr(ord("A") + number) if number < 26 else str(number + 1)


HEADER = ("level", "view", "problems", "first", "second", "difference", "95 % interval", "lost", "gained", "p")


def row(one: Comparison) -> tuple[str, ...]:
    """Return a comparison in words, shares and differences in per cent and points, as HEADER says."""
    found, name = one.found, letter(one.second)
    return (
        one.level, one.view, str(found.num), f"A {100 * found.first:.1f} %",
        f"{name} {100 * found.second:.1f} %", f"{100 * found.difference:+.1f}",
        f"{100 * found.ci_low:+.1f} to {100 * found.ci_high:+.1f}", str(found.lost), str(found.gained),
        f"{found.p:.3f}" if found.p >= 0.001 else "< 0.001",
    )  # fmt: skip


def correlations(found: Sequence[Comparison]) -> Iterator[tuple[int, str, Correlation]]:
    """Correlate the accuracies of each further run with those of the first over the levels of a view: whether two runs
    fail on the same kinds of problems. Where levels are few or one run has the same on all there is none."""
    for second, view in dict.fromkeys((one.second, one.view) for one in found):
        shares = [(one.found.first, one.found.second) for one in found if (one.second, one.view) == (second, view)]
        over = correlation([first for first, _ in shares], [other for _, other in shares])
        if over is not None:
            yield second, view, over


def format_comparison(runs: Sequence[Marks], found: Sequence[Comparison]) -> str:
    """Return the table with the names of the runs above it, and correlations over levels below."""
    names = [f"{letter(number)}  {run.run}" for number, run in enumerate(runs)]
    lines = [
        f"A and {letter(second)} over {one.num} levels, {view}: correlation {one.r:.2f} "
        f"({one.ci_low:.2f} to {one.ci_high:.2f}), p {one.p:.3f}"
        for second, view, one in correlations(found)
    ]
    table = columns(HEADER, [row(one) for one in found], left=2)
    return "\n".join([*names, "", table, *([""] if lines else []), *lines])
