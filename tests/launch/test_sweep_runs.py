"""Whole sweeps of tiny runs: on this machine, and through submitit with stand-ins for SLURM's commands."""

import json
import os
import signal
import stat
import sys
from pathlib import Path
from typing import Any

import pytest
from support import standin
from support.launching import job_state, losses, settings, steps_done, wait_until, write_plan, write_yaml

from vlmreason.launch import directory, local, slurm, status
from vlmreason.launch.state import read_submission

LONG = 1600  # examples: some seconds, so that a signal finds the job at work


def rows(folder: Path) -> list[status.Row]:
    return status.observe(folder, directory.read_sweep(folder))


def states(folder: Path) -> list[str]:
    return [row.state for row in rows(folder)]


def signal_job(folder: Path, number: int, what: int, after_steps: int = 12) -> None:
    wait_until(lambda: steps_done(folder, number) >= after_steps, f"job {number} trains")
    os.kill(job_state(folder, number).attempts[-1].process.pid, what)


@pytest.mark.slow
def test_on_this_machine(vlmreason: Any, tmp_path: Path, base: Path) -> None:
    """One job is killed in the middle and one fails; both are resumed."""
    failing = settings(base) | {"model.checkpoint": str(tmp_path / "later"), "seed": 2}
    write_plan(tmp_path / "p.yaml", settings(base, LONG), failing)
    write_yaml(tmp_path / "two.yaml", kind="local", parallel=2, threads=1)
    folder = tmp_path / "s"
    done = vlmreason("sweep", "plan=p.yaml", "dir=s", "profile=two.yaml")
    assert done.code == 0, done.err
    assert done.out.splitlines()[-1] == str(folder)
    assert "2 jobs submitted: process " in done.out
    assert "nothing to submit" in vlmreason("sweep", "submit", "dir=s", "profile=two.yaml").out
    signal_job(folder, 0, signal.SIGKILL)
    wait_until(lambda: states(folder) == ["lost", "failed"], "the jobs end")
    killed, failed = rows(folder)
    assert "ended without a word" in killed.note
    assert str(tmp_path / "later") in failed.note
    kept = losses(Path(killed.run_dir))[:10]
    os.symlink(base, tmp_path / "later")
    shown = json.loads(vlmreason("sweep", "status", "dir=s", "format=json").out)
    assert [job["state"] for job in shown["jobs"]] == ["lost", "failed"]
    resumed = vlmreason("sweep", "resume", "dir=s")
    assert "2 of 2 jobs resumed (1 lost, 1 failed before)" in resumed.out
    wait_until(lambda: states(folder) == ["done"] * 2, "the resumed jobs end")
    assert [row.attempts for row in rows(folder)] == [2, 2]
    assert losses(Path(killed.run_dir))[:10] == kept
    assert steps_done(folder, 0) == LONG // 8
    assert "2 done" in vlmreason("sweep", "status", "dir=s", "watch=true").out
    assert "nothing to resume: 2 done" in vlmreason("sweep", "resume", "dir=s").out

    found = rows(folder)[1]
    assert found.accuracy is not None
    record = json.loads((Path(found.run_dir) / "provenance.json").read_text())
    assert record["source"] == directory.read_sweep(folder).source
    last = (directory.job_dir(folder, 1) / "log.txt").read_text().splitlines()[-1]
    assert (tmp_path / last).samefile(found.run_dir)


@pytest.mark.slow
def test_a_supervisor_that_died(vlmreason: Any, tmp_path: Path, base: Path) -> None:
    write_plan(tmp_path / "p.yaml", settings(base, LONG) | {"seed": [0, 1]})
    folder = tmp_path / "s"
    assert vlmreason("sweep", "plan=p.yaml", "dir=s").code == 0
    submission = read_submission(directory.job_dir(folder, 0))
    assert submission is not None
    supervisor = local.supervisor(Path(submission.folder))
    assert supervisor is not None and os.getsid(supervisor.pid) != os.getsid(0), "Ctrl-C does not reach it"
    wait_until(lambda: states(folder)[0] == "running", "the first job begins")
    log = directory.job_dir(folder, 0) / "log.txt"
    wait_until(lambda: log.read_text(), "its log says so", 5)
    assert " job 0 begins on " in log.read_text().splitlines()[0]
    os.kill(supervisor.pid, signal.SIGKILL)
    wait_until(lambda: not supervisor.is_alive(), "the supervisor dies")
    assert states(folder) == ["running", "not begun"]
    assert "the supervisor ended before it came to this job" in rows(folder)[1].note
    signal_job(folder, 0, signal.SIGTERM)
    wait_until(lambda: states(folder) == ["stopped", "not begun"], "the job saves")
    assert "stopped in phase main after step" in rows(folder)[0].note and "(SIGTERM)" in rows(folder)[0].note


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """SLURM's commands on the PATH; the folder of their state."""
    pytest.importorskip("submitit")
    state, programs = tmp_path / "cluster", tmp_path / "bin"
    state.mkdir()
    programs.mkdir()
    for name in ("sbatch", "srun", "squeue", "scontrol"):
        path = programs / name
        path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{standin.__file__}" {name} "$@"\n')
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("STANDIN", str(state))
    write_yaml(tmp_path / "cluster.yaml", kind="slurm", minutes=10, trainer={"num_workers": 0})
    return state


@pytest.mark.slow
def test_through_a_queue(vlmreason: Any, tmp_path: Path, base: Path, cluster: Path) -> None:
    """One job's time is up and it comes back by itself; one is killed and resumed."""
    write_plan(tmp_path / "p.yaml", settings(base, LONG) | {"seed": [0, 1]})
    folder = tmp_path / "s"
    done = vlmreason("sweep", "plan=p.yaml", "dir=s", "profile=cluster.yaml")
    assert done.code == 0, done.err
    assert "2 jobs submitted: SLURM job 7;" in done.out
    assert slurm.slurm_ids(next((folder / "submissions").iterdir())) == {"0": "7_0", "1": "7_1"}
    wait_until(lambda: min(steps_done(folder, 0), steps_done(folder, 1)) >= 12, "both train")
    assert states(folder) == ["running", "running"]
    signal_job(folder, 0, signal.SIGUSR2)
    signal_job(folder, 1, signal.SIGKILL)
    wait_until(lambda: states(folder) == ["done", "lost"], "the jobs end")
    assert [attempt.outcome for attempt in job_state(folder, 0).attempts] == ["stopped", "done"]
    assert job_state(folder, 0).attempts[0].message.endswith("(SIGUSR2); requeued")
    assert not list((folder / "requeue").iterdir())
    assert "1 of 2 jobs resumed (1 done, 1 lost before): SLURM job 8" in vlmreason("sweep", "resume", "dir=s").out
    wait_until(lambda: states(folder) == ["done", "done"], "the resumed job ends")
    assert [len(job_state(folder, number).attempts) for number in (0, 1)] == [2, 2]


def test_without_slurm_nothing_is_submitted(vlmreason: Any, tmp_path: Path, base: Path, cluster: Path) -> None:
    write_plan(tmp_path / "p.yaml", settings(base))
    assert vlmreason("sweep", "plan", "plan=p.yaml", "dir=s").code == 0
    folder = tmp_path / "s"
    submit = ("sweep", "submit", "dir=s", "profile=cluster.yaml")
    (cluster / "refuse").write_text("sbatch: error: invalid partition specified: gpu")
    done = vlmreason(*submit)
    assert (done.code, done.err.count("\n")) == (2, 1), done.err
    assert "sbatch refused: " in done.err and "invalid partition specified: gpu" in done.err
    assert states(folder) == ["waiting"]
    (tmp_path / "bin" / "sbatch").unlink()
    if not any((Path(place) / "sbatch").exists() for place in os.environ["PATH"].split(os.pathsep)):
        done = vlmreason(*submit)
        assert (done.code, done.err.count("\n")) == (2, 1)
        assert "sbatch: not found" in done.err
        assert states(folder) == ["waiting"]
    (cluster / "down").touch()
    assert slurm.queue() is None


@pytest.mark.slow
def test_hydras_own_launcher(vlmreason: Any, tmp_path: Path) -> None:
    """Multirun with submitit on this machine: one process for each job."""
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    words = ("generate", "-m", "hydra/launcher=submitit_local", "num=2", "workers=1", "out=a,b")
    assert vlmreason(*words).code == 0
    for name in ("a", "b"):
        assert len((tmp_path / name / "test" / "metadata.jsonl").read_text().splitlines()) == 2
    done = vlmreason(*words[:3], "num=2", "workers=1", "out=a,b", "level=simpel")
    assert done.code != 0
