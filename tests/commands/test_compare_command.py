"""`vlmreason compare`: paired differences of runs on the same problems, and the page with their answers."""

import json
import logging
import re
import shutil
from collections.abc import Callable
from html import unescape
from pathlib import Path
from typing import Any

import pytest
from support.answered import answered_run, gold
from support.program import Done, runner

from vlmreason import places
from vlmreason.tasks.base import Problem, Task

RECORDS = places.data_dir("experiments") / "s2h" / "results" / "nano"


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    return runner(monkeypatch, capsys)


def hard_is_lost(task: Task[Any], problem: Problem[Any], view: str) -> str:
    lost = problem.level == "hard" and problem.index < 3
    return "(9,9) <b>&" if lost else gold(task, problem)


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One that is right, one of another seed that has three hard problems wrong."""
    out = tmp_path_factory.mktemp("compared")
    return answered_run(out), answered_run(out, hard_is_lost, "seed=1")


def test_runs_are_compared_problem_by_problem(runs: tuple[Path, Path], program: Callable[..., Done]) -> None:
    done = program("compare", f"run={runs[0]},{runs[1]}")
    assert done.code == 0, done.err
    rows = json.loads(done.out)
    assert [(row["level"], row["view"], row["num"], row["difference"], row["lost"]) for row in rows] == [
        ("simple", "text", 4, 0.0, 0), ("simple", "image", 4, 0.0, 0),
        ("hard", "text", 4, -0.75, 3), ("hard", "image", 4, -0.75, 3),
    ]  # fmt: skip
    assert rows[3]["p"] == 0.25 and rows[3]["ci_low"] < -0.75 < rows[3]["ci_high"]
    assert (rows[0]["first_run"], rows[0]["second_run"]) == (runs[0].name, runs[1].name)


def test_a_person_reads_a_table(runs: tuple[Path, Path], program: Callable[..., Done]) -> None:
    done = program("compare", f"run=[{runs[1]},{runs[0]}]", "json=false")
    assert done.out.startswith(f"A  {runs[1].name}\nB  {runs[0].name}\n\nlevel ")
    assert "hard image 4 A 25.0 % B 100.0 % +75.0 +8.5 to +95.4 0 3 0.250" in " ".join(done.out.split())


def test_the_page_shows_both_answers_and_loads_nothing(
    runs: tuple[Path, Path], tmp_path: Path, program: Callable[..., Done]
) -> None:
    place = tmp_path / "pages" / "compared.html"
    done = program("compare", f"run={runs[0]},{runs[1]}", f"out={place}", "num=2")
    assert done.code == 0 and done.last_line == str(place)
    text = place.read_text()
    assert text.count("<article") == 4 and text.count("badge right") == text.count("badge wrong") == 4
    assert "default-src 'none'" in text and not re.search(r"(?:src|href)=.?(?:https?:|//)", text)
    assert "<b>&<" not in text and "(9,9)</mark> &lt;b&gt;&amp;" in text
    shown = unescape(re.sub(r"<[^>]+>", "", text))
    assert all(f"table_readout-hard-test-{index}" in shown for index in (0, 1)) and "hard-test-2" not in shown
    assert all(f'id="run-{run.name}"' in text and f'href="#run-{run.name}"' in text for run in runs)


def test_records_are_compared_too(tmp_path: Path, program: Callable[..., Done]) -> None:
    """What a record keeps: every mark, and a few responses."""
    first, second = (sorted(RECORDS.glob(f"table_readout-{name}-nano-s0-*.json"))[0] for name in ("mix", "mix_plus"))
    done = program("compare", f"run={first},{second}", f"out={tmp_path / 'records.html'}")
    assert done.code == 0, done.err
    rows = json.loads(done.out.splitlines()[0])
    right = {cell["view"]: cell["right"] for run in (first,) for e in json.loads(run.read_text())["evaluations"]
             for cell in e["cells"] if e["own"] and cell["level"] == "hard"}  # fmt: skip
    assert [row["num"] for row in rows] == [500] * 4
    assert rows[3]["first"] == right["image"].count("1") / 500 < rows[3]["second"]
    assert (tmp_path / "records.html").stat().st_size > 10_000


def test_another_evaluation_of_a_run_is_one_of_the_list(
    runs: tuple[Path, Path], tmp_path: Path, program: Callable[..., Done]
) -> None:
    run = Path(shutil.copytree(runs[0], tmp_path / "run"))
    shutil.copytree(runs[1], run / "evaluations" / "other", ignore=shutil.ignore_patterns("config.yaml"))
    done = program("compare", f"run={run},{run / 'evaluations' / 'other'}")
    assert done.code == 0, done.err
    assert json.loads(done.out)[3]["second_run"] == "run/other" and json.loads(done.out)[3]["lost"] == 3


def test_mistakes_are_one_sentence(runs: tuple[Path, Path], tmp_path: Path, program: Callable[..., Done]) -> None:
    longer = answered_run(tmp_path, gold, "task.nano.levels.hard.num_cells=[9,14]", num=1)
    other = answered_run(tmp_path, gold, "task=grid_navigation", num=1)
    for words, said in (
        ([f"run={runs[0]}"], "two or more different ones are expected, as run=A,B"),
        ([f"run={runs[0]},{runs[0]}"], "two or more different ones are expected"),
        ([f"run={runs[0]},{tmp_path}"], "no run directory"),
        ([f"run={runs[0]},{longer}"], "answers other problems than table_readout"),
        ([f"run={runs[0]},{other}"], "task is 'grid_navigation' there and 'table_readout' here"),
        ([f"run={runs[0]},{runs[1]}", "num=0"], "num=0: 1 or more is expected"),
        ([f"run={runs[0]},{runs[1]}", f"out={tmp_path}"], "cannot be written: Is a directory"),
    ):
        done = program("compare", *words)
        assert done.code == 2 and said in done.err and done.err.count("\n") == 1, done.err


@pytest.mark.parametrize("spoil", [
    lambda e: e["cells"][0].update(right=7),
    lambda e: e["cells"][0].update(examples=[7]),
    lambda e: e["cells"][0].update(examples=[{"index": "x", "response": "y"}]),
    lambda e: e["identity"].update(task_config=[]),
    lambda e: e["identity"].pop("split"),
    lambda e: e["identity"].update(task_version=99),
])  # fmt: skip
def test_damaged_records_are_one_sentence(
    spoil: Callable[[Any], object], tmp_path: Path, program: Callable[..., Done]
) -> None:
    record = sorted(RECORDS.glob("table_readout-mix-nano-s0-*.json"))[0]
    data = json.loads(record.read_text())
    spoil(next(evaluation for evaluation in data["evaluations"] if evaluation["own"]))
    (tmp_path / "spoiled.json").write_text(json.dumps(data))
    done = program("compare", f"run={record},{tmp_path / 'spoiled.json'}")
    assert done.code == 2 and "spoiled.json" in done.err and done.err.count("\n") == 1, done.err
