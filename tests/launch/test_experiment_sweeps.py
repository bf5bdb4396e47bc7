"""What experiments lack becomes a sweep: trained, measured, found by the figure, and not made twice."""

import json
import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import initialize_config_dir
from support.launching import job_state, settings, wait_until, write_yaml
from support.studies import ARTIFACT, STUDY, use_study, write_study

from vlmreason import places
from vlmreason.assembly import compose
from vlmreason.launch import directory, follow_ups, status
from vlmreason.launch.state import write_state
from vlmreason.studies import artifacts

FORCE = ("evaluate", "evaluation.conversion=force", "evaluation.views=[image]")
FAILURES = ("analyze", "what=failures", "num_worst=1")


def study(base: Path, **values: Any) -> dict[str, Any]:
    nano = {"scale": "nano", **settings(base)} | {"evaluation.views": ["text"]}
    for key in ("task", "supervision", "scale.num_examples"):
        del nano[key]
    scales: Any = {
        "nano": {"set": nano, "values": {"sizes": [16], "seeds": [0, 1]} | values,
                 "analyses": {"failures": {"num_worst": 1}}},
        "paper": STUDY["scales"]["paper"],
    }  # fmt: skip
    return STUDY | {"scales": scales}


FORCED = ARTIFACT | {
    "paper": [],
    "panels": [
        {"label": "own", "measure": {"view": "text"}},
        {"label": "forced", "measure": {"view": "image", "conversion": "force"}},
    ],
    "series": [
        {"label": "Image", "set": {"supervision": "image"}},
        {"label": "Mix", "set": {"supervision": "mix"}, "only": ["own"]},
    ],
}
FAULTS = FORCED | {"series": [{"label": "Image", "set": {"supervision": "image"}}], "panels": [
    {"label": "faults", "measure": {"view": "text", "what": "failures:incorrect"}},
]}  # fmt: skip


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, base: Path) -> Path:
    """experiments/made_up with the artifacts forced (runs of image and mix) and faults (runs of image)."""
    folder = tmp_path / "experiments"
    use_study(monkeypatch, write_study(folder, study=study(base), forced=FORCED, faults=FAULTS))
    return folder


def jobs(folder: Path) -> list[directory.Job]:
    return list(directory.read_sweep(folder).jobs)


def states(folder: Path) -> list[str]:
    return [row.state for row in status.observe(folder, directory.read_sweep(folder))]


@pytest.mark.slow
def test_from_nothing_to_a_figure(vlmreason: Any, tmp_path: Path, made_up: Path) -> None:
    write_yaml(tmp_path / "two.yaml", kind="local", parallel=2, threads=1)
    done = vlmreason("sweep", "experiment=made_up/forced", "set=[seed=0]", "profile=two.yaml")
    assert done.code == 0, done.err
    folder = tmp_path / "outputs" / "sweeps" / "made_up-forced"
    assert done.out.splitlines()[:3] == [
        "0 of 2 runs are there already",
        "2 runs missing, at a cost that is not known: no record is of a like run",
        "2 jobs planned",
    ]
    assert [job.then for job in jobs(folder)] == [(FORCE,), ()]
    wait_until(lambda: states(folder) == ["done", "done"], "both are trained and measured")
    log = (directory.job_dir(folder, 0) / "log.txt").read_text()
    assert "vlmreason: vlmreason evaluate evaluation.conversion=force" in log

    drawn = vlmreason("figure", "experiment=made_up/forced", "set=[seed=0]")
    assert "made_up/forced: 2 runs\n" in drawn.out, drawn.out + drawn.err
    again = vlmreason("sweep", "experiment=made_up/forced", "set=[seed=0]")
    assert (again.code, again.err) == (0, "")
    assert again.out.splitlines() == ["2 of 2 runs are there already", "nothing to plan"]

    # another experiment of the same run: only what it lacks, without training; a failure of that is the job's
    run = Path(jobs(folder)[0].run_dir)
    before = (run / "metrics.jsonl").stat().st_mtime_ns, (run / "provenance.json").stat().st_mtime_ns
    done = vlmreason("sweep", "plan", "experiment=made_up/faults", "set=[seed=0]")
    assert "0 of 1 runs are there already, 1 more trained, without all" in done.out
    faults = tmp_path / "outputs" / "sweeps" / "made_up-faults"
    assert [job.then for job in jobs(faults)] == [(FAILURES,)]
    plan = (faults / "sweep.json").read_text()
    (faults / "sweep.json").write_text(plan.replace("num_worst=1", "num_worst=-1"))
    assert "1 job submitted" in vlmreason("sweep", "submit", "experiment=made_up/faults").out
    wait_until(lambda: states(faults) == ["failed"], "the follow-up fails")
    assert job_state(faults, 0).attempts[-1].message == (
        "vlmreason analyze what=failures num_worst=-1 accelerator=cpu: exit code 2: num_worst=-1: 0 or more is expected"
    )
    (faults / "sweep.json").write_text(plan)
    assert "1 of 1 job resumed (1 failed before)" in vlmreason("sweep", "resume", "experiment=made_up/faults").out
    wait_until(lambda: states(faults) == ["done"], "failures are found")
    assert before == ((run / "metrics.jsonl").stat().st_mtime_ns, (run / "provenance.json").stat().st_mtime_ns)
    assert json.loads((run / "analysis" / "failures.json").read_text())["settings"]["num_worst"] == 1
    done = vlmreason("sweep", "experiment=glob(made_up/*)", "set=[seed=0]")
    assert done.out.splitlines() == ["2 of 2 runs are there already", "nothing to plan"]


def test_a_run_of_several_experiments_is_one_job(vlmreason: Any, tmp_path: Path, made_up: Path) -> None:
    done = vlmreason("sweep", "plan", "experiment=[made_up/faults,made_up/forced]", "runs=elsewhere", "dir=s")
    assert done.code == 0, done.err
    found = jobs(tmp_path / "s")
    assert [(job.varying["seed"], job.varying["supervision"], job.then) for job in found] == [
        ("0", "image", (FAILURES, FORCE)), ("1", "image", (FAILURES, FORCE)), ("0", "mix", ()), ("1", "mix", ()),
    ]  # fmt: skip
    with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
        for job in found:
            config = yaml.safe_load((directory.job_dir(tmp_path / "s", job.number) / "config.yaml").read_text())
            assert config == compose.freeze(list(job.overrides), "train")
            assert Path(job.run_dir).parent == tmp_path / "elsewhere" == tmp_path / config["out"]


def test_what_is_planned_is_not_planned_again(vlmreason: Any, tmp_path: Path, made_up: Path) -> None:
    sweeps = tmp_path / "outputs" / "sweeps"
    assert vlmreason("sweep", "plan", "experiment=made_up/forced", "set=[seed=0]").last_line.endswith("made_up-forced")
    again = vlmreason("sweep", "plan", "experiment=made_up/forced")
    assert f"planned before: 2 waiting; vlmreason sweep submit dir={sweeps}/made_up-forced\n" in again.out
    assert "2 jobs planned\n" in again.out
    assert again.last_line == str(sweeps / "made_up-forced-2")
    assert [job.overrides[-2] for job in jobs(sweeps / "made_up-forced-2")] == ["seed=1", "seed=1"]
    third = vlmreason("sweep", "plan", "experiment=made_up/forced")
    assert third.last_line == "nothing to plan"
    # what has failed is planned again, as the source is now; a damaged sweep is named
    write_state(
        directory.job_dir(sweeps / "made_up-forced", 0), job_state(sweeps / "made_up-forced", 0).changed("failed")
    )
    (sweeps / "made_up-forced-2" / "sweep.json").write_text("{")
    fourth = vlmreason("sweep", "plan", "experiment=made_up/forced")
    assert "made_up-forced-2/sweep.json: the file is damaged: it is not JSON; it is passed over" in fourth.err
    assert fourth.last_line == str(sweeps / "made_up-forced-3")
    assert len(jobs(sweeps / "made_up-forced-3")) == 3


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("sweep experiment=made_up/fored", "did you mean 'made_up/forced'?"),
        ("sweep experiment=made_up/forced plan=smoke", "experiment=made_up/forced: has no effect with plan=smoke"),
        ("sweep plan=smoke scale=paper", "set='[scale=paper]'"),
        ("sweep plan=smoke runs=x", "runs=x: has no effect with plan; set='[out=x]'"),
        ("sweep experiment=made_up/forced set=[out=x]", "runs=x"),
        ("sweep experiment=made_up/forced scale.num_examples=3", "set='[scale.num_examples=3]'"),
        ("sweep experiment=made_up/forced set=[scale.num_exampels=3]", "did you mean"),
        ("sweep experiment=made_up/forced set=[trainer.precision=17]", "trainer.precision"),
        ("sweep status experiment=made_up/forced", "made_up-forced: no sweep"),
        ("sweep status experiment=made_up/forced runs=x", "runs: has no effect with status"),
    ],
)
def test_mistakes_end_with_one_sentence(vlmreason: Any, tmp_path: Path, made_up: Path, line: str, names: str) -> None:
    done = vlmreason(*line.split())
    assert done.code == 2
    assert names in done.err and done.err.count("\n") == 1 and done.err.startswith("vlmreason: ")
    assert [path.name for path in tmp_path.iterdir() if path.name not in ("base", "experiments")] == []


def test_names_of_sweeps(made_up: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vlmreason.assembly import planning

    assert planning.name(["made_up/forced"], "nano") == "made_up-forced"
    assert planning.name(["made_up/forced"], "paper") == "made_up-forced-paper"
    assert planning.name(artifacts.chosen("glob(made_up/*)"), "nano") == "made_up"
    monkeypatch.setattr(artifacts, "names", lambda: tuple(f"a/{x}" for x in range(9)))
    assert planning.name(["a/1", "a/2"], "nano") == "a-1-2"
    assert planning.name([f"a/{x}" for x in range(5)], "nano") == "a-0-and-4-more"


def test_a_sweep_from_before_follow_ups_is_read(vlmreason: Any, tmp_path: Path, made_up: Path) -> None:
    assert vlmreason("sweep", "plan", "experiment=made_up/forced", "dir=s").code == 0
    path = tmp_path / "s" / "sweep.json"
    data = json.loads(path.read_text())
    for job in data["jobs"]:
        del job["then"]
    path.write_text(json.dumps(data))
    assert {job.then for job in jobs(tmp_path / "s")} == {()}


# What a job runs after training, with a stand-in for the program.

STANDIN = """
import os, signal, sys, time
words = sys.argv[1:]
print(words, flush=True)
if words[0] == "fail":
    print("vlmreason: first words", file=sys.stderr)
    sys.exit("vlmreason: it went wrong")
if words[0] == "environment":
    open(words[1], "w").write(repr(dict(os.environ)))
if words[0] == "die":
    os.kill(os.getpid(), signal.SIGUSR2)
if words[0] == "wait":
    open(words[1], "w").write(str(os.getpid()))
    try:
        time.sleep(60)
    except KeyboardInterrupt:
        open(words[1], "w").write("told")
        sys.exit(130)
"""


@pytest.fixture
def standin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    package = tmp_path / "source" / "vlmreason"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(STANDIN)
    monkeypatch.setattr(follow_ups.vlmreason, "__file__", str(package / "__init__.py"))
    return tmp_path


def test_a_failure_is_its_last_words(standin: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ValueError, match=r"^vlmreason fail: exit code 1: it went wrong$"):
        follow_ups.run(["fail"], standin / "a 'run'")
    shown = capfd.readouterr()
    assert "vlmreason: first words" in shown.err and "['fail', \"run='" in shown.out


def test_a_follow_up_is_alone(standin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "SLURM_PROCID", "SLURM_JOB_ID", "TORCHELASTIC_RUN_ID")
    for name in taken:
        monkeypatch.setenv(name, "1")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "3")
    monkeypatch.setenv("PYTHONPATH", "further")
    follow_ups.run(["environment", str(standin / "env")], standin, threads=5)
    found = eval((standin / "env").read_text())
    assert not set(taken) & set(found)
    assert found["CUDA_VISIBLE_DEVICES"] == "3" and found["OMP_NUM_THREADS"] == "5"
    assert found["PYTHONPATH"] == f"{standin / 'source'}{os.pathsep}further"


def test_a_stop_reaches_the_follow_up(standin: Path) -> None:
    def interrupt() -> None:
        wait_until(lambda: (standin / "pid").exists() and (standin / "pid").read_text(), "it has begun", 30)
        os.kill(os.getpid(), signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    thread = threading.Thread(target=interrupt)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            follow_ups.run(["wait", str(standin / "pid")], standin)
    finally:
        signal.signal(signal.SIGINT, before)
    thread.join()
    assert (standin / "pid").read_text() == "told"


def test_what_ends_by_the_signal_of_the_queue_is_stopped_not_failed(
    standin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(follow_ups.time, "sleep", lambda _: None)
    with pytest.raises(KeyboardInterrupt):
        follow_ups.run(["die"], standin)


@pytest.mark.parametrize("words", [("figure", "out=figures"), ("sweep", "plan")])
def test_what_is_missing_has_a_price_before_it_is_planned(
    made_up: Path, vlmreason: Any, words: tuple[str, ...]
) -> None:
    """The made-up runs are like no record, which is said too."""
    done = vlmreason(*words, "experiment=made_up/forced", "runs=none")
    assert done.code == 0, done.err
    assert "4 runs missing, at a cost that is not known: no record is of a like run" in done.out.splitlines()
