"""From records to the numbers of an artifact: every cell with its estimate, its runs and what is missing.

This is the one place between records and whatever shows them (drawing, tables, the ledger, the page).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmreason.studies.estimates import Estimate, Sample, estimate, of_run, of_shares
from vlmreason.studies.experiment import Cell, Experiment
from vlmreason.studies.measures import curve, sample
from vlmreason.studies.readings import Curve, NotThereError
from vlmreason.studies.records import Record

Numbers = Mapping[tuple[str, str], Mapping[int, float]]
"""Numbers from elsewhere, by series and column, and by seed."""


@dataclass(frozen=True)
class Missing:
    """A run that is not there, or a part of one. `run`: None where there is none at all."""

    set: Mapping[str, Any]
    run: str | None
    reason: str


@dataclass(frozen=True)
class Found:
    """A record that matches the settings of a run. mark: in what it is not exactly that run ("": nothing)."""

    record: Record
    mark: str = ""


Find = Callable[[Mapping[str, Any]], Found | None]
"""The record of a run by its settings."""


Floors = Callable[[Cell], Sequence[float]]
"""What an answer that knows less than the problem asks has of each problem of a cell (`Task.floors`)."""


@dataclass(frozen=True)
class CellResult:
    """What a cell shows: an estimate, or curves; `samples` and `runs` are one per run that is there."""

    cell: Cell
    estimate: Estimate | None
    samples: tuple[Sample, ...]
    curves: tuple[Curve, ...]
    runs: tuple[str, ...]
    missing: tuple[Missing, ...]
    marks: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """An artifact with its numbers. `name` is as `s2h/fig5`. notes: what every reader must be told."""

    name: str
    scale: str
    experiment: Experiment
    cells: tuple[CellResult, ...]
    notes: tuple[str, ...]

    def cell(self, panel: str, series: str, x: str) -> CellResult | None:
        for result in self.cells:
            if (result.cell.panel, result.cell.series, result.cell.x) == (panel, series, x):
                return result
        return None

    @property
    def missing(self) -> tuple[Missing, ...]:
        """Return each missing run once."""
        seen: dict[str, Missing] = {}
        for result in self.cells:
            for missing in result.missing:
                seen.setdefault(f"{missing.set}{missing.reason}", missing)
        return tuple(seen.values())

    @property
    def num_runs(self) -> int:
        """Return different runs that are there."""
        return len({run for result in self.cells for run in result.runs})


def collect(
    name: str,
    scale: str,
    experiment: Experiment,
    find: Find,
    numbers: Numbers | None = None,
    floors: Floors | None = None,
) -> Result:
    """Return every cell of an experiment from the records that `find` knows, from imported numbers and, with `floors`,
    from problems alone."""
    used: dict[str, Found] = {}
    cells = tuple(
        _floor(cell, floors) if cell.measure.source == "problems" else _cell(cell, find, used, numbers or {})
        for cell in experiment.cells()
    )
    return Result(name, scale, experiment, cells, tuple(_notes(experiment, cells, used.values())))


def _cell(cell: Cell, find: Find, used: dict[str, Found], numbers: Numbers) -> CellResult:
    if cell.measure.source == "imported":
        return _imported(cell, numbers)
    samples, curves, runs, missing, marks = [], [], [], [], []
    for settings in cell.jobs():
        found = find(settings)
        if found is None:
            missing.append(Missing(settings, None, "no run"))
            continue
        try:
            if cell.measure.is_curve:
                curves.append(curve(found.record, cell.measure, settings["seed"]))
            else:
                samples.append(sample(found.record, cell.measure, settings["seed"]))
        except NotThereError as reason:
            missing.append(Missing(settings, found.record.run, str(reason)))
            continue
        used[found.record.run] = found
        runs.append(found.record.run)
        if found.mark:
            marks.append(found.mark)
    kinds = {s.by_problem for s in samples}
    value = estimate(samples) if len(kinds) == 1 else None
    value = of_shares(value) if cell.measure.in_percent else value
    return CellResult(
        cell, value, tuple(samples), tuple(curves), tuple(runs), tuple(missing), tuple(dict.fromkeys(marks))
    )


def _floor(cell: Cell, floors: Floors | None) -> CellResult:
    if floors is None:
        return CellResult(cell, None, (), (), (), (Missing({}, None, f"{cell.measure.what}: not counted"),), ())
    samples = (Sample(0, tuple(floors(cell)), by_problem=True),)
    return CellResult(cell, of_shares(estimate(samples)), samples, (), (), (), ())


def _imported(cell: Cell, numbers: Numbers) -> CellResult:
    column = cell.measure.what.partition(":")[2]
    values = numbers.get((cell.series, column), {})
    missing = () if values else (Missing({}, None, f"{cell.series}: no {column} in the file of numbers"),)
    if len(values) == 1:
        [value] = values.values()
        return CellResult(cell, Estimate(value, None, None, 0, None), (), (), (), missing, ())
    samples = tuple(of_run(seed, value) for seed, value in values.items())
    return CellResult(cell, estimate(samples) if samples else None, samples, (), (), missing, ())


def _notes(experiment: Experiment, cells: Sequence[CellResult], used: Iterable[Found]) -> list[str]:
    notes = [experiment.note] if experiment.note else []
    missing = sum(len(cell.missing) for cell in cells)
    if any(not cell.cell.seeds for cell in cells):
        notes.append("Places without a value have the paper's numbers alone: no run is made for them at this scale.")
    if missing:
        wanted = missing + sum(len(cell.runs) for cell in cells)
        notes.append(f"{missing} of {wanted} values are missing.")
    found = list(used)
    commits = Counter(one.record.commit for one in found)
    if len(commits) > 1:
        several = ", ".join(f"{commit} ({num})" for commit, num in commits.most_common())
        notes.append(f"Runs of {len(commits)} versions of the code: {several}.")
    versions: dict[str, set[int]] = {}
    for one in found:
        for evaluation in one.record.evaluations:
            versions.setdefault(evaluation.task, set()).add(evaluation.task_version)
    notes += [
        f"Runs of several versions of the task {task}: {', '.join(map(str, sorted(several_versions)))}."
        for task, several_versions in versions.items()
        if len(several_versions) > 1
    ]
    devices = Counter(_device(one.record) for one in found)
    if devices:
        notes.append("Computed on " + ", ".join(f"{device} ({num})" for device, num in devices.most_common()) + ".")
    marked = Counter(one.mark for one in found if one.mark)
    notes += [f"{num} runs marked: {mark}." for mark, num in marked.items()]
    return notes


def _device(record: Record) -> str:
    hardware = record.provenance["hardware"]
    return str((hardware.get("gpus") or [hardware.get("cpu", "an unknown machine")])[0])
