"""Where things stand in a picture: boxes, widths of text, panels and their limits."""

from __future__ import annotations

import functools
import itertools
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

from vlmreason.report.figures.style import FAINT, HATCH, INK, SMALL, SOFT
from vlmreason.studies.experiment import Axis

Box = tuple[float, float, float, float]
"""Left, bottom, width and height of a part of the page, as shares of it."""


@dataclass(frozen=True)
class Body:
    """What a figure holds between its head and its notes. Sizes are in inches; `legend`: artists with labels."""

    width: float
    height: float
    paint: Callable[[Figure, Box], None]
    legend: Sequence[Artist] = ()
    notes: Sequence[str] = ()


def spaced(axis: Axis) -> list[float]:
    """Say where the places stand, 1 apart on average: numbers that grow by factors as their logarithm, others
    evenly."""
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
    """Return inches of a line of text."""
    font = FontProperties(size=size, weight="bold" if bold else "normal")
    width, _, _ = TextToPath().get_text_width_height_descent(text, font, ismath=False)
    return float(width) / 72


def wrapped(text: str, width: float, size: float, bold: bool = False) -> str:
    """Return `text` in lines of at most `width` inches, broken at spaces (and inside words that are longer)."""
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
    """Return inches of one of several lines."""
    return size * 1.35 / 72


def shape(num_panels: int) -> tuple[int, int]:
    """Return rows and columns of panels."""
    columns = num_panels if num_panels <= 4 else math.ceil(num_panels / math.ceil(num_panels / 4))
    return math.ceil(num_panels / columns), columns


def panels(figure: Figure, box: Box, titles: Sequence[str], width: float, widths: Sequence[float] = ()) -> list[Axes]:
    """Return one axes per title within a part of the page. `width`: inches that a title may take; `widths`: of
    columns."""
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


def say_missing(axes: Axes) -> None:
    """Return a panel of which nothing is there."""
    axes.patch.set(hatch=HATCH, edgecolor=FAINT, facecolor="white")
    axes.text(
        0.5, 0.5, "missing", transform=axes.transAxes, ha="center", va="center", fontsize=SMALL + 2, color=SOFT,
        bbox={"facecolor": "white", "edgecolor": "none", "pad": 4}, zorder=1,
    )  # fmt: skip


def limits(values: Sequence[float], percent: bool) -> tuple[float, float]:
    """Return the span of a vertical axis that starts at 0 where it can; the whole of 100 % where much of it is used."""
    if not values:
        return 0.0, 100.0 if percent else 1.0
    low, high = min((0.0, *values)), max(values)
    if percent and low >= 0 and high <= 100:
        return 0.0, 100.0 if high > 55 else max(10.0, 5 * math.ceil(high * 1.2 / 5))
    pad = 0.08 * ((high - low) or 1.0)
    return (low if low == 0 else low - pad), high + pad
