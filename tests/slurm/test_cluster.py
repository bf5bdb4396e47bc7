"""A sweep on a real SLURM of one node, started by start.sh: a job that is killed, and one whose time is up.

`make test-slurm` runs it; without slurm-wlm, munge and root it says why not. It takes some minutes: SLURM counts
time limits in minutes.
"""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.launching import job_state, losses, settings, steps_done, tiny_base, wait_until, write_plan, write_yaml

from vlmreason.launch import directory, slurm, status

HERE = Path(__file__).parent

pytestmark = pytest.mark.skipif(
    os.environ.get("VLMREASON_SLURM") != "1", reason="starts services and takes minutes: make test-slurm"
)


def why_not() -> str | None:
    for program in ("slurmctld", "slurmd", "sbatch", "munged"):
        if shutil.which(program, path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
            return f"{program} is not installed (Debian, Ubuntu: apt-get install slurm-wlm munge)"
    return None if os.geteuid() == 0 else "SLURM's services are started by root only"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    if reason := why_not():
        pytest.skip(reason)
    pytest.importorskip("submitit")
    place = tmp_path_factory.mktemp("slurm")
    path = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    environment = os.environ | {"PATH": path, "SLURM_CONF": str(place / "slurm.conf")}
    for folder in (place, *place.parents):  # munged, of another user, goes there
        if folder != Path("/") and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o111)
    try:
        with open(place / "start.log", "w") as log:
            started = subprocess.run(
                ["bash", str(HERE / "start.sh"), str(place)], env=environment, stdout=log, stderr=log, timeout=120
            )
        if started.returncode:
            pytest.skip(f"SLURM does not start here: {(place / 'start.log').read_text().strip()[-500:]}")
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", environment["SLURM_CONF"])
            yield
            subprocess.run(["scancel", "--user=root"], check=False)
            wait_until(lambda: slurm.queue() == {}, "the queue empties")
    finally:
        subprocess.run(["bash", str(HERE / "stop.sh"), str(place)], check=False)


def states(folder: Path) -> list[str]:
    return [row.state for row in status.observe(folder, directory.read_sweep(folder))]


def run(*words: str) -> str:
    """The program in a process of its own."""
    done = subprocess.run([sys.executable, "-m", "vlmreason", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sweep(place: Path, base: Path, minutes: int, lead: int, *grids: dict[str, Any]) -> Path:
    """A submitted sweep."""
    write_plan(place / "p.yaml", *grids)
    write_yaml(
        place / "here.yaml", kind="slurm", partition="test", minutes=minutes, signal_lead=lead, max_requeues=9,
        trainer={"num_workers": 0, "num_threads": 1},
    )  # fmt: skip
    assert "SLURM job" in run(
        "sweep", f"plan={place / 'p.yaml'}", f"dir={place / 's'}", f"profile={place / 'here.yaml'}"
    )
    return place / "s"


def unbroken(folder: Path, number: int, place: Path) -> list[float]:
    """Losses of the same job without any interruption."""
    text = (directory.job_dir(folder, number) / "config.yaml").read_text()
    place.mkdir()
    (place / "config.yaml").write_text(text.replace(f"out: {folder.parent}/runs", f"out: {place}/runs"))
    found = Path(run("job", f"config={place / 'config.yaml'}").splitlines()[-1])
    assert place in found.parents
    return losses(found)


def test_killed_and_resumed(cluster: None, tmp_path: Path) -> None:
    """Three jobs; one dies in the middle, one is told to stop by scancel, all are done in the end."""
    base = tiny_base(tmp_path / "base")
    grid = settings(base, 4000) | {"out": str(tmp_path / "runs")}
    folder = sweep(tmp_path, base, 10, 60, grid | {"seed": [0, 1, 2]})
    ends = {
        0: lambda attempt: os.kill(attempt.process.pid, signal.SIGKILL),
        1: lambda attempt: subprocess.run(["scancel", "--signal=TERM", attempt.slurm], check=True),
    }

    def all_told() -> bool:
        for number in [number for number in ends if steps_done(folder, number) >= 30]:
            ends.pop(number)(job_state(folder, number).attempts[-1])
        return not ends

    wait_until(all_told, "two jobs train")
    wait_until(lambda: states(folder) == ["lost", "stopped", "done"], "two jobs end, one runs")
    assert job_state(folder, 1).attempts[-1].message.endswith("(SIGTERM)")
    assert 30 <= steps_done(folder, 0) < 500
    wait_until(lambda: slurm.queue() == {}, "the queue empties")
    assert "2 of 3 jobs resumed (1 lost, 1 stopped, 1 done before)" in run("sweep", "resume", f"dir={folder}")
    wait_until(lambda: states(folder) == ["done"] * 3, "the resumed jobs end")
    assert [len(job_state(folder, number).attempts) for number in range(3)] == [2, 2, 1]
    assert steps_done(folder, 0) == 500
    assert losses(Path(directory.read_sweep(folder).jobs[0].run_dir)) == unbroken(folder, 0, tmp_path / "again")
    table = run("sweep", "status", f"dir={folder}")
    assert "3 jobs, 3 done" in table
    assert "nothing to resume: 3 done" in run("sweep", "resume", f"dir={folder}")


def test_time_limit(cluster: None, tmp_path: Path) -> None:
    """The time is up: the job saves, is requeued by itself, goes on where it was, and its neighbour is left alone."""
    base = tiny_base(tmp_path / "base")
    grid = {"out": str(tmp_path / "runs"), "trainer.checkpoint_every": 100_000}
    long, short = settings(base, 80_000) | grid | {"seed": 5}, settings(base) | grid | {"seed": 6}
    folder = sweep(tmp_path, base, 2, 25, long, short)  # SLURM may give the sign a minute too early
    wait_until(lambda: states(folder)[0] == "stopped", "the time is up")
    first = job_state(folder, 0).attempts[0]
    assert first.message.endswith("(SIGUSR2); requeued")
    kept = steps_done(folder, 0)
    assert kept > 0
    wait_until(lambda: len(job_state(folder, 0).attempts) == 2, "SLURM starts it again", seconds=300)
    assert job_state(folder, 0).attempts[1].slurm == first.slurm
    # The rest fits into one go, however busy the machine is.
    subprocess.run(["scontrol", "update", f"JobId={first.slurm}", "TimeLimit=60"], check=True)
    wait_until(lambda: steps_done(folder, 0) > kept, "it goes on")
    wait_until(lambda: states(folder) == ["done", "done"], "all is done", seconds=900)
    assert [attempt.outcome for attempt in job_state(folder, 0).attempts] == ["stopped", "done"]
    assert len(job_state(folder, 1).attempts) == 1, "a task that was done is not run again"
    assert steps_done(folder, 0) == 10_000
