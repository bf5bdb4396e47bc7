"""A table as a picture: a row per series, a column per panel and place; the paper's numbers in grey under ours."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from vlmreason.report.figures.layout import Body, Box, line_height, text_width, wrapped
from vlmreason.report.figures.style import (
    FAINT,
    HATCH,
    INK,
    SMALL,
    SOFT,
    TINY,
    Look,
    absent,
    placed,
    places_of,
    y_label,
)
from vlmreason.report.writing import number
from vlmreason.studies.experiment import Entry
from vlmreason.studies.measures import measure_words
from vlmreason.studies.results import CellResult, Result

PAD, NUMBER, HEAD = 0.16, 9.0, 1.25  # inches between columns, points of a value, most inches of a column's head
NAMES = 2.6  # inches that the names of the rows may take


@dataclass(frozen=True)
class _Text:
    """What a cell says: value, then smaller lines under it."""

    value: str
    under: tuple[str, ...]
    missing: bool = False

    @property
    def width(self) -> float:
        return max([text_width(self.value, NUMBER), *(text_width(line, TINY) for line in self.under)])

    @property
    def height(self) -> float:
        return line_height(NUMBER) + len(self.under) * line_height(TINY)


def table(result: Result, looks: Mapping[str, Look]) -> Body:
    """Return `looks` is of no use here: all rows are written alike."""
    experiment = result.experiment
    numbers, notes = placed(experiment)
    paper = {(n.panel, n.series, place): n.value for n, place in numbers}
    places = experiment.x.places()
    columns = [(panel, n, places[n]) for panel in experiment.panels for n in places_of(result, panel)]
    texts = [
        [_text(result.cell(p.label, e.label, place.label), paper.get((p.label, e.label, n))) for p, n, place in columns]
        for e in experiment.series
    ]
    heads = [wrapped(place.label or _of_panel(result, panel), HEAD, SMALL) for panel, _, place in columns]
    widths = [
        PAD + max([0.5, *(text_width(line, SMALL) for line in head.split("\n")), *(t.width for t in cells if t)])
        for head, *cells in zip(heads, *texts, strict=True)
    ]
    groups = [[c for c, (panel, _, _) in enumerate(columns) if panel is one] for one in experiment.panels]
    for panel, group in zip(experiment.panels, groups, strict=True):  # a panel's name is over all of its columns
        lack = text_width(panel.label, SMALL, True) + PAD - sum(widths[column] for column in group)
        for column in group:
            widths[column] += max(0.0, lack) / len(group)
    names = [wrapped(entry.label, NAMES, SMALL) for entry in experiment.series]
    first = PAD + max(text_width(line, SMALL) for name in names for line in name.split("\n"))
    heights = [
        max([line_height(SMALL) * (name.count("\n") + 1), *(t.height for t in row if t)]) + 0.12
        for name, row in zip(names, texts, strict=True)
    ]
    panel_row = line_height(SMALL) + 0.1 if any(panel.label for panel in experiment.panels) else 0.0
    place_row = line_height(SMALL) * (max(head.count("\n") for head in heads) + 1) + 0.1 if any(heads) else 0.0
    width, height = first + sum(widths), panel_row + place_row + sum(heights) + 0.1

    def paint(figure: Figure, box: Box) -> None:
        axes = figure.add_axes(box)
        axes.set_xlim(0, width)
        axes.set_ylim(height, 0)
        axes.set_axis_off()
        lefts = [first + sum(widths[:column]) for column in range(len(widths))]
        _rule(axes, 0, width, 0.03, 1.2)
        for panel, group in zip(experiment.panels, groups, strict=True) if panel_row else ():
            left, right = lefts[group[0]], lefts[group[-1]] + widths[group[-1]]
            _write(axes, (left + right) / 2, 0.03 + panel_row / 2, panel.label, SMALL, bold=True)
            if place_row:
                _rule(axes, left + 0.06, right - 0.06, panel_row + 0.02, 0.6)
        for left, extent, head in zip(lefts, widths, heads, strict=True):
            _write(axes, left + extent / 2, 0.03 + panel_row + place_row / 2, head, SMALL)
        top = panel_row + place_row + 0.03
        _rule(axes, 0, width, top, 0.8)
        for name, extent, row in zip(names, heights, texts, strict=True):
            _write(axes, 0.04, top + extent / 2, name, SMALL, align="left")
            for left, across, text in zip(lefts, widths, row, strict=True):
                if text:
                    _cell(axes, text, (left, top, across, extent))
            top += extent
        _rule(axes, 0, width, top, 1.2)

    return Body(width + 0.3, height, paint, (), [*_what(result), *notes])


def _text(cell: CellResult | None, paper: float | None) -> _Text | None:
    """None where the table has no cell."""
    if cell is None:
        return None
    grey = () if paper is None else (f"paper {paper:g}",)
    if absent(cell):
        return _Text("missing", grey, missing=True)
    if cell.estimate is None:
        return _Text(*(grey or ("-",)), ())
    value, _, interval = number(cell.estimate, cell.cell.measure).partition(" (")
    few = (f"{len(cell.runs)} of {len(cell.cell.seeds)} runs",) if cell.missing else ()
    return _Text(value + ("†" if cell.marks else ""), (*filter(None, [interval.rstrip(")")]), *few, *grey))


def _of_panel(result: Result, panel: Entry) -> str:
    """The head of a column without a name: what is measured there."""
    cells = [cell.cell for cell in result.cells if cell.cell.panel == panel.label]
    return "" if panel.label else y_label(result.experiment, (cell.measure for cell in cells))


def _what(result: Result) -> list[str]:
    """What the numbers are, where they are all of one kind."""
    if result.experiment.y_label:
        return [f"Values: {result.experiment.y_label}."]
    words = list(dict.fromkeys(measure_words(cell.cell.measure) for cell in result.cells))
    return [f"Values: {'; '.join(words)}."] if len(words) <= 4 else []


def _cell(axes: Axes, text: _Text, place: tuple[float, float, float, float]) -> None:
    left, top, width, height = place
    middle, y = left + width / 2, top + (height - text.height) / 2
    if text.missing:
        patch = Rectangle(
            (left + 0.04, top + 0.03), width - 0.08, height - 0.06, facecolor="white", edgecolor=FAINT, hatch=HATCH,
            linewidth=0.0, label="missing",
        )  # fmt: skip
        axes.add_patch(patch)
    pad = {"facecolor": "white", "edgecolor": "none", "pad": 0.8} if text.missing else None
    size = SMALL if text.missing else NUMBER
    for under, line in enumerate((text.value, *text.under)):
        grey = line.startswith("paper ")
        row, size = (line_height(TINY), TINY) if under else (line_height(NUMBER), size)
        axes.text(
            middle, y + row / 2, line, fontsize=size, color=INK if size == NUMBER and not grey else SOFT, ha="center",
            va="center_baseline", bbox=pad, style="italic" if grey else "normal",
        )  # fmt: skip
        y += row


def _rule(axes: Axes, left: float, right: float, y: float, width: float) -> None:
    axes.plot([left, right], [y, y], color=INK, linewidth=width, clip_on=False)


def _write(axes: Axes, x: float, y: float, text: str, size: float, bold: bool = False, align: str = "center") -> None:
    axes.text(
        x, y, text, fontsize=size, fontweight="bold" if bold else "normal", ha=align, va="center_baseline", color=INK,
        linespacing=1.2,
    )  # fmt: skip
