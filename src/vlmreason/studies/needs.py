"""What experiments need of runs: which runs, and the commands after training whose outcome they show."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmreason import runs
from vlmreason.studies.artifacts import read_experiment, read_study
from vlmreason.studies.library import Library
from vlmreason.studies.measures import is_made

NOTHING: Mapping[str, Any] = {}


def asked(
    experiment: Any, analyses: Mapping[str, Any], extra: Mapping[str, Any] = NOTHING
) -> Iterator[tuple[Any, Any, Any]]:
    """Return what an artifact asks of runs: a run's settings, a measure, and the command after training that makes it
    or None.

    A run comes as often as something is asked of it. `extra`: settings of all runs that win.
    """
    for cell in experiment.cells():
        command = experiment.follow_up(cell, analyses)
        for job in cell.jobs():
            yield {**job, **extra}, cell.measure, command


def settings_key(settings: Mapping[str, Any]) -> str:
    """Return the same for the same settings, in whatever order."""
    return repr(sorted(settings.items(), key=str))


def needed(
    name: str, scale: str, extra: Mapping[str, Any] = NOTHING
) -> list[tuple[dict[str, Any], list[tuple[str, ...]]]]:
    """Return every run of an artifact once: its settings, and the commands that follow training.

    `extra`: settings of all runs that win.
    """
    analyses = read_study(name.partition("/")[0]).scales[scale].analyses
    found: dict[str, tuple[dict[str, Any], list[tuple[str, ...]]]] = {}
    for settings, _, command in asked(read_experiment(name, scale), analyses, extra):
        _, commands = found.setdefault(settings_key(settings), (settings, []))
        if command and command not in commands:
            commands.append(command)
    return list(found.values())


@dataclass
class Need:
    """A run of one or several experiments.

    settings: of `vlmreason train`; config: what they come to. found: its record (vlmreason.studies.results.Found), None
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
        """Say where the run lies on this machine."""
        return self.found.record.path if self.found and self.found.record.path.is_dir() else None


def needs(names: Sequence[str], scale: str, library: Library, extra: Mapping[str, Any] = NOTHING) -> list[Need]:
    """Return all runs of these experiments. `extra`: settings of all runs that win. Raises ValueError."""
    by_settings: dict[str, Need] = {}
    by_hash: dict[str, Need] = {}
    for name in names:
        experiment = read_experiment(name, scale)
        analyses = read_study(name.partition("/")[0]).scales[scale].analyses
        for settings, measure, command in asked(experiment, analyses, extra):
            key = settings_key(settings)
            if key not in by_settings:
                config = library.compose(settings)
                digest = runs.config_hash(config)
                if digest not in by_hash:
                    by_hash[digest] = Need(settings, config, library.find(settings))
                by_settings[key] = by_hash[digest]
            _note(by_settings[key], measure, command, experiment.draw)
    return list(by_hash.values())


def _note(need: Need, measure: Any, command: tuple[str, ...] | None, draw: str) -> None:
    need.draws.add(draw)
    if command is not None and command not in need.commands:
        need.commands.append(command)
    if need.found is None or is_made(need.found.record, measure):
        return
    if command is None:
        need.found = None  # without an evaluation of its own
    elif command not in need.lacking:
        need.lacking.append(command)
