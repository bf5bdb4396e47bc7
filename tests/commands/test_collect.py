"""Records of runs are kept beside their experiments, and nothing that they hold is lost."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import initialize_config_dir
from support.program import Done, runner
from support.studies import ARTIFACT, make_record, make_training, use_study, write_study

from vlmreason import places, runs
from vlmreason.assembly import compose
from vlmreason.studies.records import fingerprint, read_record

TASK = {"scale": "nano", "task": "table_readout"}
PIXELS = ARTIFACT | {
    "draw": "pixels", "measure": {"level": "hard", "what": "attribution:path"}, "paper": [], "panels": [{"label": ""}],
    "series": [{"label": "Mix", "set": {"supervision": "mix"}}],
}  # fmt: skip


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Done]:
    use_study(monkeypatch, write_study(tmp_path / "experiments", fig1=ARTIFACT, pixels=PIXELS))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    return runner(monkeypatch, capsys)


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "experiments" / "made_up" / "results" / "nano"


def put_run(
    outputs: Path,
    analyses: dict[str, Any] | None = None,
    time: str = "2026-01-01",
    training: dict[str, Any] | None = None,
    **settings: Any,
) -> Path:
    """The directory of a run that never was, with its record."""
    with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
        words = {**TASK, "supervision": "mix", "scale.num_examples": 10, "seed": 0, **settings}
        config = compose.Composer().config(words)
    run = outputs / runs.run_name(config)
    run.mkdir(parents=True, exist_ok=True)
    record = make_record({("hard", "image"): "1010", ("hard", "text"): "1110"}, config=config, run=run.name)
    data = {**record.data, "analyses": analyses or {}, **({"training": training} if training else {})}
    data["provenance"] = {**data["provenance"], "time": time}
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    for name in ("provenance.json", "summary.json"):
        (run / name).write_text(json.dumps([time, list(analyses or {}), training is None]))
    (run / "record.json").write_text(json.dumps({"made_of": fingerprint(run), "record": data}))
    return run


def analysis(**group: Any) -> dict[str, Any]:
    return {"settings": {}, "results": [group], "source": {}, "time": "2026-01-02"}


FAILURES = analysis(level="hard", view="image", worst=["a", "b"], shares={"misread": {"share": 0.123456789}})
ATTRIBUTION = analysis(level="hard", regions={}, examples=[{"id": "x", "top": {"all": [1, 2]}}])


def test_what_experiments_use_is_written_once(program: Callable[..., Done], tmp_path: Path, target: Path) -> None:
    run = put_run(tmp_path / "outputs")
    put_run(tmp_path / "outputs", seed=7)  # of no experiment
    done = program("collect", "experiment=made_up/fig1")
    assert (done.code, done.err) == (0, "")
    first, second, place = done.out.splitlines()
    assert first.startswith(f"{target}: 1 written; 1 files, ") and place == str(target)
    assert second.startswith("7 of 8 runs are missing; `vlmreason sweep`")
    assert [path.stem for path in target.iterdir()] == [run.name]
    assert read_record(target / f"{run.name}.json").run == run.name
    assert f"{target}: 1 unchanged; " in program("collect", "experiment=[made_up/fig1]").out


def test_to_another_folder(program: Callable[..., Done], tmp_path: Path, target: Path) -> None:
    put_run(tmp_path / "elsewhere")
    (tmp_path / "experiments" / "made_up").chmod(0o500)
    done = program("collect", "experiment=glob(made_up/*)", "runs=elsewhere", "to=kept")
    (tmp_path / "experiments" / "made_up").chmod(0o700)
    assert "kept: 1 written" in done.out and done.last_line == "kept"
    assert len(list((tmp_path / "kept").iterdir())) == 1 and not target.exists()


def test_nothing_is_lost(program: Callable[..., Done], tmp_path: Path, target: Path) -> None:
    outputs = tmp_path / "outputs"
    run = put_run(outputs, {"failures": FAILURES})
    path = target / f"{run.name}.json"
    assert "1 written" in program("collect", "experiment=made_up/fig1").out
    put_run(outputs, {"gradients": analysis(checkpoint="main")})
    done = program("collect", "experiment=made_up/fig1")
    assert ": 1 kept; " in done.out
    assert f"{path} is kept: the run lacks analysis failures, which it has" in done.err
    put_run(outputs, {"failures": FAILURES, "gradients": analysis(checkpoint="main")}, time="2025-01-01")
    # the record that came with the package is newer: it is the one that is used
    assert program("collect", "experiment=made_up/fig1").out.startswith(f"{target}: nothing to collect; 1 files")
    put_run(outputs, {"failures": FAILURES, "gradients": analysis(checkpoint="main")})
    assert ": 1 replaced; " in program("collect", "experiment=made_up/fig1").out
    assert set(read_record(path).analyses) == {"failures", "gradients"}
    path.write_text("{")
    done = program("collect", "experiment=made_up/fig1")
    assert ": 1 written; " in done.out and "it is replaced" in done.err
    assert read_record(path).run == run.name


def test_evaluations_while_training_are_not_lost(program: Callable[..., Done], tmp_path: Path, target: Path) -> None:
    run = put_run(tmp_path / "outputs", training=make_training([0.1, 0.2]))
    assert "1 written" in program("collect", "experiment=made_up/fig1").out
    assert read_record(target / f"{run.name}.json").training["columns"]["accuracy/hard/image"] == [0.1, 0.2]
    put_run(tmp_path / "outputs")
    assert "the run lacks evaluations while training" in program("collect", "experiment=made_up/fig1").err


def test_only_what_is_shown_is_kept(program: Callable[..., Done], tmp_path: Path, target: Path) -> None:
    run = put_run(tmp_path / "outputs", {"failures": FAILURES, "attribution": ATTRIBUTION})
    path = target / f"{run.name}.json"
    program("collect", "experiment=made_up/fig1")
    kept = read_record(path)
    assert kept.analyses["failures"]["results"] == [
        {"level": "hard", "view": "image", "shares": {"misread": {"share": 0.123457}}}
    ]
    assert kept.analyses["attribution"]["results"] == [{"level": "hard", "regions": {}}]
    program("collect", "experiment=glob(made_up/*)")
    assert read_record(path).analyses["attribution"]["results"] == ATTRIBUTION["results"]
    program("collect", "experiment=made_up/fig1")
    assert read_record(path).has_pixels, "another figure draws them"


def test_figures_are_drawn_from_what_was_collected(program: Callable[..., Done], tmp_path: Path) -> None:
    run = put_run(tmp_path / "outputs")
    program("collect", "experiment=made_up/fig1")
    run.rename(tmp_path / "away")
    assert program("figure", "experiment=made_up/fig1").out.startswith("made_up/fig1: 1 run; missing 7")
    done = program("sweep", "plan", "experiment=made_up/fig1")
    assert done.out.splitlines()[:3] == [
        "1 of 8 runs are there already",
        "7 runs missing, at a cost that is not known: no record is of a like run",
        "7 jobs planned",
    ]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["experiment=made_up/fig1", "runs=nowhere"], "runs=nowhere: no such folder"),
        (["experiment=made_up/fig7"], "did you mean 'made_up/fig1'?"),
        (["experiment=made_up/fig1", "scale.lr=1"], "set='[scale.lr=1]'"),
        ([], "experiment"),
    ],
)
def test_mistakes(program: Callable[..., Done], tmp_path: Path, words: list[str], names: str) -> None:
    (tmp_path / "outputs").mkdir()
    done = program("collect", *words)
    assert done.code == 2 and names in done.err and done.err.count("\n") == 1
