"""The claims ledger: what the paper found, as statements over the cells of experiments, and whether they hold here.

`experiments/<study>/claims.yaml` is a list of claims. A claim compares cells of one experiment, which are named by the
labels of its axes, in one contrast or several: left against right, or left against a bound. What is measured is the
difference paired by seed and problem with its 95 % interval (vlmreason.studies.estimates). A contrast holds where the
interval lies entirely on the claimed side, fails where it lies entirely on the other, and is not decided in between.
One run of several that are planned decides nothing: its interval is over problems alone. Contrasts are judged one by
one at 95 %, without a correction for how many there are. A claim about cells that a scale shows with the paper's number
alone cannot be decided at it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from vlmreason.files import read_plain_yaml
from vlmreason.structure import nearest, structure
from vlmreason.studies.estimates import Estimate, Sample, correlation, difference, estimate, minus, of_problems, of_run
from vlmreason.studies.experiment import Cell, Experiment
from vlmreason.studies.measures import TIMES
from vlmreason.studies.readings import Curve
from vlmreason.studies.results import CellResult, Missing, Result

Label = str | int | float
Judgement = Literal["holds", "fails", "not decided", "no runs", "not at this scale"]

OF = ("mean", "weighted", "first", "last", "gain", "min", "max")
WORDS = {"first": 0, "second": 1, "last but one": -2, "last": -1}


@dataclass(frozen=True)
class Side:
    """Cells of an experiment by their labels; of several, the mean. An axis that has one place need not be named.

    x: also `all`, one of WORDS, of the places that a series has, or the value that the paper has at that place.
    """

    panel: Label | tuple[Label, ...] | None = None
    series: Label | tuple[Label, ...] | None = None
    x: Label | tuple[Label, ...] | None = None


@dataclass(frozen=True)
class Contrast:
    """left is above | below right by `margin`, or within `margin` of it; or left is above | below `bound`.

    Numbers are percentage points where the measure is in percent. ratio: instead of a difference, left is more or less
    than so many times right (within: neither is so many times the other), for measures that are one number per run. of:
    one number of a curve over the checkpoints of the last phase; `weighted`: mean with the horizontal axis as weight;
    `gain`: last minus first, which is where the phase begins. ranks: instead of a difference, the rank correlation of
    the cells of left with those of right, in their order, is above | below `margin`.
    """

    left: Side
    relation: Literal["above", "below", "within"]
    right: Side | None = None
    bound: float | None = None
    margin: float = 0.0
    ratio: float | None = None
    of: Literal["mean", "weighted", "first", "last", "gain", "min", "max"] | None = None
    ranks: bool = False

    def __post_init__(self) -> None:
        if (self.right is None) == (self.bound is None):
            raise ValueError("one of right and bound is expected")
        if self.right is None and (self.margin or self.ratio or self.relation == "within"):
            raise ValueError("bound: is above or below, without margin and ratio")
        if self.ratio is not None and (self.margin or self.ratio <= 0):
            raise ValueError(f"ratio={self.ratio}: a number above 0 is expected, without margin")
        if self.ranks and (self.right is None or self.ratio is not None or abs(self.margin) >= 1):
            raise ValueError("ranks: left, right and a margin between -1 and 1 are expected, no bound and no ratio")
        if self.relation == "within" and max(self.margin, (self.ratio or 1) - 1) <= 0:
            raise ValueError("relation=within: a margin above 0 or a ratio above 1 is expected")

    def limits(self) -> tuple[float, float]:
        """Return the effect is claimed to lie between these."""
        if self.relation == "within":
            return (1 / self.ratio, self.ratio) if self.ratio else (-self.margin, self.margin)
        above = self.relation == "above"
        margin = self.margin if above else 0 - self.margin
        limit = next((value for value in (self.bound, self.ratio) if value is not None), margin)
        return (limit, math.inf) if above else (-math.inf, limit)


@dataclass(frozen=True)
class Claim:
    """One finding of the paper.

    hold: whether all contrasts must hold, or any. scale: the only one at which its cells exist, where it is not all.
    tried: what was tried where it fails.
    """

    id: str
    text: str
    place: str
    experiment: str
    contrasts: tuple[Contrast, ...]
    hold: Literal["all", "any"] = "all"
    scale: str | None = None
    tried: str = ""

    def __post_init__(self) -> None:
        if not self.contrasts:
            raise ValueError(f"{self.id}: contrasts: one or more is expected")


@dataclass(frozen=True)
class Judged:
    """A contrast with its effect: in percentage points where the measure is in percent, as ratio where one is asked.

    sides: left and right by themselves, or left alone where it has a bound. num_wanted: seeds that there should be.
    """

    contrast: Contrast
    effect: Estimate | None
    verdict: Judgement
    sides: tuple[Estimate | None, ...] = ()
    num_wanted: int = 0


@dataclass(frozen=True)
class Verdict:
    """contrasts: in the order of the claim. deciding: the weakest where all must hold, else the strongest."""

    claim: Claim
    scale: str
    verdict: Judgement
    deciding: Judged
    contrasts: tuple[Judged, ...]
    runs: tuple[str, ...]
    missing: tuple[Missing, ...]
    marks: tuple[str, ...]

    @property
    def effect(self) -> Estimate | None:
        return self.deciding.effect


def read_claims(
    path: Path, load: Callable[[str], Experiment] | None = None, scale: str | None = None
) -> tuple[Claim, ...]:
    """Return the claims of a study. `load`: an experiment by its name at `scale`, to check labels. Raises
    ValueError."""
    data = read_plain_yaml(path, aliases=True)
    if not isinstance(data, list):
        raise ValueError(f"{path}: a list of claims is expected")
    claims: dict[str, Claim] = {}
    for number, item in enumerate(data):
        name = item.get("id", f"claim {number + 1}") if isinstance(item, dict) else f"claim {number + 1}"
        try:
            claim = structure(Claim, _whole(item))
            if claim.id in claims:
                raise ValueError("there are two of this id")
            if load is not None and claim.scale in (None, scale):
                check(claim, load(claim.experiment))
        except ValueError as error:
            raise ValueError(f"{path}, {name}: {error}") from None
        claims[claim.id] = claim
    return tuple(claims.values())


def check(claim: Claim, experiment: Experiment) -> None:
    """Raise ValueError where a claim names what the experiment does not have, or compares different measures.

    `experiment` is at the claim's scale.
    """
    cells = list(experiment.cells())
    for contrast in claim.contrasts:
        sides = [side for side in (contrast.left, contrast.right) if side is not None]
        named = [list(_named(side, experiment, cells)) for side in sides]
        if contrast.ranks and (len(named[0]) != len(named[1]) or len(named[0]) < 3):
            raise ValueError("ranks: left and right are as many cells, 3 or more")
        _check_measures(contrast, [cell for side in named for cell in side])


def judge(claim: Claim, results: Mapping[str, Result]) -> Verdict:
    """Return the verdict from an artifact's numbers; `results` by the names of experiments. Raises ValueError."""
    if claim.experiment not in results:
        raise ValueError(f"{claim.id}: the result of {claim.experiment} is needed")
    result = results[claim.experiment]
    if claim.scale not in (None, result.scale):
        none = tuple(Judged(contrast, None, "not at this scale") for contrast in claim.contrasts)
        return Verdict(claim, result.scale, "not at this scale", none[0], none, (), (), ())
    contrasts = tuple(_judged(contrast, result) for contrast in claim.contrasts)
    order: list[Judgement] = ["fails", "not at this scale", "no runs", "not decided", "holds"]
    if claim.hold == "any":
        order = ["holds", "no runs", "not decided", "not at this scale", "fails"]
    deciding = min(contrasts, key=lambda judged: (order.index(judged.verdict), _distance(judged, claim.hold)))
    cells = [cell for contrast in claim.contrasts for cell in _cells(contrast, result)]
    missing = {repr((gap.set, gap.reason)): gap for cell in cells for gap in cell.missing}
    return Verdict(
        claim, result.scale, deciding.verdict, deciding, contrasts,
        runs=tuple(dict.fromkeys(run for cell in cells for run in cell.runs)),
        missing=tuple(missing.values()),
        marks=tuple(dict.fromkeys(mark for cell in cells for mark in cell.marks)),
    )  # fmt: skip


def _whole(item: Any) -> Any:
    """A claim as it is written, with what its contrasts share (`at`: labels of both sides) put into each."""
    if not isinstance(item, dict):
        return item
    keys = ("left", "right", "relation", "bound", "margin", "ratio", "of", "ranks", "at")
    shared, own = ({key: v for key, v in item.items() if (key in keys) == inside} for inside in (True, False))
    contrasts = own.get("contrasts", [{}])
    if not isinstance(contrasts, list) or not all(isinstance(contrast, dict) for contrast in contrasts):
        raise ValueError("contrasts: a list of settings is expected")
    return {**own, "contrasts": [_sides({**shared, **contrast}) for contrast in contrasts]}


def _sides(contrast: Mapping[str, Any]) -> dict[str, Any]:
    at = contrast.get("at", {})
    if not isinstance(at, dict):
        raise ValueError("at: a mapping of labels is expected")
    return {
        key: {**at, **value} if key in ("left", "right") and isinstance(value, dict) else value
        for key, value in contrast.items()
        if key != "at"
    }


def _named(side: Side, experiment: Experiment, cells: Sequence[Cell]) -> Iterator[Cell]:
    """The cells of a side, among those of the experiment. Raises ValueError."""
    panels, series = ([entry.label for entry in entries] for entries in (experiment.panels, experiment.series))
    for panel in _chosen("panel", side.panel, panels):
        for name in _chosen("series", side.series, series):
            row = {cell.x: cell for cell in cells if (cell.panel, cell.series) == (panel, name)}
            if not row:
                raise ValueError(f"panel={panel}, series={name}: the experiment has no such cell")
            for x in _places(side.x, [*row], experiment):
                yield row[x]


def _chosen(axis: str, wanted: Label | tuple[Label, ...] | None, labels: Sequence[str]) -> list[str]:
    if wanted is None:
        if len(labels) > 1:
            raise ValueError(f"{axis}: one of {', '.join(labels)} is expected")
        return [*labels]
    chosen = [str(label) for label in (wanted if isinstance(wanted, tuple) else (wanted,))]
    if not chosen:
        raise ValueError(f"{axis}=[]: one or more of {', '.join(labels)} is expected")
    for label in chosen:
        if label not in labels:
            raise ValueError(f"{axis}={label!r}: there are {', '.join(labels)}{nearest(label, labels)}")
    return chosen


def _places(wanted: Label | tuple[Label, ...] | None, labels: Sequence[str], experiment: Experiment) -> list[str]:
    if wanted is None:
        return _chosen("x", None, labels)
    if wanted == "all":
        return [*labels]
    places = experiment.x.places()
    found: list[Label] = []
    for one in wanted if isinstance(wanted, tuple) else (wanted,):
        if one in WORDS:
            if not -len(labels) <= WORDS[str(one)] < len(labels):
                raise ValueError(f"x={one}: there is only {', '.join(labels)}")
            found.append(labels[WORDS[str(one)]])
        else:
            number = experiment.x.place_of(one)
            found.append(one if number is None else places[number].label)
    return _chosen("x", tuple(found), labels)


def _check_measures(contrast: Contrast, cells: Sequence[Cell]) -> None:
    measures = [cell.measure for cell in cells]
    if len({measure.in_percent for measure in measures}) > 1:
        raise ValueError("percentages are compared with other numbers")
    if len({measure.training for measure in measures}) > 1:
        raise ValueError("the peak of a curve is compared with an end")
    if any(measure.is_curve for measure in measures) != (contrast.of is not None):
        raise ValueError(f"of={contrast.of}: one of {', '.join(OF)} is expected for curves, nothing for others")
    if contrast.of == "weighted" and any(measure.along in TIMES for measure in measures):
        raise ValueError("of=weighted: the horizontal axis is no weight")
    if contrast.ratio is not None and measures[0].in_percent:
        raise ValueError("ratio: a measure in percent has differences")


def _cells(contrast: Contrast, result: Result, side: Side | None = None) -> list[CellResult]:
    sides = [side] if side else [side for side in (contrast.left, contrast.right) if side is not None]
    by_cell = {id(found.cell): found for found in result.cells}
    cells = [found.cell for found in result.cells]
    named = [by_cell[id(cell)] for side in sides for cell in _named(side, result.experiment, cells)]
    _check_measures(contrast, [found.cell for found in named])
    return named


def _judged(contrast: Contrast, result: Result) -> Judged:
    sides = [side for side in (contrast.left, contrast.right) if side is not None]
    by_cell = [[_samples(cell, contrast) for cell in _cells(contrast, result, side)] for side in sides]
    samples = [_mean(side) for side in by_cell]
    cells = _cells(contrast, result)
    factor = 100 if cells[0].cell.measure.in_percent else 1
    shown = tuple(_each(estimate(side), lambda value: value * factor) for side in samples)
    num_wanted = min(len(cell.cell.seeds) for cell in cells)
    if contrast.ratio is not None:
        samples = [[replace(run, values=tuple(map(_log, run.values))) for run in side] for side in samples]
    if contrast.ranks:
        effect, factor = correlation(*by_cell), 1
    else:
        effect = estimate(samples[0]) if contrast.right is None else difference(*samples)
    effect = _each(effect, math.exp if contrast.ratio else lambda value: value * factor)
    return Judged(contrast, effect, _side(effect, contrast.limits(), num_wanted), shown, num_wanted)


def _side(effect: Estimate | None, limits: tuple[float, float], num_wanted: int) -> Judgement:
    if effect is None:
        return "no runs" if num_wanted else "not at this scale"
    if effect.ci_low is None or effect.ci_high is None or effect.num_seeds == 1 < num_wanted:
        return "not decided"
    if limits[0] < effect.ci_low and effect.ci_high < limits[1]:
        return "holds"
    return "fails" if effect.ci_high < limits[0] or effect.ci_low > limits[1] else "not decided"


def _distance(judged: Judged, hold: str) -> float:
    """For the order among contrasts of one verdict: how far the mean is on the claimed side, in half intervals."""
    effect = judged.effect
    if effect is None or effect.ci_low is None or effect.ci_high is None:
        return 0.0
    low, high = judged.contrast.limits()
    inside = min(effect.mean - low, high - effect.mean) / max(1e-12, effect.ci_high - effect.ci_low)
    return inside if hold == "all" else -inside


def _samples(cell: CellResult, contrast: Contrast) -> list[Sample]:
    if contrast.of is None:
        return [*cell.samples]
    least = 2 if contrast.of == "gain" else 1
    whole = [curve for curve in cell.curves if len(curve.y) - curve.last_phase >= least]
    return [_sample(curve, contrast.of, cell.cell.measure.in_percent) for curve in whole]


def _sample(curve: Curve, of: str, in_percent: bool) -> Sample:
    if of == "gain":
        return minus(*(_sample(curve, end, in_percent) for end in ("last", "first")))
    return of_run(curve.seed, _number(curve, of), curve.num if in_percent else 0)


def _number(curve: Curve, of: str) -> float:
    x, y = curve.x[curve.last_phase :], curve.y[curve.last_phase :]
    if of == "weighted":
        return sum(a * b for a, b in zip(x, y, strict=True)) / sum(x)
    if of == "mean":
        return sum(y) / len(y)
    return {"first": y[0], "last": y[-1], "min": min(y), "max": max(y)}[of]


def _mean(cells: Sequence[Sequence[Sample]]) -> list[Sample]:
    """Mean over cells, seed by seed, problem by problem."""
    if len(cells) == 1:
        return [*cells[0]]
    by_seed = [{run.seed: run for run in samples} for samples in cells]
    means = []
    for seed in by_seed[0]:
        if not all(seed in samples for samples in by_seed):
            continue
        runs = [samples[seed] for samples in by_seed]
        rows = zip(*(run.values for run in runs), strict=False)
        values = tuple(None if None in row else sum(row) / len(row) for row in rows)
        means.append(Sample(seed, values, runs[0].by_problem, *of_problems(runs)))
    return means


def _log(value: float | None) -> float | None:
    return None if value is None or value <= 0 else math.log(value)


def _each(effect: Estimate | None, change: Callable[[float], float]) -> Estimate | None:
    if effect is None:
        return None
    low, high = (None if value is None else change(value) for value in (effect.ci_low, effect.ci_high))
    return replace(effect, mean=change(effect.mean), ci_low=low, ci_high=high)
