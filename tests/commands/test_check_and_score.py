"""`check` and `score` on a terminal: a table, a verdict, an example; JSON where a program reads it."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.composing import compose_plain
from support.program import Done

from vlmreason import terminal
from vlmreason.assembly import analyses, build, catalog
from vlmreason.commands import check
from vlmreason.tasks.base import state_to_json
from vlmreason.training.supervised.check import Decoded


@pytest.fixture
def answered(tmp_path: Path) -> tuple[str, str]:
    """Four problems, of which the first is answered rightly and one not at all."""
    task = build.build_task(compose_plain("train"))
    problems = [task.sample(level, "test", index) for level in task.levels for index in range(2)]
    metadata, answers = tmp_path / "metadata.jsonl", tmp_path / "answers.jsonl"
    rows = [{"id": p.id, "task": p.task, "level": p.level, "split": "test", "index": p.index} for p in problems]
    lines = [json.dumps({**row, "meta": state_to_json(p.state)}) for row, p in zip(rows, problems, strict=True)]
    metadata.write_text("\n".join(lines) + "\n")
    said = [task.answer(problems[0].state), "Answer: 1 Sum: 1", "no idea"]
    given = [{"id": p.id, "response": text} for p, text in zip(problems, said, strict=False)]
    answers.write_text("".join(json.dumps(one) + "\n" for one in given))
    return f"problems={metadata}", f"predictions={answers}"


def test_score_says_what_it_comes_to(program: Callable[..., Done], answered: tuple[str, str]) -> None:
    piped, asked = program("score", *answered), program("score", *answered, "json=true")
    assert piped.out == asked.out and json.loads(piped.out)["correct"] == 1
    lines = program("score", *answered, "json=false").out.splitlines()
    assert lines[0].split()[:3] == ["level", "view", "accuracy"]
    assert lines[-1] == "1 of 4 right, 25.0 % (4.6 to 69.9); 1 have no response, 1 not read"


@pytest.mark.slow
def test_check_shows_an_example_and_a_verdict(program: Callable[..., Done], base: Path) -> None:
    words = ("check", "smoke=true", f"model.checkpoint={base}", "num=2")
    piped = [json.loads(line) for line in program(*words).out.splitlines()]
    assert [row["phase"] for row in piped] == ["align", "main"] and all("loss" in row for row in piped)
    done = program(*words, "json=false")
    lines = done.out.splitlines()
    assert lines[0].split()[0] == "phase" and lines[2].split()[0] == "align"
    assert lines[-1].startswith("all is well")
    assert "  prompt   " in done.out and "  learned  " in done.out and "<user>" in done.out


def test_check_says_what_does_not_fit() -> None:
    row = {
        "phase": "main", "examples": 8, "with_image": 4, "longest": 90, "max_length": 1024, "response_tokens": 30.5,
        "loss": 7.1, "chance": 6.6, "taken_from": None, "memory_gb": {"total": 80.5}, "device_gb": 24.0,
        "would_fit": ["adapter=lora"],
    }  # fmt: skip
    text = check._table([row], Decoded("main, example 0", "Read " * 99, "Answer: 1"))
    assert "80.5" in text and "main: more than the 24.0 GB there are; adapter=lora" in text
    assert text.splitlines()[-1] == "this does not fit"
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("what", catalog.analyses())
def test_names_of_an_analysis_are_explained(what: str) -> None:
    meaning = analyses.find(what).MEANING
    name = next(iter(meaning))
    table = terminal.columns(("level", name), [("simple", "1.0")], left=1)
    shown = analyses.with_meaning(table, meaning)
    assert shown.startswith(table + "\n\n") and meaning[name] in shown
    assert analyses.with_meaning("level", {}) == "level"
