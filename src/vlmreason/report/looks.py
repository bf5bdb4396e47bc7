"""What all kinds of figures share: the looks of series, words for measures, wrapped text, the panels of a page."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.lines import Line2D
from matplotlib.textpath import TextToPath

from vlmreason.report.experiment import SHARES, Axis, Entry, Experiment, Measure, PaperNumber
from vlmreason.report.results import CellResult, Result

INK, SOFT, FAINT = "#1f2328", "#6a737d", "#c9ced6"
SMALL, TINY = 8.0, 7.0  # points; titles of panels are larger by 1
HATCH = "////"

# For series that the study's styles do not name; none of these colours is among those of the paper's figures.
_SPARE = (
    ("#1b6ca8", "o"), ("#c8553d", "s"), ("#588157", "^"), ("#8e5ea2", "D"),
    ("#b8860b", "v"), ("#2a9d8f", "P"), ("#5c4b51", "X"), ("#d77a9b", "h"),
)  # fmt: skip
_DASHES = ((4.0, 2.0), (1.0, 1.5), (6.0, 1.5, 1.0, 1.5))
_WORDS = {
    "accuracy": "accuracy",
    "unparsed": "responses without an answer",
    "cut_off": "responses cut off",
    "converted": "responses that convert",
    "conversion_exact": "exact conversions",
    "tokens": "generated tokens",
    "accuracy_conversion_exact": "accuracy after an exact conversion",
    "accuracy_conversion_wrong": "accuracy after a wrong conversion",
    "gradients:alignment": "gradient alignment score",
    "gradients:cosine": "gradient cosine similarity",
    "gradients:adam": "Adam update alignment",
    "gradients:norm": "gradient norm, simple images",
    "gradients:loss_conversion": "conversion loss",
    "gradients:loss_given_both": "solution loss given image and text",
    "gradients:loss_given_image": "solution loss given image",
    "likelihood:thought": "log-probability of the thoughts",
    "likelihood:answer": "log-probability of the action",
    "likelihood:thought_tokens": "tokens of the thoughts",
    "likelihood:answer_tokens": "tokens of the action",
    "likelihood:unread": "drawn responses without an action",
}
_ALONG = {
    "step": "optimizer steps",
    "examples": "training examples",
    "updates": "updates",
    "env_steps": "environment steps",
    "compute": "training compute (GFLOP)",
}

Box = tuple[float, float, float, float]
"""Left, bottom, width and height of a part of the page, as shares of it."""


@dataclass(frozen=True)
class Look:
    """Of a series. dashes: of a reference, which is a dashed grey line; None for the compared series."""

    colour: str
    marker: str
    dashes: tuple[float, ...] | None = None

    @property
    def size(self) -> float:
        """Points of the marker; those with thin parts are drawn larger, to weigh as much as the others."""
        return {"*": 9.5, "P": 7.5, "X": 7.0, "D": 5.5, "d": 6.5}.get(self.marker, 6.0)


@dataclass(frozen=True)
class Body:
    """What a figure holds between its head and its notes. Sizes are in inches; `legend`: artists with labels."""

    width: float
    height: float
    paint: Callable[[Figure, Box], None]
    legend: Sequence[Artist] = ()
    notes: Sequence[str] = ()


def looks(experiment: Experiment, styles: Mapping[str, tuple[str, str]]) -> dict[str, Look]:
    """The looks of an experiment's series by their labels."""
    spare, dashes, found = itertools.cycle(_SPARE), itertools.cycle(_DASHES), {}
    for entry in experiment.series:
        if entry.style == "reference":
            found[entry.label] = Look("#7d7d7d", "", next(dashes))
        else:
            found[entry.label] = Look(*(styles.get(entry.name or entry.label) or next(spare)))
    return found


def key(entry: Entry, look: Look) -> Line2D:
    """The legend's entry of a series that is drawn as a line or points."""
    if look.dashes is not None:
        return Line2D([], [], color=look.colour, linestyle=(0, look.dashes), linewidth=1.5, label=entry.label)
    return Line2D([], [], color=look.colour, marker=look.marker, linewidth=1.5, markersize=look.size, label=entry.label)


def factor(measure: Measure) -> float:
    """From a measure's value to what is shown."""
    return 100.0 if measure.in_percent else 1.0


def point(cell: CellResult) -> tuple[float, float, float] | None:
    """Mean and ends of the interval (the mean where there is none) as they are shown; None: missing."""
    if cell.estimate is None:
        return None
    mean, low, high = cell.estimate.mean, cell.estimate.ci_low, cell.estimate.ci_high
    by = factor(cell.cell.measure)
    return mean * by, (mean if low is None else low) * by, (mean if high is None else high) * by


def absent(cell: CellResult) -> bool:
    """Whether nothing is there of a cell for which runs are asked (`paper_only` asks for none)."""
    return cell.estimate is None and not cell.curves and bool(cell.cell.seeds)


def measure_words(measure: Measure) -> str:
    """What is measured, as the label of an axis."""
    kind, _, name = measure.what.partition(":")
    words = _WORDS.get(measure.what)
    if words is None:
        named = _named(name)
        words = {"part": named, "failures": named, "imported": named, "length": f"tokens of {named}"}.get(
            kind, f"{kind}: {named}"
        )
    if measure.training == "best":
        words = f"best {words} while training"
    where = " ".join(word for word in (measure.level, measure.view) if word)
    unit = " (%)" if measure.in_percent else ""
    return f"{where}: {words}{unit}" if where and kind not in ("gradients", "imported") else words + unit


def _named(name: str) -> str:
    return name.replace("_", " ").replace(".", ", ")


def along_words(along: str) -> str:
    """Where a checkpoint is, as the label of an axis."""
    if "@" in along:
        name, _, level = along.partition("@")
        return f"{level}: {_named(name)}{' (%)' if name in SHARES else ''}"
    return _ALONG.get(along) or _WORDS[f"gradients:{along}"]


def y_label(experiment: Experiment, measures: Iterable[Measure]) -> str:
    """Of a panel with these measures."""
    measures = list(dict.fromkeys(measures))
    for words in (measure_words, lambda measure: measure_words(replace(measure, level=None, view=None))):
        found = list(dict.fromkeys(words(measure) for measure in measures))
        if len(found) == 1:
            break
    return experiment.y_label or "; ".join(found)


def brief(number: float) -> str:
    """12000 as 12k."""
    for power, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= power:
            return f"{number / power:g}{letter}"
    return f"{number:g}"


def place_labels(axis: Axis, with_paper: bool) -> list[str]:
    """What stands under the places; `with_paper`: the paper's own value beside ours, where they differ."""
    found = []
    for number, place in enumerate(axis.places()):
        ours = axis.values[number] if axis.values else place.label
        label = _label(ours)
        if with_paper and number < len(axis.paper_values) and str(axis.paper_values[number]) != str(ours):
            label += f"\n[{_label(axis.paper_values[number])}]"
        found.append(label)
    return found


def axis_label(axis: Axis, with_paper: bool) -> str:
    values = axis.values or [place.label for place in axis.places()]
    differs = any(str(ours) != str(theirs) for ours, theirs in zip(values, axis.paper_values, strict=False))
    return f"{axis.label}\n[in the paper]".strip() if with_paper and differs else axis.label


def _label(value: object) -> str:
    return brief(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else str(value)


def spaced(axis: Axis) -> list[float]:
    """Where the places stand, 1 apart on average: numbers that grow by factors as their logarithm, others evenly."""
    values = axis.values
    evenly = [float(number) for number in range(len(axis.places()))]
    if len(values) < 3 or not all(type(value) in (int, float) and value > 0 for value in values):
        return evenly
    steps = [(b - a, b / a) for a, b in itertools.pairwise(values)]
    if any(difference <= 0 for difference, _ in steps):
        return evenly
    differences, ratios = zip(*steps, strict=True)
    if max(ratios) / min(ratios) >= max(differences) / min(differences):
        return evenly
    logs = [math.log2(value / values[0]) for value in values]
    return [log / logs[-1] * evenly[-1] for log in logs]


@functools.lru_cache(4096)
def text_width(text: str, size: float, bold: bool = False) -> float:
    """Inches of a line of text."""
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    width, _, _ = TextToPath().get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


def wrapped(text: str, width: float, size: float, bold: bool = False) -> str:
    """`text` in lines of at most `width` inches, broken at spaces (and inside words that are longer)."""
    return "\n".join(_wrapped(line, width * 0.98, size, bold) for line in text.split("\n"))


def _wrapped(text: str, width: float, size: float, bold: bool) -> str:
    lines, line, space = [], "", text_width("a a", size, bold) - text_width("aa", size, bold)
    used = 0.0
    for word in text.split():
        for piece in _pieces(word, width, size, bold):
            needed = text_width(piece, size, bold)
            if line and used + space + needed > width:
                lines.append(line)
                line, used = "", 0.0
            line, used = (f"{line} {piece}", used + space + needed) if line else (piece, needed)
    return "\n".join([*lines, line])


def _pieces(word: str, width: float, size: float, bold: bool) -> list[str]:
    """A word in parts that fit: at its hyphens and plus signs, else anywhere."""
    if text_width(word, size, bold) <= width:
        return [word]
    found: list[str] = []
    for part in re.findall(r"[^-+/]*[-+/]|[^-+/]+", word):
        if found and text_width(found[-1] + part, size, bold) <= width:
            found[-1] += part
            continue
        num = max(1, int(len(part) * width / max(width, text_width(part, size, bold))))
        found += [part[start : start + num] for start in range(0, len(part), num)]
    return found


def line_height(size: float) -> float:
    """Inches of one of several lines."""
    return size * 1.35 / 72


def shape(num_panels: int) -> tuple[int, int]:
    """Rows and columns of panels."""
    columns = num_panels if num_panels <= 4 else math.ceil(num_panels / math.ceil(num_panels / 4))
    return math.ceil(num_panels / columns), columns


def panels(figure: Figure, box: Box, titles: Sequence[str], width: float, widths: Sequence[float] = ()) -> list[Axes]:
    """One axes per title within a part of the page. `width`: inches that a title may take; `widths`: of columns."""
    rows, columns = shape(len(titles))
    figure.set_layout_engine("constrained", rect=box, w_pad=0.04, h_pad=0.04, wspace=0.03, hspace=0.06)
    grid = figure.subplots(rows, columns, squeeze=False, width_ratios=list(widths) or None)
    found: list[Axes] = []
    for number, axes in enumerate(grid.flat):
        if number >= len(titles):
            axes.remove()
            continue
        axes.set_title(wrapped(titles[number], width, SMALL + 1), fontsize=SMALL + 1, color=INK)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#ececf0", linewidth=0.7)
        axes.set_axisbelow(True)
        found.append(axes)
    return found


def places_of(result: Result, panel: Entry) -> list[int]:
    """Numbers of the places that a panel has; entries may be at some panels only."""
    labels = {cell.cell.x for cell in result.cells if cell.cell.panel == panel.label}
    return [number for number, place in enumerate(result.experiment.x.places()) if place.label in labels]


def say_missing(axes: Axes) -> None:
    """A panel of which nothing is there."""
    axes.patch.set(hatch=HATCH, edgecolor=FAINT, facecolor="white")
    axes.text(
        0.5, 0.5, "missing", transform=axes.transAxes, ha="center", va="center", fontsize=SMALL + 2, color=SOFT,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 4}, zorder=1,
    )  # fmt: skip


def limits(values: Sequence[float], percent: bool) -> tuple[float, float]:
    """The span of a vertical axis that starts at 0 where it can; the whole of 100 % where much of it is used."""
    if not values:
        return 0.0, 100.0 if percent else 1.0
    low, high = min((0.0, *values)), max(values)
    if percent and low >= 0 and high <= 100:
        return 0.0, 100.0 if high > 55 else max(10.0, 5 * math.ceil(high * 1.2 / 5))
    pad = 0.08 * ((high - low) or 1.0)
    return (low if low == 0 else low - pad), high + pad


def placed(experiment: Experiment) -> tuple[list[tuple[PaperNumber, int]], list[str]]:
    """The paper's numbers with the place of each, and a note on those that have none at this scale."""
    found, others = [], []
    places = experiment.x.places()
    for number in experiment.paper:
        place = 0 if number.x is None and len(places) == 1 else experiment.x.place_of(number.x)
        if place is None:
            others.append(_words_of(number))
        else:
            found.append((number, place))
    return found, [f"Numbers of the paper without a place here: {'; '.join(others)}."] if others else []


def told(experiment: Experiment) -> list[str]:
    """A note on the paper's numbers, where a kind of figure has no place for them."""
    return [f"The paper: {'; '.join(map(_words_of, experiment.paper))}."] if experiment.paper else []


def _words_of(number: PaperNumber) -> str:
    words = ", ".join(str(word) for word in (number.panel, number.series, number.x) if word not in ("", None))
    return f"{words}: {number.value:g}" if words else f"{number.value:g}"
