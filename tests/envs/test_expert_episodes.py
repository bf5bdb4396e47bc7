"""Episodes of experts written as data: every turn with picture, prompt and response, in the formats that hold them."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support.program import Done
from support.tiny import nano_task

from vlmreason.assembly import catalog
from vlmreason.dialogue.build import build_dialogue
from vlmreason.envs.base import Env
from vlmreason.envs.episodes import Episodes, write_episode
from vlmreason.tasks.base import Problem

NAMES = [name for name in catalog.groups()["env"] if name != "alfworld"]


def by_episode(rows: list[dict[str, Any]]) -> list[list[dict[str, Any]]]:
    return [list(turns) for _, turns in itertools.groupby(rows, key=lambda row: row["index"])]


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_a_folder_are_whole_episodes(name: str, program: Callable[..., Done], tmp_path: Path) -> None:
    done = program("generate", f"task={name}", "num=5", "out=d", "workers=2")
    assert (done.code, done.last_line) == (0, "d/test/metadata.jsonl"), done.err
    rows = [json.loads(line) for line in (tmp_path / done.last_line).read_text().splitlines()]
    assert len({row["id"] for row in rows}) == len(rows)
    env: Env[Any] = nano_task(name)
    if name.endswith("_l"):
        env.image = False
    for index, turns in enumerate(by_episode(rows)):
        first = env.start(env.levels[0], "test", index)
        assert env.state_from_json(json.loads(turns[0]["meta"])) == first
        assert [(row["turn"], row["done"]) for row in turns] == [(i, i + 1 == len(turns)) for i in range(len(turns))]
        for row in turns:
            state = env.state_from_json(json.loads(row["meta"]))
            assert row["thought"] + row["answer"] == env.expert(state) and env.score(state, env.expert(state)).correct
            assert row["prompt_image"] == env.prompt(state, "image") and env.text(state) in row["prompt_text"]
            picture = np.asarray(Image.open(tmp_path / "d" / "test" / row["file_name"]))
            assert np.array_equal(picture, env.draw(state))
        played = Episodes(env).score(first, write_episode([row["thought"] + row["answer"] for row in turns]))
        assert played.correct == turns[-1]["success"] and played.parsed
        assert played.parts["return"] == sum(row["reward"] for row in turns)


@pytest.mark.parametrize(("name", "view"), [("number_line", "image"), ("general_points_l", "text"), ("virl", "both")])
def test_conversations_show_a_turn_as_its_environment_is_shown(
    name: str, view: str, program: Callable[..., Done], tmp_path: Path
) -> None:
    asked = ["view=both"] if view == "both" else []
    assert program("generate", f"task={name}", "format=llava", "num=3", "out=d", "split=train", *asked).code == 0
    rows = json.loads((tmp_path / "d" / "conversations.json").read_text())
    env: Env[Any] = nano_task(name)
    if name.endswith("_l"):
        env.image = False
    states = [state for index in range(3) for state, _ in env.expert_episode("standard", "train", index)]
    for row, state in zip(rows, states, strict=True):
        dialogue = build_dialogue(env, Problem(env.name, "standard", "train", 0, state), view)
        shown = "" if view == "text" else "<image>\n"
        assert [turn["value"] for turn in row["conversations"]] == [shown + dialogue.prompt, dialogue.response.text]
        assert ("image" in row) == (view != "text") and (view == "text" or (tmp_path / "d" / row["image"]).is_file())


def test_settings_of_the_environment_and_mistakes_of_its_expert(program: Callable[..., Done], tmp_path: Path) -> None:
    words = ("generate", "task=general_points", "num=6", "split=train")
    assert program(*words, "task.mistakes=1", "env.max_attempts=3", "env.cot=false", "out=d").code == 0
    rows = [json.loads(line) for line in (tmp_path / "d" / "train" / "metadata.jsonl").read_text().splitlines()]
    assert [(row["turn"], row["thought"], row["success"]) for row in rows] == [(0, "", True)] * 6
    assert all(json.loads(row["meta"])["turn"] == 2 for row in rows), "two mistakes stand in the prompt, unlearned"


def test_data_sets_hold_what_turns_led_to(program: Callable[..., Done], tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    assert program("generate", "task=blackjack", "format=parquet", "num=20", "split=train", "out=d").code == 0
    frame = pandas.read_parquet(tmp_path / "d" / "standard" / "train" / "problems.parquet")
    assert frame["index"].nunique() == frame["done"].sum() == 20 and frame["reward"].dtype == "float64"
    assert set(frame.groupby("index")["reward"].sum()) <= {-1.0, 0.0, 1.0}


@pytest.mark.parametrize("format", ["lmms_eval", "vlmevalkit"])
def test_kits_cannot_play(format: str, program: Callable[..., Done], tmp_path: Path) -> None:
    done = program("generate", "task=number_line", f"format={format}", "out=d")
    assert (done.code, done.err.count("\n")) == (2, 1) and not (tmp_path / "d").exists()
    assert f"format={format}: number_line is an environment" in done.err
    assert done.err.endswith("allowed are folder, parquet, llava, own\n")


@pytest.mark.parametrize("word", ["supervision=mix", "evaluation.num=3", "+supervision=text"])
def test_what_environments_bring_is_no_setting_here(word: str, program: Callable[..., Done]) -> None:
    done = program("generate", "task=number_line", "out=d", word)
    assert done.code == 2 and "vlmreason generate has no such setting" in done.err
