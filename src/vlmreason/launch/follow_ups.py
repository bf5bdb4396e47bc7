"""What a job does behind its training: commands of this program on the finished run, one after the other.

Each is a process of its own on this machine, with the source and the working directory of the job, outside of the
group of processes that trained; what it says goes to the job's log. A stop of the job stops it too.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import vlmreason

_OF_THE_GROUP = {
    "RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT",
}  # fmt: skip
_PREFIXES = ("SLURM_", "TORCHELASTIC_", "PMI")
_STOPS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
_PATIENCE = 20.0  # seconds that a process that is told to stop may take


def run(words: Sequence[str], run_dir: Path, threads: int | None = None) -> None:
    """Run `vlmreason <words> run=<run_dir>`. Raises ValueError with its own last words when it fails."""
    place = str(run_dir).replace("\\", "\\\\").replace("'", "\\'")
    command = ["vlmreason", *words]
    print(f"vlmreason: {' '.join(command)} run={run_dir}", file=sys.stderr, flush=True)
    child = subprocess.Popen(
        [sys.executable, "-m", *command, f"run='{place}'"],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        env=environment(os.environ, threads),
        text=True,
        errors="replace",
        start_new_session=True,  # Ctrl-C reaches it through this process alone
    )
    last = ""
    try:
        assert child.stderr is not None
        for line in child.stderr:
            print(line, end="", file=sys.stderr, flush=True)
            last = line.strip() or last
        code = child.wait()
        if -code in _STOPS:  # SLURM tells every process of a job
            time.sleep(1)  # for the signal to this one
            raise KeyboardInterrupt("stopped")
    except BaseException:
        stop(child)
        raise
    if code:
        how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        said = last.removeprefix("vlmreason: ")
        raise ValueError(f"{' '.join(command)}: {how}{f': {said}' if said else ''}")


def environment(before: Mapping[str, str], threads: int | None) -> dict[str, str]:
    """Return the environment of a process that is alone and runs the source of this one."""
    kept = {k: v for k, v in before.items() if k not in _OF_THE_GROUP and not k.startswith(_PREFIXES)}
    source = str(Path(vlmreason.__file__).resolve().parents[1])
    path = [source, *(place for place in kept.get("PYTHONPATH", "").split(os.pathsep) if place not in ("", source))]
    number = {"OMP_NUM_THREADS": str(threads)} if threads else {}
    return {**kept, **number, "PYTHONPATH": os.pathsep.join(path), "PYTHONSAFEPATH": "1"}


def stop(child: subprocess.Popen[str]) -> None:
    """Stop a process as Ctrl-C does, which lets it end by itself; by force if it takes long."""
    if child.poll() is None:
        child.send_signal(signal.SIGINT)
        try:
            child.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
