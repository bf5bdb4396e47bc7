"""What is kept of a run, and the command that draws from it."""

import json
import logging
import os
import random
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from safetensors.numpy import load_file
from support.program import Done, runner
from support.studies import ARTIFACT, STUDY, make_record, use_study, write_study

from vlmreason.__main__ import main
from vlmreason.assembly import build
from vlmreason.studies import library
from vlmreason.studies.records import Record, read_record, read_records

SMALL = {
    "scale.num_examples": 8, "scale.batch_size": 8, "scale.num_problems": 3, "evaluation.max_new_tokens": 8,
    "trainer.precision": "32-true", "trainer.num_threads": 1, "trainer.num_workers": 0, "trainer.progress": False,
    "trainer.accelerator": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of one evaluated run."""
    out = tmp_path_factory.mktemp("recorded") / "outputs"
    words = [f"{key}={value}" for key, value in SMALL.items()]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["vlmreason", "train", "task=table_readout", "supervision=mix", *words, f"out={out}"])
        with pytest.raises(SystemExit) as end:
            main()
        assert not end.value.code
    return out


@pytest.fixture
def outputs(trained: Path, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return Path(shutil.copytree(trained, tmp_path / "outputs"))


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Done]:
    """The program in a folder of its own, where one made-up study is all there is."""
    scales: dict[str, Any] = json.loads(json.dumps(STUDY["scales"]))
    scales["nano"]["set"] |= SMALL
    scales["nano"]["values"]["sizes"] = [8, 16]
    study = STUDY | {"scales": scales}
    use_study(monkeypatch, write_study(tmp_path / "experiments", study=study, fig1=ARTIFACT))
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    return runner(monkeypatch, capsys)


def the_run(outputs: Path) -> Path:
    [run] = (path for path in outputs.iterdir() if (path / "config.yaml").exists())
    return run


def test_a_record_says_what_the_files_say(outputs: Path) -> None:
    run = the_run(outputs)
    record = library.local_record(run, build.evaluated_task)
    assert (run / "record.json").stat().st_size < 40_000
    assert record.run == run.name
    assert str(outputs) not in json.dumps(record.data), "no path of this machine"
    assert list(record.steps) == ["main"] and record.steps["main"] == 1
    [evaluation] = record.evaluations
    rows = json.loads((run / "summary.json").read_text())["cells"]
    assert [(c.level, c.view) for c in evaluation.cells] == [(row["level"], row["view"]) for row in rows]
    for cell, row in zip(evaluation.cells, rows, strict=True):
        assert (cell.right.count("1"), len(cell.right)) == (row["correct"], row["num"])
        assert cell.row == row
        assert all(example["right"] == (cell.right[example["index"]] == "1") for example in cell.examples)
    assert record.evaluation(None, "auto") is not None
    assert record.evaluation(None, "force") is None
    assert record.evaluation("grid_navigation", "auto") is None


def test_of_several_evaluations_the_own_one_counts_then_the_largest(outputs: Path) -> None:
    record = library.local_record(the_run(outputs), build.evaluated_task)
    [own] = record.data["evaluations"]
    small = {**own, "own": False, "cells": own["cells"][:1]}
    others = [{**one, "task": "other"} for one in (small, {**own, "own": False}, small)]
    both = Record({**record.data, "evaluations": [small, own, *others]}, Path("both"))
    assert both.evaluation(None, "auto") is both.evaluations[1]
    assert both.evaluation("other", "auto") is both.evaluations[3]


def test_evaluations_while_training_are_kept_in_short(outputs: Path) -> None:
    """A column per figure; of 60 evaluations of three levels less than 10 kB."""
    run = the_run(outputs)
    before = library.local_record(run, build.evaluated_task)
    assert before.training == {} and "training" not in before.data
    names = [f"{what}/{level}/image" for what in ("accuracy", "return", "turns") for level in ("a", "b", "c")]
    with (run / "metrics.jsonl").open("a") as file:
        for number in range(60):
            totals = {"env_steps": 512.0 * number, "tokens_trained": 70001.0 * number} if number else {}
            figures = {name: (number + place) / 97 for place, name in enumerate(names)}
            file.write(json.dumps({"phase": "ppo", "step": number, **totals, **figures}) + "\n")
            file.write(json.dumps({"phase": "ppo", "step": number, "loss": 0.5}) + "\n")
    record = library.local_record(run, build.evaluated_task)
    columns = record.training["columns"]
    assert columns["step"] == list(range(60)) and set(columns["phase"]) == {"ppo"} and "loss" not in columns
    assert columns["env_steps"][:3] == [None, 512, 1024]
    assert columns["accuracy/a/image"][:3] == [0, 0.0103093, 0.0206186]
    assert len(json.dumps(record.training, separators=(",", ":"))) < 10_000
    assert record.training["num"] == 50, "trainer.evaluate_num"
    weights = load_file(run / "checkpoints" / "final" / "model.safetensors")
    assert record.training["parameters"] == sum(weight.size for weight in weights.values())


def test_a_right_response_is_a_1_in_its_place(outputs: Path) -> None:
    """A gold response written over the second prediction, and the summary made again."""
    from vlmreason import runs
    from vlmreason.assembly import build

    run = the_run(outputs)
    task = build.build_task(runs.read_config(run))
    path = run / "predictions" / "hard-text.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    state = task.sample("hard", "test", 1).state
    lines[1]["response"] = "".join(task.thought(state)) + task.answer(state)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(ValueError, match=r"summary\.json does not belong to the predictions of hard text"):
        library.local_record(run, build.evaluated_task)
    summary = json.loads((run / "summary.json").read_text())
    for row in summary["cells"]:
        row["correct"] += row["level"] == "hard" and row["view"] == "text"
    (run / "summary.json").write_text(json.dumps(summary))
    [evaluation] = library.local_record(run, build.evaluated_task).evaluations
    cell = evaluation.cell("hard", "text")
    assert cell is not None and cell.right[1] == "1"
    assert [example["index"] for example in cell.examples if example["right"]] == [1]


def test_the_kept_record_follows_the_files(outputs: Path) -> None:
    run = the_run(outputs)
    library.local_record(run, build.evaluated_task)
    kept = (run / "record.json").read_bytes()
    library.local_record(run, build.evaluated_task)
    assert (run / "record.json").read_bytes() == kept
    (run / "analysis").mkdir()
    (run / "analysis" / "failures.json").write_text(json.dumps({"settings": {}, "results": [], "source": {}}))
    assert list(library.local_record(run, build.evaluated_task).analyses) == ["failures"]


@pytest.mark.parametrize(
    "spoiled", ["provenance.json", "summary.json", "evaluation.json", "predictions/hard-text.jsonl"]
)
def test_a_damaged_run_is_named_and_passed_over(outputs: Path, program: Callable[..., Done], spoiled: str) -> None:
    (the_run(outputs) / spoiled).write_text('{"a": 1}\n')
    done = program("figure", "experiment=made_up/fig1")
    assert done.code == 0, done.err
    assert the_run(outputs).name in done.err and "it is passed over" in done.err
    assert done.out.startswith("made_up/fig1: 0 runs; missing 8: vlmreason sweep experiment=made_up/fig1\n")


HOSTILE: tuple[Any, ...] = (None, [], {}, "x", "", -1, 2**31, 10**30, 1e308, float("nan"), True, [[[]]] * 50, {"a": {}})


def spoil(path: Path, rng: random.Random) -> None:
    """Replace or take away one value of a file of JSON or YAML, at any depth."""
    lines = path.read_text().splitlines() if path.suffix == ".jsonl" else [path.read_text()]
    read, write = (yaml.safe_load, yaml.safe_dump) if path.suffix == ".yaml" else (json.loads, json.dumps)
    place = rng.randrange(len(lines))
    data: Any = read(lines[place])
    inner = data
    while True:
        key = rng.choice(list(inner)) if isinstance(inner, dict) else rng.randrange(len(inner))
        if not isinstance(inner[key], dict | list) or not inner[key] or rng.random() < 0.3:
            break
        inner = inner[key]
    if rng.random() < 0.3:
        del inner[key]
    else:
        inner[key] = rng.choice(HOSTILE)
    lines[place] = write(data)
    path.write_text("\n".join(lines) + "\n")


@pytest.mark.parametrize(
    "name", ["config.yaml", "provenance.json", "summary.json", "evaluation.json", "throughput.json", "metrics.jsonl"]
)
def test_a_hostile_run_is_a_record_or_named(outputs: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    path, rng = the_run(outputs) / name, random.Random(7)
    whole, num_named = path.read_text(), 0
    for _ in range(40):
        path.write_text(whole)
        spoil(path, rng)
        (the_run(outputs) / "record.json").unlink(missing_ok=True)
        started = time.monotonic()
        found = library.Library("nano", (), outputs, dict, build.evaluated_task)
        assert time.monotonic() - started < 5
        assert len(found.records) + len(found.faults) == 1, path.read_text()
        assert all(str(the_run(outputs)) in fault and "\n" not in fault for fault in found.faults)
        num_named += len(found.faults)
    assert num_named or name in ("throughput.json", "metrics.jsonl")


def test_pipes_and_devices_in_a_run_are_named(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = the_run(outputs)
    for name in ("config.yaml", "provenance.json", "summary.json", "evaluation.json", "metrics.jsonl"):
        whole = (run / name).read_bytes()
        (run / name).unlink()
        os.mkfifo(run / name)
        found = library.Library("nano", (), outputs, dict, build.evaluated_task)
        assert found.faults == [f"{run / name}: cannot be read: it is no ordinary file"]
        (run / name).unlink()
        (run / name).write_bytes(whole)


def test_damaged_records_are_named(tmp_path: Path) -> None:
    (tmp_path / "cut.json").write_text('{"format": 1, "ru')
    (tmp_path / "other.json").write_text('{"format": 99}')
    (tmp_path / "list.json").write_text("[]")
    (tmp_path / "lacks.json").write_text('{"format": 1, "run": "x", "config": {}}')
    found, faults = read_records(tmp_path)
    assert not found and len(faults) == 4
    assert all(str(tmp_path) in fault and "\n" not in fault for fault in faults)
    assert any("format 99; this version reads 1" in fault for fault in faults)


def test_figure_finds_the_run_and_names_the_rest(outputs: Path, program: Callable[..., Done]) -> None:
    done = program("figure", "experiment=made_up/fig1")
    assert done.code == 0, done.err
    figure, price, folder = done.out.splitlines()
    assert figure == "made_up/fig1: 1 run; missing 7: vlmreason sweep experiment=made_up/fig1"
    assert price.startswith("7 runs missing, about ") and folder == "outputs/figures"
    made = json.loads(Path("outputs/figures/made_up/fig1.json").read_text())
    with_runs = [cell for cell in made["cells"] if cell["runs"]]
    assert [(cell["panel"], cell["x"], cell["runs"]) for cell in with_runs] == [
        (panel, "8", [the_run(outputs).name]) for panel in ("as image", "as text")
    ]
    text = Path("outputs/figures/made_up/fig1.md").read_text()
    assert "missing" in text and "64" in text and "section 1" in text


def test_records_alone_are_enough(outputs: Path, program: Callable[..., Done], tmp_path: Path) -> None:
    """As on a fresh clone: the record lies with the experiments, and there is no run."""
    record = library.local_record(the_run(outputs), build.evaluated_task)
    place = tmp_path / "experiments" / "made_up" / "results" / "nano" / f"{record.run}.json"
    record.write(place)
    assert read_record(place).data == record.data
    shutil.rmtree(outputs)
    done = program("figure", "experiment=glob(made_up/*)")
    assert done.out.startswith("made_up/fig1: 1 run; missing 7:"), done.err


def test_further_settings_choose_other_runs(outputs: Path, program: Callable[..., Done]) -> None:
    done = program("figure", "experiment=made_up/fig1", "set=[optimizer.lr=0.5]")
    assert done.out.startswith("made_up/fig1: 0 runs; missing 8:"), done.err


def test_a_run_from_before_a_setting_is_marked(outputs: Path, program: Callable[..., Done]) -> None:
    """A setting that the experiment does not name had its default then; one that it names did not exist."""
    import yaml

    run = the_run(outputs)
    config = yaml.safe_load((run / "config.yaml").read_text())
    del config["evaluation"]["prefill"]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    assert program("figure", "experiment=made_up/fig1").out.startswith("made_up/fig1: 1 run;")
    marks = [cell["marks"] for cell in json.loads(Path("outputs/figures/made_up/fig1.json").read_text())["cells"]]
    assert ["made before the settings evaluation.prefill"] in marks
    named = program("figure", "experiment=made_up/fig1", "set=['evaluation.prefill=\"\"']")
    assert named.out.startswith("made_up/fig1: 0 runs;"), named.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("experiment=made_up/fig7",), "no such experiment; there are made_up/fig1 (did you mean 'made_up/fig1'?)"),
        (("experiment=glob(s2h/*)",), "no such experiment"),
        (("experiment=made_up/fig1", "formats=[]"), "formats=[]: one or more of png, pdf, svg is expected"),
        (("experiment=made_up/fig1", "scale.num_examples=3"), "has no effect here; settings of the runs are written"),
        (("experiment=made_up/fig1", "set=[scale.num_exampels=3]"), "scale.num_exampels"),
    ],
)
def test_mistakes_end_with_one_sentence(program: Callable[..., Done], words: tuple[str, ...], message: str) -> None:
    done = program("figure", *words)
    assert done.code != 0
    assert message in done.err and "Traceback" not in done.err


def test_a_record_of_another_kind_of_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="damaged record"):
        Record({"format": 1, "run": "x"}, tmp_path / "x.json")


def test_scores_are_read_and_made_where_there_are_none(outputs: Path) -> None:
    """A run from before there were scores gives the same record, and its files stay as they are."""
    run = the_run(outputs)
    with_scores = library.local_record(run, build.evaluated_task).data
    before = {path: path.read_bytes() for path in (run / "predictions").iterdir()}
    kept = {path: path.read_bytes() for path in (run / "scores").iterdir()}
    assert len(kept) == len(before)
    (run / "record.json").unlink()
    shutil.rmtree(run / "scores")
    assert library.local_record(run, build.evaluated_task).data == with_scores
    assert {path: path.read_bytes() for path in (run / "scores").iterdir()} == kept
    assert {path: path.read_bytes() for path in (run / "predictions").iterdir()} == before


@pytest.mark.parametrize("run", [["a"], {}, None, 1])
def test_a_record_of_a_run_without_a_name_is_damaged(run: Any, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"damaged record .run="):
        make_record({("hard", "image"): "10"}, run=run)


@pytest.mark.parametrize("key", ["right", "converted", "row", "examples", "groups"])
def test_a_record_whose_cells_have_another_form_is_damaged(key: str, tmp_path: Path) -> None:
    data = json.loads(json.dumps(make_record({("hard", "image"): "10"}).data))
    data["evaluations"][0]["cells"][0][key] = 1
    with pytest.raises(ValueError, match="damaged record"):
        Record(data, tmp_path)
    with pytest.raises(ValueError, match="damaged record"):
        make_record({("hard", "image"): "10"}, analyses={"failures": {"results": 5}})


def test_of_a_run_in_two_studies_the_fuller_record_is_kept() -> None:
    """As where one of them draws the pixels that a model looked at and the other one does not."""
    less = make_record({("hard", "image"): "10"})
    fuller = make_record({("hard", "image"): "10"}, analyses={"attribution": {"results": []}})
    for records in ([less, fuller], [fuller, less]):
        [kept] = library._newest_and_fullest(records)
        assert kept is fuller
