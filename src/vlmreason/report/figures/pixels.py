"""Figures 28 and 29: the pictures of a problem with the pixels that a stretch of the trace is written from, in red.

The pictures are drawn again from the task; the pixels are those that `analyze what=attribution` kept in a record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vlmreason.pictures import Picture
from vlmreason.report.figures.layout import Body, Box, say_missing, text_width, wrapped
from vlmreason.report.figures.style import INK, SMALL, SOFT, TINY, told
from vlmreason.report.writing import shown
from vlmreason.studies.experiment import Entry
from vlmreason.studies.measures import measure_words
from vlmreason.studies.records import Record
from vlmreason.studies.results import Result
from vlmreason.tasks.base import Task
from vlmreason.tasks.regions import Mask

RED = (225, 0, 20)
PALE = 0.55  # how far the picture is faded, so that red stands out
NAMES, GAP, TITLES = 1.25, 0.07, 0.26  # inches: row names, between pictures, over them
WIDTH = 9.6  # inches of all pictures of a row, at most


@dataclass(frozen=True)
class _Row:
    """One model: its picture and, by stretch of the trace, the top pixels and what the stretch is about."""

    name: str
    numbers: str
    why_missing: str = ""
    picture: Picture | None = None
    top: Mapping[str, Sequence[int]] | None = None
    about: Mapping[str, Mask] | None = None
    note: str = ""


def pixels(result: Result, records: Sequence[Record], load_task: Callable[[Record], Task[Any]] | None) -> Body:
    """Return a row per panel and series, a column per stretch. `load_task` None: there is nothing to draw the pictures
    with, and the figure says so."""
    experiment = result.experiment
    runs = {record.run: record for record in records}
    rows = [
        _row(result, panel, entry, runs, load_task)
        for panel in experiment.panels
        for entry in experiment.series
        if entry.only is None or panel.label in entry.only
    ]
    stretches = list(dict.fromkeys(name for row in rows for name in row.top or ()))
    columns = max(1, len(stretches))
    ratio = max((row.picture.shape[0] / row.picture.shape[1] for row in rows if row.picture is not None), default=0.5)
    side = min(2.3, WIDTH / columns) if stretches else 4.0
    width, height = NAMES + columns * (side + GAP), TITLES + len(rows) * (side * ratio + GAP)

    def paint(figure: Figure, box: Box) -> None:
        for number, row in enumerate(rows):
            y = height - TITLES - (number + 1) * (side * ratio + GAP) + GAP
            for column, stretch in enumerate(stretches or [""]):
                x = NAMES + column * (side + GAP)
                axes = figure.add_axes(_part(box, (width, height), (x, y, side, side * ratio)))
                if number == 0 and stretch:
                    axes.set_title(stretch, fontsize=min(SMALL + 1, 7.5 * side / text_width(stretch, 7.5)), pad=4)
                _paint(axes, row, stretch)
            words = wrapped(row.name, NAMES - 0.1, SMALL + 1, bold=True)
            numbers = wrapped(row.numbers, NAMES - 0.1, TINY)
            left, middle = box[0], box[1] + (y + side * ratio / 2) / height * box[3]
            figure.text(left, middle, words, fontsize=SMALL + 1, fontweight="bold", va="bottom", linespacing=1.2)
            below = middle - 0.04 / height * box[3]
            figure.text(left, below, numbers, fontsize=TINY, color=SOFT, va="top", linespacing=1.25)

    notes = [
        "Red: the pixels with the highest gradient times input for a stretch of the trace; dashed: what it is about."
    ]
    notes += list(dict.fromkeys(row.note for row in rows if row.note))
    return Body(width + 0.2, height, paint, (), [*notes, *told(experiment)])


def _part(box: Box, size: tuple[float, float], part: Box) -> Box:
    """A part of a box that is `size` inches large, given in inches."""
    (left, bottom, width, height), (x, y, w, h) = box, part
    inch, up = width / (size[0] + 0.2), height / size[1]
    return left + x * inch, bottom + y * up, w * inch, h * up


def _row(
    result: Result,
    panel: Entry,
    entry: Entry,
    runs: Mapping[str, Record],
    load_task: Callable[[Record], Task[Any]] | None,
) -> _Row:
    experiment = result.experiment
    name = "\n".join(label for label in (panel.label, entry.label) if label)
    cells = [cell for cell in result.cells if (cell.cell.panel, cell.cell.series) == (panel.label, entry.label)]
    numbers = "; ".join(f"{c.cell.x or experiment.y_label or measure_words(c.cell.measure)}: {shown(c)}" for c in cells)
    cell = next((cell for cell in cells if cell.runs and cell.runs[0] in runs), None)
    if cell is None:
        return _Row(name, "", "missing")
    if load_task is None:
        return _Row(name, numbers, "no task to draw its picture with")
    record = runs[cell.runs[0]]
    for group in record.analyses["attribution"]["results"]:
        if cell.cell.measure.level in (None, group["level"]) and group.get("examples"):
            break
    else:
        return _Row(name, numbers, "no pixels in the analysis")
    example = group["examples"][0]
    try:
        task = load_task(record)
        picture, about = _problem(task, record, example)
    except ValueError as error:
        return _Row(name, numbers, str(error))
    share = record.analyses["attribution"]["settings"]["top_percent"]
    note = f"{entry.label or 'Pictures'}: top {share:g} % of the pixels; run {record.run}, problem {example['id']}."
    return _Row(name, numbers, "", picture, example["top"], about, note)


def _problem(task: Task[Any], record: Record, example: Mapping[str, Any]) -> tuple[Picture, dict[str, Mask]]:
    """The picture of an example, and what the stretches of its trace are about. Raises ValueError."""
    own = record.evaluation(None, "auto")
    if own is not None and own.task_version != task.version:
        raise ValueError(f"of version {own.task_version} of the task, and this is version {task.version}")
    name, level, split, index = str(example["id"]).rsplit("-", 3)
    if name != task.name:
        raise ValueError(f"of the task {name}, and the run's is {task.name}")
    problem = task.sample(level, split, int(index))
    picture = task.draw(problem.state)
    if picture.shape[:2] != (example["height"], example["width"]):
        drawn = f"{picture.shape[1]} x {picture.shape[0]}"
        raise ValueError(f"of {example['width']} x {example['height']} px; the task draws {drawn}")
    return picture, {stretch.name: stretch.mask for stretch in task.regions(problem.state).stretches}


def overlay(picture: Picture, top: Sequence[int]) -> Picture:
    """Return the faded picture with its top pixels (row * width + column) in red."""
    pale = (picture + (255 - picture.astype(np.float64)) * PALE).astype(np.uint8)
    pale.reshape(-1, 3)[list(top)] = RED
    return pale


def _paint(axes: Axes, row: _Row, stretch: str) -> None:
    if row.picture is None or row.top is None:
        say_missing(axes)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.texts[0].set_text(wrapped(row.why_missing, 1.2, SMALL))
        axes.texts[0].set_fontsize(SMALL)
        return
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set(color=SOFT, linewidth=0.5)
    if stretch not in row.top:
        axes.set_axis_off()
        axes.text(0.5, 0.5, "no such stretch", transform=axes.transAxes, ha="center", fontsize=TINY, color=SOFT)
        return
    axes.imshow(overlay(row.picture, row.top[stretch]), interpolation="nearest", aspect="auto")
    mask = (row.about or {}).get(stretch)
    if mask is not None and mask.any():
        axes.contour(mask, levels=[0.5], colors=[INK], linewidths=0.8, linestyles="dashed")
