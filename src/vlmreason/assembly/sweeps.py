"""A sweep in the making: its profile, the jobs of a plan, what is frozen of them."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from vlmreason import places, provenance, runs
from vlmreason.assembly import catalog, compose, planning
from vlmreason.launch import directory, status
from vlmreason.launch.profiles import Profile, read_profile
from vlmreason.structure import nearest, structure


def launch_profile(word: str) -> Profile:
    """Read a launch profile by its name or file. Raises ValueError."""
    path = catalog.sweep_file("profile", word)
    profile = read_profile(path)
    allowed = [key.removeprefix("trainer.") for key in runs.not_identity() if key.startswith("trainer.")]
    for key in profile.trainer:
        if key not in allowed:
            hint = nearest(key, allowed)
            raise ValueError(f"{path}: trainer.{key}: is no launch setting; there are {', '.join(allowed)}{hint}")
    if profile.trainer:
        from vlmreason.training.engine.settings import TrainerSettings

        sizes = {"batch_size": 1, "micro_tokens": 1, "max_length": 1}  # of the job
        try:
            structure(TrainerSettings, {**profile.launch_trainer, **sizes}, "trainer")
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
    return profile


def jobs_of_plan(word: str | None, extra: Sequence[str]) -> list[planning.Planned]:
    """Compose and check every run of a plan once. Raises ValueError."""
    if word is None:
        raise ValueError("plan: must be given (plan=...)")
    plan = planning.read_plan(word)
    first: dict[str, int] = {}
    repeated: list[int] = []
    planned: list[planning.Planned] = []
    all_overrides = [[*overrides, *extra] for overrides in plan.jobs()]
    keys = planning.varying(all_overrides)
    for place, overrides in enumerate(all_overrides):
        planning.show_progress("composing job", place, len(all_overrides))
        try:
            cfg = compose.freeze(overrides, plan.command)
        except ValueError as error:
            which = " ".join(word for word in overrides if word.partition("=")[0] in keys)
            raise ValueError(f"plan={word}{f', {which}' if which else ''}: {error}") from error
        digest = runs.config_hash(cfg)
        if digest in first:
            repeated.append(first[digest])
            continue
        first[digest] = len(planned)
        planned.append(planning.Planned(overrides, cfg))
    if repeated:
        what = f"{status.num_jobs(len(repeated))} of the plan"
        print(
            f"vlmreason: {what} left out: the same run as another one, the first as job {repeated[0]}", file=sys.stderr
        )
    return planned


def make_sweep(name: str, planned: Sequence[planning.Planned]) -> tuple[directory.Sweep, list[str]]:
    """Make the sweep and the YAML of its configurations."""
    keys = planning.varying([job.overrides for job in planned])
    jobs: list[directory.Job] = []
    for number, job in enumerate(planned):
        words = dict(override.partition("=")[::2] for override in job.overrides)
        jobs.append(
            directory.Job(
                number=number,
                run=job.place.name,
                hash=runs.config_hash(job.config),
                run_dir=str(job.place),
                overrides=tuple(job.overrides),
                varying={key: words[key] for key in keys if key in words},
                steps=planning.steps(job.config),
                then=job.then,
            )
        )
    sweep = directory.Sweep(
        name=name,
        command="train",
        cwd=str(Path.cwd()),
        digest=directory.source_digest(places.conf_dir()),
        source=provenance.source(),
        jobs=tuple(jobs),
    )
    return sweep, [yaml.dump(job.config, Dumper=_dumper(), sort_keys=False) for job in planned]


def freeze(folder: Path, sweep: directory.Sweep, configs: list[str]) -> None:
    """Write a sweep with its configurations and a copy of the source; what is planned already keeps the frozen one."""
    if directory.write_sweep(folder, sweep, configs, places.conf_dir()):
        print("vlmreason: the source has changed since this was planned; the jobs keep the frozen one", file=sys.stderr)
    print(f"{status.num_jobs(len(sweep.jobs))} planned")


def _dumper() -> Any:
    """Writes a list that stands in two places twice, instead of a reference."""
    return type("Dumper", (yaml.SafeDumper,), {"ignore_aliases": lambda *_: True})
