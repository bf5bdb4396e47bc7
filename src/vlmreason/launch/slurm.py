"""Jobs on a SLURM cluster, as one array through submitit.

submitit writes the batch script and starts Python on the nodes; there the process becomes the job itself
(`become_job`), so that SLURM's signals reach it and no handler of submitit's stands in between. A job that
saved because its time was up leaves a file, and the batch script then requeues it: outside of any container,
once, after all processes have ended. Whether a job is in the queue is asked of squeue.
"""

from __future__ import annotations

import contextlib
import getpass
import io
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from vlmreason.files import read_json, write_json_atomic
from vlmreason.launch.directory import environment, job_dir, job_words
from vlmreason.launch.profiles import Slurm
from vlmreason.launch.worker import rank
from vlmreason.structure import structure


def submit(folder: Path, submission: Path, numbers: Sequence[int], profile: Slurm, name: str) -> str:
    """Send jobs as one array; says which. Raises ValueError without SLURM or submitit, or when sbatch refuses."""
    for program in ("sbatch", "srun", "squeue"):
        if shutil.which(program) is None:
            raise ValueError(f"{program}: not found; SLURM is used from a machine that has its commands")
    try:
        from submitit.core.utils import FailedJobError, FailedSubmissionError
        from submitit.slurm.slurm import SlurmExecutor
    except ModuleNotFoundError:
        raise ValueError("submitit is not installed: pip install 'vlmreason[slurm]'") from None
    scripts = submission / "submitit"
    executor = SlurmExecutor(scripts, python=_python(profile))
    executor.update_parameters(**_parameters(folder, profile, name))
    said = io.StringIO()  # what sbatch says comes back with the error; warnings are shown
    try:
        with contextlib.redirect_stderr(said):
            sent = executor.map_array(become_job, [str(folder)] * len(numbers), list(numbers))
    except (FailedJobError, FailedSubmissionError) as error:
        raise ValueError(f"sbatch refused: {' '.join(str(error).split())}") from None
    print(said.getvalue(), end="", file=sys.stderr)
    ids = {str(number): str(job.job_id) for number, job in zip(numbers, sent, strict=True)}
    write_json_atomic(submission / "started.json", ids)
    array = sent[0].job_id.partition("_")[0]
    return f"SLURM job {array}; `scancel --signal=TERM {array}` lets all save and stop"


def become_job(folder: str, number: int) -> None:
    """Return runs on the node: this process turns into the job, with its log."""
    name = "log.txt" if rank() == 0 else f"log-{rank()}.txt"
    log = os.open(job_dir(Path(folder), number) / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    sys.stdout.flush()
    os.dup2(log, 1)
    os.dup2(log, 2)
    words = [sys.executable, "-m", *job_words(Path(folder), number)]
    os.execve(sys.executable, words, environment(Path(folder), os.environ))


def slurm_ids(submission: Path) -> dict[str, str]:
    """Return SLURM's number of each job; empty when the submission never got that far."""
    path = submission / "started.json"
    return structure(dict[str, str], read_json(path), str(path)) if path.exists() else {}


def queue() -> dict[str, str] | None:
    """Return the state of the user's jobs in the queue by SLURM's number; None when squeue does not answer."""
    words = ["squeue", "--noheader", "--array", f"--user={getpass.getuser()}", "--format=%i|%T"]
    try:
        done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    rows = (line.strip().partition("|") for line in done.stdout.splitlines() if "|" in line)
    return {number: state for number, _, state in rows}


def _python(profile: Slurm) -> str:
    python = shlex.quote(sys.executable)
    return f"apptainer exec --nv {shlex.quote(profile.container)} python3" if profile.container else python


def _parameters(folder: Path, profile: Slurm, name: str) -> dict[str, object]:
    source = shlex.quote(str(folder / "source"))
    wanted = f"{shlex.quote(str(folder / 'requeue'))}/$id"
    found: dict[str, object] = {
        "job_name": name,
        "time": profile.minutes,
        "nodes": profile.nodes,
        "ntasks_per_node": profile.tasks,
        "cpus_per_task": profile.cpus_per_task,
        "gpus_per_node": profile.gpus_per_node or None,
        "mem": profile.memory,
        "partition": profile.partition,
        "account": profile.account,
        "qos": profile.qos,
        "constraint": profile.constraint,
        "array_parallelism": profile.array_parallelism,
        "signal_delay_s": profile.signal_lead,
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True, **profile.sbatch},
        # Without it the other processes wait for one that has failed.
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={profile.cpus_per_task}", *profile.srun],
        "setup": [
            *(f"module load {module}" for module in profile.modules),
            "export OMP_NUM_THREADS=${OMP_NUM_THREADS:-$SLURM_CPUS_PER_TASK}",
            *profile.setup,
            f"export PYTHONPATH={source}${{PYTHONPATH:+:$PYTHONPATH}} PYTHONSAFEPATH=1",
        ],
        "teardown": [
            "code=$?",
            # SLURM_JOB_ID of one task is that of the array: by it all tasks would be requeued.
            "id=${SLURM_ARRAY_TASK_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}",
            "id=${id:-$SLURM_JOB_ID}",
            f'if [ -e {wanted} ]; then rm {wanted}; scontrol requeue "$id"; fi',
            "exit $code",
        ],
    }
    return {key: value for key, value in found.items() if value is not None}
