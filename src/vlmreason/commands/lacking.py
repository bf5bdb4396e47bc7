"""What experiments lack: the runs they need, what is there of them, and the jobs of a sweep that make the rest."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmreason.commands import experiments, freezing, identity


@dataclass
class Need:
    """A run of one or several experiments.

    settings: of `vlmreason train`; config: what they come to. found: its record (vlmreason.report.results.Found), None
    where it is not trained and evaluated. commands: what follows training; lacking: those whose outcome a record that
    is there does not have. draws: how the experiments show it.
    """

    settings: dict[str, Any]
    config: dict[str, Any]
    found: Any
    commands: list[tuple[str, ...]] = field(default_factory=list)
    lacking: list[tuple[str, ...]] = field(default_factory=list)
    draws: set[str] = field(default_factory=set)

    @property
    def is_met(self) -> bool:
        return self.found is not None and not self.lacking

    @property
    def run_dir(self) -> Path | None:
        """Where the run lies on this machine."""
        return self.found.record.path if self.found and self.found.record.path.is_dir() else None


def needs(names: Sequence[str], scale: str, library: experiments.Library, extra: Sequence[str] = ()) -> list[Need]:
    """All runs of these experiments. `extra`: further settings as `key=value`. Raises ValueError."""
    by_settings: dict[str, Need] = {}
    by_hash: dict[str, Need] = {}
    for name in names:
        experiment = experiments.read_experiment(name, scale)
        analyses = experiments.read_study(name.partition("/")[0]).scales[scale].analyses
        for settings, measure, command in experiments.asked(experiment, analyses, extra):
            key = experiments.settings_key(settings)
            if key not in by_settings:
                config = library.composer.config(settings)
                digest = identity.config_hash(config)
                if digest not in by_hash:
                    by_hash[digest] = Need(settings, config, library.find(settings))
                by_settings[key] = by_hash[digest]
            _note(by_settings[key], measure, command, experiment.draw)
    return list(by_hash.values())


def _note(need: Need, measure: Any, command: tuple[str, ...] | None, draw: str) -> None:
    need.draws.add(draw)
    if command is not None and command not in need.commands:
        need.commands.append(command)
    if need.found is None or _is_made(need.found.record, measure):
        return
    if command is None:
        need.found = None  # without an evaluation of its own
    elif command not in need.lacking:
        need.lacking.append(command)


def _is_made(record: Any, measure: Any) -> bool:
    """Whether training and its follow-up have done what they can for a measure; what is not in there never will be."""
    if measure.kind == "training":
        return record.evaluation(None, "auto") is not None
    if measure.kind == "evaluation":
        return record.evaluation(measure.task, measure.conversion) is not None
    return measure.kind in record.analyses


@dataclass(frozen=True)
class Planned:
    """A job in the making. run_dir: of a run that is there already under another name; None: that of the config."""

    overrides: list[str]
    config: dict[str, Any]
    then: tuple[tuple[str, ...], ...] = ()
    run_dir: Path | None = None

    @property
    def place(self) -> Path:
        return self.run_dir or Path.cwd() / identity.run_directory(self.config)


def jobs(names: Sequence[str], scale: str, runs: str, extra: Sequence[str] = ()) -> list[Planned]:
    """Runs to be trained, and runs of which something is still to be measured. Says how many are complete.

    `runs`: the folder where they are and go. Raises ValueError.
    """
    library = experiments.Library(scale, experiments.studies(names), Path(runs))
    every = needs(names, scale, library, extra)
    unmet = [need for need in every if not need.is_met]
    planned = []
    for place, need in enumerate(unmet):
        show_progress("checking job", place, len(unmet))
        config, then, run_dir = need.config | {"out": runs}, need.commands, need.run_dir
        if run_dir is None:
            freezing.check(config, "train")
        else:
            then = need.lacking
            config = identity.read_config(run_dir) if need.found.mark else config
        overrides = [*experiments.overrides(need.settings), f"out={freezing.override_value(runs)}"]
        planned.append(Planned(overrides, config, tuple(then), run_dir and run_dir.absolute()))
    trained = sum(need.run_dir is not None for need in unmet)
    more = f", {trained} more trained, without all that is measured afterwards" if trained else ""
    print(f"{len(every) - len(unmet)} of {len(every)} runs are there already{more}")
    return planned


def in_sweeps(folder: Path, planned: Sequence[Planned]) -> Iterator[tuple[Path, list[Any]]]:
    """Sweeps below a folder that have some of these jobs on their way, with the rows of these (launch.status.Row)."""
    from vlmreason.launch import directory, status

    wanted = {str(job.place): set(job.then) for job in planned}
    for path in sorted(folder.glob("*/sweep.json")):
        try:
            sweep = directory.read_sweep(path.parent, complete=False)
        except ValueError as error:
            print(f"vlmreason: {error}; it is passed over", file=sys.stderr)
            continue
        same = {j.number for j in sweep.jobs if j.run_dir in wanted and wanted[j.run_dir] <= set(j.then)}
        if sweep.complete and same:
            rows = [row for row in status.observe(path.parent, sweep) if row.number in same and row.state in ON_THE_WAY]
            if rows:
                yield path.parent, rows


ON_THE_WAY = ("waiting", "submitted", "running", "stopped", "lost")  # what failed is planned again, from today's source


def name(names: Sequence[str], scale: str) -> str:
    """Of a sweep: s2h-fig5, s2h-fig5-table8, s2h for all of a study; other scales than nano behind it."""
    found = []
    for study in experiments.studies(names):
        own = [name.partition("/")[2] for name in names if name.startswith(f"{study}/")]
        is_all = 1 < len(own) == sum(name.startswith(f"{study}/") for name in experiments.names())
        found += [study, *([] if is_all else own if len(own) < 4 else [own[0], f"and-{len(own) - 1}-more"])]
    return "-".join([*found, *([] if scale == "nano" else [scale])])


def last_folder(first: Path) -> Path:
    """Of the sweeps of the same experiments, whose directories are `first`, then first-2, first-3 and so on."""
    return [folder for folder in _numbered(first) if folder == first or folder.exists()][-1]


def free_folder(first: Path) -> Path:
    """Where the next sweep of the same experiments goes; an interrupted plan is completed."""
    from vlmreason.launch import directory

    last = last_folder(first)
    if not (last / "sweep.json").exists():
        return last
    try:
        is_taken = directory.read_sweep(last, complete=False).complete
    except ValueError:  # damaged; `in_sweeps` has said it
        is_taken = True
    return list(_numbered(first))[-1] if is_taken else last


def _numbered(first: Path) -> Iterator[Path]:
    """`first`, the directories after it, and the first one that is not there."""
    for number in itertools.count(1):
        folder = first if number == 1 else first.with_name(f"{first.name}-{number}")
        yield folder
        if not folder.exists():
            return


def show_progress(what: str, place: int, number: int) -> None:
    if number > 20 and sys.stderr.isatty():
        end = "\n" if place + 1 == number else "\r"
        print(f"vlmreason: {what} {place + 1} of {number}", end=end, file=sys.stderr)
