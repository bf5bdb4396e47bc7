"""The records of runs that there are, and what an artifact shows of them."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from vlmreason import runs
from vlmreason.files import write_json_atomic
from vlmreason.structure import one_line
from vlmreason.studies import results
from vlmreason.studies.artifacts import folder, read_experiment, read_numbers
from vlmreason.studies.experiment import Cell
from vlmreason.studies.measures import Measure
from vlmreason.studies.records import Record, condense, each_run, fingerprint, read_records
from vlmreason.studies.results import Found

Config = Mapping[str, Any]
Compose = Callable[[Mapping[str, Any]], dict[str, Any]]
LoadTask = Callable[[Config, Path, Config], Any]
Pose = Callable[[Config, str | None], tuple[Any, str, int]]
"""The task of a name (None: its own) that a run of a configuration is evaluated on, the split, the problems' number."""


class Library:
    """The records that are there: those that came with the package and those of the runs on this machine.

    compose: the resolved configuration of a run's settings. load_task: the task of an evaluation.json (its content, the
    run's directory and configuration). pose: what a run of a configuration is asked (`Pose`).
    """

    def __init__(
        self,
        scale: str,
        studies: Iterable[str],
        runs: Path,
        compose: Compose,
        load_task: LoadTask,
        pose: Pose | None = None,
    ) -> None:
        self.compose, self.load_task, self.pose = compose, load_task, pose
        self._floors: dict[str, list[Mapping[str, float]]] = {}
        self.faults: list[str] = []
        self.records: list[Any] = []
        for study in studies:
            found, faults = read_records(folder() / study / "results" / scale)
            self.records += found
            self.faults += faults
        self.records += self._local(runs)
        self.records = _newest_and_fullest(self.records)
        self._places: dict[tuple[str, str, int], list[tuple[Any, Config]]] = {}
        self._found: dict[str, Found | None] = {}
        for record in self.records:
            self._places.setdefault(_place(record.config), []).append((record, _identity(record)))
        for fault in self.faults:
            print(f"vlmreason: {one_line(fault)}; it is passed over", file=sys.stderr)

    def find(self, settings: Mapping[str, Any]) -> Any:
        """Return the record of a run by its settings (vlmreason.studies.results.Found), or None.

        Exactly that run, or one made before settings were added that `settings` does not name, or with another base
        than the one that is here; the newest. What it is not is its mark.
        """
        key = repr(sorted(settings.items(), key=str))
        if key not in self._found:
            self._found[key] = self._find(settings)
        return self._found[key]

    def _find(self, settings: Mapping[str, Any]) -> Found | None:
        config = self.compose(settings)
        wanted, best = runs.identity(config), None
        base = runs.base_digest(config.get("model", {}))
        for record, held in self._places.get(_place(config), []):
            difference = runs.difference_of_identities(held, wanted, settings)
            if difference is None:
                continue
            marks = [f"made before the settings {', '.join(difference)}"] if difference else []
            marks += [other] if (other := another_base(record, base)) else []
            mark = "; ".join(marks)
            rank = (not other, not difference, str(record.provenance["time"]))
            if best is None or rank >= best[0]:
                best = (rank, Found(record, mark))
        return best and best[1]

    def floor(self, settings: Mapping[str, Any], measure: Measure) -> list[float]:
        """Return what an answer has of each problem that is asked for (`Task.floors`); settings: of the run. Raises
        ValueError."""
        assert self.pose is not None
        task, split, num = self.pose(self.compose(settings), measure.task)
        level = measure.level or task.levels[0]
        key = repr((task.name, vars(task.sizes), level, split, num))
        if key not in self._floors:
            problems = (task.sample(level, split, index) for index in task.first(level, split, num))
            self._floors[key] = [task.floors(problem.state) for problem in problems]
        known = {name for floors in self._floors[key] for name in floors}
        if measure.name not in known:
            has = ", ".join(sorted(known)) or "none"
            raise ValueError(f"measure.what={measure.what}: of level {level} of {task.name} are known: {has}")
        return [floors[measure.name] for floors in self._floors[key]]

    def _local(self, folder: Path) -> Iterator[Any]:
        for run in each_run(folder) if folder.is_dir() else ():
            try:
                yield local_record(run, self.load_task)
            except (ValueError, OSError) as error:
                self.faults.append(str(error) if str(run) in str(error) else f"{run}: {error}")


def another_base(record: Record, base: str | None) -> str:
    """Say that a run began with another base than this one (`runs.base_digest`); "" where it did not, or there is none.

    A record that notes none is of the first bases.
    """
    held = record.provenance.get("base") or runs.first_base(record.config.get("model", {}))
    return f"made with another base, {held[:8]}" if base and held and held != base else ""


def _newest_and_fullest(records: Iterable[Any]) -> list[Any]:
    """One record of each run: the newest, of those the one that holds most, rather that of this machine."""
    kept: dict[str, Any] = {}
    for record in sorted(records, key=lambda record: (str(record.provenance["time"]), record.fullness)):
        kept[record.run] = record
    return list(kept.values())


def local_record(run: Path, load_task: LoadTask) -> Record:
    """Read or make the record of a run directory, kept beside it until something there changes. Raises ValueError."""
    path, made_of = run / "record.json", fingerprint(run)
    if path.exists():
        held = runs.read_json_or_none(path)
        if isinstance(held, dict) and held.get("made_of") == made_of and isinstance(held.get("record"), dict):
            with contextlib.suppress(ValueError):  # damaged: it is made again
                return Record(held["record"], run)
    config = runs.read_config(run)
    kept = {key: value for key, value in config.items() if key != "out"}  # a path of this machine
    record = condense(run, kept, lambda held: load_task(held, run, config))
    write_json_atomic(path, {"made_of": made_of, "record": record.data})
    return record


def _identity(record: Record) -> dict[str, Any]:
    return runs.identity(record.config)


def _place(config: Config) -> tuple[str, str, int]:
    for group in ("task", "supervision"):
        if not isinstance(config.get(group), Mapping):
            raise ValueError(f"{group}: must be chosen for every run of an experiment")
    return str(config["task"]["name"]), str(config["supervision"]["name"]), int(config.get("seed", 0))


def collect(name: str, scale: str, library: Library, extra: Mapping[str, Any]) -> results.Result:
    """Collect the numbers of an artifact; `extra`: settings of all its runs that win, and are marked where the
    experiment states others."""
    experiment = read_experiment(name, scale)
    numbers = read_numbers(folder() / name.partition("/")[0] / experiment.numbers) if experiment.numbers else None

    def find(settings: Mapping[str, Any]) -> Found | None:
        found: Found | None = library.find({**settings, **extra})
        others = [
            f"{key}={value}, where the experiment states {settings[key]}"
            for key, value in extra.items()
            if key in settings and settings[key] != value
        ]
        return found and replace(found, mark="; ".join([*([found.mark] if found.mark else []), *others]))

    def floors(cell: Cell) -> list[float]:
        return library.floor({**cell.set, **extra}, cell.measure)

    return results.collect(name, scale, experiment, find, numbers, floors if library.pose else None)


def line(result: Any) -> str:
    """Return what is there of an artifact, and the command that makes the rest."""
    missing = sum(bool(missing.set) for missing in result.missing)
    scale = "" if result.scale == "nano" else f" scale={result.scale}"
    rest = f"; missing {missing}: vlmreason sweep experiment={result.name}{scale}" if missing else ""
    if elsewhere := len(result.missing) - missing:
        rest += f"; {elsewhere} numbers are not in {result.experiment.numbers} yet"
    return f"{result.name}: {result.num_runs} run{'' if result.num_runs == 1 else 's'}{rest}"
