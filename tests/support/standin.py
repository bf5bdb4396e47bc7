"""A stand-in for SLURM's commands: `standin.py sbatch|srun|squeue|scontrol ...`, with its state in $STANDIN.

A submitted array task runs its batch script at once, and again after `scontrol requeue`. `$STANDIN/refuse` holds
the words with which sbatch refuses, `$STANDIN/down` makes squeue fail.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

STATE = Path(os.environ.get("STANDIN", "."))


def sbatch(script: str) -> None:
    if (STATE / "refuse").exists():
        sys.exit((STATE / "refuse").read_text())
    number = 7 + len(list(STATE.glob("array-*")))
    (STATE / f"array-{number}").write_text(Path(script).read_text())
    array = re.search(r"--array=0-(\d+)", Path(script).read_text())
    for task in range(int(array.group(1)) + 1) if array else [None]:
        name = str(number) if task is None else f"{number}_{task}"
        (STATE / f"queue-{name}").write_text("PENDING")
        words = [sys.executable, __file__, "task", script, str(number), "" if task is None else str(task)]
        null = subprocess.DEVNULL  # whoever waits for the end of the output of sbatch does not wait for its jobs
        subprocess.Popen(words, start_new_session=True, stdin=null, stdout=null, stderr=null)
    print(f"Submitted batch job {number}")


def task(script: str, array: str, number: str) -> None:
    name = f"{array}_{number}" if number else array
    environment = os.environ | {"SLURM_JOB_ID": array, "SLURM_NTASKS": "1", "SLURM_CPUS_PER_TASK": "1"}
    if number:  # the raw number of a task is its own, but for one task that has the array's
        environment |= {"SLURM_ARRAY_JOB_ID": array, "SLURM_ARRAY_TASK_ID": number, "SLURM_ARRAY_TASK_COUNT": "2"}
    while True:
        (STATE / f"queue-{name}").write_text("RUNNING")
        subprocess.run(["bash", script], env=environment)
        if not (STATE / f"requeue-{name}").exists():
            break
        (STATE / f"requeue-{name}").unlink()
    (STATE / f"queue-{name}").unlink()


def srun(*words: str) -> None:
    command = list(words)
    while command[0].startswith("-"):
        command = command[2 if command[0] == "--output" else 1 :]
    here = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NNODES": "1"}
    os.execvpe(command[0], command, os.environ | here)


def squeue(*_: str) -> None:
    if (STATE / "down").exists():
        sys.exit("slurm_load_jobs error: Unable to contact slurm controller")
    for path in STATE.glob("queue-*"):
        print(f"{path.name.removeprefix('queue-')}|{path.read_text()}")


def scontrol(action: str, name: str) -> None:
    assert action == "requeue"
    (STATE / f"requeue-{name}").touch()


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
