"""An artifact as files for people and programs: a Markdown table and a JSON file in which each cell names its runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmreason.files import write_json_atomic, write_text_atomic
from vlmreason.studies.estimates import Estimate
from vlmreason.studies.measures import Measure
from vlmreason.studies.results import CellResult, Result


def write(result: Result, path: Path) -> None:
    """Return `<path>.md` and `<path>.json`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text_atomic(path.with_name(path.name + ".md"), markdown(result))
    write_json_atomic(path.with_name(path.name + ".json"), to_json(result))


def markdown(result: Result) -> str:
    """Return title, table with one row per series and one column per panel and place, notes, what is missing."""
    experiment = result.experiment
    lines = [f"# {experiment.title}", "", f"{experiment.place}; scale {result.scale}. {experiment.expected}", ""]
    lines += table(result)
    lines += ["", *(f"- {note}" for note in result.notes)]
    lines += [f"- The paper: {n.panel or n.series}{f', {n.series}' if n.panel else ''}"
              f"{'' if n.x is None else f', {n.x}'}: {n.value:g} ({n.place})." for n in experiment.paper]  # fmt: skip
    for missing in result.missing:
        words = " ".join(f"{key}={value}" for key, value in missing.set.items())
        lines.append(f"- Missing: {missing.reason}{f' of {missing.run}' if missing.run else ''} ({words}).")
    return "\n".join(lines) + "\n"


def table(result: Result) -> list[str]:
    """Return the rows of the Markdown table."""
    experiment = result.experiment
    columns = [(panel.label, place.label) for panel in experiment.panels for place in experiment.x.places()]
    heads = [", ".join(word for word in column if word) or "value" for column in columns]
    rows = [f"| {' | '.join(['', *heads])} |", "|---" * (len(heads) + 1) + "|"]
    for entry in experiment.series:
        cells = [result.cell(panel, entry.label, x) for panel, x in columns]
        rows.append(f"| {' | '.join([entry.label, *(shown(cell) for cell in cells)])} |")
    return rows


def shown(cell: CellResult | None) -> str:
    """Return a cell as text: mean with interval and number of runs, or what a curve ends at, or that it is missing."""
    if cell is None:
        return ""
    if not cell.cell.seeds:
        return "-"
    marks = "†" if cell.marks else ""
    if cell.curves:
        last = [curve.y[-1] * (100 if cell.cell.measure.in_percent else 1) for curve in cell.curves]
        return f"{sum(last) / len(last):.3g} at the end, {len(last)} run{'' if len(last) == 1 else 's'}{marks}"
    if cell.estimate is None:
        return "missing"
    there, wanted = len(cell.runs), len(cell.runs) + len(cell.missing)
    part = f" ({there} of {wanted} runs)" if cell.missing else ""
    return number(cell.estimate, cell.cell.measure) + marks + part


def number(estimate: Estimate, measure: Measure) -> str:
    """Return `76.0 (70.1 to 81.9)`, in percent where the measure is."""
    factor, digits = (100, 1) if measure.in_percent else (1, 3 if abs(estimate.mean) < 10 else 1)
    if estimate.ci_low is None or estimate.ci_high is None:
        return f"{estimate.mean * factor:.{digits}f}"
    low, high = (f"{value * factor:.{digits}f}" for value in (estimate.ci_low, estimate.ci_high))
    return f"{estimate.mean * factor:.{digits}f} ({low} to {high})"


def to_json(result: Result) -> dict[str, Any]:
    """Return every cell with its estimate, its runs and what is missing; plain containers."""
    return {
        "name": result.name,
        "scale": result.scale,
        "title": result.experiment.title,
        "place": result.experiment.place,
        "notes": list(result.notes),
        "cells": [_cell(cell) for cell in result.cells],
        "paper": [vars(number) for number in result.experiment.paper],
    }


_OWN = (
    ("how", "auto"),
    ("length", "auto"),
    ("condition", "auto"),
)  # where nothing else is asked for, in keys that were not always there


def _cell(result: CellResult) -> dict[str, Any]:
    return {
        "panel": result.cell.panel,
        "series": result.cell.series,
        "x": result.cell.x,
        "measure": {key: value for key, value in vars(result.cell.measure).items() if (key, value) not in _OWN},
        "estimate": result.estimate and vars(result.estimate),
        "curves": [vars(curve) for curve in result.curves],
        "runs": list(result.runs),
        "missing": [vars(missing) for missing in result.missing],
        "marks": list(result.marks),
    }
