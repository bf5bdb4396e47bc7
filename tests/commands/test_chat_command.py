"""`vlmreason chat`: a problem or a prompt of one's own, asked of a model in the terminal."""

import io
import json
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.answered import answered_run
from support.composing import compose_plain
from support.program import Done, runner

from vlmreason.assembly import build, catalog
from vlmreason.models.contract import Generation
from vlmreason.models.vlm.learner import Learner

WORDS = ("accelerator=cpu", "evaluation.max_new_tokens=12")


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.setattr("sys.stdin", io.StringIO())
    return runner(monkeypatch, capsys)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose weights are the base's."""
    found = answered_run(tmp_path_factory.mktemp("asked"), num=1)
    build.build_learner(compose_plain("train")).save(found / "checkpoints" / "final")
    return found


def test_a_problem_is_answered_as_in_an_evaluation(run: Path, program: Callable[..., Done]) -> None:
    done = program("chat", f"run={run}", "index=2", "level=hard", *WORDS)
    assert done.code == 0, done.err
    assert done.out.startswith("hard, image, table_readout-hard-test-2: ")
    assert "  prompt    Read the marked path from" in done.out and "  expected  " in done.out
    which = ("evaluation.num=3", "evaluation.levels=[hard]", "evaluation.views=[image]")
    asked = program("evaluate", f"run={run}", *which, *WORDS, f"out={run / 'own'}")
    assert asked.code == 0, asked.err
    last = json.loads((run / "own" / "predictions" / "hard-image.jsonl").read_text().splitlines()[2])
    assert last["response"].splitlines()[0] in done.out.replace(">>", "").replace("<<", "")


def test_a_prompt_of_ones_own_may_hold_anything(
    run: Path, tmp_path: Path, program: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    said = Generation("a\x1b[2J", 2, True)
    monkeypatch.setattr(Learner, "generate", lambda self, prompts, *_: asked.extend(prompts) or [said])
    Image.new("RGB", (30, 20), "red").save(tmp_path / "a (1), b.png")
    text = "Read (4,2), 'now' = [x] ${y}\nand \\cell{z}"
    done = program("chat", f"run={run}", f"prompt={text}", f"picture={tmp_path / 'a (1), b.png'}", *WORDS)
    assert (done.code, done.out) == (0, "a\\x1b[2J\n"), done.err
    assert asked[-1].text == text and asked[-1].image.shape == (144, 144, 3)
    assert np.all(asked[-1].image == (255, 0, 0)) and "stretched to the model's 144 x 144 px" in done.err


def test_lines_are_answered_until_an_empty_one(
    run: Path, program: Callable[..., Done], monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = io.StringIO("picture=none.png\nAdd.\n\nnot asked\n")
    typed.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr("sys.stdin", typed)
    done = program("chat", f"run={run}", *WORDS)
    assert done.code == 0 and done.out.count("> ") == 3 and typed.read() == "not asked\n"
    assert "picture=none.png: No such file or directory" in done.err


def test_a_model_without_a_run(program: Callable[..., Done]) -> None:
    done = program("chat", "model=nano", "task=grid_navigation", "index=0", *WORDS)
    assert done.code == 0 and "grid_navigation-simple-test-0: " in done.out, done.err


def test_episodes_are_played(tmp_path: Path, program: Callable[..., Done]) -> None:
    played = answered_run(tmp_path, lambda *_: "[]", "env=number_line", "algorithm=ppo", num=1)
    build.build_learner(compose_plain("train")).save(played / "checkpoints" / "final")
    done = program("chat", f"run={played}", "index=0", *WORDS)
    assert done.code == 0 and "number_line-standard-test-0: " in done.out and "turns " in done.out, done.err


@pytest.mark.parametrize(("words", "said"), [
    (("index=-1",), "index=-1: 0 or more is expected"),
    (("index=0", "prompt=x"), "index=0: a problem has a prompt and a picture of its own"),
    (("level=hard", "prompt=x"), "level=hard: of a problem, which index=N names"),
    (("index=0", "level=hrad"), "level=hrad: table_readout has simple, hard (did you mean 'hard'?)"),
    (("index=0", "phase=min"), "phase=min: "),
    (("index=0", "model=nano"), "model=nano: has no effect beside run="),
    (("prompt=x", "picture=none.png"), "picture=none.png: No such file or directory"),
    (("prompt=x", f"picture={os.devnull}"), "no regular file"),
    ((), "there is no terminal to type on"),
])  # fmt: skip
def test_mistakes_are_one_sentence(words: tuple[str, ...], said: str, run: Path, program: Callable[..., Done]) -> None:
    done = program("chat", f"run={run}", *words)
    assert (done.code, done.out) == (2, "") and said in done.err and done.err.count("\n") == 1


def test_something_must_be_asked(tmp_path: Path, program: Callable[..., Done]) -> None:
    assert "run: must be given (run=...), or a model (model=...)" in program("chat", "index=0").err
    assert "index=0: of a task, which task=... names" in program("chat", "model=nano", "index=0").err
    assert "phase=main: of a run" in program("chat", "model=nano", "prompt=x", "phase=main").err
    assert "no run directory" in program("chat", f"run={tmp_path}", "index=0").err
    large = tmp_path / "large.png"
    Image.new("1", (9000, 9000)).save(large)
    done = program("chat", "model=nano", "prompt=x", f"picture={large}")
    assert "9000 x 9000 px, more than 50 million pixels" in done.err


def test_text_is_quoted_once() -> None:
    assert catalog.as_settings("chat", ["prompt='a b'", "picture=null"]) == ["prompt='a b'", "picture=null"]
    assert catalog.as_settings("chat", ["prompt=it's"]) == ["prompt='it\\'s'"]
