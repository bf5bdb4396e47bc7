"""MARVEL's records: three questions of a puzzle, groups for intervals, and records that cannot be used."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from vlmreason.evaluation.groups import by_group
from vlmreason.tasks.base import Score, state_to_json
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
        ({"id": 10**30}, "a whole number from 0 to 1000000000"),
        ({"id": 1}, "1 is record 1 already"),
        ({"f_perception_distractor": "Two. "}, "it is the answer, and not a wrong one"),
        ({"f_perception_answer": "to  left", "f_perception_distractor": "to left"}, "it is the answer"),
        ({"f_perception_answer": " . "}, "words without Answer: are expected"),
        ({"f_perception_answer": "Answer: two"}, "words without Answer: are expected"),
        ({"f_perception_answer": 2}, "f_perception_answer=2: a text"),
        ({"c_perception_question_tuple": []}, "c_perception_question_tuple='': a text"),
        ({"c_perception_question_tuple": ["a" * 3000] * 2}, "a text of 1 to 4000 characters"),
        ({"c_perception_answer_tuple": [True, 4, 5]}, "three numbers of panels"),
        ({"avr_question": "\ud800"}, "no valid text"),
        ({"explanation": [[[[[[[["why"]]]]]]]] * 2}, "explanation="),
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
    for side in (0, 10**6):
        with pytest.raises(ValueError, match=rf"picture=\[144, {side}\]: allowed is 1 to 8192 px a side"):
            MarvelSizes((144, side))


@pytest.mark.parametrize("size", [(60_000, 1), (1, 60_000)])
def test_a_picture_that_would_vanish_is_named(size: tuple[int, int], tmp_path: Path) -> None:
    task = task_of(tmp_path)
    for path in (tmp_path / "Marvel").iterdir():
        Image.new("L", size).save(path)
    with pytest.raises(ValueError, match=rf"task=marvel_files: picture .*: {size[0]} x {size[1]} px"):
        task.draw(task.sample("reasoning", "train", 0).state)
    as_they_are = MarvelFiles(MarvelSizes(), data=task.data)
    assert as_they_are.draw(task.sample("fine", "train", 0).state).shape[:2] == size[::-1]


@pytest.mark.parametrize(
    "name", ["/etc/{id}.png", "../{id}.png", "Marvel/../../{id}.png", "a\0{id}.png", "a\\{id}.png"]
)
def test_paths_that_leave_the_folder_are_named(name: str, tmp_path: Path) -> None:
    task_of(tmp_path)
    with pytest.raises(ValueError, match=r"40 of 40 records cannot be used.*a path below task\.images is expected"):
        MarvelFiles(MarvelSizes(), data=str(tmp_path / "marvel_label.json"), picture_name=name).first("fine", "test", 1)


def test_pictures_that_are_no_files_of_the_folder_are_named(tmp_path: Path) -> None:
    task = task_of(tmp_path)
    state = task.sample("reasoning", "train", 0).state
    path = tmp_path / state.image
    for make, said in (
        (lambda: path.symlink_to(path), "leads back to itself"),
        (lambda: path.symlink_to("/etc/hostname"), r"leads out of task\.images"),
        (lambda: os.mkfifo(path), "no regular file"),
        (lambda: path.mkdir(), "no regular file"),
    ):
        path.rmdir() if path.is_dir() else path.unlink()
        make()
        with pytest.raises(ValueError, match=f"task=marvel_files: picture 'Marvel/.*{said}"):
            task.draw(state)


def test_answers_are_read_as_the_records_write_them(tmp_path: Path) -> None:
    task = task_of(tmp_path, *[{"f_perception_answer": "Yes.", "f_perception_distractor": " No "}] * 20)
    state = task.sample("fine", "train", 0).state
    assert task.score(state, task.answer(state)).correct and task.score(state, "Answer: yes").correct
    assert task.score(state, "Answer: NO.") == Score(False, True)


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        ("[1, 2]", "2 of 2 records cannot be used.*record 0: an object is expected"),
        ('{"id": 1}', "a list of records is expected"),
        ("[]", "a list of records is expected"),
        ("[" * 100_000, "not JSON"),
        (f"[{'9' * 10_000}]", "not JSON"),
        ("[[" + "[" * 40 + "]" * 40 + "]]", "nested deeper than 32"),
    ],
)
def test_files_that_hold_no_records_are_named(raw: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "marvel_label.json").write_text(raw)
    with pytest.raises(ValueError, match=said):
        MarvelFiles(MarvelSizes(), data=str(tmp_path / "marvel_label.json")).num_problems("coarse", "train")
