"""What a table or figure is: a cube of cells, each a set of runs and what is measured on them.

An experiment is a YAML file of `experiments/<study>/`. Its three axes (panels, series, x) are lists of entries; an
entry adds settings of the runs (`set`) and says what is measured there (`measure`). A cell is one entry of each axis:
its runs are the settings of all three on top of the experiment's and the study's, once per seed, and so the list of
runs that an artifact needs is written nowhere else. The same cube is drawn as lines, bars, a table or points.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from vlmreason.structure import check_choice
from vlmreason.studies.measures import WITHOUT_RUNS, Measure, Words, _short, follow_up, read_measure


@dataclass(frozen=True)
class Entry:
    """One place of an axis. `set`: settings of `vlmreason train`; `measure`: keys of Measure.

    style: `reference`: a dashed line of its own colour, not one of the compared series. name: what decides colour and
    marker where it is not the label. only: labels of the panels that have this series; None: all. at: further settings
    by the label of a place of another axis; the entry is at these places of it alone. paper_only: shown with the
    paper's numbers, no run is made for it (at this scale). seeds: where they are fewer than the artifact's, e.g. of an
    entry that no claim is about; None: the artifact's.
    """

    label: str = ""
    set: Mapping[str, Any] = field(default_factory=dict)
    measure: Mapping[str, Any] = field(default_factory=dict)
    style: Literal["normal", "reference"] = "normal"
    name: str | None = None
    only: tuple[str, ...] | None = None
    at: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    paper_only: bool = False
    seeds: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Axis:
    """The horizontal axis: entries, or a setting with its values; values without a key are labels.

    paper_values: the values of the paper at the same places, so that its numbers find theirs at another scale.
    """

    label: str = ""
    key: str | None = None
    values: tuple[Any, ...] = ()
    paper_values: tuple[Any, ...] = ()
    entries: tuple[Entry, ...] = ()

    def places(self) -> tuple[Entry, ...]:
        if not self.values:
            return self.entries or (Entry(),)
        return tuple(Entry(label=_short(value), set={self.key: value} if self.key else {}) for value in self.values)

    def place_of(self, value: Any) -> int | None:
        """Return number of the place that a paper's number belongs to."""
        for values in (self.paper_values, [place.label for place in self.places()]):
            for number, known in enumerate(values):
                if known == value or str(known) == str(value):
                    return number if number < len(self.places()) else None
        return None


@dataclass(frozen=True)
class PaperNumber:
    """A number that the paper's text or tables give, with its place there. Labels of panel, series, x (None: none)."""

    value: float
    place: str
    panel: str = ""
    series: str = ""
    x: Any = None


@dataclass(frozen=True)
class Cost:
    """What all runs of the artifact cost: as measured, or an estimate that says so."""

    nano: str
    paper: str


@dataclass(frozen=True)
class Chart:
    """A choice of `draw`: a function of that name in a module of report/figures/.

    curves: it draws measures along runs, and only these. each_run: it shows runs, not means with intervals.
    of_records: it reads more of the records than the result has.
    """

    module: str
    curves: bool = False
    each_run: bool = False
    of_records: bool = False


CHARTS: Mapping[str, Chart] = {
    "lines": Chart("charts"),
    "bars": Chart("charts"),
    "table": Chart("table"),
    "curves": Chart("per_run", curves=True, each_run=True),
    "points": Chart("per_run", each_run=True),
    "pixels": Chart("pixels", of_records=True),
}


@dataclass(frozen=True)
class Experiment:
    """A table or figure. Labels of an axis are unique.

    panels are drawn side by side (of a table: groups of columns), series as lines, bars or rows, x as the horizontal
    axis or columns. `place`: of the paper. `expected`: what the paper found. `note`: what a reader must know at this
    scale. `share_y`: panels have one vertical axis. `numbers`: CSV file with numbers from elsewhere, beside the YAML.
    `window`: points of the Savitzky-Golay filter that smooths curves of training, polynomials of degree 3; 0: none.
    `analyses`: as the study's, which they go before.
    """

    title: str
    place: str
    draw: str
    cost: Cost
    expected: str
    seeds: tuple[int, ...]
    set: Mapping[str, Any] = field(default_factory=dict)
    measure: Mapping[str, Any] = field(default_factory=dict)
    panels: tuple[Entry, ...] = (Entry(),)
    series: tuple[Entry, ...] = (Entry(),)
    x: Axis = field(default_factory=Axis)
    y_label: str = ""
    share_y: bool = False
    paper: tuple[PaperNumber, ...] = ()
    note: str = ""
    numbers: str | None = None
    window: int = 0
    analyses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice("draw", self.draw, CHARTS)
        for axis, entries in (("panels", self.panels), ("series", self.series), ("x", self.x.places())):
            labels = [entry.label for entry in entries]
            if not entries or len(set(labels)) < len(labels):
                raise ValueError(f"{axis}: one entry or more is expected, with different labels")
        if not self.seeds:
            raise ValueError("seeds: one or more is expected")
        for entry in itertools.chain(self.panels, self.series, self.x.places()):
            if entry.seeds is not None and not (entry.seeds and set(entry.seeds) <= set(self.seeds)):
                given, known = list(entry.seeds), list(self.seeds)
                raise ValueError(f"{entry.label}: seeds={given}: one or more of {known} is expected")
        if self.window and (self.window < 5 or self.window % 2 == 0):
            raise ValueError(f"window={self.window}: 0 or an odd number from 5 is expected")
        self._check_at()
        for number in self.paper:
            self._check_number(number)
        for cell in self.cells():
            if cell.measure.is_curve != self.chart.curves:
                raise ValueError(f"draw={self.draw}: what={cell.measure.what} is drawn otherwise")

    @property
    def chart(self) -> Chart:
        return CHARTS[self.draw]

    def _check_at(self) -> None:
        axes = (self.panels, self.series, self.x.places())
        for own in axes:
            others = [{entry.label for entry in axis} for axis in axes if axis is not own]
            for entry in own:
                if entry.at and not any(set(entry.at) <= labels for labels in others):
                    raise ValueError(f"{entry.label}: at={list(entry.at)}: labels of one other axis are expected")

    def _check_number(self, number: PaperNumber) -> None:
        panels, series = ([entry.label for entry in entries] for entries in (self.panels, self.series))
        if number.panel not in panels:
            raise ValueError(f"paper: panel={number.panel!r}: there are {', '.join(map(repr, panels))}")
        if number.series not in series:
            raise ValueError(f"paper: series={number.series!r}: there are {', '.join(map(repr, series))}")
        known = {*map(str, self.x.paper_values), *(place.label for place in self.x.places())}
        if number.x is not None and str(number.x) not in known:
            raise ValueError(f"paper: x={number.x}: there are {', '.join(sorted(known))}")

    def _seeds(self, entries: Sequence[Entry]) -> tuple[int, ...]:
        """Return the seeds that all entries of a cell have, in the artifact's order."""
        return tuple(seed for seed in self.seeds if all(seed in (entry.seeds or self.seeds) for entry in entries))

    def follow_up(self, cell: Cell, analyses: Mapping[str, Mapping[str, Any]]) -> Words | None:
        """Return the command after training that makes what a cell shows (`measures.follow_up`).

        `analyses`: those of the study.
        """
        return follow_up(cell.measure, {**analyses, **self.analyses}, cell.set.get("task"))

    def cells(self) -> Iterator[Cell]:
        """Return all cells, panel by panel, series by series."""
        for panel, series, x in itertools.product(self.panels, self.series, self.x.places()):
            if series.only is not None and panel.label not in series.only:
                continue
            settings: dict[str, Any] = {**self.set}
            measured: dict[str, Any] = {**self.measure}
            entries = (panel, series, x)
            others = [{other.label for other in entries if other is not entry} for entry in entries]
            if any(entry.at and not labels & set(entry.at) for entry, labels in zip(entries, others, strict=True)):
                continue
            for entry in entries:
                settings |= entry.set
                measured |= entry.measure
            for entry, labels in zip(entries, others, strict=True):
                for label in labels:
                    settings |= entry.at.get(label, {})
            seeds = () if any(entry.paper_only for entry in entries) else self._seeds(entries)
            yield Cell(panel.label, series.label, x.label, settings, read_measure(measured), seeds)


@dataclass(frozen=True)
class Cell:
    """The runs of one place, which differ in their seed, and what is measured on each; no seeds: the paper's alone."""

    panel: str
    series: str
    x: str
    set: Mapping[str, Any]
    measure: Measure
    seeds: tuple[int, ...]

    def jobs(self) -> Iterator[dict[str, Any]]:
        """Return the settings of `vlmreason train` of every run. No run for what no model has to be asked for."""
        if self.measure.source not in WITHOUT_RUNS:
            for seed in self.seeds:
                yield {**self.set, "seed": seed}


@dataclass(frozen=True)
class StudyScale:
    """What all artifacts of a study share at one scale.

    set: settings of every run. values: what `${name}` stands for in the experiments' files (those of the paper's
    scale are `${at_paper.name}`). analyses: settings of `vlmreason analyze` by `what`, and of `evaluate`: of other
    tasks as `evaluation`, of one of them as `evaluation:<task>`, with a line on the kind that is given or kept away
    as `condition`. What these do not name is as in `vlmreason evaluate` alone: all levels, in text and pictures.
    """

    set: Mapping[str, Any]
    values: Mapping[str, Any]
    analyses: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """experiments/<study>/study.yaml. styles: colour and marker (matplotlib's) of a series by its name or label."""

    title: str
    source: str
    scales: Mapping[str, StudyScale]
    styles: Mapping[str, tuple[str, str]] = field(default_factory=dict)
