"""Run one frozen configuration, as it is: a job of a sweep, or the config.yaml of a run once more.

Nothing is composed again. A job of a sweep keeps its state file; one that is finished is not run again.
`vlmreason sweep` starts it with the source that was frozen with the plan.

Examples:
  vlmreason job config=outputs/sweeps/smoke/jobs/0000/config.yaml
  vlmreason job config=outputs/RUN/config.yaml
"""

from __future__ import annotations

import importlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "job"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/job.yaml."""

    config: str


def run(cfg: dict[str, Any]) -> Path | None:
    """Run the job; returns the run directory."""
    from vlmreason import runs
    from vlmreason.assembly import build, compose, errors
    from vlmreason.launch import directory, state, worker

    path = Path(build.settings(Settings, cfg).config).resolve()
    if not path.is_file():
        raise ValueError(f"config={path}: no such file")
    if path.name != "config.yaml":
        raise ValueError(f"config={path}: a config.yaml is expected, of a planned job or of a run")
    here, folder = path.parent, path.parents[2]
    config = runs.read_config(here)
    if here.parent.name != "jobs" or not (folder / "sweep.json").exists():
        return _call("train", config)
    sweep, number = directory.read_sweep(folder), int(here.name)
    submission = state.read_submission(here)
    if submission and "trainer" in config:
        config["trainer"] |= submission.trainer
    os.chdir(sweep.cwd)
    job = sweep.jobs[number]
    if worker.rank() > 0:
        with worker.untracked():
            return None if _only_follow_ups(job) else _call(sweep.command, config)
        return None  # told to stop
    try:
        with worker.tracked(folder, number, errors.sentence):
            print(f"vlmreason: {compose.differences(job.overrides)}", file=sys.stderr, flush=True)
            place = Path(job.run_dir) if _only_follow_ups(job) else _call(sweep.command, config)
            _follow_up(job, config)
            return place
    except worker.AlreadyDone:
        print("the job is done already; nothing was started")
        return Path(job.run_dir)


def _only_follow_ups(job: Any) -> bool:
    """Whether the run was trained and evaluated before, by another job."""
    return bool(job.then) and all((Path(job.run_dir) / name).exists() for name in ("evaluation.json", "summary.json"))


def _follow_up(job: Any, config: dict[str, Any]) -> None:
    import gc

    from vlmreason.launch import follow_ups

    if not job.then:
        return
    if "torch" in sys.modules:
        gc.collect()
        sys.modules["torch"].cuda.empty_cache()  # what training held; the follow-ups are processes of their own
    where = [f"accelerator={config['trainer']['accelerator']}"] if config["trainer"]["accelerator"] != "auto" else []
    for words in job.then:
        follow_ups.run([*words, *where], Path(job.run_dir), config["trainer"].get("num_threads"))


def _call(command: str, config: dict[str, Any]) -> Path | None:
    from vlmreason.assembly import catalog

    place: Path | None = importlib.import_module(catalog.module_name(command)).run(config)
    return place
