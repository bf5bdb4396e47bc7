"""A sweep on disk: what was planned, frozen, before any of it runs.

    sweep.json               the jobs, their runs, where the source came from; `complete` once all below is written
    source/                  the package and its configuration as they were; every job runs from it
    source.diff              changes that were not committed
    jobs/<number>/           config.yaml (resolved), state.json, submission.json, log.txt
    submissions/<time>/      profile.json, started.json, and what the launcher writes

The directory must be reachable under the same path from every machine that runs its jobs.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from vlmreason.files import read_json, write_json_atomic, write_text_atomic
from vlmreason.provenance import SOURCE_RECORD
from vlmreason.structure import structure


@dataclass(frozen=True)
class Job:
    """One planned run. `steps`: optimizer steps of each phase; `varying`: the settings in which jobs differ; `then`:
    commands that follow training, without `run=`."""

    number: int
    run: str
    hash: str
    run_dir: str
    overrides: tuple[str, ...]
    varying: dict[str, Any] = field(default_factory=dict)
    steps: dict[str, int] = field(default_factory=dict)
    then: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class Sweep:
    """sweep.json. `cwd` is where the plan was made: paths in the configurations are relative to it."""

    name: str
    command: str
    cwd: str
    digest: str
    source: dict[str, Any]
    jobs: tuple[Job, ...]
    complete: bool = False

    def difference(self, other: Sweep) -> str | None:
        """Say in which way the runs of another plan are not those of this one."""
        if self.command != other.command:
            return f"of the command {self.command}"
        if len(self.jobs) != len(other.jobs):
            return f"with {len(self.jobs)} jobs instead of {len(other.jobs)}"
        theirs = {job.hash: job for job in other.jobs}  # their order is no part of it
        for mine in self.jobs:
            if mine.hash not in theirs:
                return f"its job {mine.number} is {mine.run}"
            if mine.then != theirs[mine.hash].then:
                return f"its job {mine.number} does something else after training"
        return None


def job_dir(folder: Path, number: int) -> Path:
    return folder / "jobs" / f"{number:04d}"


def write_sweep(folder: Path, sweep: Sweep, configs: Sequence[str], conf: Path) -> bool:
    """Freeze a sweep in `folder`; one that is half written is completed. `configs`: YAML of every job.

    Returns whether the source has changed since the same sweep was frozen there (the frozen one is kept).
    Raises ValueError where the folder holds something else.
    """
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"dir={folder}: is a file")
    held = read_sweep(folder, complete=False) if (folder / "sweep.json").exists() else None
    if held is None and any(path.name != LOCK for path in (folder.iterdir() if folder.is_dir() else ())):
        raise ValueError(f"dir={folder}: holds something that is no sweep; choose another directory")
    if held and (difference := held.difference(sweep)):
        raise ValueError(f"dir={folder}: holds another sweep, {difference}; choose another directory")
    if held and held.complete:
        return held.digest != sweep.digest
    write_json_atomic(folder / "sweep.json", asdict(sweep))
    write_text_atomic(folder / "source.diff", sweep.source.get("diff") or "")
    _freeze_source(folder / "source", sweep.source, conf)
    for job, text in zip(sweep.jobs, configs, strict=True):
        write_text_atomic(job_dir(folder, job.number) / "config.yaml", text)
    write_json_atomic(folder / "sweep.json", asdict(sweep) | {"complete": True})
    return False


def read_sweep(folder: Path, complete: bool = True) -> Sweep:
    """Return the sweep of a directory. Raises ValueError when there is none, or only half of one."""
    path = folder / "sweep.json"
    if not path.is_file():
        raise ValueError(f"dir={folder}: no sweep (sweep.json is missing); `vlmreason sweep plan` makes one")
    sweep = structure(Sweep, read_json(path), str(path))
    if complete and not sweep.complete:
        raise ValueError(f"dir={folder}: the plan was interrupted; the same `vlmreason sweep plan` completes it")
    return sweep


def source_digest(conf: Path) -> str:
    """Return 12 hexadecimal digits of the package's code and configuration as they are now."""
    found = hashlib.blake2b(digest_size=6)
    package = _package()
    for root in (package, conf):
        for path in sorted([*root.rglob("*.py"), *root.rglob("*.yaml"), *root.rglob("*.json")]):
            found.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def environment(folder: Path, before: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that runs the frozen source and nothing else of this package."""
    path = os.pathsep.join([str(folder / "source"), *filter(None, [before.get("PYTHONPATH")])])
    unbuffered = {"PYTHONUNBUFFERED": "1"}  # a log is read while it grows
    return {**before, **unbuffered, "PYTHONPATH": path, "PYTHONSAFEPATH": "1"}


def job_words(folder: Path, number: int) -> list[str]:
    """Return what is typed behind `python -m` to run a job."""
    path = str(job_dir(folder, number) / "config.yaml").replace("\\", "\\\\").replace("'", "\\'")
    return ["vlmreason", "job", f"config='{path}'"]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Return one plan or submission at a time. Raises ValueError while another one works in the directory."""
    if folder.exists() and not folder.is_dir():
        raise ValueError(f"dir={folder}: is a file")
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / LOCK, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"dir={folder}: another plan or submission is at work there; wait for it") from None
        yield


LOCK = ".lock"


def _freeze_source(target: Path, source: Mapping[str, Any], conf: Path) -> None:
    """Package and configuration laid out as an installed package has them, so that they find each other."""
    beside = target.with_name(f".{target.name}.tmp")
    for path in (beside, target):
        shutil.rmtree(path, ignore_errors=True)
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")
    shutil.copytree(_package(), beside / "vlmreason", ignore=ignore)
    shutil.copytree(conf, beside / "vlmreason" / "conf", ignore=ignore, dirs_exist_ok=True)
    write_json_atomic(beside / SOURCE_RECORD, dict(source))
    os.replace(beside, target)


def _package() -> Path:
    import vlmreason

    return Path(vlmreason.__file__).resolve().parent
