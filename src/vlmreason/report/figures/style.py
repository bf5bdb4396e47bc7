"""What all kinds of figures share: the looks of series, words for measures, wrapped text, the panels of a page."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from matplotlib.lines import Line2D

from vlmreason.studies.experiment import Axis, Entry, Experiment, PaperNumber
from vlmreason.studies.measures import Measure, factor, measure_words
from vlmreason.studies.results import CellResult, Result

INK, SOFT, FAINT = "#1f2328", "#6a737d", "#c9ced6"
SMALL, TINY = 8.0, 7.0  # points; titles of panels are larger by 1
HATCH = "////"

# For series that the study's styles do not name; none of these colours is among those of the paper's figures.
_SPARE = (
    ("#1b6ca8", "o"), ("#c8553d", "s"), ("#588157", "^"), ("#8e5ea2", "D"),
    ("#b8860b", "v"), ("#2a9d8f", "P"), ("#5c4b51", "X"), ("#d77a9b", "h"),
)  # fmt: skip
_DASHES = ((4.0, 2.0), (1.0, 1.5), (6.0, 1.5, 1.0, 1.5))


@dataclass(frozen=True)
class Look:
    """Of a series. dashes: of a reference, which is a dashed grey line; None for the compared series."""

    colour: str
    marker: str
    dashes: tuple[float, ...] | None = None

    @property
    def size(self) -> float:
        """Return points of the marker; those with thin parts are drawn larger, to weigh as much as the others."""
        return {"*": 9.5, "P": 7.5, "X": 7.0, "D": 5.5, "d": 6.5}.get(self.marker, 6.0)


def looks(experiment: Experiment, styles: Mapping[str, tuple[str, str]]) -> dict[str, Look]:
    """Return the looks of an experiment's series by their labels."""
    spare, dashes, found = itertools.cycle(_SPARE), itertools.cycle(_DASHES), {}
    for entry in experiment.series:
        if entry.style == "reference":
            found[entry.label] = Look("#7d7d7d", "", next(dashes))
        else:
            found[entry.label] = Look(*(styles.get(entry.name or entry.label) or next(spare)))
    return found


def key(entry: Entry, look: Look) -> Line2D:
    """Return the legend's entry of a series that is drawn as a line or points."""
    if look.dashes is not None:
        return Line2D([], [], color=look.colour, linestyle=(0, look.dashes), linewidth=1.5, label=entry.label)
    return Line2D([], [], color=look.colour, marker=look.marker, linewidth=1.5, markersize=look.size, label=entry.label)


def point(cell: CellResult) -> tuple[float, float, float] | None:
    """Return mean and ends of the interval (the mean where there is none) as they are shown; None: missing."""
    if cell.estimate is None:
        return None
    mean, low, high = cell.estimate.mean, cell.estimate.ci_low, cell.estimate.ci_high
    by = factor(cell.cell.measure)
    return mean * by, (mean if low is None else low) * by, (mean if high is None else high) * by


def absent(cell: CellResult) -> bool:
    """Tell whether nothing is there of a cell for which runs are asked (`paper_only` asks for none)."""
    return cell.estimate is None and not cell.curves and bool(cell.cell.seeds)


def y_label(experiment: Experiment, measures: Iterable[Measure]) -> str:
    """Return the label of a panel with these measures."""
    measures = list(dict.fromkeys(measures))
    for words in (measure_words, lambda measure: measure_words(replace(measure, level=None, view=None))):
        found = list(dict.fromkeys(words(measure) for measure in measures))
        if len(found) == 1:
            break
    return experiment.y_label or "; ".join(found)


def brief(number: float) -> str:
    """Write 12000 as 12k."""
    for power, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= power:
            return f"{number / power:g}{letter}"
    return f"{number:g}"


def place_labels(axis: Axis, with_paper: bool) -> list[str]:
    """Return what stands under the places; `with_paper`: the paper's own value beside ours, where they differ."""
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


def places_of(result: Result, panel: Entry) -> list[int]:
    """Return numbers of the places that a panel has; entries may be at some panels only."""
    labels = {cell.cell.x for cell in result.cells if cell.cell.panel == panel.label}
    return [number for number, place in enumerate(result.experiment.x.places()) if place.label in labels]


def placed(experiment: Experiment) -> tuple[list[tuple[PaperNumber, int]], list[str]]:
    """Return the paper's numbers with the place of each, and a note on those that have none at this scale."""
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
    """Return a note on the paper's numbers, where a kind of figure has no place for them."""
    return [f"The paper: {'; '.join(map(_words_of, experiment.paper))}."] if experiment.paper else []


def _words_of(number: PaperNumber) -> str:
    words = ", ".join(str(word) for word in (number.panel, number.series, number.x) if word not in ("", None))
    return f"{words}: {number.value:g}" if words else f"{number.value:g}"
