"""Where the jobs of a sweep are: their state files, set against the queue and the processes that should be there."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vlmreason.files import read_end, read_object
from vlmreason.launch import local, slurm
from vlmreason.launch.directory import Job, Sweep, job_dir
from vlmreason.launch.state import LATE, Attempt, State, Submission, read_state, read_submission

NOT_BEGUN = "not begun"
TO_RESUME = ("failed", "stopped", "lost", NOT_BEGUN)
_GRACE = 60.0  # seconds that a submission may take from its record to the queue


@dataclass(frozen=True)
class Row:
    """One job as it is now.

    state: as in state.py, or lost, or not begun (sent, and no longer on its way), or damaged (`note` says which file).
    """

    number: int
    run: str
    varying: dict[str, Any]
    state: str
    in_flight: bool
    progress: str
    share: float | None
    loss: float | None
    accuracy: float | None
    seconds: float | None
    attempts: int
    note: str
    log: str
    run_dir: str


def observe(folder: Path, sweep: Sweep) -> list[Row]:
    """Return all jobs. The queue is asked first: a job that is missing there has written its end before."""
    kinds = {kind for job in sweep.jobs if (kind := _kind(job_dir(folder, job.number)))}
    queue = slurm.queue() if "slurm" in kinds else {}
    return [_row(folder, job, queue) for job in sweep.jobs]


def counts(rows: Sequence[Row]) -> str:
    """Write counts as "2 done, 1 failed"."""
    return ", ".join(f"{number} {state}" for state, number in Counter(row.state for row in rows).items())


def num_jobs(number: int) -> str:
    return f"{number} job{'' if number == 1 else 's'}"


def to_json(sweep: Sweep, rows: Sequence[Row]) -> str:
    return json.dumps({"sweep": sweep.name, "jobs": [asdict(row) for row in rows]}, indent=2)


def table(folder: Path, sweep: Sweep, rows: Sequence[Row]) -> str:
    """Write for people: one line per job, the place of the logs below."""
    keys = list(dict.fromkeys(key for row in rows for key in row.varying))
    heads = [
        "job",
        *(key.rpartition(".")[2] for key in keys),
        "state",
        "progress",
        "loss",
        "accuracy",
        "time",
        "tries",
        "",
    ]
    lines = [heads]
    for row in rows:
        cells = [str(row.number), *(_text(row.varying.get(key, "")) for key in keys), row.state, row.progress]
        cells += [f"{row.loss:.4f}" if row.loss is not None else "", _percent(row.accuracy), _clock(row.seconds)]
        lines.append([*cells, str(row.attempts or ""), row.note])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    shown = [f"sweep {sweep.name} in {folder}: {num_jobs(len(rows))}, {counts(rows)}"]
    shown += [
        "  ".join(f"{cell:<{width}}" for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    ]
    return "\n".join([*shown, f"logs: {folder}/jobs/<number>/log.txt"])


def _row(folder: Path, job: Job, queue: dict[str, str] | None) -> Row:
    here = job_dir(folder, job.number)
    run_dir = Path(job.run_dir)
    phase, step, loss = _last_metrics(run_dir)
    total, before = sum(job.steps.values()), 0
    for name in job.steps:
        if name == phase:
            break
        before += job.steps[name]
    share = (before + step) / total if phase and total else None
    progress = f"{phase} {step}/{job.steps.get(phase, '?')} {_percent(share)}" if phase else ""
    try:
        state, submission = read_state(here), read_submission(here)
        found, in_flight, note = _judge(here, state, submission, queue)
    except (ValueError, OSError) as error:
        state, found, in_flight, note = State(), "damaged", False, str(error)
    if found == "running" and phase and phase == next(reversed(job.steps), None) and step == job.steps.get(phase):
        progress = "evaluating"
    return Row(
        number=job.number,
        run=job.run,
        varying=job.varying,
        state=found,
        in_flight=in_flight,
        progress="" if found == "done" else progress,
        share=1.0 if found == "done" else share,
        loss=loss,
        accuracy=_accuracy(run_dir) if found == "done" else None,
        seconds=sum(_seconds(attempt, found) for attempt in state.attempts) if state.attempts else None,
        attempts=len(state.attempts),
        note=note,
        log=str(here / "log.txt"),
        run_dir=job.run_dir,
    )


def _judge(
    here: Path, state: State, submission: Submission | None, queue: dict[str, str] | None
) -> tuple[str, bool, str]:
    """State, whether it is on its way or at work, and what else there is to say."""
    last = state.attempts[-1] if state.attempts else None
    message = last.message if last else ""
    if state.state in ("waiting", "done") or submission is None:
        return state.state, False, ""
    if state.state == "failed":
        return "failed", False, message
    if submission.kind == "slurm":
        return _judge_slurm(here, state, submission, last, message, queue)
    supervisor = local.supervisor(Path(submission.folder))
    alive = supervisor.is_alive() if supervisor else time.time() - submission.time < _GRACE
    if state.state == "stopped":
        return "stopped", False, message
    if state.state == "running" and last:
        at_work = last.process.is_alive()
        if at_work or (at_work is None and time.time() - last.heartbeat < LATE):
            return "running", True, ""
        return "lost", False, f"process {last.process.pid} of {last.process.host} ended without a word; see its log"
    if alive is None:
        return "submitted", True, f"waits for the supervisor on {supervisor.host if supervisor else '?'}"
    return ("submitted", True, "") if alive else (NOT_BEGUN, False, "the supervisor ended before it came to this job")


def _judge_slurm(
    here: Path,
    state: State,
    submission: Submission,
    last: Attempt | None,
    message: str,
    queue: dict[str, str] | None,
) -> tuple[str, bool, str]:
    own = slurm.slurm_ids(Path(submission.folder)).get(str(int(here.name)))
    if queue is None:
        return state.state, state.state != "stopped", "squeue does not answer: what is written may be old"
    number = own or (last.slurm if last else None)
    queued = queue.get(number) if number else None
    if state.state == "stopped":
        return "stopped", queued is not None, f"{message}; SLURM job {number} is {queued}" if queued else message
    if state.state == "submitted":
        if queued or (own is None and time.time() - submission.time < _GRACE):
            return "submitted", True, ""
        return NOT_BEGUN, False, f"SLURM job {number} left the queue before it started" if own else "it was never sent"
    if queued == "PENDING":
        return "submitted", True, f"requeued by SLURM; it was at work on {last.process.host if last else '?'}"
    silent = time.time() - last.heartbeat if last else 0.0
    if queued is None and (silent > LATE / 2 or (last and last.process.is_alive() is False)):
        return "lost", False, f"SLURM job {number} is gone, its node {last.process.host if last else '?'} is silent"
    late = f"no sign of life for {_clock(silent)}" if silent > 2 * LATE else ""
    return "running", True, late


def _kind(here: Path) -> str | None:
    try:
        submission = read_submission(here)
    except (ValueError, OSError):
        return None  # reported with its row
    return submission.kind if submission else None


def _last_metrics(run_dir: Path) -> tuple[str | None, int, float | None]:
    """Phase, step and loss of the last whole line of metrics.jsonl that has them."""
    try:
        lines = read_end(run_dir / "metrics.jsonl", 20_000).splitlines()
    except ValueError:
        return None, 0, None
    for line in reversed(lines):
        try:
            row = json.loads(line)
            return str(row["phase"]), int(row["step"]), float(row["loss"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue  # a line in the making, or of an evaluation
    return None, 0, None


def _accuracy(run_dir: Path) -> float | None:
    try:
        return float(read_object(run_dir / "summary.json")["accuracy"])
    except (ValueError, KeyError, TypeError, OverflowError):
        return None


def _seconds(attempt: Attempt, state: str) -> float:
    end = attempt.ended or (time.time() if state == "running" else attempt.heartbeat)
    return max(0.0, end - attempt.started)


def _clock(seconds: float | None) -> str:
    if seconds is None:
        return ""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _percent(share: float | None) -> str:
    return "" if share is None else f"{100 * share:.1f} %"


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)
