"""Artifacts as pictures: a head with title and place, what the kind of figure draws, and notes on what is shown.

A figure looks the same wherever it is drawn: no setting of the user's matplotlib is read, no time is written.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from vlmreason.files import write_bytes_atomic
from vlmreason.report.figures.layout import Body, line_height, text_width, wrapped
from vlmreason.report.figures.style import FAINT, INK, SMALL, SOFT, TINY, Look, absent, looks
from vlmreason.studies.records import Record
from vlmreason.studies.results import CellResult, Result
from vlmreason.tasks.base import Task

LoadTask = Callable[[Record], Task[Any]]
"""The task of a run, whose pictures are drawn again."""

DPI = 160
MIN_WIDTH, MARGIN, TITLE = 6.4, 0.12, 11.0  # inches, inches, points
NUM_LISTED, NUM_REASONS = 8, 3  # of what is missing; the Markdown table lists all
_SETTINGS: Any = {
    "font.family": "DejaVu Sans",
    "font.size": SMALL,
    "axes.edgecolor": "#8a929c",
    "axes.labelcolor": INK,
    "axes.linewidth": 0.8,
    "hatch.linewidth": 0.5,
    "hatch.color": FAINT,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "svg.hashsalt": "vlmreason",
    "pdf.fonttype": 42,
}
_METADATA: Mapping[str, dict[str, Any]] = {
    "png": {"Software": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "svg": {"Date": None, "Creator": None},
}
_SCALES = {"nano": "nano: built-in model"}


def draw(
    result: Result,
    styles: Mapping[str, tuple[str, str]],
    records: Sequence[Record],
    path: Path,
    formats: Sequence[str],
    load_task: LoadTask | None = None,
) -> list[Path]:
    """Draw an artifact into `<path>.<format>`; returns the files. Raises ValueError.

    `styles`: colour and marker by the name of a series. `records`, `load_task`: where pixel attributions are read,
    and what draws the pictures under them.
    """
    found = pictures(result, styles, records, formats, load_task)
    for form, data in found.items():
        write_bytes_atomic(path.with_name(f"{path.name}.{form}"), data)
    return [path.with_name(f"{path.name}.{form}") for form in found]


def pictures(
    result: Result,
    styles: Mapping[str, tuple[str, str]],
    records: Sequence[Record],
    formats: Sequence[str],
    load_task: LoadTask | None = None,
) -> dict[str, bytes]:
    """Draw an artifact, as `draw` does; returns the content of its file in each format. Raises ValueError."""
    found = {}
    with plain_settings(), _lean_fonts() if "pdf" in formats else contextlib.nullcontext():
        figure = compose(result, styles, records, load_task)
        figure.set_dpi(DPI)
        _lay_out(figure)
        for form in formats:
            held = io.BytesIO()
            figure.savefig(held, format=form, dpi=DPI, metadata=_METADATA[form])
            found[form] = held.getvalue()
    return found


def _lay_out(figure: Figure) -> None:
    """Find where everything stands once, and not once more for every format."""
    engine = figure.get_layout_engine()
    if engine is not None:
        engine.execute(figure)
        figure.set_layout_engine(None)  # by _SETTINGS there is none


@contextlib.contextmanager
def _lean_fonts() -> Iterator[None]:
    """Let matplotlib put what a PDF needs of a font into it.

    Tables for joining letters, which no reader of a PDF uses, take most of the time.
    """
    from fontTools import subset

    class Lean(subset.Options):  # type: ignore[misc]
        def __init__(self, **kwargs: Any) -> None:
            super().__init__(**kwargs)
            self.drop_tables: list[str] = [*self.drop_tables, "GSUB", "GPOS", "GDEF"]

    before = subset.Options
    subset.Options = Lean
    try:
        yield
    finally:
        subset.Options = before


def compose(
    result: Result,
    styles: Mapping[str, tuple[str, str]],
    records: Sequence[Record] = (),
    load_task: LoadTask | None = None,
) -> Figure:
    """Return the figure of an artifact. Raises ValueError."""
    with plain_settings():
        body = _body(result, looks(result.experiment, styles), records, load_task)
        return _page(result, body)


@contextlib.contextmanager
def plain_settings() -> Iterator[None]:
    """matplotlib as it comes, with our settings; the user's are back afterwards."""
    with matplotlib.rc_context():
        matplotlib.rcParams.update(matplotlib.rcParamsDefault | _SETTINGS)
        yield


def _page(result: Result, body: Body) -> Figure:
    width = max(MIN_WIDTH, body.width)
    inner = width - 2 * MARGIN
    title = wrapped(result.experiment.title, inner, TITLE, bold=True)
    place = wrapped(f"{_place(result)}  ·  {_SCALES.get(result.scale, f'scale: {result.scale}')}", inner, SMALL)
    notes = "\n".join(wrapped(note, inner, TINY) for note in (*_notes(result), *body.notes))
    columns = _legend_columns(body, inner)
    heights = {
        "head": _height(title, TITLE) + _height(place, SMALL) + 0.18,
        "legend": (-(-len(body.legend) // columns) * line_height(SMALL) * 1.15 + 0.1) if body.legend else 0.0,
        "body": body.height,
        "notes": _height(notes, TINY) + 0.16,
    }
    height = sum(heights.values())
    figure = Figure(figsize=(width, height), facecolor="white")
    FigureCanvasAgg(figure)
    left, top = MARGIN / width, 1 - 0.08 / height
    figure.text(left, top, title, fontsize=TITLE, fontweight="bold", va="top", linespacing=1.2)
    below = top - (_height(title, TITLE) + 0.03) / height
    figure.text(left, below, place, fontsize=SMALL, color=SOFT, va="top", linespacing=1.25)
    if body.legend:
        figure.legend(
            handles=body.legend, loc="upper center", bbox_to_anchor=(0.5, 1 - heights["head"] / height),
            bbox_transform=figure.transFigure, ncols=columns, fontsize=SMALL, frameon=False, borderpad=0.1,
            borderaxespad=0.2, handlelength=2.0, handletextpad=0.5, columnspacing=1.4, labelspacing=0.35,
        )  # fmt: skip
    figure.text(
        left, (heights["notes"] - 0.06) / height, notes, fontsize=TINY, color=SOFT, va="top", linespacing=1.25
    )  # fmt: skip
    share = (width - (body.width if body.width < width else inner)) / 2 / width
    body.paint(figure, (share, heights["notes"] / height, 1 - 2 * share, body.height / height))
    return figure


def _body(result: Result, found: Mapping[str, Look], records: Sequence[Record], load_task: LoadTask | None) -> Body:
    chart = result.experiment.chart
    module = importlib.import_module(f"{__package__}.{chart.module}")
    what = (records, load_task) if chart.of_records else (found,)
    body: Body = getattr(module, result.experiment.draw)(result, *what)
    return body


def _place(result: Result) -> str:
    place = result.experiment.place
    return place[:1].upper() + place[1:]


def _height(text: str, size: float) -> float:
    return (text.count("\n") + 1) * line_height(size) if text else 0.0


def _legend_columns(body: Body, width: float) -> int:
    """As many columns as fit, with rows as even as they can be."""
    if not body.legend:
        return 1
    widest = max(text_width(str(artist.get_label()), SMALL) for artist in body.legend) + 0.52
    most = min(len(body.legend), max(1, int(width / widest)))
    return -(-len(body.legend) // -(-len(body.legend) // most))


def _notes(result: Result) -> list[str]:
    """What is shown, with how many runs; what is missing; the notes of the result; what the paper found."""
    notes = [_shown(result)]
    for note in result.notes:
        notes.append(("† " if re.match(r"\d+ runs marked: ", note) else "") + note)
    notes += _missing(result)
    if result.experiment.expected:
        notes.append(f"Expected: {result.experiment.expected}")
    return notes


def _shown(result: Result) -> str:
    runs = f"{result.num_runs} run{'' if result.num_runs == 1 else 's'}"
    of_models = [cell for cell in result.cells if cell.cell.measure.source != "problems"]
    if not any(cell.cell.seeds for cell in of_models):
        return "The paper's numbers alone: no run is made at this scale."
    if result.num_runs == 0 and not any(cell.estimate for cell in of_models):
        return "Nothing is there yet."
    if result.experiment.chart.each_run:
        seeds = sorted({seed for cell in result.cells for seed in _seeds(cell)})
        averaged = any(cell.cell.measure.source == "training" for cell in result.cells)
        how = "" if averaged and result.experiment.chart.curves else ", each shown alone"
        return f"{runs}{how}; seed{'' if len(seeds) == 1 else 's'} {', '.join(map(str, seeds))}."
    estimates = [cell.estimate for cell in of_models if cell.estimate and cell.estimate.num_seeds]
    if not estimates:
        return "Numbers from elsewhere, not from runs of this project."
    nums = [estimate.num_seeds for estimate in estimates]
    problems = [estimate.num_problems for estimate in estimates if estimate.num_problems is not None]
    if not problems:
        if max(nums) == 1:
            return f"{runs}: one seed, which gives no interval."
        single = " (none with one seed)" if min(nums) == 1 else ""
        return f"{runs}: mean over {_range(nums, 'seed')} with its 95 % interval{single}."
    if max(nums) == 1:
        return (
            f"{runs}: mean with 95 % interval over {_range(problems, 'problem')}; one seed, so that the interval says "
            "nothing about other seeds."
        )
    alone = "; with one seed over problems alone" if min(nums) == 1 else ""
    return f"{runs}: mean with 95 % interval over {_range(nums, 'seed')} and {_range(problems, 'problem')}{alone}."


def _seeds(cell: CellResult) -> Iterator[int]:
    yield from (curve.seed for curve in cell.curves)
    yield from (sample.seed for sample in cell.samples)


def _range(values: Sequence[int], name: str) -> str:
    low, high = min(values), max(values)
    return f"{low if low == high else f'{low} to {high}'} {name}{'' if high == 1 else 's'}"


def _missing(result: Result) -> list[str]:
    """Cells of which nothing or only a part is there, and why where there is a run."""
    whole = [cell for cell in result.cells if absent(cell)]
    parts: dict[str, list[CellResult]] = {}
    for cell in result.cells:
        if cell.missing and not absent(cell):
            parts.setdefault(f"{len(cell.runs)} of {len(cell.runs) + len(cell.missing)}", []).append(cell)
    reasons = sorted({missing.reason for missing in result.missing} - {"no run"})
    notes = [f"Missing: {_listed(_names(result, whole))}."] if 0 < len(whole) < len(result.cells) else []
    notes += [f"Runs that are there, {share}: {_listed(_names(result, cells))}." for share, cells in parts.items()]
    return notes + ([f"Runs that lack what is measured: {_listed(reasons, NUM_REASONS)}."] if reasons else [])


def _names(result: Result, cells: Sequence[CellResult]) -> list[str]:
    """Cells by their labels; whole panels, series and places in one word."""
    found, left = [], [cell.cell for cell in cells]
    experiment = result.experiment
    for axis, entries in (("panel", experiment.panels), ("series", experiment.series), ("x", experiment.x.places())):
        for label in (entry.label for entry in entries):
            every = [cell.cell for cell in result.cells if getattr(cell.cell, axis) == label]
            if label and every and all(cell in left for cell in every):
                found.append(label if axis == "series" else f"all of {label}")
                left = [cell for cell in left if getattr(cell, axis) != label]
    alike: dict[tuple[str, tuple[str, ...]], list[str]] = {}  # series of a panel that are among them at the same places
    for panel, series in dict.fromkeys((cell.panel, cell.series) for cell in left):
        places = tuple(cell.x for cell in left if (cell.panel, cell.series) == (panel, series))
        alike.setdefault((panel, places), []).append(series)
    for (panel, places), names in alike.items():
        row = [cell.cell for cell in result.cells if (cell.cell.panel, cell.cell.series) == (panel, names[0])]
        at = f" at {', '.join(places)}" if len(places) < len(row) else ""
        whole = {cell.cell.series for cell in result.cells if cell.cell.panel == panel} == set(names)
        found.append(", ".join(filter(None, (panel, *(() if whole and panel else names)))) + at)
    return found


def _listed(words: Sequence[str], num: int = NUM_LISTED) -> str:
    more = f"; and {len(words) - num} more" if len(words) > num else ""
    return "; ".join(words[:num]) + more
