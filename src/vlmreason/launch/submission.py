"""Send jobs of a sweep where a profile says, once each."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from vlmreason.files import read_json, write_json_atomic
from vlmreason.launch import local, slurm
from vlmreason.launch.directory import Sweep, job_dir
from vlmreason.launch.profiles import Local, Profile, make_profile
from vlmreason.launch.state import Submission, read_state, read_submission, write_state, write_submission
from vlmreason.provenance import SOURCE_RECORD


def send(folder: Path, sweep: Sweep, numbers: Sequence[int], profile: Profile) -> str:
    """Submit these jobs and return at once; says where they went.

    When it fails the jobs are again what they were before. Raises ValueError, OSError.
    """
    if not (folder / "source" / SOURCE_RECORD).is_file():
        raise ValueError(f"{folder / 'source'}: the frozen source is missing; plan into another directory")
    submission = folder / "submissions" / f"{time.strftime('%Y%m%d-%H%M%S')}-{time.time_ns() % 10**6:06d}"
    write_json_atomic(submission / "profile.json", asdict(profile))
    record = Submission(
        kind=profile.kind,
        folder=str(submission),
        time=time.time(),
        max_requeues=0 if isinstance(profile, Local) else profile.max_requeues,
        trainer=profile.launch_trainer,
    )
    before = {number: read_state(job_dir(folder, number)) for number in numbers}
    for number in numbers:
        write_submission(job_dir(folder, number), record)
        write_state(job_dir(folder, number), before[number].changed("submitted"))
    try:
        if isinstance(profile, Local):
            return local.submit(folder, submission, numbers)
        return slurm.submit(folder, submission, numbers, profile, sweep.name)
    except BaseException:
        if not (submission / "started.json").exists():
            for number in numbers:
                write_state(job_dir(folder, number), before[number])
        raise


def last_profile(folder: Path, numbers: Sequence[int]) -> Profile | None:
    """Return the profile with which the latest of these jobs was sent."""
    found = [found for number in numbers if (found := read_submission(job_dir(folder, number)))]
    if not found:
        return None
    path = Path(max(found, key=lambda submission: submission.time).folder) / "profile.json"
    return make_profile(read_json(path), str(path))
