"""Plan many runs, send them to this machine or a cluster, see where they are, restart what failed.

What is run is a plan (sweeps/plans), or what the tables and figures of experiments lack: runs that are not there yet
are trained, and what they show beside accuracy (other conversions, failures, gradients, attribution, likelihood) is
measured after training, in the same job; of runs that are trained only that is done.

A plan is frozen: every job keeps its resolved configuration, the commit, the uncommitted changes and a copy of
the source, so that nothing edited while jobs wait changes them. The first word says what to do; without one
the sweep is planned and submitted. Submitting returns at once.

  plan    write the jobs into a directory
  submit  send the jobs that were not sent yet
  status  show where they are; watch=true refreshes, format=json is for programs
  resume  send again what failed, was stopped, got lost or never began; what is done is left alone

Examples:
  vlmreason sweep plan=smoke
  vlmreason sweep experiment=s2h/fig5
  vlmreason sweep experiment=s2h/fig5 smoke=true
  vlmreason sweep 'experiment=glob(s2h/*)' scale=paper profile=slurm_a100x8
  vlmreason sweep plan plan=s2h_nano dir=outputs/sweeps/nano set='[scale.num_examples=12000]'
  vlmreason sweep submit dir=outputs/sweeps/nano profile=slurm jobs=[0,1,2]
  vlmreason sweep status dir=outputs/sweeps/nano
  vlmreason sweep resume dir=outputs/sweeps/nano
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlmreason.assembly import planning, sweeps

CONFIG = "sweep"
ACTIONS = ("plan", "submit", "status", "resume")


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/sweep.yaml."""

    action: Literal["start", "plan", "submit", "status", "resume"]
    plan: str | None
    experiment: str | tuple[str, ...] | None
    runs: str
    set: tuple[str, ...]
    dir: str | None
    profile: str | None
    jobs: tuple[int, ...] | None
    watch: bool
    format: Literal["table", "json"]
    smoke: bool = False

    def __post_init__(self) -> None:
        unused = {
            "start": {"jobs", "watch", "format"},
            "plan": {"profile", "jobs", "watch", "format"},
            "submit": {"set", "runs", "watch", "format"},
            "status": {"set", "runs", "profile", "jobs"},
            "resume": {"set", "runs", "watch", "format"},
        }[self.action]
        defaults: dict[str, Any] = {
            "set": (), "runs": "outputs", "profile": None, "jobs": None, "watch": False, "format": "table",
        }  # fmt: skip
        for name in sorted(unused):
            if getattr(self, name) != defaults[name]:
                raise ValueError(f"{name}: has no effect with {self.action}")
        if self.jobs == ():
            raise ValueError("jobs=[]: one number or more is expected; without jobs= all are taken")
        if self.plan is not None and self.experiment is not None:
            raise ValueError(f"experiment={self.experiment}: has no effect with plan={self.plan}")
        if self.plan is not None and self.runs != defaults["runs"]:
            raise ValueError(f"runs={self.runs}: has no effect with plan; set='[out={self.runs}]'")
        for word in self.set if self.experiment is not None else ():
            if word.startswith("out="):
                raise ValueError(f"{word}: has no effect with experiment; the folder of its runs is runs={word[4:]}")
        if self.smoke and self.dir is not None and self.action not in ("start", "plan"):
            raise ValueError(f"smoke=true: has no effect with dir={self.dir}, whose jobs are what they are")
        if self.watch and self.format == "json":
            raise ValueError("watch=true: has no effect with format=json")

    @property
    def all_set(self) -> tuple[str, ...]:
        """Return the settings of all jobs."""
        return (*self.set, "smoke=true") if self.smoke else self.set


def run(cfg: dict[str, Any]) -> Path | None:
    """Do what the first word says; returns the sweep's directory, None for the status and where nothing is planned."""
    from vlmreason.assembly import build
    from vlmreason.launch import directory
    from vlmreason.studies import artifacts

    own, scale = build.settings(Settings, cfg), str(cfg["scale"]["name"])
    _check_scale(own)
    folder = _folder(own, scale)
    if own.action == "status":
        _status(folder, own)
        return None
    if own.action in ("start", "plan"):
        profile = sweeps.launch_profile(own.profile or "local") if own.action == "start" else None
        names = list(artifacts.names()) if own.experiment is None else artifacts.chosen(own.experiment)
        library = planning.open_library(scale, artifacts.studies(names), Path(own.runs))
        planned = (
            sweeps.jobs_of_plan(own.plan, own.all_set)
            if own.experiment is None
            else _of_experiments(own, library, names, scale, folder, profile)
        )
        if not planned:
            print("nothing to plan")
            return None
        if own.experiment is not None and not own.dir:
            folder = planning.free_folder(_first_folder(own, scale))
        if new := [job.config for job in planned if job.run_dir is None]:
            price = planning.price(new, library.records)
            print(f"{len(new)} runs, {price.cost}" if own.plan else price, flush=True)  # before anything is sent
        planned, saving = planning.share_beginnings(planned)
        sweep, configs = sweeps.make_sweep(_name(own) if own.plan else folder.name, planned)
        with directory.locked(folder):
            sweeps.freeze(folder, sweep, configs)
            if saving:
                print(saving)
            if profile:
                _submit(folder, own, profile)
        return folder
    directory.read_sweep(folder)  # before a lock file is made there
    with directory.locked(folder):
        if own.action == "submit":
            _submit(folder, own, sweeps.launch_profile(own.profile or "local"))
        else:
            _resume(folder, own)
    return folder


def _check_scale(own: Settings) -> None:
    """The scale chooses the runs of experiments; plans have their own."""
    from vlmreason.assembly import compose

    compose.check_scale_words(sys.argv[2:])
    for word in sys.argv[2:]:
        if word.startswith("scale=") and own.experiment is None:
            raise ValueError(f"{word}: has no effect without experiment; settings of a plan's jobs: set='[{word}]'")


def _folder(own: Settings, scale: str) -> Path:
    """The sweep's directory; of experiments the one that was planned last."""
    if own.dir:
        return Path(own.dir).resolve()
    if own.plan is not None:
        return Path("outputs", "sweeps", _name(own)).resolve()
    if own.experiment is not None:
        return planning.last_folder(_first_folder(own, scale))
    raise ValueError(
        "plan: must be given (plan=... or experiment=...)"
        if own.action in ("start", "plan")
        else "dir: must be given (dir=..., or plan=... or experiment=... for outputs/sweeps/<its name>)"
    )


def _name(own: Settings) -> str:
    """Name the sweep of a plan."""
    return Path(own.plan or "").stem + ("-smoke" if own.smoke else "")


def _first_folder(own: Settings, scale: str) -> Path:
    from vlmreason.studies import artifacts

    name = planning.name(artifacts.chosen(own.experiment or ()), scale) + ("-smoke" if own.smoke else "")
    return Path("outputs", "sweeps", name).resolve()


def _of_experiments(
    own: Settings, library: Any, names: list[str], scale: str, folder: Path, profile: Any
) -> list[planning.Planned]:
    """What experiments lack and no sweep has planned yet. What waits in `folder` is sent, where there is a profile."""
    from vlmreason.launch import directory, status

    planned = planning.jobs(library, names, scale, own.runs, own.all_set)
    for other, rows in planning.in_sweeps(folder.parent, planned):
        states, before = {row.state for row in rows}, f"planned before: {status.counts(rows)}"
        if "waiting" in states and profile and other == folder:
            print(before)
            with directory.locked(other):
                _submit(other, own, profile)
        else:
            action = "submit" if "waiting" in states else "resume" if states & set(status.TO_RESUME) else "status"
            print(f"{before}; vlmreason sweep {action} dir={other}")
        there = {row.run_dir for row in rows}
        planned = [job for job in planned if str(job.place) not in there]
    return planned


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
    profile = sweeps.launch_profile(own.profile) if own.profile else submission.last_profile(folder, numbers)
    where = submission.send(folder, sweep, numbers, profile or sweeps.launch_profile("local"))
    print(f"{len(numbers)} of {status.num_jobs(len(rows))} resumed ({status.counts(rows)} before): {where}")


def _chosen(rows: list[Any], own: Settings) -> list[Any]:
    for number in own.jobs or ():
        if not 0 <= number < len(rows):
            raise ValueError(f"jobs=[{number}]: the sweep has jobs 0 to {len(rows) - 1}")
    return rows if own.jobs is None else [rows[number] for number in dict.fromkeys(own.jobs)]


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
