"""Plan many runs, send them to this machine or a cluster, see where they are, restart what failed.

A plan is frozen: every job keeps its resolved configuration, the commit, the uncommitted changes and a copy of
the source, so that nothing edited while jobs wait changes them. The first word says what to do; without one
the sweep is planned and submitted. Submitting returns at once.

  plan    write the jobs of a plan into a directory
  submit  send the jobs that were not sent yet
  status  show where they are; watch=true refreshes, format=json is for programs
  resume  send again what failed, was stopped or got lost; what is done is left alone

Examples:
  vlmreason sweep plan=smoke
  vlmreason sweep plan plan=s2h_nano dir=outputs/sweeps/nano set='[scale.num_examples=12000]'
  vlmreason sweep submit dir=outputs/sweeps/nano profile=slurm jobs=[0,1,2]
  vlmreason sweep status dir=outputs/sweeps/nano
  vlmreason sweep resume dir=outputs/sweeps/nano
"""

from __future__ import annotations

import importlib
import itertools
import re
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CONFIG = "sweep"
ACTIONS = ("plan", "submit", "status", "resume")


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/sweep.yaml."""

    action: Literal["start", "plan", "submit", "status", "resume"]
    plan: str | None
    set: tuple[str, ...]
    dir: str | None
    profile: str | None
    jobs: tuple[int, ...] | None
    watch: bool
    format: Literal["table", "json"]

    def __post_init__(self) -> None:
        unused = {
            "start": {"jobs", "watch", "format"},
            "plan": {"profile", "jobs", "watch", "format"},
            "submit": {"set", "watch", "format"},
            "status": {"set", "profile", "jobs"},
            "resume": {"set", "watch", "format"},
        }[self.action]
        defaults: dict[str, Any] = {"set": (), "profile": None, "jobs": None, "watch": False, "format": "table"}
        for name in sorted(unused):
            if getattr(self, name) != defaults[name]:
                raise ValueError(f"{name}: has no effect with {self.action}")
        if self.jobs == ():
            raise ValueError("jobs=[]: one number or more is expected; without jobs= all are taken")
        if self.watch and self.format == "json":
            raise ValueError("watch=true: has no effect with format=json")


@dataclass(frozen=True)
class Plan:
    """A file of sweeps/plans: the product of each grid's values, one grid after the other."""

    command: Literal["train"]
    grids: tuple[dict[str, Any], ...]

    def jobs(self) -> Iterator[list[str]]:
        """The overrides of every job."""
        for grid in self.grids:
            lists = [value if isinstance(value, list) else [value] for value in grid.values()]
            for values in itertools.product(*lists):
                yield [f"{key}={override_value(value)}" for key, value in zip(grid, values, strict=True)]


def run(cfg: dict[str, Any]) -> Path | None:
    """Do what the first word says; returns the sweep's directory, nothing for the status."""
    from vlmreason.commands import build
    from vlmreason.launch import directory

    own = build.settings(Settings, cfg)
    folder = _folder(own)
    if own.action == "status":
        _status(folder, own)
        return None
    if own.action in ("start", "plan"):
        profile = _profile(own.profile or "local") if own.action == "start" else None
        sweep, configs = _plan(own)
        with directory.locked(folder):
            _freeze(folder, sweep, configs)
            if profile:
                _submit(folder, own, profile)
        return folder
    directory.read_sweep(folder)  # before a lock file is made there
    with directory.locked(folder):
        if own.action == "submit":
            _submit(folder, own, _profile(own.profile or "local"))
        else:
            _resume(folder, own)
    return folder


def read_plan(word: str) -> Plan:
    """A plan by its name or file. Raises ValueError."""
    import yaml

    from vlmreason.commands import catalog
    from vlmreason.structure import structure

    path = catalog.sweep_file("plan", word)
    try:
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: {' '.join(str(error).split())}") from None
    try:
        plan = structure(Plan, data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    empty = [key for grid in plan.grids for key, value in grid.items() if value == []]
    if not plan.grids or empty:
        raise ValueError(f"{path}: {empty[0] if empty else 'grids'}: one value or more is expected")
    return plan


def override_value(value: Any) -> str:
    """A plain value as it is written behind key= on the command line."""
    if isinstance(value, str):
        if re.fullmatch(r"[A-Za-z_][\w./-]*", value) and value.lower() not in ("null", "true", "false", "nan", "inf"):
            return value
        escaped = value.replace("\\'", "\\\\'").replace("'", "\\'")
        return f"'{escaped}'"
    if isinstance(value, list):
        return "[" + ",".join(map(override_value, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{override_value(below)}" for key, below in value.items()) + "}"
    return "null" if value is None else str(value).lower()


def freeze(overrides: list[str], command: str) -> dict[str, Any]:
    """The configuration that `command` gets with these overrides, checked as the command checks it."""
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from vlmreason.commands import build, catalog, errors, runner

    try:
        errors.check_words(command, overrides)
        cfg = compose(catalog.commands()[command], overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise errors.explain(command, overrides, error) from error
    plain = runner.resolve(cfg, overrides)
    module = importlib.import_module(catalog.module_name(command))
    build.settings(module.Settings, plain)
    build.build_tasks(plain)
    for part in (build.build_optimizer, build.build_trainer, build.build_evaluation, build.build_adapter):
        part(plain)
    return plain


def _folder(own: Settings) -> Path:
    if own.dir:
        return Path(own.dir).resolve()
    if own.plan is None:
        raise ValueError(
            "plan: must be given (plan=...)"
            if own.action in ("start", "plan")
            else "dir: must be given (dir=..., or plan=... for outputs/sweeps/<plan>)"
        )
    return Path("outputs", "sweeps", Path(own.plan).stem).resolve()


def _profile(word: str) -> Any:
    """A launch profile by its name or file."""
    from vlmreason.commands import catalog, identity
    from vlmreason.launch.profiles import read_profile
    from vlmreason.structure import nearest, structure

    path = catalog.sweep_file("profile", word)
    profile = read_profile(path)
    allowed = [key.removeprefix("trainer.") for key in identity.NOT_IDENTITY if key.startswith("trainer.")]
    for key in profile.trainer:
        if key not in allowed:
            hint = nearest(key, allowed)
            raise ValueError(f"{path}: trainer.{key}: is no launch setting; there are {', '.join(allowed)}{hint}")
    if profile.trainer:
        from vlmreason.training.runner import TrainerSettings

        sizes = {"batch_size": 1, "micro_tokens": 1, "max_length": 1}  # of the job
        try:
            structure(TrainerSettings, {**profile.launch_trainer, **sizes}, "trainer")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return profile


def _plan(own: Settings) -> tuple[Any, list[str]]:
    """Compose and check every job: the sweep (launch.directory.Sweep) and the YAML of its configurations."""
    import yaml

    from vlmreason import provenance
    from vlmreason.commands import catalog, identity
    from vlmreason.launch import directory, status

    if own.plan is None:
        raise ValueError("plan: must be given (plan=...)")
    plan = read_plan(own.plan)
    jobs: list[directory.Job] = []
    configs: list[str] = []
    first: dict[str, int] = {}
    repeated: list[int] = []
    all_overrides = [[*overrides, *own.set] for overrides in plan.jobs()]
    keys = _varying(all_overrides)
    for place, overrides in enumerate(all_overrides):
        if len(all_overrides) > 20 and sys.stderr.isatty():
            end = "\n" if place + 1 == len(all_overrides) else "\r"
            print(f"vlmreason: composing job {place + 1} of {len(all_overrides)}", end=end, file=sys.stderr)
        try:
            cfg = freeze(overrides, plan.command)
        except ValueError as error:
            which = " ".join(word for word in overrides if word.partition("=")[0] in keys)
            raise ValueError(f"plan={own.plan}{f', {which}' if which else ''}: {error}") from error
        digest = identity.config_hash(cfg)
        if digest in first:
            repeated.append(first[digest])
            continue
        first[digest] = len(jobs)
        words = dict(override.partition("=")[::2] for override in overrides)
        jobs.append(
            directory.Job(
                number=len(jobs),
                run=identity.run_name(cfg),
                hash=digest,
                run_dir=str(Path.cwd() / identity.run_directory(cfg)),
                overrides=tuple(overrides),
                varying={key: words[key] for key in keys if key in words},
                steps=_steps(cfg),
            )
        )
        configs.append(yaml.dump(cfg, Dumper=_dumper(), sort_keys=False))
    if repeated:
        what = f"{status.num_jobs(len(repeated))} of the plan"
        print(
            f"vlmreason: {what} left out: the same run as another one, the first as job {repeated[0]}", file=sys.stderr
        )
    sweep = directory.Sweep(
        name=Path(own.plan).stem,
        command=plan.command,
        cwd=str(Path.cwd()),
        digest=directory.source_digest(catalog.conf_dir()),
        source=provenance.source(),
        jobs=tuple(jobs),
    )
    return sweep, configs


def _freeze(folder: Path, sweep: Any, configs: list[str]) -> None:
    from vlmreason.commands import catalog
    from vlmreason.launch import directory, status

    if directory.write_sweep(folder, sweep, configs, catalog.conf_dir()):
        print("vlmreason: the source has changed since this was planned; the jobs keep the frozen one", file=sys.stderr)
    print(f"{status.num_jobs(len(sweep.jobs))} planned")


def _dumper() -> Any:
    """Writes a list that stands in two places twice, instead of a reference."""
    import yaml

    return type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})


def _varying(all_overrides: Sequence[Sequence[str]]) -> list[str]:
    """The settings in which jobs differ."""
    values: dict[str, set[str | None]] = {}
    tables = [dict(override.partition("=")[::2] for override in overrides) for overrides in all_overrides]
    for key in (key for table in tables for key in table):
        values[key] = {table.get(key) for table in tables}
    return [key for key, found in values.items() if len(found) > 1]


def _steps(cfg: dict[str, Any]) -> dict[str, int]:
    """Optimizer steps of each phase."""
    from vlmreason.commands import build
    from vlmreason.data.mixture import mixtures

    batch_size = build.build_scale(cfg).batch_size
    supervision = build.build_supervision(cfg)
    return {
        name: -(-len(mixture) // (supervision.phases[name].batch_size or batch_size))
        for name, mixture in mixtures(supervision, cfg["task"]["name"], cfg["seed"]).items()
    }


def _submit(folder: Path, own: Settings, profile: Any) -> None:
    from vlmreason.launch import directory, status, submission

    sweep = directory.read_sweep(folder)
    rows = _chosen(status.observe(folder, sweep), own)
    numbers = [row.number for row in rows if row.state == "waiting"]
    _name_damaged(rows)
    if not numbers:
        print(f"nothing to submit: {status.counts(rows)}")
        return
    where = submission.send(folder, sweep, numbers, profile)
    print(f"{status.num_jobs(len(numbers))} submitted: {where}")


def _resume(folder: Path, own: Settings) -> None:
    from vlmreason.launch import directory, status, submission

    sweep = directory.read_sweep(folder)
    rows = _chosen(status.observe(folder, sweep), own)
    numbers = [row.number for row in rows if row.state in status.TO_RESUME and not row.in_flight]
    _name_damaged(rows)
    if not numbers:
        print(f"nothing to resume: {status.counts(rows)}")
        return
    profile = _profile(own.profile) if own.profile else submission.last_profile(folder, numbers)
    where = submission.send(folder, sweep, numbers, profile or _profile("local"))
    print(f"{len(numbers)} of {status.num_jobs(len(rows))} resumed ({status.counts(rows)} before): {where}")


def _chosen(rows: list[Any], own: Settings) -> list[Any]:
    for number in own.jobs or ():
        if not 0 <= number < len(rows):
            raise ValueError(f"jobs=[{number}]: the sweep has jobs 0 to {len(rows) - 1}")
    return [row for row in rows if own.jobs is None or row.number in own.jobs]


def _name_damaged(rows: list[Any]) -> None:
    for row in rows:
        if row.state == "damaged":
            print(f"vlmreason: job {row.number} is passed over: {row.note}", file=sys.stderr)


def _status(folder: Path, own: Settings) -> None:
    """Print the table once, or until nothing moves any more."""
    from vlmreason.launch import directory, status

    sweep = directory.read_sweep(folder)
    if own.format == "json":
        print(status.to_json(sweep, status.observe(folder, sweep)))
        return
    while True:
        rows = status.observe(folder, sweep)
        clear = "\033[H\033[J" if own.watch and sys.stdout.isatty() else ""
        print(clear + status.table(folder, sweep, rows), flush=True)
        if not own.watch or not any(row.in_flight for row in rows):
            return
        time.sleep(5)
