"""What a reader makes of the state files, and what a job writes into them."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from support.launching import job_state

from vlmreason.assembly import errors
from vlmreason.commands import sweep
from vlmreason.files import write_json_atomic, write_text_atomic
from vlmreason.launch import directory, slurm, status, worker
from vlmreason.launch.state import (
    Attempt,
    Outcome,
    Process,
    State,
    Submission,
    read_state,
    write_state,
    write_submission,
)
from vlmreason.provenance import SOURCE_RECORD

ELSEWHERE = Process("another-node", 4711, "1")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sweep of four jobs; nothing was sent."""
    jobs = [
        directory.Job(i, f"run{i}", f"{i:012d}", str(tmp_path / f"run{i}"), (f"seed={i}",), {"seed": i}, {"main": 20})
        for i in range(4)
    ]
    folder = tmp_path / "s"
    for job in jobs:
        write_text_atomic(directory.job_dir(folder, job.number) / "config.yaml", f"seed: {job.number}\n")
    write_json_atomic(folder / "sweep.json", json.loads(json.dumps(vars_of(jobs, tmp_path))))
    write_json_atomic(folder / "source" / SOURCE_RECORD, {})
    return folder


def vars_of(jobs: list[directory.Job], cwd: Path) -> dict[str, Any]:
    return {
        "name": "s", "command": "train", "cwd": str(cwd), "digest": "", "source": {}, "complete": True,
        "jobs": [vars(job) for job in jobs],
    }  # fmt: skip


def send(folder: Path, number: int, kind: str, started: Any, ago: float = 600) -> None:
    place = folder / "submissions" / f"{kind}{number}"
    place.mkdir(parents=True)
    if started is not None:
        write_json_atomic(place / "started.json", started)
    submission = Submission(kind, str(place), time.time() - ago, 2, {})  # type: ignore[arg-type]
    write_submission(directory.job_dir(folder, number), submission)


def put(
    folder: Path, number: int, state: Outcome, process: Process | None = None, silent: float = 0, **more: Any
) -> None:
    attempts = ()
    if process:
        beat = time.time() - silent
        attempts = (replace(Attempt(process, None, beat - 10, beat), **more),)
    write_state(directory.job_dir(folder, number), State(state, time.time(), attempts))


def states(folder: Path) -> list[tuple[str, bool]]:
    return [(row.state, row.in_flight) for row in status.observe(folder, directory.read_sweep(folder))]


@pytest.fixture
def dead() -> Process:
    """A process of this machine that has ended."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    return Process(socket.gethostname(), ended.pid, "1")


def test_on_this_machine(folder: Path, dead: Process) -> None:
    here = Process.this()
    for number in range(4):
        send(folder, number, "local", vars(here if number < 2 else dead))
    put(folder, 0, "submitted")
    put(folder, 1, "running", here)
    put(folder, 2, "submitted")
    put(folder, 3, "running", dead)
    assert states(folder) == [("submitted", True), ("running", True), ("not begun", False), ("lost", False)]
    put(folder, 1, "running", replace(here, born="another time"))
    assert states(folder)[1] == ("lost", False), "another process has got its number"


def test_on_another_machine_only_signs_of_life_count(folder: Path) -> None:
    for number in range(2):
        send(folder, number, "local", vars(ELSEWHERE))
    put(folder, 0, "running", ELSEWHERE, silent=20)
    put(folder, 1, "running", ELSEWHERE, silent=200)
    assert states(folder)[:2] == [("running", True), ("lost", False)]


def test_in_the_queue(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    queue: dict[str, str] | None = {"7_0": "PENDING", "7_1": "RUNNING", "7_2": "PENDING"}
    monkeypatch.setattr(slurm, "queue", lambda: queue)
    ids = {str(number): f"7_{number}" for number in range(4)}
    for number in range(4):
        send(folder, number, "slurm", ids)
    put(folder, 0, "submitted")
    put(folder, 1, "running", ELSEWHERE)
    put(folder, 2, "stopped", ELSEWHERE, outcome="stopped", message="stopped in phase main; requeued")
    put(folder, 3, "running", ELSEWHERE, silent=100)
    assert states(folder) == [("submitted", True), ("running", True), ("stopped", True), ("lost", False)]
    queue = {"7_1": "PENDING"}  # its node has disappeared and SLURM has requeued it
    assert states(folder) == [("not begun", False), ("submitted", True), ("stopped", False), ("lost", False)]
    queue = None
    rows = status.observe(folder, directory.read_sweep(folder))
    assert not {row.state for row in rows} & {"lost", "not begun"}, "without an answer of the queue nothing is lost"
    assert all("squeue does not answer" in row.note for row in rows)


def test_a_submission_that_was_killed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slurm, "queue", dict)
    for number, (kind, ago) in enumerate((("local", 5), ("local", 500), ("slurm", 5), ("slurm", 500))):
        send(folder, number, kind, None, ago)
        put(folder, number, "submitted")
    assert states(folder) == [("submitted", True), ("not begun", False)] * 2


@pytest.mark.parametrize("content", ["", "{", "[]", '{"state": "sleeping"}', '{"state": "done", "more": 1}', "\x00"])
def test_damaged_state_file_is_named_and_passed_over(folder: Path, content: str) -> None:
    path = directory.job_dir(folder, 1) / "state.json"
    path.write_text(content)
    shutil.rmtree(directory.job_dir(folder, 2))
    rows = status.observe(folder, directory.read_sweep(folder))
    assert [row.state for row in rows] == ["waiting", "damaged", "damaged", "waiting"]
    assert str(path) in rows[1].note
    assert str(directory.job_dir(folder, 2)) in rows[2].note
    assert path.read_text() == content


def test_damaged_jobs_are_not_sent(folder: Path, vlmreason: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[list[int]] = []
    monkeypatch.setattr("vlmreason.launch.local.submit", lambda folder, submission, numbers: sent.append(list(numbers)))
    (directory.job_dir(folder, 1) / "state.json").write_text("{")
    done = vlmreason("sweep", "submit", f"dir={folder}")
    assert done.code == 0
    assert done.err.startswith("vlmreason: job 1 is passed over: ")
    assert sent == [[0, 2, 3]]
    assert vlmreason("sweep", "submit", f"dir={folder}", "jobs=[4]").err.endswith("the sweep has jobs 0 to 3\n")


def test_jobs_begin_in_the_order_given(folder: Path, vlmreason: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[list[int]] = []
    monkeypatch.setattr("vlmreason.launch.local.submit", lambda folder, submission, numbers: sent.append(list(numbers)))
    assert vlmreason("sweep", "submit", f"dir={folder}", "jobs=[3,0,3]").code == 0
    assert sent == [[3, 0]]


def test_table_shows_what_differs_and_where_a_run_is(folder: Path) -> None:
    here = Process.this()
    send(folder, 1, "local", vars(here))
    send(folder, 2, "local", vars(here))
    put(folder, 1, "running", here)
    put(folder, 2, "failed", here, outcome="failed", message="the disk is full")
    put(folder, 3, "done", here, outcome="done", ended=time.time())
    for number, lines in ((1, 15), (2, 3), (3, 20)):
        metrics = "".join(
            json.dumps({"phase": "main", "step": i + 1, "loss": 1 / (i + 1)}) + "\n" for i in range(lines)
        )
        write_text_atomic(folder.parent / f"run{number}" / "metrics.jsonl", metrics + '{"phase": "ma')
    write_json_atomic(folder.parent / "run3" / "summary.json", {"accuracy": 0.875})
    found = directory.read_sweep(folder)
    rows = status.observe(folder, found)
    lines = status.table(folder, found, rows).splitlines()
    assert lines[0].endswith("4 jobs, 1 waiting, 1 running, 1 failed, 1 done")
    assert lines[1].split() == ["job", "seed", "state", "progress", "loss", "accuracy", "time", "tries"]
    assert lines[2].split() == ["0", "0", "waiting"]
    assert lines[3].split()[:8] == ["1", "1", "running", "main", "15/20", "75.0", "%", "0.0667"]
    assert lines[4].endswith("the disk is full")
    assert "87.5 %" in lines[5] and "done" in lines[5]
    assert json.loads(status.to_json(found, rows))["jobs"][1]["share"] == 0.75


@pytest.fixture
def handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in worker.SIGNALS}
    yield
    assert {number: signal.getsignal(number) for number in worker.SIGNALS} == before
    assert signal.set_wakeup_fd(-1) == -1


def test_a_job_that_ends_well(folder: Path, handlers: None) -> None:
    with worker.tracked(folder, 0, errors.sentence):
        assert job_state(folder, 0).state == "running"
        assert job_state(folder, 0).attempts[0].process == Process.this()
    state = job_state(folder, 0)
    assert (state.state, state.attempts[0].outcome) == ("done", "done")
    with pytest.raises(worker.AlreadyDone), worker.tracked(folder, 0, errors.sentence):
        raise AssertionError("a finished job is not run again")


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ValueError("scale.lr=0:\n more is expected"), "scale.lr=0: more is expected"),
        (ZeroDivisionError("ours"), "ZeroDivisionError: ours"),
        (SystemExit(3), "SystemExit: 3"),
    ],
)
def test_a_job_that_fails(folder: Path, handlers: None, error: BaseException, message: str) -> None:
    for tries in (1, 2):
        with pytest.raises(type(error)), worker.tracked(folder, 0, errors.sentence):
            raise error
        state = job_state(folder, 0)
        assert (state.state, len(state.attempts), state.attempts[-1].message) == ("failed", tries, message)


@pytest.mark.parametrize("number", worker.SIGNALS)
def test_a_job_that_is_told_to_stop(folder: Path, handlers: None, number: int) -> None:
    with pytest.raises(KeyboardInterrupt), worker.tracked(folder, 0, errors.sentence):
        os.kill(os.getpid(), number)
        time.sleep(5)
        raise AssertionError("not interrupted")
    state = job_state(folder, 0)
    assert state.state == "stopped"
    assert state.attempts[-1].message == f"stopped ({signal.Signals(number).name})"


def stop_while_training(folder: Path, number: int) -> None:
    """As training does it: with handlers of its own, which note the signal."""
    told = threading.Event()
    with worker.tracked(folder, 0, errors.sentence):
        before = signal.signal(number, lambda *_: told.set())
        os.kill(os.getpid(), number)
        assert told.wait(5)
        signal.signal(number, before)
        raise KeyboardInterrupt("stopped in phase main after step 3 of 6; the same command goes on in x")


def test_only_the_end_of_the_time_asks_for_a_requeue(
    folder: Path, handlers: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(folder, 0, "slurm", {"0": "7_3"})
    monkeypatch.setenv("SLURM_ARRAY_JOB_ID", "7")
    monkeypatch.setenv("SLURM_ARRAY_TASK_ID", "3")
    with pytest.raises(KeyboardInterrupt):
        stop_while_training(folder, signal.SIGTERM)
    assert not (folder / "requeue").exists()
    for tries in range(3):
        with pytest.raises(KeyboardInterrupt):
            stop_while_training(folder, signal.SIGUSR2)
        message = job_state(folder, 0).attempts[-1].message
        assert message.startswith("stopped in phase main after step 3 of 6 (SIGUSR2)")
        if tries < 2:
            assert message.endswith("; requeued")
            (folder / "requeue" / "7_3").unlink()
    assert message.endswith("not requeued again: max_requeues=2 is reached")
    assert not list((folder / "requeue").iterdir())


def test_a_job_at_work_elsewhere_is_left_alone(folder: Path, handlers: None, dead: Process) -> None:
    send(folder, 0, "local", vars(ELSEWHERE))
    put(folder, 0, "running", ELSEWHERE, silent=10)
    before = read_state(directory.job_dir(folder, 0))
    with pytest.raises(ValueError, match="running already on another-node"), worker.tracked(folder, 0, errors.sentence):
        raise AssertionError("started twice")
    assert read_state(directory.job_dir(folder, 0)) == before
    for process, silent in ((ELSEWHERE, 1000), (dead, 1)):
        put(folder, 0, "running", process, silent=silent)
        with worker.tracked(folder, 0, errors.sentence):
            pass
        state = job_state(folder, 0)
        assert [attempt.outcome for attempt in state.attempts] == ["failed", "done"]
        assert state.attempts[0].message == "ended without a word"


def test_signs_of_life(folder: Path, handlers: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "BEAT", 0.02)
    with worker.tracked(folder, 0, errors.sentence):
        first = job_state(folder, 0).attempts[0].heartbeat
        deadline = time.monotonic() + 10
        while job_state(folder, 0).attempts[0].heartbeat <= first:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert job_state(folder, 0).state == "done"


def test_other_processes_of_a_job_leave_its_files_alone(folder: Path, handlers: None) -> None:
    with worker.untracked():
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)
        raise AssertionError("not interrupted")
    assert job_state(folder, 0) == State()


def test_one_submission_at_a_time(folder: Path, vlmreason: Any) -> None:
    with directory.locked(folder):
        done = vlmreason("sweep", "submit", f"dir={folder}")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "another plan or submission is at work there" in done.err
    assert sweep.ACTIONS == ("plan", "submit", "status", "resume")


@pytest.mark.parametrize("pid", [0, -1, -(2**40), 2**31, 2**62])
def test_what_is_no_process_does_not_live(pid: int) -> None:
    assert not replace(Process.this(), pid=pid).is_alive()
