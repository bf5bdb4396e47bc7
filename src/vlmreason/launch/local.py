"""Jobs on this machine: a supervisor of its own runs a number of them at a time until all have ended.

`python -m vlmreason.launch.local SWEEP SUBMISSION`. It outlives the terminal; told to stop (SIGTERM) it tells
its jobs, waits until they have saved, and ends.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vlmreason.files import read_json, write_json_atomic
from vlmreason.launch.directory import environment, job_dir, job_words
from vlmreason.launch.profiles import Local, make_profile
from vlmreason.launch.state import Process
from vlmreason.structure import structure


def submit(folder: Path, submission: Path, numbers: Sequence[int]) -> str:
    """Start a supervisor for these jobs and return at once; says what was started. Raises OSError."""
    write_json_atomic(submission / "jobs.json", list(numbers))
    words = [sys.executable, "-m", "vlmreason.launch.local", str(folder), str(submission)]
    with open(submission / "supervisor.log", "ab") as log:
        started = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(folder, os.environ),
            start_new_session=True,
        )
    deadline = time.monotonic() + 30
    while not (submission / "started.json").exists():
        if started.poll() is not None or time.monotonic() > deadline:
            lines = (submission / "supervisor.log").read_text(errors="replace").strip().splitlines()
            raise OSError(f"the supervisor did not start: {lines[-1] if lines else 'no word from it'}")
        time.sleep(0.02)
    return f"process {started.pid} of this machine runs them; `kill {started.pid}` lets all save and stop"


def supervisor(submission: Path) -> Process | None:
    """Return the supervisor of a submission; None when it never started."""
    path = submission / "started.json"
    return structure(Process, read_json(path), str(path)) if path.exists() else None


def supervise(folder: Path, submission: Path) -> None:
    """Run the submission's jobs."""
    profile = make_profile(read_json(submission / "profile.json"), str(submission / "profile.json"))
    assert isinstance(profile, Local)
    waiting = [*structure(tuple[int, ...], read_json(submission / "jobs.json"), str(submission / "jobs.json"))]
    running: dict[int, tuple[int, subprocess.Popen[bytes]]] = {}  # slot -> job, process
    told = False

    def stop(*_: object) -> None:
        nonlocal told
        told = True

    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2):
        signal.signal(number, stop)
    write_json_atomic(submission / "started.json", asdict(Process.this()))
    while running or (waiting and not told):
        for slot, (job, process) in list(running.items()):
            if process.poll() is not None:
                print(f"{time.strftime('%F %T')} job {job}: exit code {process.returncode}", flush=True)
                del running[slot]
        while waiting and not told and len(running) < profile.parallel:
            slot = next(slot for slot in range(profile.parallel) if slot not in running)
            job = waiting.pop(0)
            running[slot] = job, _start(folder, job, profile, slot)
        if told:
            for _, process in running.values():
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
            for _, process in running.values():
                process.wait()
            continue
        time.sleep(0.2)


def _start(folder: Path, job: int, profile: Local, slot: int) -> subprocess.Popen[bytes]:
    # A job of this machine is no part of the SLURM job that it may have been started from.
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("SLURM_")}
    if profile.threads:
        inherited["OMP_NUM_THREADS"] = str(profile.threads)
    if profile.gpus_per_job:
        first = slot * profile.gpus_per_job
        inherited["CUDA_VISIBLE_DEVICES"] = ",".join(str(first + i) for i in range(profile.gpus_per_job))
    print(f"{time.strftime('%F %T')} job {job}: started", flush=True)
    with open(job_dir(folder, job) / "log.txt", "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", *job_words(folder, job)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment(folder, inherited),
            start_new_session=True,
        )


if __name__ == "__main__":
    supervise(Path(sys.argv[1]), Path(sys.argv[2]))
