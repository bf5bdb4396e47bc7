"""Around a job while it runs: its state file with signs of life, signals, the wish to go back to the queue.

SIGUSR2 is SLURM's announcement that the time is up: the job saves and is requeued. SIGTERM and SIGINT are
somebody's wish that it ends: it saves and stays stopped. Training ends its step and saves by itself; at any
other moment the job is interrupted at once, which loses nothing that is not made again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from vlmreason.launch.directory import job_dir
from vlmreason.launch.state import (
    BEAT,
    LATE,
    Attempt,
    Outcome,
    Process,
    State,
    Submission,
    read_state,
    read_submission,
    write_state,
)

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)


class AlreadyDone(Exception):
    """The job is finished; it is not run again."""


def rank() -> int:
    """Return number of this process among those of one job; 0 writes the files."""
    for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK"):
        if os.environ.get(name, "").isdigit():
            return int(os.environ[name])
    return 0


def slurm_id() -> str | None:
    """Return number of this SLURM job as squeue shows it."""
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array and task else os.environ.get("SLURM_JOB_ID")


@contextlib.contextmanager
def tracked(folder: Path, number: int, explain: Callable[[BaseException], str]) -> Iterator[None]:
    """Keep the job's state file while the block runs it; `explain` makes one sentence of an error.

    Raises AlreadyDone, and ValueError while the same job runs elsewhere.
    """
    here = job_dir(folder, number)
    submission = read_submission(here)
    state = _begin(here, read_state(here), submission)
    last = state.attempts[-1]
    at = time.strftime("%F %T", time.localtime(last.started))
    print(f"{at} job {number} begins on {last.process.host}, process {last.process.pid}", file=sys.stderr, flush=True)
    with _Signals() as received, _Heart(here, state) as heart:
        try:
            yield
        except KeyboardInterrupt as stop:
            _ignore()
            told = " and ".join(sorted({signal.Signals(n).name for n in received() if n in SIGNALS}))
            message = f"{str(stop).partition(';')[0] or 'stopped'}{f' ({told})' if told else ''}"
            if signal.SIGUSR2 in received() and submission and submission.kind == "slurm":
                message = _ask_for_requeue(folder, heart.state, submission, message)
            heart.end("stopped", message)
            raise
        except BaseException as error:
            heart.end("failed", explain(error))
            raise
        heart.end("done", "")


@contextlib.contextmanager
def untracked() -> Iterator[None]:
    """Serve the other processes of a job: they stop as the first one does, and leave the files to it.

    A stop is no failure of theirs: the launcher of a distributed job kills all processes when one fails.
    """
    with _Signals(), contextlib.suppress(KeyboardInterrupt):
        yield


def requeue_file(folder: Path) -> Path:
    """Return what a job leaves behind for the batch script that started it (slurm.py)."""
    return folder / "requeue" / str(slurm_id())


def _begin(here: Path, state: State, submission: Submission | None) -> State:
    own_id = slurm_id() if submission and submission.kind == "slurm" else None
    last = state.attempts[-1] if state.attempts else None
    if state.state == "done":
        raise AlreadyDone
    if state.state == "running" and last and not (own_id and own_id == last.slurm):
        alive = last.process.is_alive()
        if alive or (alive is None and time.time() - last.heartbeat < LATE):
            raise ValueError(f"{here}: the job is running already on {last.process.host}; nothing was started")
    now = time.time()
    if last and last.outcome == "running":
        lost = replace(last, ended=last.heartbeat, outcome="failed", message="ended without a word")
        state = state.with_last(lost)
    attempt = Attempt(Process.this(), own_id, now, now)
    state = replace(state.changed("running"), attempts=(*state.attempts, attempt))
    write_state(here, state)
    return state


def _ask_for_requeue(folder: Path, state: State, submission: Submission, message: str) -> str:
    requeues = sum(attempt.message.endswith(REQUEUED) for attempt in state.attempts)
    if requeues >= submission.max_requeues:
        return f"{message}; not requeued again: max_requeues={submission.max_requeues} is reached"
    path = requeue_file(folder)
    path.parent.mkdir(exist_ok=True)
    path.touch()
    return f"{message}{REQUEUED}"


REQUEUED = "; requeued"


class _Heart:
    """Writes a sign of life every few seconds, and the end."""

    def __init__(self, here: Path, state: State) -> None:
        self.here, self.state = here, state
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._beat, daemon=True)

    def __enter__(self) -> _Heart:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def end(self, outcome: Outcome, message: str) -> None:
        self._over.set()
        self._thread.join()
        now = time.time()
        last = replace(self.state.attempts[-1], heartbeat=now, ended=now, outcome=outcome, message=message)
        write_state(self.here, self.state.changed(outcome).with_last(last))

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            self.state = self.state.with_last(replace(self.state.attempts[-1], heartbeat=time.time()))
            with contextlib.suppress(OSError):  # a full disk must not end the run; the next beat may succeed
                write_state(self.here, self.state)


class _Signals:
    """Interrupts on the three signals, and remembers which came, whoever handled them meanwhile."""

    def __enter__(self) -> Callable[[], list[int]]:
        self._read, self._write = os.pipe()
        for end in (self._read, self._write):
            os.set_blocking(end, False)
        self._seen: list[int] = []
        self._fd_before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._before = {number: signal.signal(number, _interrupt) for number in SIGNALS}
        return self._received

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._fd_before)
        os.close(self._read)
        os.close(self._write)

    def _received(self) -> list[int]:
        with contextlib.suppress(BlockingIOError):
            self._seen += os.read(self._read, 4096)
        return self._seen


def _interrupt(number: int, _: object) -> None:
    _ignore()
    raise KeyboardInterrupt("stopped")


def _ignore() -> None:
    """A second signal would come between the stop and its record; a second Ctrl-C may."""
    for number in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
