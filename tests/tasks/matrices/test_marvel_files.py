"""MARVEL's records: three questions of a puzzle, groups for intervals, and records that cannot be used."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlmreason.evaluation.groups import by_group
from vlmreason.tasks.base import state_to_json
from vlmreason.tasks.matrices.marvel_files import MarvelFiles, MarvelSizes


def record(number: int) -> dict[str, Any]:
    return {
        "id": number,
        "pattern": 1 + number % 3,
        "task_configuration": 2,
        "avr_question": "The panels are in a row. Which choice (1 to 4) fills the missing part?",
        "answer": 1 + number % 4,
        "explanation": f"The lines grow, rule {number // 2}.",
        "f_perception_question": "How many lines has choice 1?",
        "f_perception_answer": "two",
        "f_perception_distractor": "three",
        "c_perception_question_tuple": "How many panels are in the context, in the choices, and in all?",
        "c_perception_answer_tuple": [5, 4, 9],
    }


def task_of(folder: Path, *changes: dict[str, Any], **settings: Any) -> MarvelFiles:
    """A set of as many records as there are changes to them."""
    rows = [record(number) | change for number, change in enumerate(changes or [{}] * 40)]
    (folder / "Marvel").mkdir(exist_ok=True)
    for row in rows:
        Image.new("L", (60, 30), 255).save(folder / "Marvel" / f"{row['id']}.png")
    (folder / "marvel_label.json").write_text(json.dumps(rows))
    return MarvelFiles(MarvelSizes((144, 144)), data=str(folder / "marvel_label.json"), **settings)


def test_every_record_asks_three_things(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    assert sum(task.num_problems("reasoning", split) for split in ("train", "validation", "test")) == 40
    num = task.num_problems("reasoning", "train")
    assert task.num_problems("together", "train") == 3 * num
    for level, right, wrong in (
        ("reasoning", "Answer: {0}", "Answer: {1}"), ("fine", "answer: Two.", "Answer: three"),
        ("coarse", "Answer: (5, 4, 9)", "Answer: 5, 4, 8"),
    ):  # fmt: skip
        state = task.sample(level, "train", 1).state
        assert state.asked == level
        assert task.score(state, task.answer(state)).correct
        assert task.score(state, right.format(state.answer)).correct
        score = task.score(state, wrong.format(0, state.answer % 4 + 1))
        assert score.parsed and not score.correct and not task.score(state, "two 5, 4, 9").parsed
        assert task.draw(state).shape == (144, 144, 3)
        options = task.options(state)
        assert (options is None) == (level == "coarse")
        assert options is None or [task.score(state, one).correct for one in options].count(True) == 1
        assert task.state_from_json(state_to_json(state)) == state


def test_questions_of_a_puzzle_are_a_group(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    states = [task.sample("together", "train", i).state for i in range(task.num_problems("together", "train"))]
    marks = [(task.groups(state), state.asked != "fine") for state in states]
    found = {one.group: one for one in by_group("together", "image", marks)}
    assert found["puzzle"].all_right.count == 0 and found["puzzle"].all_right.num == len(states) // 3
    assert found["question"].values["reasoning"].share == 1 and found["question"].values["fine"].share == 0
    assert found["family"].accuracy.share == pytest.approx(2 / 3)


def test_variants_of_a_puzzle_are_of_one_split(tmp_path: Path) -> None:
    changes = [{"pattern": 1, "explanation": f"rule {number // 4}"} for number in range(40)]
    task = task_of(tmp_path, *changes)
    where: dict[str, set[str]] = {}
    for split in ("train", "validation", "test"):
        for i in range(task.num_problems("reasoning", split)):
            where.setdefault(task.sample("reasoning", split, i).state.family, set()).add(split)
    assert len(where) == 10 and all(len(splits) == 1 for splits in where.values())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": 5}, "answer=5: a whole number from 1 to 4"),
        ({"answer": None}, "answer=None"),
        ({"answer": True}, "answer=True"),
        ({"avr_question": " "}, "avr_question=' ': a text"),
        ({"f_perception_distractor": "two"}, "it is the answer"),
        ({"c_perception_answer_tuple": [5, 4]}, "three numbers of panels"),
        ({"c_perception_question_tuple": 7}, "c_perception_question_tuple=7"),
        ({"id": "../../secret"}, "id='../../secret'"),
    ],
)
def test_records_that_cannot_be_used_are_named(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    task_of(tmp_path)
    rows = [record(number) for number in range(8)]
    rows[3] |= change
    (tmp_path / "marvel_label.json").write_text(json.dumps(rows))
    data = str(tmp_path / "marvel_label.json")
    with pytest.raises(ValueError, match="record 3: ") as caught:
        MarvelFiles(MarvelSizes(), data=data).num_problems("reasoning", "train")
    assert said in str(caught.value)
    with pytest.warns(UserWarning, match="1 of 8 records are left out"):
        MarvelFiles(MarvelSizes(), data=data, broken="skip").num_problems("reasoning", "train")
    del rows[3]["answer"]
    (tmp_path / "marvel_label.json").write_text(json.dumps(rows))
    with pytest.raises(ValueError, match="record 3: "):
        MarvelFiles(MarvelSizes(), data=data).num_problems("reasoning", "train")


def test_pictures_that_are_not_there_or_too_large_are_named(tmp_path: Path) -> None:
    task = task_of(tmp_path, max_megapixels=0.001)
    with pytest.raises(ValueError, match=r"task=marvel_files: picture .*more than task\.max_megapixels"):
        task.draw(task.sample("reasoning", "train", 0).state)
    for path in (tmp_path / "Marvel").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=r"not in task\.images"):
        MarvelFiles(MarvelSizes(), data=str(tmp_path / "marvel_label.json")).num_problems("fine", "test")
    with pytest.raises(ValueError, match=r"task\.picture_name='x\.png'"):
        MarvelFiles(MarvelSizes(), picture_name="x.png")
