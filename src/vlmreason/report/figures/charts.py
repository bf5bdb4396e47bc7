"""Lines over the places of an axis, and grouped bars: means with 95 % intervals, the paper's numbers hollow."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from vlmreason.report.figures.layout import Body, Box, limits, panels, say_missing, shape, spaced, text_width, wrapped
from vlmreason.report.figures.style import (
    FAINT,
    HATCH,
    INK,
    SMALL,
    SOFT,
    TINY,
    Look,
    absent,
    axis_label,
    key,
    place_labels,
    placed,
    places_of,
    point,
    y_label,
)
from vlmreason.studies.experiment import Entry, Experiment
from vlmreason.studies.measures import factor
from vlmreason.studies.results import CellResult, Result

STRIP = 0.12  # of a panel's height, below 0: where lines say what is missing
BARS = 0.84  # of a group's width
PAGE = 11.0  # inches: groups of bars are narrower where all panels together are wider


def lines(result: Result, looks: Mapping[str, Look]) -> Body:
    """Return a line per series over the places; a missing place interrupts it and has a cross below the panel's
    zero."""
    experiment = result.experiment
    numbers, notes = placed(experiment)
    positions = spaced(experiment.x)
    share_y = experiment.share_y
    width = max(2.75, 0.5 * (positions[-1] + 1) + 1.0)
    rows, columns = shape(len(experiment.panels))

    def paint(figure: Figure, box: Box) -> None:
        found = panels(figure, box, _titles(result), width - 0.6)
        spans = _spans(result)
        for place, (axes, panel) in enumerate(zip(found, experiment.panels, strict=True)):
            _label_axes(axes, result, panel, place % columns == 0)
            if all(absent(cell) for cell in result.cells if cell.cell.panel == panel.label):
                say_missing(axes)
            _lines(axes, result, panel, looks, positions, spans[panel.label])
            below = STRIP if any(absent(c) for c in result.cells if share_y or c.cell.panel == panel.label) else 0.03
            _vertical(axes, spans[panel.label], below)
            _x_places(axes, experiment, positions, bool(numbers), width - 0.6)

    legend: list[Artist] = [key(entry, looks[entry.label]) for entry in experiment.series if entry.label]
    if numbers:
        legend.append(_hollow("paper", SOFT, "o"))
    if any(absent(cell) for cell in result.cells):
        legend.append(Line2D([], [], color=SOFT, marker="x", linestyle="", markersize=5, label="missing"))
    return Body(columns * width + 0.3, rows * 2.75, paint, legend, notes)


@dataclass(frozen=True)
class _Group:
    """The bars of a panel: its places, its compared series, and the inches of a place (alone: of a bar).

    alone: panels have one place each, and the names of the series stand under the bars.
    """

    places: list[int]
    compared: list[Entry]
    alone: bool
    room: float

    @property
    def width(self) -> float:
        return max(2.2, self.room * (len(self.compared) if self.alone else len(self.places)) + 0.7)


def bars(result: Result, looks: Mapping[str, Look]) -> Body:
    """Return groups of bars, a group per place; with one place, bars with the series' names under them."""
    experiment = result.experiment
    numbers, notes = placed(experiment)
    groups = _groups(result)
    rows, columns = shape(len(groups))
    widths = [group.width for group in groups]
    if rows > 1:
        widths = [max(widths)] * columns

    def paint(figure: Figure, box: Box) -> None:
        found = panels(figure, box, _titles(result), min(widths) - 0.4, widths)
        spans = _spans(result)
        for place, (axes, panel, group) in enumerate(zip(found, experiment.panels, groups, strict=True)):
            _label_axes(axes, result, panel, place % columns == 0)
            _bars(axes, result, panel, looks, spans[panel.label], group)

    legend: list[Artist] = []
    for entry in experiment.series:
        if entry.style == "reference":
            legend.append(key(entry, looks[entry.label]))
        elif entry.label and not groups[0].alone:
            legend.append(Patch(facecolor=looks[entry.label].colour, label=entry.label))
    if numbers:
        legend.append(_hollow("paper", INK, "D"))
    return Body(sum(widths) + 0.3, rows * 2.75, paint, legend, notes)


def _groups(result: Result) -> list[_Group]:
    experiment, found = result.experiment, []
    places = [places_of(result, panel) for panel in experiment.panels]
    alone = all(len(some) == 1 for some in places)
    for panel, some in zip(experiment.panels, places, strict=True):
        here = {cell.cell.series for cell in result.cells if cell.cell.panel == panel.label}
        compared = [entry for entry in experiment.series if entry.style == "normal" and entry.label in here]
        room = 0.62 if alone else 0.46 * (len(compared) + 0.5)
        if alone:
            room = max([room, *(_longest(entry.label) / 0.95 for entry in compared)])
        found.append(_Group(some, compared, alone, room))
    shrink = max(0.7, min(1.0, PAGE / sum(group.width for group in found)))
    return found if alone else [replace(group, room=group.room * shrink) for group in found]


def _longest(label: str) -> float:
    """Inches of the longest part of a label that is not broken."""
    parts = label.replace("-", "- ").replace("+", "+ ").split()
    return max((text_width(part, SMALL - 0.5) for part in parts), default=0.0) / 0.98


def _titles(result: Result) -> list[str]:
    """Of the panels; those for which no run is made say so."""
    found = []
    for panel in result.experiment.panels:
        alone = all(not cell.cell.seeds for cell in result.cells if cell.cell.panel == panel.label)
        found.append(f"{panel.label} (the paper alone)".strip() if alone else panel.label)
    return found


def _spans(result: Result) -> dict[str, tuple[float, float]]:
    """The vertical span of each panel; all the same where they share it."""
    experiment = result.experiment
    values: dict[str, list[float]] = {panel.label: [] for panel in experiment.panels}
    percent: dict[str, bool] = {}
    for cell in result.cells:
        percent[cell.cell.panel] = percent.get(cell.cell.panel, True) and cell.cell.measure.in_percent
        values[cell.cell.panel] += point(cell) or ()
    for number, _ in placed(experiment)[0]:
        values[number.panel].append(number.value)
    if experiment.share_y:
        every = [value for some in values.values() for value in some]
        return {label: limits(every, all(percent.values())) for label in values}
    return {label: limits(some, percent.get(label, False)) for label, some in values.items()}


def _label_axes(axes: Axes, result: Result, panel: Entry, first: bool) -> None:
    compared = [entry.label for entry in result.experiment.series if entry.style == "normal"]
    cells = [cell.cell for cell in result.cells if cell.cell.panel == panel.label]
    cells = [cell for cell in cells if cell.series in compared] or cells
    told = {cell.measure.source for cell in cells} <= {"failures", "imported"} and not result.experiment.y_label
    every = not (result.experiment.share_y or result.experiment.y_label)
    if (first or every) and not (told and panel.label):  # a title says it better than the name of such a measure
        words = y_label(result.experiment, (cell.measure for cell in cells))
        axes.set_ylabel(wrapped(words, 2.5, SMALL), fontsize=SMALL)
    axes.tick_params(labelsize=TINY + 0.5, color=SOFT)


def _x_places(axes: Axes, experiment: Experiment, positions: Sequence[float], with_paper: bool, width: float) -> None:
    """`width`: inches of the horizontal axis."""
    gap = min([1.0, *(b - a for a, b in itertools.pairwise(positions))])
    room = width * gap / (positions[-1] + 0.9)
    axes.set_xticks(positions, [wrapped(label, room, TINY + 0.5) for label in place_labels(experiment.x, with_paper)])
    axes.set_xlim(positions[0] - 0.45, positions[-1] + 0.45)
    if not any(place.label for place in experiment.x.places()):
        axes.tick_params(axis="x", length=0)
    if experiment.x.label:
        axes.set_xlabel(wrapped(axis_label(experiment.x, with_paper), 2.9, SMALL), fontsize=SMALL)


def _lines(
    axes: Axes,
    result: Result,
    panel: Entry,
    looks: Mapping[str, Look],
    positions: Sequence[float],
    span: tuple[float, float],
) -> None:
    experiment = result.experiment
    places, (low, top) = experiment.x.places(), span
    compared = [entry.label for entry in experiment.series if entry.style == "normal"]
    step = 0.8 / len(compared) if len(positions) == 1 and compared else min(0.075, 0.5 / max(1, len(compared)))
    shift = {label: (number - (len(compared) - 1) / 2) * step for number, label in enumerate(compared)}
    aside = -(len(compared) + 1) / 2 * step  # where a reference, which stands on its place, is missing
    for entry in experiment.series:
        look = looks[entry.label]
        found = [(x, result.cell(panel.label, entry.label, p.label)) for x, p in zip(positions, places, strict=True)]
        cells = [cell for _, cell in found if cell is not None]  # places that a series has not are no gap in its line
        if not cells:
            continue
        x = np.array([x for x, cell in found if cell is not None]) + shift.get(entry.label, 0.0)
        points = [point(cell) for cell in cells]
        mean, below, above = np.array([p or (np.nan,) * 3 for p in points], dtype=float).T
        if look.dashes is not None:
            _reference(axes, look, x, mean, below, above)
        else:
            axes.errorbar(
                x, mean, [mean - below, above - mean], color=look.colour, marker=look.marker,
                markersize=look.size, linewidth=1.5, elinewidth=0.9, capsize=2,
                markeredgecolor="white", markeredgewidth=0.4, zorder=3, label=entry.label,
            )  # fmt: skip
        for where, cell, at in zip(x, cells, mean, strict=True):
            if absent(cell):
                axes.plot(
                    where + aside * (look.dashes is not None),
                    low - 0.5 * STRIP * (top - low),
                    marker="x",
                    color=look.colour,
                    markersize=4,
                    label="missing",
                )
            elif cell.marks:
                axes.annotate("†", (where, at), (3, 3), textcoords="offset points", fontsize=SMALL, color=INK)
    for number, place in placed(experiment)[0]:
        if number.panel == panel.label:
            look = looks[number.series]
            axes.plot(
                positions[place] + shift.get(number.series, 0.0), number.value, linestyle="", marker=look.marker or "o",
                markersize=look.size + 2, markerfacecolor="none", markeredgecolor=look.colour, markeredgewidth=1.2,
                zorder=4, label="paper", clip_on=False,
            )  # fmt: skip


def _vertical(axes: Axes, span: tuple[float, float], below: float) -> None:
    low, top = span
    axes.set_ylim(low - below * (top - low), top + 0.03 * (top - low))
    axes.set_yticks(_ticks(span))
    if below == STRIP:
        edges = low - STRIP * (top - low), low - 0.02 * (top - low)
        axes.axhspan(*edges, facecolor="#f0f1f4", edgecolor="none", zorder=0)


def _ticks(span: tuple[float, float]) -> list[float]:
    low, top = span
    ticks = MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]).tick_values(low, top)
    return [float(tick) for tick in ticks if low - 1e-9 <= tick <= top + 1e-9]


def _reference(axes: Axes, look: Look, x: np.ndarray, mean: np.ndarray, below: np.ndarray, above: np.ndarray) -> None:
    """A dashed curve with a band; with one place, across the panel."""
    if len(x) == 1:
        x = np.array([-10.0, 10.0])
        mean, below, above = (np.repeat(values, 2) for values in (mean, below, above))
    axes.plot(x, mean, color=look.colour, linestyle=(0, look.dashes or ()), linewidth=1.5, zorder=2)
    axes.fill_between(x, below, above, color=look.colour, alpha=0.12, linewidth=0, zorder=1)


def _bars(
    axes: Axes, result: Result, panel: Entry, looks: Mapping[str, Look], span: tuple[float, float], group: _Group
) -> None:
    experiment, (low, top) = result.experiment, span
    num = max(1, len(group.compared))
    width = 0.66 if group.alone else BARS / num
    numbers = {(n.series, place): n.value for n, place in placed(experiment)[0] if n.panel == panel.label}
    for at, place in enumerate(group.places):
        for number, entry in enumerate(group.compared):
            cell = result.cell(panel.label, entry.label, experiment.x.places()[place].label)
            x = float(number) if group.alone else at + (number - (num - 1) / 2) * width
            if cell is not None:
                paper = numbers.get((entry.label, place))
                _bar(axes, cell, looks[entry.label], x, width * 0.92, width * group.room, span, paper)
    for entry in experiment.series:
        if entry.style == "reference":
            _bar_references(axes, result, panel, entry, looks[entry.label], group)
    axes.set_ylim(low, low + (top - low) * 1.14)
    axes.set_yticks(_ticks(span))
    if low < 0:
        axes.axhline(0, color=SOFT, linewidth=0.8)
    labels = [entry.label for entry in group.compared]
    if not group.alone:
        every = place_labels(experiment.x, bool(numbers))
        labels = [every[place] for place in group.places]
    shown = [wrapped(label, group.room * 0.97, SMALL - 0.5) for label in labels]
    axes.set_xticks(range(len(labels)), shown, fontsize=SMALL - 0.5)
    axes.set_xlim(-0.6, len(labels) - 0.4)
    axes.tick_params(axis="x", length=0)
    if experiment.x.label:
        axes.set_xlabel(wrapped(axis_label(experiment.x, bool(numbers)), group.width, SMALL), fontsize=SMALL)


def _bar(
    axes: Axes,
    cell: CellResult,
    look: Look,
    at: float,
    width: float,
    inches: float,
    span: tuple[float, float],
    paper: float | None,
) -> None:
    """A bar with its interval and value, or a hatched slot; the paper's number as a hollow diamond."""
    low, top = span
    unit = (top - low) / 100
    found = point(cell)
    if absent(cell):
        axes.bar(
            at, 45 * unit, width, color="white", edgecolor=FAINT, hatch=HATCH, linewidth=0.6, linestyle=(0, (3, 2)),
            label="missing",
        )  # fmt: skip
        axes.text(
            at, 22 * unit, "missing", rotation=90, ha="center", va="center", fontsize=TINY, color=SOFT,
            bbox={"facecolor": "white", "edgecolor": "none", "pad": 1},
        )  # fmt: skip
    elif found is not None:
        mean, below, above = found
        axes.bar(at, mean, width, color=look.colour, zorder=2)
        if above > below:
            axes.errorbar(at, mean, [[mean - below], [above - mean]], color=INK, elinewidth=0.9, capsize=2, zorder=3)
        label_at = max(above, mean, 0.0) + 1.5 * unit
        text = _short(cell, mean) + ("†" if cell.marks else "")
        size = min(TINY, TINY * inches / max(0.01, text_width(text, TINY)))
        if paper is not None and label_at - 3 * unit < paper < label_at + 7 * unit:
            label_at = paper + 3.5 * unit
        axes.text(at, label_at, text, ha="center", va="bottom", fontsize=max(4.5, size), color=INK, zorder=5)
    if paper is not None:
        axes.plot(
            at, paper, marker="D", markersize=5.5, markerfacecolor="white", markeredgecolor=INK, markeredgewidth=1.0,
            linestyle="", zorder=4, label="paper", clip_on=False,
        )  # fmt: skip


def _bar_references(axes: Axes, result: Result, panel: Entry, entry: Entry, look: Look, group: _Group) -> None:
    """A dashed line over each group (over all bars where they are no groups)."""
    for at, place in enumerate(group.places):
        cell = result.cell(panel.label, entry.label, result.experiment.x.places()[place].label)
        found = point(cell) if cell else None
        left, right = (-0.6, len(group.compared) - 0.4) if group.alone else (at - 0.48, at + 0.48)
        if cell is not None and absent(cell):
            axes.text(right, 0, f"{entry.label}: missing", ha="right", va="bottom", fontsize=TINY, color=SOFT)
        if found is None:
            continue
        axes.plot([left, right], [found[0]] * 2, color=look.colour, linestyle=(0, look.dashes or ()), zorder=3)
        if cell is not None and cell.marks:
            axes.text(right, found[0], "†", ha="right", va="bottom", fontsize=SMALL, color=INK)


def _short(cell: CellResult, mean: float) -> str:
    return f"{mean:.1f}" if factor(cell.cell.measure) == 100 or abs(mean) >= 10 else f"{mean:.2g}"


def _hollow(label: str, colour: str, marker: str) -> Line2D:
    return Line2D(
        [], [], linestyle="", marker=marker, markersize=7, markerfacecolor="none", markeredgecolor=colour, label=label
    )
