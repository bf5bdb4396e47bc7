"""Figures in which every run is seen for itself: curves over its checkpoints, and one point per run."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from vlmreason.report.figures.layout import Body, Box, limits, panels, say_missing, shape, wrapped
from vlmreason.report.figures.style import (
    FAINT,
    INK,
    SMALL,
    SOFT,
    TINY,
    Look,
    absent,
    brief,
    key,
    places_of,
    told,
    y_label,
)
from vlmreason.studies.curves import course, smoothed
from vlmreason.studies.experiment import Entry
from vlmreason.studies.measures import TIMES, along_factor, along_words, factor, measure_words
from vlmreason.studies.results import CellResult, Result

SIDE = 2.9  # inches of a panel
OUTLIERS = 20  # times the spread of four fifths of the values: beyond it a scale becomes logarithmic


def curves(result: Result, looks: Mapping[str, Look]) -> Body:
    """Return a thin line per run with a mark per checkpoint; over anything but time, from a hollow mark to an arrow.

    Of training instead the mean over runs, smoothed, with a band of its standard error and faint points before that.
    """
    experiment = result.experiment
    places = experiment.x.places()
    pairs = [(panel, places[number]) for panel in experiment.panels for number in places_of(result, panel)]
    titles = [", ".join(label for label in (panel.label, place.label) if label) for panel, place in pairs]
    cells = [[_cell(result, panel, entry, place) for entry in experiment.series] for panel, place in pairs]
    titles = [_with_missing(title, result, [c for c in row if c]) for title, row in zip(titles, cells, strict=True)]
    rows, columns = shape(len(titles))
    directed = any(cell.cell.measure.along not in TIMES for cell in result.cells)
    notes = told(experiment)
    if any(cell.curves and cell.cell.measure.source == "training" for cell in result.cells):
        notes.insert(0, _of_training(result))
    if any(_mean(cell) for cell in result.cells):
        notes.insert(0, "Thick: the mean of the runs.")

    def paint(figure: Figure, box: Box) -> None:
        found = panels(figure, box, titles, SIDE - 0.5)
        for axes, row in zip(found, cells, strict=True):
            shown = [cell for cell in row if cell is not None]
            axes.tick_params(labelsize=TINY + 0.5, color=SOFT)
            if not any(cell.curves for cell in shown):
                say_missing(axes)
                axes.set_xticks([])
                axes.set_yticks([])
                continue
            if shown[0].cell.measure.source == "training":
                _training(axes, shown, looks, result)
                continue
            for cell in shown:
                mean = _mean(cell)
                for curve in cell.curves:
                    _curve(axes, curve.x, curve.y, cell, looks[cell.cell.series], faint=mean is not None)
                if mean:
                    axes.plot(*mean, color=looks[cell.cell.series].colour, linewidth=2.2, zorder=3, label="mean")
            measure = shown[0].cell.measure
            xs, ys = ([value for cell in shown for c in cell.curves for value in getattr(c, side)] for side in "xy")
            across = _scale(axes, "x", xs, along_words(measure.along))
            up = _scale(
                axes, "y", [y * factor(measure) for y in ys], y_label(experiment, (c.cell.measure for c in shown))
            )
            if min(ys) < 0 < max(ys):
                axes.axhline(0, color=FAINT, linewidth=0.9, zorder=1)
            axes.set_xlabel(across, fontsize=SMALL)
            axes.set_ylabel(wrapped(up, 2.1, SMALL), fontsize=SMALL)

    legend = _legend(result, looks, _nowhere(result))
    if directed:
        legend.append(_first_checkpoint())
    return Body(columns * SIDE + 0.3, rows * 2.75, paint, legend, notes)


def points(result: Result, looks: Mapping[str, Look]) -> Body:
    """Return a point per run: the measure of the first place across, that of the second up; Spearman's rank
    correlation.

    Raises ValueError where there are not two places.
    """
    experiment = result.experiment
    if len(experiment.x.places()) != 2:
        raise ValueError(f"{result.name}: draw=points: x has {len(experiment.x.places())} places; two are expected")
    across, up = experiment.x.places()
    found = {
        panel.label: {entry.label: _pairs(result, panel, entry) for entry in experiment.series}
        for panel in experiment.panels
    }
    titles = []
    for panel in experiment.panels:
        pairs = [pair for some in found[panel.label].values() for pair in some]
        titles.append("\n".join(filter(None, (panel.label, _spearman(pairs)))))
    rows, columns = shape(len(titles))
    notes = told(experiment)

    def paint(figure: Figure, box: Box) -> None:
        for axes, panel in zip(panels(figure, box, titles, SIDE + 0.3), experiment.panels, strict=True):
            axes.tick_params(labelsize=TINY + 0.5, color=SOFT)
            axes.grid(axis="x", color="#ececf0", linewidth=0.7)
            if not any(found[panel.label].values()):
                say_missing(axes)
                axes.set_xticks([])
                axes.set_yticks([])
                continue
            for entry in experiment.series:
                look, values = looks[entry.label], found[panel.label][entry.label]
                axes.plot(
                    [x for x, _, _ in values], [y for _, y, _ in values], linestyle="", marker=look.marker or "o",
                    color=look.colour, markersize=look.size, markeredgecolor="white", markeredgewidth=0.4,
                    label=entry.label,
                )  # fmt: skip
                for x, y, marked in values:
                    if marked:
                        axes.annotate("†", (x, y), (3, 3), textcoords="offset points", fontsize=SMALL, color=INK)
            cells = [cell for cell in result.cells if cell.cell.panel == panel.label]
            labels = [
                place.label or measure_words(next(c.cell.measure for c in cells if c.cell.x == place.label))
                for place in (across, up)
            ]
            axes.set_xlabel(wrapped(labels[0], SIDE - 0.4, SMALL), fontsize=SMALL)
            axes.set_ylabel(wrapped(labels[1], 2.0, SMALL), fontsize=SMALL)
            axes.margins(0.08)
            axes.xaxis.set_major_locator(MaxNLocator(5))

    nowhere = [e.label for e in experiment.series if not any(series[e.label] for series in found.values())]
    legend = _legend(result, looks, nowhere)
    for artist in legend:
        artist.set(linestyle="none")
    return Body(columns * (SIDE + 0.4) + 0.3, rows * 3.0, paint, legend, notes)


def _training(axes: Axes, cells: Sequence[CellResult], looks: Mapping[str, Look], result: Result) -> None:
    """How training went: over time with bands, over another measure from a hollow mark to an arrow."""
    measure = cells[0].cell.measure
    across = along_factor(measure.along)
    ends: list[float] = []
    for cell in cells:
        look, by, found = looks[cell.cell.series], factor(cell.cell.measure), course(cell)
        if found is None:
            continue
        window = result.experiment.window
        x, y = found.x * across, smoothed(found.y, window)
        y = y.clip(0, 1) if by == 100 and y is not found.y else y
        if measure.along not in TIMES:
            x = smoothed(x, window).clip(0, 100) if across == 100 else smoothed(x, window)
            _curve(axes, x.tolist(), y.tolist(), cell, look, faint=False)
            continue
        low, high = ((y + sign * found.error) * by for sign in (-1, 1))
        if by == 100:
            low, high = low.clip(0, 100), high.clip(0, 100)
        axes.fill_between(x, low, high, color=look.colour, alpha=0.15, linewidth=0)
        if y is not found.y:
            axes.plot(
                x, found.y * by, color=look.colour, marker=look.marker, markersize=look.size * 0.6, linestyle="",
                markeredgewidth=0, alpha=0.35, clip_on=False, label="before smoothing",
            )  # fmt: skip
        marker = look.marker if y is found.y else ""
        style = (0, look.dashes) if look.dashes is not None else "-"
        axes.plot(
            x, y * by, color=look.colour, linewidth=1.8, linestyle=style, marker=marker, markersize=look.size * 0.6,
            markeredgewidth=0, zorder=3, clip_on=False, label=cell.cell.series,
        )  # fmt: skip
        if cell.marks:
            axes.annotate("†", (x[-1], y[-1] * by), (3, 3), textcoords="offset points", fontsize=SMALL, color=INK)
        ends += [*low, *high]
    if measure.in_percent and measure.along in TIMES:
        axes.set_ylim(*limits(ends, percent=True))
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(MaxNLocator(5))
        axis.set_major_formatter(FuncFormatter(lambda value, _: brief(round(value, 10))))
    axes.set_xlabel(wrapped(along_words(measure.along), SIDE - 0.5, SMALL), fontsize=SMALL)
    up = y_label(result.experiment, (cell.cell.measure for cell in cells))
    axes.set_ylabel(wrapped(up, 2.1, SMALL), fontsize=SMALL)


def _of_training(result: Result) -> str:
    """A note on what is drawn of training."""
    window = result.experiment.window
    several = any(len(cell.curves) > 1 for cell in result.cells)
    nums = sorted({curve.num for cell in result.cells for curve in cell.curves})
    episodes = " to ".join(dict.fromkeys(map(str, (nums[0], nums[-1]))))
    words = [f"While training, on {episodes} validation problems each time", "means over the runs" if several else ""]
    over_time = any(cell.cell.measure.along in TIMES for cell in result.cells)
    if window:
        before = "; faint: before" if over_time else ""
        words.append(f"smoothed (Savitzky-Golay of degree 3, {window} points{before})")
    if over_time:
        words.append(f"bands: one standard error{'' if several else ', binomial'}")
    return "; ".join(filter(None, words)) + "."


def _cell(result: Result, panel: Entry, entry: Entry, place: Entry) -> CellResult | None:
    return result.cell(panel.label, entry.label, place.label)


def _with_missing(title: str, result: Result, cells: Sequence[CellResult]) -> str:
    """The title of a panel with the series of which nothing is here, but elsewhere."""
    nowhere = _nowhere(result)
    names = list(dict.fromkeys(c.cell.series for c in cells if absent(c) and c.cell.series not in nowhere))
    return f"{title}\n(missing: {', '.join(names)})".strip() if names and not all(map(absent, cells)) else title


def _nowhere(result: Result) -> list[str]:
    """Series of which nothing is there at all."""
    labels = [entry.label for entry in result.experiment.series]
    return [label for label in labels if all(absent(cell) for cell in result.cells if cell.cell.series == label)]


def _legend(result: Result, looks: Mapping[str, Look], nowhere: Sequence[str]) -> list[Artist]:
    """The series; those that are nowhere to be seen say so."""
    found: list[Artist] = []
    for entry in result.experiment.series:
        if entry.label:
            handle = key(entry, looks[entry.label])
            if entry.label in nowhere:
                handle.set(label=f"{entry.label} (missing)", alpha=0.35)
            found.append(handle)
    return found


def _curve(axes: Axes, x: Sequence[float], y: Sequence[float], cell: CellResult, look: Look, faint: bool) -> None:
    """One run; faint beside a mean."""
    up = np.array(y) * factor(cell.cell.measure)
    along_time = cell.cell.measure.along in TIMES
    style = (0, look.dashes) if look.dashes is not None else "-"
    axes.plot(
        x, up, color=look.colour, marker=look.marker, linestyle=style, markeredgewidth=0,
        markersize=look.size * 0.6, linewidth=0.8 if faint else 1.1, alpha=0.45 if faint else 0.85,
        label=cell.cell.series,
    )  # fmt: skip
    if not along_time:
        axes.lines[-1].set(alpha=0.4, linewidth=0.7)  # the checkpoints count; the lines say what follows what
        axes.plot(
            x, up, color=look.colour, marker=look.marker or "o", markersize=look.size * 0.7, linestyle="", zorder=3
        )
        axes.plot(
            x[0], up[0], marker=look.marker or "o", markersize=6.5, markerfacecolor="white", linestyle="",
            markeredgecolor=look.colour, markeredgewidth=1.2, zorder=4, label="first checkpoint",
        )  # fmt: skip
        if len(x) > 1:
            arrow = {
                "arrowstyle": "-|>",
                "color": look.colour,
                "shrinkA": 0,
                "shrinkB": 0,
                "mutation_scale": 9,
                "alpha": 0.6,
            }
            axes.annotate("", (x[-1], up[-1]), (x[-2], up[-2]), arrowprops=arrow)
    if cell.marks:
        axes.annotate("†", (x[-1], up[-1]), (3, 3), textcoords="offset points", fontsize=SMALL, color=INK)


def _mean(cell: CellResult) -> tuple[Sequence[float], Sequence[float]] | None:
    """Of several curves over time with the same checkpoints."""
    measure = cell.cell.measure
    if len(cell.curves) < 2 or len({curve.x for curve in cell.curves}) > 1:
        return None
    if measure.source == "training" or measure.along not in TIMES:
        return None
    ys = np.array([curve.y for curve in cell.curves]) * factor(measure)
    return cell.curves[0].x, [float(y) for y in ys.mean(axis=0)]


def _scale(axes: Axes, name: str, values: Sequence[float], label: str) -> str:
    """Set the scale of an axis; its label, which says where it is logarithmic."""
    low, high = np.quantile(values, [0.1, 0.9])
    axis = axes.xaxis if name == "x" else axes.yaxis
    if max(values) - min(values) > OUTLIERS * (high - low) > 0:
        near = float(np.quantile(np.abs(values), 0.75))
        set_scale = axes.set_xscale if name == "x" else axes.set_yscale
        set_scale("symlog", linthresh=10 ** math.floor(math.log10(near)) if near else 1.0)
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        return f"{label} (log scale)"
    axis.set_major_formatter(FuncFormatter(lambda value, _: brief(round(value, 10))))
    return label


def _pairs(result: Result, panel: Entry, entry: Entry) -> list[tuple[float, float, bool]]:
    """What both places measure of the runs that have both, and whether they are marked."""
    cells = [_cell(result, panel, entry, place) for place in result.experiment.x.places()]
    sides = [dict(_values(cell)) if cell else {} for cell in cells]
    marked = any(cell.marks for cell in cells if cell)
    return [(sides[0][seed], sides[1][seed], marked) for seed in sides[0] if seed in sides[1]]


def _values(cell: CellResult) -> Iterator[tuple[int, float]]:
    """Of every run its seed and value as it is shown."""
    for sample in cell.samples:
        there = [value for value in sample.values if value is not None]
        if there:
            yield sample.seed, sum(there) / len(there) * factor(cell.cell.measure)


def _spearman(pairs: Sequence[tuple[float, float, bool]]) -> str:
    runs = f"{len(pairs)} run{'' if len(pairs) == 1 else 's'}"
    xs, ys = [x for x, _, _ in pairs], [y for _, y, _ in pairs]
    if not pairs:
        return ""
    if len(set(xs)) < 2 or len(set(ys)) < 2 or len(pairs) < 3:
        return f"{runs}: no rank correlation"
    return f"Spearman's rank correlation {np.corrcoef(_ranks(xs), _ranks(ys))[0, 1]:.2f}, n = {runs}"


def _ranks(values: Sequence[float]) -> np.ndarray:
    """The place of every value in their order; equal ones share the mean of theirs."""
    _, places, counts = np.unique(values, return_inverse=True, return_counts=True)
    ranks: np.ndarray = (np.cumsum(counts) - (counts - 1) / 2)[places]
    return ranks


def _first_checkpoint() -> Line2D:
    return Line2D(
        [], [], linestyle="", marker="o", markersize=6.5, markerfacecolor="white", markeredgecolor=SOFT,
        label="first checkpoint (arrow: last)",
    )  # fmt: skip
