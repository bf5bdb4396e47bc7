"""What a job has been through: `state.json`, written by the submission and then by the job alone.

waiting (planned), submitted, running, done, failed, stopped (told to, with a checkpoint). A job that says
"running" without a sign of life is lost; only a reader can tell (status.py).
"""

from __future__ import annotations

import os
import socket
import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Literal

from vlmreason.files import read_json, write_json_atomic
from vlmreason.structure import structure

BEAT = 15.0  # seconds between two signs of life
LATE = 60.0  # seconds without one after which a job that cannot be asked otherwise is lost

Outcome = Literal["waiting", "submitted", "running", "done", "failed", "stopped"]


@dataclass(frozen=True)
class Process:
    """A process on some machine. `born` tells it from a later one with the same number."""

    host: str
    pid: int
    born: str | None

    @classmethod
    def this(cls) -> Process:
        return cls(socket.gethostname(), os.getpid(), _born(os.getpid()))

    def is_alive(self) -> bool | None:
        """Tell whether it lives; None where it cannot be told: on another machine."""
        if self.host != socket.gethostname():
            return None
        if self.pid < 1:  # a group of processes, or all
            return False
        try:
            os.kill(self.pid, 0)
        except (ProcessLookupError, OverflowError):
            return False
        except PermissionError:
            pass  # somebody else's
        return _born(self.pid) == self.born


@dataclass(frozen=True)
class Attempt:
    """One start of a job. Times are seconds since 1970 by the clock of its machine."""

    process: Process
    slurm: str | None
    started: float
    heartbeat: float
    ended: float | None = None
    outcome: Outcome = "running"
    message: str = ""


@dataclass(frozen=True)
class State:
    state: Outcome = "waiting"
    since: float = 0.0
    attempts: tuple[Attempt, ...] = ()

    def changed(self, state: Outcome) -> State:
        return replace(self, state=state, since=time.time())

    def with_last(self, attempt: Attempt) -> State:
        return replace(self, attempts=(*self.attempts[:-1], attempt))


@dataclass(frozen=True)
class Submission:
    """submission.json: how a job was sent. `folder`: its folder in submissions/; `trainer`: settings of the launch."""

    kind: Literal["local", "slurm"]
    folder: str
    time: float
    max_requeues: int
    trainer: dict[str, int | float | str | bool | None]


def read_state(job_dir: Path) -> State:
    """Raise ValueError that names the file when it is damaged, or the folder when it is missing."""
    if not (job_dir / "config.yaml").is_file():
        raise ValueError(f"{job_dir}: the job's folder is missing or incomplete")
    path = job_dir / "state.json"
    return structure(State, read_json(path), str(path)) if path.exists() else State()


def write_state(job_dir: Path, state: State) -> None:
    write_json_atomic(job_dir / "state.json", asdict(state))


def read_submission(job_dir: Path) -> Submission | None:
    path = job_dir / "submission.json"
    return structure(Submission, read_json(path), str(path)) if path.exists() else None


def write_submission(job_dir: Path, submission: Submission) -> None:
    write_json_atomic(job_dir / "submission.json", asdict(submission))


def _born(pid: int) -> str | None:
    """When a process began, in the kernel's own ticks; None where that cannot be read."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] == "Z" else fields[19]
