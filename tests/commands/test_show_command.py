"""`vlmreason show`: the answers of a run one by one."""

import io
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from support.answered import answered_run, gold
from support.program import Done, runner

from vlmreason.tasks.base import Problem, Task


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    return runner(monkeypatch, capsys)


def reply(task: Task[Any], problem: Problem[Any], view: str) -> str:
    """Right on simple problems and the first hard one; the others are spoiled, unparsed, and cut off."""
    hard = {1: "\x1b[31m(1,1) 7 Answer: 7 Sum: 7", 2: "no idea", 3: "word " * 3000}
    return hard.get(problem.index, gold(task, problem)) if problem.level == "hard" else gold(task, problem)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return answered_run(tmp_path_factory.mktemp("answered"), reply, "task=table_readout")


def test_wrong_answers_are_shown_beside_what_was_expected(run: Path, program: Callable[..., Done]) -> None:
    done = program("show", f"run={run}", "wrong=2", "view=image")
    assert done.code == 0, done.err
    first, second, table = done.out.split("\n\n")
    assert first.startswith("hard, image, table_readout-hard-test-1: wrong; ")
    assert "Read the marked path" in first and ">>\\x1b[31m(1,1)<<" in first and "\x1b" not in done.out
    assert second.startswith("hard, image, table_readout-hard-test-2: wrong; unparsed; ")
    assert "first difference: no at character 1, expected (" in second
    assert [line.split() for line in table.splitlines()[2:]] == [
        ["simple", "image", "4", "0", "0", "0", "0"], ["hard", "image", "4", "3", "2", "1", "2"],
    ]  # fmt: skip


def test_long_answers_are_cut_around_the_difference(run: Path, program: Callable[..., Done]) -> None:
    done = program("show", f"run={run}", "what=cut_off", "prompt_lines=0")
    assert done.code == 0 and done.out.count("table_readout-hard-test-3: wrong") == 2
    assert "prompt" not in done.out and len(done.out) < 10_000 and "...\n" in done.out


def test_right_answers_may_be_asked_for(run: Path, program: Callable[..., Done]) -> None:
    done = program("show", f"run={run}", "right=1")
    assert done.code == 0 and "simple, text, table_readout-simple-test-0: right; " in done.out
    assert "  no difference" in done.out and ": wrong" not in done.out


def test_pandas_opens_the_lines(run: Path, program: Callable[..., Done]) -> None:
    done = program("show", f"run={run}", "json=true")
    table = pd.read_json(io.StringIO(done.out), lines=True)
    assert list(table)[:8] == ["run", "task", "level", "view", "id", "correct", "parsed", "cut_off"]
    assert list(table)[-3:] == ["response", "expected", "prompt"] and {"trace_list", "sum"} < set(table)
    assert len(table) == 16 and table.correct.sum() == 10
    assert table.groupby(["level", "view"]).correct.mean().to_dict() == {
        ("hard", "image"): 0.25, ("hard", "text"): 0.25, ("simple", "image"): 1.0, ("simple", "text"): 1.0,
    }  # fmt: skip
    assert set(table.run) == {run.name} and table[~table.parsed].level.unique() == ["hard"]


def test_episodes_are_shown(tmp_path: Path, program: Callable[..., Done]) -> None:
    turns = json.dumps(['{"action": "up"}', "x"])
    lost = answered_run(tmp_path, lambda *_: turns, "env=number_line", "algorithm=ppo", num=1)
    done = program("show", f"run={lost}", "wrong=1")
    assert done.code == 0, done.err
    assert "number_line-standard-test-0: wrong; unparsed; " in done.out and "turns 2" in done.out
    lines = done.out.splitlines()
    (at,) = (number for number, line in enumerate(lines) if line.startswith("  response"))
    assert [line.strip() for line in lines[at : at + 2]] == ['response  >>{"action":<< "up"}', "x"]


@pytest.mark.parametrize(("words", "said"), [
    (("wrong=-1",), "wrong=-1: 0 or more is expected"),
    (("level=hrad",), "level='hrad': allowed are simple, hard (did you mean 'hard'?)"),
    (("view=sound",), "view='sound': allowed are text, image"),
    (("what=unparsd",), "did you mean 'unparsed'?"),
    (("folder=other",), "folder=other: not there; "),
])  # fmt: skip
def test_mistakes_are_one_sentence(words: tuple[str, ...], said: str, run: Path, program: Callable[..., Done]) -> None:
    done = program("show", f"run={run}", *words)
    assert (done.code, done.out) == (2, "") and said in done.err and done.err.count("\n") == 1


def test_a_run_without_predictions_says_what_makes_them(
    run: Path, tmp_path: Path, program: Callable[..., Done]
) -> None:
    bare = Path(shutil.copytree(run, tmp_path / "bare"))
    shutil.rmtree(bare / "predictions")
    assert "there are no predictions; `vlmreason evaluate` makes them" in program("show", f"run={bare}").err
    (tmp_path / "empty").mkdir()
    assert "no run directory (config.yaml is missing)" in program("show", f"run={tmp_path / 'empty'}").err


def test_verdicts_are_those_beside_the_responses(run: Path, program: Callable[..., Done]) -> None:
    lines = [json.loads(line) for line in program("show", f"run={run}", "json=true", "wrong=3").out.splitlines()]
    kept = [json.loads(line) for line in (run / "scores" / "hard-text.jsonl").read_text().splitlines()[1:]]
    assert [line["correct"] for line in lines] == [False] * 3
    assert [line["trace_list"] for line in lines] == [one["parts"]["trace_list"] for one in kept[1:]]
