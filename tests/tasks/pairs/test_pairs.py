"""Pairs of pictures: what they differ in, how answers are judged, MMVP's folder with its faults."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlmreason.evaluation.groups import by_group
from vlmreason.streams import SPLITS
from vlmreason.tasks.pairs.base import PATTERNS, chosen
from vlmreason.tasks.pairs.mmvp_files import MMVPFiles
from vlmreason.tasks.pairs.mmvp_vlm_files import FOLDERS, MMVPVLMFiles
from vlmreason.tasks.pairs.visual_pairs import DETAILS, PairSizes, VisualPairs

TASK = VisualPairs(PairSizes())


@pytest.mark.parametrize("level", [*PATTERNS, "mixed"])
def test_a_pair_differs_in_one_detail_and_has_opposite_answers(level: str) -> None:
    for number in range(8):
        one, other = (TASK.sample(level, "train", 2 * number + member).state for member in (0, 1))
        assert one.pair == other.pair == number and TASK.key(one) == TASK.key(other)
        differ = [name for name, value in vars(one.details).items() if value != getattr(other.details, name)]
        assert differ == [one.pattern] and level in (one.pattern, "mixed")
        assert TASK.prompt(one, "image") == TASK.prompt(other, "image")
        assert {TASK.answer(one), TASK.answer(other)} == {"Answer: (a)", "Answer: (b)"}
        changed = (TASK.draw(one) != TASK.draw(other)).any(axis=2)
        assert changed.sum() >= 20 and changed.any(axis=0).sum() >= 3 and changed.any(axis=1).sum() >= 3


def test_the_right_option_stands_in_both_places() -> None:
    """Neither the letter nor the first picture gives the answer away."""
    rights = np.array([TASK.right(TASK.sample("mixed", "train", 2 * number).state) for number in range(300)])
    assert 0.4 < rights.mean() < 0.6
    assert {TASK.sample("mixed", "test", number).state.pattern for number in range(400)} == set(DETAILS)


def test_pairs_count_where_both_are_right() -> None:
    """Held against a count of its own; a constant answer has no pair."""
    states = [TASK.sample("mixed", "test", number).state for number in range(200)]
    said = ["(a)" if (7 * number) % 3 else "(b)" for number in range(200)]
    marks = [(TASK.groups(state), TASK.score(state, one).correct) for state, one in zip(states, said, strict=True)]
    found = {one.group: one for one in by_group("mixed", "image", marks)}
    rights = [one[1] for one in marks]
    both = sum(rights[number] and rights[number + 1] for number in range(0, 200, 2))
    assert (found["pair"].all_right.count, found["pair"].all_right.num) == (both, 100) and both
    assert found["pair"].accuracy.count == sum(rights)
    constant = [(TASK.groups(state), TASK.score(state, "(b)").correct) for state in states]
    pairs = next(one for one in by_group("mixed", "image", constant) if one.group == "pair")
    assert pairs.all_right.count == 0 and pairs.accuracy.share == 0.5


@pytest.mark.parametrize(
    ("response", "found"),
    [
        ("(a)", 0), ("( B ) red", 1), ("b", 1), ("b.", 1), ("a)", 0), ("(c)", None), ("c", None), ("", None),
        ("the door is open", 0), ("open or closed", None), ("A closed door", 1), ("It is not opened", None),
        ("a", 0), ("CLOSED.", 1), ("maybe", None),
    ],
)  # fmt: skip
def test_answers_are_read(response: str, found: int | None) -> None:
    assert chosen(response, ("Open", "closed")) == found


def test_statements_are_as_different_as_the_values() -> None:
    """Every value of every detail has one statement, and the options keep their order."""
    for pattern, (_, values) in DETAILS.items():
        state = TASK.sample(pattern, "train", 0).state
        said = {value: TASK.statements(replace(state, values=(value, state.values[0])))[0] for value in values}
        assert len(set(said.values())) == len(values)
        assert TASK.statements(state) == (said[state.values[0]], said[state.values[1]])


def mmvp(folder: Path, rows: list[dict[str, Any]] | None = None, num: int = 300, **settings: Any) -> MMVPFiles:
    rows = rows if rows is not None else [row(number) for number in range(1, num + 1)]
    (folder / "MMVP Images").mkdir(exist_ok=True)
    for one in rows:
        Image.new("RGB", (8, 8), (int(one["Index"]) % 256, 0, 0)).save(folder / "MMVP Images" / f"{one['Index']}.jpg")
    with (folder / "Questions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return MMVPFiles(data=str(folder / "Questions.csv"), **settings)


def row(number: int, **changes: str) -> dict[str, Any]:
    answer = {"Correct Answer": "(a)" if number % 2 else "(b)"}
    asked = f"Is the door of house {(number + 1) // 2} open?"
    return {**answer, "Options": "(a) Open (b) Closed", "Index": number, "Question": asked, **changes}


def test_published_layout_is_read_whatever_the_order_of_columns(tmp_path: Path) -> None:
    task = mmvp(tmp_path)
    assert [task.num_problems("pairs", split) for split in SPLITS] == [0, 0, 300]
    states = [task.sample("pairs", "test", number).state for number in range(300)]
    assert [state.number for state in states] == list(range(1, 301))
    assert states[0].choices == ("Open", "Closed") and task.groups(states[1]) == task.groups(states[0])
    assert task.draw(states[4]).shape == (8, 8, 3)
    assert all(task.score(state, task.answer(state)).correct for state in states)


def test_faults_of_labels_are_corrected(tmp_path: Path) -> None:
    rights = {}
    for labels in ("published", "audit", "swapped"):
        task = mmvp(tmp_path, labels=labels)
        rights[labels] = [task.right(task.sample("pairs", "test", number).state) for number in range(300)]

    def changed(labels: str) -> list[int]:
        return [n + 1 for n in range(300) if rights[labels][n] != rights["published"][n]]

    assert changed("audit") == [100, 280] and changed("swapped") == [99, 100, 279, 280]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([row(1), row(2), row(3)], "Index 3 has no partner"),
        ([row(1), row(2), row(2)], "Index 2 is there twice"),
        ([row(1), row(2, Question="What?")], "ask different things"),
        ([row(1), row(2, Options="open, closed")], "Options='open, closed'"),
        ([row(1), row(2, **{"Correct Answer": "c"})], "Correct Answer='c'"),
        ([row(1), {**row(2), "Index": 10**7}], "Index='10000000'"),
    ],
)
def test_rows_that_are_no_pairs_are_named(tmp_path: Path, rows: list[dict[str, Any]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mmvp(tmp_path, rows).sample("pairs", "test", 0)


def test_a_missing_picture_is_named(tmp_path: Path) -> None:
    task = mmvp(tmp_path, num=4)
    (tmp_path / "MMVP Images" / "3.jpg").unlink()
    with pytest.raises(ValueError, match=r"MMVP Images/3\.jpg"):
        task.sample("pairs", "test", 0)


STATED = ("a dog facing left", "a dog facing right", "an open door", "a closed door")
KINDS = ("Orientation", "Orientation", "State And Condition", "State And Condition")


def mmvp_vlm(folder: Path, root: str = FOLDERS[0], blank: str = " ", **changes: Any) -> MMVPVLMFiles:
    """Two pairs in the published layout; `changes`: lists of cells."""
    cells: dict[str, Any] = {"Statement": STATED, "Question ID": (1, 2, 3, 4), "Type": KINDS} | changes
    for number, kind in zip((1, 2, 3, 4), KINDS, strict=True):
        place = folder / root / kind.replace(" ", blank)
        place.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (number, 0, 0)).save(place / f"{number}.jpg")
    with (folder / "Questions.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(cells)
        writer.writerows(zip(*cells.values(), strict=True))
    return MMVPVLMFiles(data=str(folder / "Questions.csv"))


@pytest.mark.parametrize(("root", "blank"), [(FOLDERS[0], "_"), (FOLDERS[1], " ")])
def test_statements_and_pictures_are_read_by_either_name(tmp_path: Path, root: str, blank: str) -> None:
    task = mmvp_vlm(tmp_path, root, blank)
    states = [task.sample("pairs", "test", number).state for number in range(4)]
    assert [task.num_problems("pairs", split) for split in SPLITS] == [0, 0, 4]
    own = [task.statements(state)[task.right(state)] for state in states]
    assert own == list(STATED) and {task.right(state) for state in states[::2]} == {0, 1}, "not always the first one"
    for one, other in (states[:2], states[2:]):
        assert task.groups(one) == task.groups(other) and task.statements(one) == task.statements(other)
        assert task.right(one) != task.right(other) and task.prompt(one, "image") == task.prompt(other, "image")
    assert [task.groups(state)["pattern"] for state in states] == list(KINDS)
    assert all(task.score(state, task.answer(state)).correct for state in states)
    assert all(task.score(state, own[number]).correct for number, state in enumerate(states))
    assert task.draw(states[3]).shape == (8, 8, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"Question ID": (1, 2, 3, 5)}, "number 3 has no partner|picture 5: neither"),
        ({"Question ID": (1, 2, 4, 4)}, "number 4 is there twice"),
        ({"Type": ("Orientation", "Orientation", KINDS[2], "Orientation")}, "picture 4: neither"),
        ({"Statement": (*STATED[:3], STATED[2])}, "number 3 and its partner have one statement"),
        ({"Question ID": (1, 2, 3, "x")}, "Question ID='x': a row's number"),
        ({"Statement": (*STATED[:3], " ")}, "Statement=' ': a text of 1 to 2000"),
    ],
)
def test_statements_that_are_no_pairs_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mmvp_vlm(tmp_path, **changes).sample("pairs", "test", 0)


def test_pairs_with_questions_alone_have_no_statements(tmp_path: Path) -> None:
    task = mmvp(tmp_path, num=2)
    with pytest.raises(ValueError, match="task=mmvp_files: pairs have no statements; mmvp_vlm_files and visual_pairs"):
        task.statements(task.sample("pairs", "test", 0).state)
    with pytest.raises(ValueError, match=r"task\.columns=\['a', 'a', 'b'\]: three names are expected"):
        MMVPVLMFiles(columns=("a", "a", "b"))
