"""What the report of a study says, before it is HTML or Markdown: artifacts, verdicts, runs, examples."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from vlmreason.report.pages.examples import Example
from vlmreason.segments import VIEWS
from vlmreason.studies.claims import Verdict
from vlmreason.studies.experiment import PaperNumber, Study
from vlmreason.studies.records import Record
from vlmreason.studies.results import CellResult, Result

LEVELS = ("simple", "medium", "hard")


@dataclass(frozen=True)
class Artifact:
    """A table or figure. files: its pictures, the PNG first; empty where nothing is drawn."""

    result: Result
    files: tuple[Path, ...]

    @property
    def name(self) -> str:
        """Return `fig5` of `s2h/fig5`."""
        return self.result.name.rpartition("/")[2]

    @property
    def label(self) -> str:
        """Return `Figure 5` of `figure 5, section 4`."""
        return re.split("[,(]", self.result.experiment.place)[0].rstrip().capitalize()

    @property
    def picture(self) -> Path | None:
        return next((path for path in self.files if path.suffix == ".png"), None)

    @property
    def num_missing(self) -> int:
        """Return values that no run gave."""
        return sum(len(cell.missing) for cell in self.result.cells)

    @property
    def num_values(self) -> int:
        """Return values there are, one per run and cell."""
        return sum(len(cell.runs) or (cell.estimate is not None) for cell in self.result.cells)

    @property
    def state(self) -> str:
        """Return complete, partial or empty."""
        return "empty" if not self.num_values else "partial" if self.num_missing else "complete"

    def missing(self) -> Iterator[tuple[str, str]]:
        """Return each cell that lacks something, and what: `Mix+, 3000` and `seed 1, 2: no run`."""
        for cell in self.result.cells:
            reasons: dict[str, list[str]] = {}
            for missing in cell.missing:
                seed = missing.set.get("seed")
                reasons.setdefault(missing.reason, []).extend([] if seed is None else [str(seed)])
            if reasons:
                place = ", ".join(word for word in (cell.cell.panel, cell.cell.series, cell.cell.x) if word)
                whole = (f"seed {', '.join(seeds)}: {why}" if seeds else why for why, seeds in reasons.items())
                yield place or "value", "; ".join(whole)

    def paper(self) -> tuple[dict[tuple[str, str, str], PaperNumber], list[PaperNumber]]:
        """Return the paper's numbers that belong to a cell, by its labels, and those that do not."""
        experiment = self.result.experiment
        places = experiment.x.places()
        placed, others = {}, []
        for number in experiment.paper:
            at = experiment.x.place_of(number.x) if number.x is not None else 0 if len(places) == 1 else None
            key = None if at is None else (number.panel, number.series, places[at].label)
            if key is None or key in placed or self.result.cell(*key) is None:
                others.append(number)
            else:
                placed[key] = number
        return placed, others


@dataclass(frozen=True)
class Run:
    """A row of the list of runs. accuracy: by level and view, of the run's own evaluation: share, interval, number.

    settings: in what it is not as most runs of its task and strategy. used_by: names of artifacts. later: what was
    measured on it after training.
    """

    name: str
    strategy: str
    task: str
    seed: int
    num_examples: int
    settings: str
    accuracy: Mapping[tuple[str, str], tuple[float, float, float, int]]
    seconds: float | None
    machine: str
    commit: str
    time: str
    used_by: tuple[str, ...]
    later: tuple[str, ...]


@dataclass(frozen=True)
class Report:
    """Everything there is to say. `records`: those behind the artifacts; `others`: names of further ones.

    time: when it was made. version: of the code that made it. faults: what was damaged and passed over.
    """

    name: str
    study: Study
    scale: str
    time: str
    version: str
    verdicts: tuple[Verdict, ...]
    artifacts: tuple[Artifact, ...]
    records: tuple[Record, ...]
    others: tuple[str, ...]
    examples: tuple[Example, ...]
    faults: tuple[str, ...]

    @cached_property
    def runs(self) -> tuple[Run, ...]:
        """Sort runs by task, strategy, number of examples and seed."""
        used_by = users(artifact.result for artifact in self.artifacts)
        settings = unusual(self.records)
        rows = [_run(record, settings[record.run], used_by.get(record.run, ())) for record in self.records]
        return tuple(sorted(rows, key=lambda run: (run.task, run.strategy, run.num_examples, run.seed, run.name)))

    @property
    def evaluated(self) -> list[tuple[str, str]]:
        """Return levels and views of the runs, in the order of columns."""
        found = {place for run in self.runs for place in run.accuracy}
        return sorted(found, key=lambda place: (rank(LEVELS, place[0]), rank(VIEWS, place[1]), place))

    @property
    def commits(self) -> list[tuple[str, int]]:
        """Return versions of the code of the runs, each with their number."""
        return Counter(run.commit for run in self.runs).most_common()

    @property
    def machines(self) -> list[tuple[str, int]]:
        return Counter(run.machine for run in self.runs).most_common()

    @property
    def hours(self) -> float:
        """Sum the hours of training, all runs together, where it was measured."""
        return sum(run.seconds or 0.0 for run in self.runs) / 3600


def paper_order(place: str) -> tuple[bool, str, int, int, int, str]:
    """Sort `figure 5, section 4.1` and `table 8, appendix G.2`: by the first section named, then by the number."""
    section = re.search(r"(?:sections?|appendix|appendices)\s+(?:([A-Z])|(\d+))(?:\.(\d+))?", place)
    letter, chapter, part = section.groups() if section else ("~", None, None)
    number = re.search(r"\d+", place)
    return (bool(letter), letter or "", int(chapter or 0), int(part or 0), int(number.group()) if number else 0, place)


def representatives(records: Sequence[Record], used: Mapping[str, tuple[str, ...]]) -> list[Record]:
    """Return one run of each task and strategy, in the order of `used` (users): that which most artifacts use."""
    order = {run: number for number, run in enumerate(used)}
    strategies: dict[tuple[str, str], list[Record]] = {}
    for record in sorted(records, key=lambda record: order[record.run]):
        key = (str(record.config["task"]["name"]), str(record.config["supervision"]["name"]))
        strategies.setdefault(key, []).append(record)
    return [
        max(group, key=lambda record: (len(used[record.run]), -int(record.config.get("seed", 0))))
        for group in strategies.values()
    ]


def users(results: Any) -> dict[str, tuple[str, ...]]:
    """Return names of the artifacts that use a run, by its name, `fig5` for `s2h/fig5`."""
    found: dict[str, dict[str, None]] = {}
    for result in results:
        for cell in result.cells:
            for run in cell.runs:
                found.setdefault(run, {})[result.name.rpartition("/")[2]] = None
    return {run: tuple(names) for run, names in found.items()}


def seeds_and_runs(cell: CellResult) -> list[tuple[int, str]]:
    """Return the runs behind a cell, each with its seed."""
    seeds = [one.seed for one in (cell.samples or cell.curves)]
    return list(zip(seeds, cell.runs, strict=True)) if cell.runs else []  # numbers from elsewhere have none


def _run(record: Record, settings: str, used_by: tuple[str, ...]) -> Run:
    """Raises ValueError for a record that lacks what every run has."""
    evaluation = record.evaluation(None, "auto")
    hardware, seconds = record.provenance["hardware"], record.cost.get("seconds")
    try:
        accuracy = {
            (cell.level, cell.view): (
                float(cell.row["correct"]) / max(1, int(cell.row["num"])),
                float(cell.row["ci_low"]),
                float(cell.row["ci_high"]),
                int(cell.row["num"]),
            )
            for cell in (evaluation.cells if evaluation else ())
        }
        gpus, cores = hardware.get("gpus") or (), hardware.get("cores")
        machine = str(gpus[0]) if gpus else f"{hardware['cpu']}{f', {cores} cores' if cores else ''}"
        return Run(
            name=record.run,
            strategy=str(record.config["supervision"]["name"]),
            task=str(record.config["task"]["name"]),
            seed=int(record.config.get("seed", 0)),
            num_examples=int(record.config["scale"]["num_examples"]),
            settings=settings,
            accuracy=accuracy,
            seconds=None if seconds is None else float(seconds),
            machine=machine,
            commit=record.commit,
            time=str(record.provenance["time"])[:16].replace("T", " "),
            used_by=used_by,
            later=tuple(
                [f"{one.task} ({one.asked})" for one in record.evaluations if not one.own]
                + [str(name) for name in record.analyses]
            ),
        )
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ValueError(f"{record.path}: damaged record ({type(error).__name__}: {error})") from None


def check(record: Record) -> None:
    """Raise ValueError where a record lacks what the report shows of every run."""
    _run(record, "", ())
    for evaluation in record.evaluations:
        words = [evaluation.task, *(word for cell in evaluation.cells for word in (cell.level, cell.view))]
        if not isinstance(evaluation.identity, Mapping) or not all(isinstance(word, str) for word in words):
            raise ValueError(f"{record.path}: damaged record (evaluation of {evaluation.task})")


_SHOWN_APART = re.compile(r"(^seed|^out|num_examples|^evaluation\..*|^trainer\..*|^logger\..*)$")


def unusual(records: Sequence[Record]) -> dict[str, str]:
    """Say in what each run is not as most runs of its task and strategy are, by its name."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for record in records:
        groups.setdefault((str(record.config["task"]["name"]), str(record.config["supervision"]["name"])), []).append(
            record
        )
    found = {}
    for group in groups.values():
        flat = {record.run: dict(_flat(record.config)) for record in group}
        keys = dict.fromkeys(key for one in flat.values() for key in one if not _SHOWN_APART.search(key))
        usual = {key: Counter(one.get(key, "none") for one in flat.values()).most_common(1)[0][0] for key in keys}
        for run, one in flat.items():
            found[run] = ", ".join(f"{k}={one.get(k, 'none')}" for k in keys if one.get(k, "none") != usual[k])
    return found


def _flat(data: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(data, Mapping) and data:
        for key, value in data.items():
            yield from _flat(value, f"{prefix}.{key}" if prefix else str(key))
    else:
        yield prefix, str(data)


def rank(order: Sequence[str], word: str) -> int:
    """Return the place of a word in an order; words that it lacks come last."""
    return order.index(word) if word in order else len(order)
