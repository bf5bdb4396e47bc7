"""A plan is frozen: nothing that is edited later reaches its jobs, and nothing of another sweep is overwritten."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from support.launching import settings, write_plan

from vlmreason import places
from vlmreason.assembly import catalog, compose, planning
from vlmreason.commands import sweep
from vlmreason.launch import directory
from vlmreason.provenance import SOURCE_RECORD


@pytest.fixture
def planned(vlmreason, tmp_path: Path, base: Path) -> Path:
    """A sweep of two jobs in s/."""
    write_plan(tmp_path / "two.yaml", settings(base) | {"seed": [0, 1]})
    done = vlmreason("sweep", "plan", "plan=two.yaml", "dir=s")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines() == ["2 runs, about 1 core minute of training", "2 jobs planned", str(tmp_path / "s")]
    return tmp_path / "s"


def test_a_job_is_what_the_command_would_get(planned: Path, base: Path) -> None:
    found = directory.read_sweep(planned)
    overrides = [f"{key}={compose.override_value(value)}" for key, value in settings(base).items() if key != "seed"]
    overrides = [word.replace("[[text]]", "[text]") for word in overrides]
    with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
        wanted = compose.resolve(hydra_compose("train", [*overrides, "seed=1"]), [*overrides, "seed=1"])
    text = (planned / "jobs" / "0001" / "config.yaml").read_text()
    assert yaml.safe_load(text) == wanted
    assert "&id" not in text and "${" not in text
    assert [job.number for job in found.jobs] == [0, 1]
    assert [job.varying for job in found.jobs] == [{"seed": "0"}, {"seed": "1"}]
    assert found.jobs[0].steps == {"main": 6}
    assert found.jobs[0].run.endswith(found.jobs[0].hash)
    assert len({job.hash for job in found.jobs}) == 2


def test_source_commit_and_changes_are_kept(planned: Path) -> None:
    found = directory.read_sweep(planned)
    assert set(found.source) == {"commit", "dirty", "diff", "diff_cut", "untracked"}
    assert (planned / "source.diff").read_text() == (found.source["diff"] or "")
    frozen = planned / "source"
    assert json.loads((frozen / SOURCE_RECORD).read_text()) == found.source
    package = Path(sweep.__file__).parents[1]
    for name in ("launch/worker.py", "models/nano/vocabulary.json"):
        assert (frozen / "vlmreason" / name).read_bytes() == (package / name).read_bytes()
    assert (frozen / "vlmreason" / "conf" / "train.yaml").is_file()
    assert not list(frozen.rglob("__pycache__"))


def test_a_job_runs_from_the_frozen_source(planned: Path, tmp_path: Path) -> None:
    """Also where a package of that name lies in the working directory."""
    (tmp_path / "vlmreason").mkdir()
    (tmp_path / "vlmreason" / "__init__.py").write_text("raise SystemExit('the wrong one')")
    code = "import vlmreason.provenance as p, vlmreason.places as c; print(c.conf_dir()); print(p.source())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=directory.environment(planned, os.environ),
        capture_output=True,
        text=True,
    )
    place, source = done.stdout.splitlines()
    assert place == str(planned / "source" / "vlmreason" / "conf")
    assert source == str(directory.read_sweep(planned).source)


def test_jobs_are_not_sent_without_the_frozen_source(vlmreason, planned: Path) -> None:
    (planned / "source").rename(planned / "away")
    done = vlmreason("sweep", "submit", "dir=s")
    assert (done.code, done.err) == (
        2,
        f"vlmreason: {planned}/source: the frozen source is missing; plan into another directory\n",
    )
    assert not (planned / "submissions").exists()


def test_planning_again_changes_nothing(vlmreason, planned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.stat().st_mtime_ns for path in planned.rglob("*") if path.is_file() and path.name != ".lock"}
    done = vlmreason("sweep", "plan", "plan=two.yaml", "dir=s")
    assert (done.code, done.err) == (0, "")
    monkeypatch.setattr(directory, "source_digest", lambda conf: "other")
    done = vlmreason("sweep", "plan", "plan=two.yaml", "dir=s")
    assert done.code == 0
    assert "the source has changed since" in done.err
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("missing", ["sweep.json", "jobs", "source", "half"])
def test_an_interrupted_plan_is_completed(vlmreason, planned: Path, missing: str) -> None:
    wanted = {path.relative_to(planned): path.read_bytes() for path in planned.rglob("*.yaml")}
    data = json.loads((planned / "sweep.json").read_text())
    (planned / "sweep.json").write_text(json.dumps(data | {"complete": False}))
    if missing == "half":
        shutil.rmtree(planned / "jobs" / "0001")
        shutil.rmtree(planned / "source" / "vlmreason" / "conf")
    elif missing != "sweep.json":
        shutil.rmtree(planned / missing)
    done = vlmreason("sweep", "submit", "dir=s")
    assert (done.code, done.err.count("\n")) == (2, 1)
    assert "the plan was interrupted; the same `vlmreason sweep plan` completes it" in done.err
    assert vlmreason("sweep", "plan", "plan=two.yaml", "dir=s").code == 0
    assert {path.relative_to(planned): path.read_bytes() for path in planned.rglob("*.yaml")} == wanted
    assert directory.read_sweep(planned).complete


def test_two_sweeps_in_one_directory(vlmreason, planned: Path, tmp_path: Path) -> None:
    before = (planned / "sweep.json").read_bytes()
    for words, what in (
        (["set=[scale.lr=0.5]"], "its job 0 is table_readout-image-nano-s0-"),
        (["set=[seed=0]"], "with 2 jobs instead of 1"),
    ):
        done = vlmreason("sweep", "plan", "plan=two.yaml", "dir=s", *words)
        assert done.code == 2
        last = done.err.splitlines()[-1]
        assert "holds another sweep" in last and what in last and "choose another directory" in last
    assert (planned / "sweep.json").read_bytes() == before
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("")
    assert "holds something that is no sweep" in vlmreason("sweep", "plan", "plan=two.yaml", "dir=mine").err
    assert [path.name for path in (tmp_path / "mine").iterdir() if path.name != ".lock"] == ["thesis.tex"]


def test_the_same_run_twice_is_left_out(vlmreason, tmp_path: Path, base: Path) -> None:
    write_plan(tmp_path / "p.yaml", settings(base) | {"seed": [0, 1]}, settings(base) | {"seed": 1, "out": "elsewhere"})
    done = vlmreason("sweep", "plan", "plan=p.yaml", "dir=s")
    assert done.code == 0
    assert "1 job of the plan left out: the same run as another one, the first as job 1" in done.err
    assert len(directory.read_sweep(tmp_path / "s").jobs) == 2


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("sweep pln plan=smoke", "did you mean 'plan'?"),
        ("sweep", "plan: must be given"),
        ("sweep status", "dir: must be given"),
        ("sweep plan plan=smok", "did you mean 'smoke'?"),
        ("sweep plan plan=none.yaml", "plan=none.yaml: no such file"),
        ("sweep plan=smoke profile=slrm", "did you mean 'slurm'?"),
        ("sweep plan plan=smoke profile=local", "profile: has no effect with plan"),
        ("sweep status dir=x watch=true format=json", "watch=true: has no effect"),
        ("sweep status dir=nowhere", "no sweep (sweep.json is missing)"),
        ("sweep resume dir=nowhere", "no sweep (sweep.json is missing)"),
        ("sweep plan plan=smoke set=[scale.num_example=3]", "did you mean 'scale.num_examples'?"),
        ("sweep plan plan=smoke set=[task=tabel_readout]", "did you mean 'table_readout'?"),
        ("sweep plan plan=smoke set=[seed]", "seed: settings are written key=value"),
        ("sweep plan plan=smoke set=seed=1", "set='[seed=1]'"),
        ("sweep plan plan=smoke set=[adapter.frozen=[vision]]", "adapter.frozen"),
        ("sweep submit dir=s jobs=[]", "one number or more is expected"),
        ("sweep plan=smoke profile=wrong.yaml", "wrong.yaml: trainer.strategy='fdsp'"),
        ("job config=torn.yaml", "torn.yaml: a config.yaml is expected"),
        ("sweep plan plan=smoke set=[seed=x]", "seed='x': int is expected"),
        ("sweep plan plan=key.yaml", "key.yaml: grid: no such key"),
        ("sweep plan plan=empty.yaml", "empty.yaml: grids: one value or more is expected"),
        ("sweep plan plan=torn.yaml", "torn.yaml: damaged: it is not YAML (line 2: "),
        ("job config=nowhere.yaml", "nowhere.yaml: no such file"),
    ],
)
def test_mistakes(line: str, names: str, vlmreason, tmp_path: Path) -> None:
    (tmp_path / "key.yaml").write_text("command: train\ngrid: []\n")
    (tmp_path / "empty.yaml").write_text("command: train\ngrids: []\n")
    (tmp_path / "wrong.yaml").write_text("kind: local\ntrainer: {strategy: fdsp}\n")
    (tmp_path / "torn.yaml").write_text("command: [train\n")
    before = sorted(tmp_path.iterdir())
    done = vlmreason(*line.split())
    assert done.code == 2
    assert names in done.err
    assert done.err.count("\n") == 1
    assert done.err.startswith("vlmreason: ")
    assert sorted(tmp_path.iterdir()) == before, "nothing is left behind"


@pytest.mark.parametrize(
    "value", [1, 0.5, None, True, "mix", "a b", "it's", "1", "null", "${seed}", ["text", "image"], {"a": [1, "x,y"]}]
)
def test_values_read_back_as_they_were(value: Any) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    parsed = OverridesParser.create().parse_override(f"key={compose.override_value(value)}").value()
    assert json.dumps(parsed, default=str) == json.dumps(value)


@pytest.mark.parametrize(
    ("word", "wanted"),
    [
        ("set=[a=1]", ["a=1"]),
        ("set=[a=1, b.c=[x,y] ,d={e:1,f:2}]", ["a=1", "b.c=[x,y]", "d={e:1,f:2}"]),
        ("set=['a=1',\"b='x,y'\"]", ["a=1", "b='x,y'"]),
        ("set=[a='x,y']", ["a='x,y'"]),
        ("set=[]", []),
    ],
)
def test_settings_for_all_jobs(word: str, wanted: list[str]) -> None:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    first, second = catalog.as_settings("sweep", ["plan", word])
    assert first == "action=plan"
    assert list(OverridesParser.create().parse_override(second).value()) == wanted


@pytest.mark.parametrize("name", catalog.sweep_choices("plan"))
def test_shipped_plans(name: str) -> None:
    """Each says what it is for; a few jobs of it compose and are checked."""
    path = catalog.sweep_file("plan", name)
    assert path.read_text().startswith("# ")
    for word in (f"# Command: vlmreason sweep plan={name}", "# Cost: "):
        assert word in path.read_text()
    jobs = list(planning.read_plan(name).jobs())
    assert len({tuple(job) for job in jobs}) == len(jobs)
    with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
        for overrides in jobs[:: max(1, len(jobs) // 12)]:
            assert compose.freeze(overrides, "train")["seed"] is not None


def test_completion_knows_actions_plans_and_profiles() -> None:
    from vlmreason.cli import completion

    assert {"plan ", "status "} <= set(completion.query("vlmreason sweep "))
    assert "resume " not in completion.query("vlmreason sweep plan ")
    assert completion.query("vlmreason sweep plan plan=smo") == ["plan=smoke "]
    assert "profile=slurm_cpu " in completion.query("vlmreason sweep submit profile=sl")
