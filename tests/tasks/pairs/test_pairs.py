"""Pairs of pictures: what they differ in, how answers are judged, MMVP's folder with its faults."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlmreason.evaluation.groups import by_group
from vlmreason.streams import SPLITS
from vlmreason.tasks.pairs.base import PATTERNS, chosen
from vlmreason.tasks.pairs.mmvp_files import MMVPFiles
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
