"""Experiments by their names: their files, the runs they need, the records that there are.

`experiments/<study>/study.yaml` says what the artifacts of a study share at each scale, `<artifact>.yaml` is one table
or figure (vlmreason.report.experiment), `results/<scale>/` holds the records that came with this package.
"""

from __future__ import annotations

import copy
import functools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from vlmreason.commands import catalog, identity
from vlmreason.structure import nearest, read_yaml, structure

NOT_ARTIFACTS = ("study", "claims")


def folder() -> Path:
    """The folder of the experiments. Raises ValueError."""
    return catalog.data_dir("experiments")


@functools.cache
def names() -> tuple[str, ...]:
    """All artifacts, as `s2h/fig5`, figures and tables by their numbers."""
    found = [path.relative_to(folder()).with_suffix("") for path in folder().glob("*/*.yaml")]
    artifacts = [path.as_posix() for path in found if path.name not in NOT_ARTIFACTS]
    return tuple(sorted(artifacts, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)]))


def chosen(word: str | Sequence[str]) -> list[str]:
    """The artifacts of `s2h/fig5`, of a list, of `glob(s2h/*)`. Raises ValueError."""
    found: list[str] = []
    for one in [word] if isinstance(word, str) else word:
        pattern = re.fullmatch(r"glob\((.+)\)", one)
        matches = [name for name in names() if (fnmatchcase(name, pattern.group(1)) if pattern else name == one)]
        if not matches:
            raise ValueError(
                f"experiment={one}: no such experiment; there are {', '.join(names())}{nearest(one, names())}"
            )
        found += matches
    return list(dict.fromkeys(found))


def read_study(study: str) -> Any:
    """The study (vlmreason.report.experiment.Study). Raises ValueError."""
    from vlmreason.report.experiment import Study

    path = folder() / study / "study.yaml"
    return _structured(Study, _load(path), path)


def read_experiment(name: str, scale: str) -> Any:
    """An artifact at a scale (vlmreason.report.experiment.Experiment). Raises ValueError."""
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    from vlmreason.report.experiment import Experiment

    study, path = read_study(name.partition("/")[0]), folder() / f"{name}.yaml"
    if scale not in study.scales:
        raise ValueError(f"scale={scale}: {path.parent.name} has {', '.join(study.scales)}")
    values = dict(study.scales[scale].values)
    root = OmegaConf.create({**values, "at_paper": dict(study.scales["paper"].values), "experiment": _load(path)})
    try:
        data: Any = OmegaConf.to_container(root.experiment, resolve=True)
    except OmegaConfBaseException as error:
        raise ValueError(f"{path}: {str(error).splitlines()[0]}") from None
    data["set"] = {**study.scales[scale].set, **data.get("set", {})}
    return _structured(Experiment, data, path)


def asked(experiment: Any, analyses: Mapping[str, Any], extra: Sequence[str] = ()) -> Iterator[tuple[Any, Any, Any]]:
    """What an artifact asks of runs: a run's settings, a measure, and the command after training that makes it or None.

    A run comes as often as something is asked of it. `extra`: further settings as `key=value`.
    """
    from vlmreason.report.experiment import follow_up

    typed = with_extra({}, extra)
    for cell in experiment.cells():
        command = follow_up(cell.measure, analyses, cell.set.get("task"))
        for job in cell.jobs():
            yield {**job, **typed}, cell.measure, command


def settings_key(settings: Mapping[str, Any]) -> str:
    """The same for the same settings, in whatever order."""
    return repr(sorted(settings.items(), key=str))


def needed(name: str, scale: str, extra: Sequence[str] = ()) -> list[tuple[dict[str, Any], list[tuple[str, ...]]]]:
    """Every run of an artifact once: its settings, and the commands that follow training.

    `extra`: further settings as `key=value`.
    """
    analyses = read_study(name.partition("/")[0]).scales[scale].analyses
    runs: dict[str, tuple[dict[str, Any], list[tuple[str, ...]]]] = {}
    for settings, _, command in asked(read_experiment(name, scale), analyses, extra):
        _, commands = runs.setdefault(settings_key(settings), (settings, []))
        if command and command not in commands:
            commands.append(command)
    return list(runs.values())


def with_extra(settings: Mapping[str, Any], extra: Sequence[str]) -> dict[str, Any]:
    """`settings` with those typed by the user (`key=value`), which win."""
    from omegaconf import OmegaConf

    return {
        **settings,
        **{key: OmegaConf.create(f"v: {value}").v for key, _, value in (w.partition("=") for w in extra)},
    }


def overrides(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of `vlmreason train`."""
    from vlmreason.commands.freezing import override_value

    return [f"{key}={override_value(_plain(value))}" for key, value in settings.items()]


class Composer:
    """Resolved configurations of `vlmreason train`.

    Composing and resolving take most of a figure's time: it is composed once per choice of groups and resolved once
    for all seeds, to which no other setting refers.
    """

    def __init__(self) -> None:
        self._bases: dict[tuple[str, ...], Any] = {}
        self._resolved: dict[tuple[str, ...], dict[str, Any]] = {}

    def config(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Raises ValueError for settings that do not exist."""
        words = tuple(overrides({key: value for key, value in settings.items() if key != "seed"}))
        if words not in self._resolved:
            self._resolved[words] = self._resolve(settings)
        return self._resolved[words] | ({"seed": settings["seed"]} if "seed" in settings else {})

    def _resolve(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        from hydra import compose
        from hydra.errors import HydraException
        from omegaconf import OmegaConf
        from omegaconf.errors import OmegaConfBaseException

        from vlmreason.commands import errors, runner

        groups = catalog.groups()
        choices = {key: value for key, value in settings.items() if key.partition("@")[0] in groups}
        values = {key: value for key, value in settings.items() if key not in choices}
        words, all_words = tuple(overrides(choices)), overrides(settings)
        try:
            errors.check_words("train", all_words)
            if any(isinstance(value, Mapping) or key[0] in "+~" for key, value in values.items()):
                return runner.resolve(compose("train", all_words), all_words)
            if words not in self._bases:
                self._bases[words] = compose("train", list(words))
            cfg = copy.deepcopy(self._bases[words])
            for key, value in values.items():
                OmegaConf.update(cfg, key, value, merge=False)
        except (HydraException, OmegaConfBaseException) as error:
            raise errors.explain("train", all_words, error) from error
        return runner.resolve(cfg, all_words)


class Library:
    """The records that are there: those that came with the package and those of the runs on this machine."""

    def __init__(self, scale: str, studies: Iterable[str], runs: Path) -> None:
        from vlmreason.report.records import read_records

        self.faults: list[str] = []
        self.records: list[Any] = []
        for study in studies:
            found, faults = read_records(folder() / study / "results" / scale)
            self.records += found
            self.faults += faults
        self.records += self._local(runs)
        self.records = _newest_and_fullest(self.records)
        self.composer = Composer()
        self._places: dict[tuple[str, str, int], list[Any]] = {}
        for record in self.records:
            self._places.setdefault(_place(record.config), []).append(record)
        for fault in self.faults:
            print(f"vlmreason: {fault}; it is passed over", file=sys.stderr)

    def find(self, settings: Mapping[str, Any]) -> Any:
        """The record of a run by its settings (vlmreason.report.results.Found), or None.

        Exactly that run, or one made before settings were added that `settings` does not name; the newest.
        """
        from vlmreason.report.results import Found

        wanted = self.composer.config(settings)
        best = None
        for record in self._places.get(_place(wanted), []):
            difference = identity.difference_of_common(record.config, wanted, settings)
            if difference is None:
                continue
            mark = "" if not difference else f"made before the settings {', '.join(difference)}"
            rank = (not difference, str(record.provenance["time"]))
            if best is None or rank >= best[0]:
                best = (rank, Found(record, mark))
        return best and best[1]

    def _local(self, runs: Path) -> Iterator[Any]:
        from vlmreason.report.records import each_run

        for run in each_run(runs) if runs.is_dir() else ():
            try:
                yield local_record(run)
            except (ValueError, OSError) as error:
                self.faults.append(str(error))


def _newest_and_fullest(records: Iterable[Any]) -> list[Any]:
    """One record of each run: the newest, of those the one that holds most, rather that of this machine."""
    kept: dict[str, Any] = {}
    for record in sorted(records, key=lambda record: (str(record.provenance["time"]), record.fullness)):
        kept[record.run] = record
    return list(kept.values())


def local_record(run: Path) -> Any:
    """The record of a run directory, kept beside it until something there changes. Raises ValueError."""
    from vlmreason.commands import build
    from vlmreason.files import write_json_atomic
    from vlmreason.report.records import Record, condense, fingerprint

    path, made_of = run / "record.json", fingerprint(run)
    if path.exists():
        held = identity.read_json_or_none(path)
        if isinstance(held, dict) and held.get("made_of") == made_of:
            return Record(held["record"], run)
    config = identity.read_config(run)
    kept = {key: value for key, value in config.items() if key != "out"}  # a path of this machine
    record = condense(run, kept, lambda held: build.evaluated_task(held, run, config))
    write_json_atomic(path, {"made_of": made_of, "record": record.data})
    return record


def _place(config: Mapping[str, Any]) -> tuple[str, str, int]:
    return str(config["task"]["name"]), str(config["supervision"]["name"]), int(config.get("seed", 0))


def _load(path: Path) -> dict[str, Any]:
    data = read_yaml(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: settings are expected")
    return data


def _structured(kind: Any, data: Any, path: Path) -> Any:
    try:
        return structure(kind, data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _plain(value: Any) -> Any:
    return [_plain(below) for below in value] if isinstance(value, (list, tuple)) else value


def studies(artifacts: Sequence[str]) -> list[str]:
    """Their studies, each once."""
    return list(dict.fromkeys(name.partition("/")[0] for name in artifacts))


def collect(name: str, scale: str, library: Library, extra: Sequence[str] = ()) -> Any:
    """The numbers of an artifact (vlmreason.report.results.Result)."""
    from vlmreason.report import results
    from vlmreason.report.writing import read_numbers

    experiment = read_experiment(name, scale)
    numbers = read_numbers(folder() / name.partition("/")[0] / experiment.numbers) if experiment.numbers else None
    typed = with_extra({}, extra)
    return results.collect(name, scale, experiment, lambda settings: library.find({**settings, **typed}), numbers)


def line(result: Any) -> str:
    """What is there of an artifact, and the command that makes the rest."""
    missing = sum(bool(missing.set) for missing in result.missing)
    scale = "" if result.scale == "nano" else f" scale={result.scale}"
    rest = f"; missing {missing}: vlmreason sweep experiment={result.name}{scale}" if missing else ""
    if elsewhere := len(result.missing) - missing:
        rest += f"; {elsewhere} numbers are not in {result.experiment.numbers} yet"
    return f"{result.name}: {result.num_runs} run{'' if result.num_runs == 1 else 's'}{rest}"


def check_scale_words(words: Sequence[str]) -> None:
    """Raises ValueError for settings of the scale, which is only chosen here."""
    for word in words:
        if word.startswith("scale."):
            key = word.partition("=")[0]
            raise ValueError(f"{key}: has no effect here; settings of the runs are written set='[{word}]'")
