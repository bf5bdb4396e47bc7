"""Dialogues from a file of the user's: which problems there are, and that nothing in the file can do harm."""

import json
import os
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlmreason.dialogue.build import build_dialogue
from vlmreason.evaluation.problems import SampledProblems
from vlmreason.segments import ANSWER
from vlmreason.streams import SPLITS
from vlmreason.tasks.base import state_to_json
from vlmreason.tasks.llava.llava_data import LlavaData, LlavaSizes

NUM = 40


def record(number: int, num_turns: int = 1, image: str | None = None, **changes: Any) -> dict[str, Any]:
    turns = []
    for turn in range(num_turns):
        shown = "<image>\n" if image is not None and turn == 0 else ""
        turns.append({"from": "human", "value": f"{shown}What of {number}.{turn}?"})
        turns.append({"from": "gpt", "value": f"It is {number}.{turn}"})
    made = {"id": f"r{number}", "conversations": turns} | ({} if image is None else {"image": image})
    return made | changes


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    (folder / "deep").mkdir(parents=True)
    for number in range(NUM):
        Image.new("RGB", (20 + number, 30), (number, 100, 200)).save(folder / "deep" / f"{number}.png")
    return folder


def task_of(images: Path, records: Any, **changes: Any) -> LlavaData:
    path = images.parent / "data.json"
    path.write_text(records if isinstance(records, str) else json.dumps(records))
    settings = {"data": str(path), "images": str(images), "held_out": 0.2} | changes
    return LlavaData(settings.pop("sizes", LlavaSizes()), **settings)


def usual() -> list[dict[str, Any]]:
    """One, two or three turns; every fourth without a picture."""
    return [record(i, 1 + i % 3, f"deep/{i}.png" if i % 4 else None) for i in range(NUM)]


def sampled(task: LlavaData, split: str) -> list[Any]:
    num = task.num_problems("instruction", split)
    return [task.sample("instruction", split, i).state for i in range(num)]


def test_every_answer_is_a_problem_of_one_split(images: Path) -> None:
    task = task_of(images, usual())
    found = {split: sampled(task, split) for split in SPLITS}
    answers = Counter(state.answer for states in found.values() for state in states)
    assert answers == Counter(turn["value"] for r in usual() for turn in r["conversations"] if turn["from"] == "gpt")
    records = {split: {state.record for state in states} for split, states in found.items()}
    assert sum(map(len, records.values())) == NUM, "no record is in two splits"
    assert len(records["train"]) > NUM / 3 and all(records.values())


def test_problems_come_round_again_and_training_indices_cover_them_once(images: Path) -> None:
    task = task_of(images, usual())
    num, first = task.num_problems("instruction", "train"), 123_456_789_000
    wanted = Counter(map(repr, sampled(task, "train")))
    assert Counter(repr(task.sample("instruction", "train", first + i).state) for i in range(num)) == wanted
    with pytest.warns(UserWarning, match="so not 10000 but these are used"):
        problems = SampledProblems(task, task.levels, "test", 10_000)
    assert len(problems) == 2 * task.num_problems("instruction", "test"), "evaluation shows none twice"
    assert len(list(problems)) == len(problems) and all(id in problems for id in problems)


def test_a_dialogue_is_the_record_up_to_its_answer(images: Path) -> None:
    task = task_of(images, usual())
    states = [state for split in SPLITS for state in sampled(task, split)]
    (last,) = [state for state in states if state.answer == "It is 2.2"]
    problem = task.sample("instruction", "train", 0)
    dialogue = build_dialogue(task, type(problem)(task.name, "instruction", "train", 0, last), "image")
    assert dialogue.prompt == "What of 2.0?\nIt is 2.0\n\nWhat of 2.1?\nIt is 2.1\n\nWhat of 2.2?"
    assert [(segment.kind, segment.text) for segment in dialogue.response.segments] == [(ANSWER, "It is 2.2")]
    assert dialogue.image is not None and dialogue.image.shape == (30, 22, 3)
    assert (dialogue.image == (2, 100, 200)).all()
    (without,) = [state for state in states if state.answer == "It is 4.0"]
    assert task.draw(without) is None
    for state in (last, without):
        assert task.state_from_json(json.loads(json.dumps(state_to_json(state)))) == state
        assert task.score(state, "  it is   " + state.answer[6:] + ".").correct
        assert not task.score(state, state.answer + "1").correct and not task.score(state, "").parsed


def test_wording_of_earlier_turns(images: Path) -> None:
    task = task_of(images, usual(), wording={"earlier": "Q {question} A {answer};"})
    (state,) = [s for split in SPLITS for s in sampled(task, split) if s.answer == "It is 1.1"]
    assert task.prompt(state, "image") == "Q What of 1.0? A It is 1.0;What of 1.1?"
    with pytest.raises(ValueError, match=r"task\.wording\.turn: no such template"):
        task_of(images, usual(), wording={"turn": "x"})


def test_pictures_of_one_size(images: Path) -> None:
    task = task_of(images, usual(), sizes=LlavaSizes(picture=(40, 40)))
    pictures = [task.draw(state) for state in sampled(task, "train") if state.image]
    assert {picture.shape for picture in pictures} == {(40, 40, 3)}
    assert all((picture[20, 20] != 255).any() for picture in pictures)


def test_stages_have_data_of_their_own(images: Path) -> None:
    other = images.parent / "captions.json"
    other.write_text(json.dumps([record(i, 1, f"{i}.png", id=f"c{i}") for i in range(NUM)]))
    task = task_of(
        images, usual(), pretraining_data=str(other), pretraining_images=str(images / "deep"), broken="refuse"
    )
    state = task.sample("pretraining", "train", 0).state
    assert state.record.startswith("c") and task.draw(state) is not None
    assert task.sample("instruction", "train", 0).state.record.startswith("r")
    same = task_of(images, usual())
    assert same.num_problems("pretraining", "train") == same.num_problems("instruction", "train")


def test_long_answers_are_cut_and_long_prompts_refused(images: Path) -> None:
    records = usual()
    records[5]["conversations"][-1]["value"] = "x" * 500
    task = task_of(images, records, max_chars=200)
    states = [state for split in SPLITS for state in sampled(task, split)]
    (long,) = [state for state in states if state.answer.startswith("xx")]
    assert len(task.prompt(long, "image")) + len(task.answer(long)) == 200
    records[5]["conversations"][0]["value"] = "<image>\n" + "y" * 500
    with pytest.raises(ValueError, match=r"record 5: a prompt of 5\d\d characters"):
        sampled(task_of(images, records, max_chars=200), "train")


def no(**changes: Any) -> dict[str, Any]:
    return record(7, 2, "deep/7.png") | changes


def turns(*values: object, first: str = "human") -> list[dict[str, object]]:
    speakers = (first, "gpt" if first == "human" else "human")
    return [{"from": speakers[i % 2], "value": value} for i, value in enumerate(values)]


BROKEN: dict[str, tuple[Any, str]] = {
    "no object": ([1, 2], "not an object"),
    "no id": (no(id=None), "no id"),
    "several pictures": (no(image=["a.png", "b.png"]), "one path is expected"),
    "no turns": (no(conversations=[]), "conversations: a list"),
    "half a turn": (no(conversations=turns("<image>a")), "conversations: a list"),
    "answer first": (no(conversations=turns("a", "b", first="gpt")), r"conversations\[0\]: from=human"),
    "no text": (no(conversations=turns("<image>a", 3)), r"conversations\[1\]: from=gpt"),
    "empty answer": (no(conversations=turns("<image>a", "  ")), "an answer is empty"),
    "no placeholder": (no(conversations=turns("a", "b")), "<image> is expected once"),
    "two placeholders": (no(conversations=turns("<image><image>a", "b")), "<image> is expected once"),
    "late placeholder": (no(conversations=turns("a", "b", "<image>c", "d")), "<image> is expected once"),
    "placeholder without picture": (record(7, conversations=turns("<image>a", "b")), "<image> is expected once"),
    "placeholder in an answer": (record(7, conversations=turns("a", "b <image>")), "<image> is expected once"),
    "lone surrogate": (no(conversations=turns("<image>a", "\ud800")), "no valid text"),
    "missing picture": (no(image="deep/999.png"), "not in task.images"),
    "missing folder": (no(image="other/7.png"), "not in task.images"),
    "absolute path": (no(image="/etc/passwd"), "a path below task.images"),
    "path upwards": (no(image="deep/../../data.json"), "a path below task.images"),
    "path with zero": (no(image="deep/7.png\0"), "a path below task.images"),
    "empty path": (no(image=""), "a path below task.images"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_records_are_refused_by_number_or_counted(name: str, images: Path) -> None:
    broken, why = BROKEN[name]
    records = [*usual()[:9], broken, *usual()[9:]]
    with pytest.raises(ValueError, match=f"1 of 41 records cannot be used .*; record 9: .*{why}") as raised:
        task_of(images, records).sample("instruction", "train", 0)
    assert "\n" not in str(raised.value)
    skipping = task_of(images, records, broken="skip")
    with pytest.warns(UserWarning, match=f"1 of 41 records are left out; record 9: .*{why}"):
        kept = {state.record for split in SPLITS for state in sampled(skipping, split)}
    assert len(kept) == NUM


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("{}", "a list of records is expected"),
        ("[]", "a list of records is expected"),
        ("[1]", "1 of 1 records cannot be used"),
        (json.dumps([record(0)]), "of 1 records none falls into"),
        ("[" + " " * 3_000_000 + "]", "more than task.max_file_gb"),
    ],
)
def test_files_that_are_none(content: str, why: str, images: Path) -> None:
    with pytest.raises(ValueError, match=why) as raised:
        task_of(images, content, max_file_gb=0.002).sample("instruction", "train", 0)
    assert "\n" not in str(raised.value)


def draw(images: Path, name: str, **changes: Any) -> Any:
    records = [record(i, 1, name) for i in range(NUM)]
    task = task_of(images, records, **changes)
    return task.draw(task.sample("instruction", "train", 0).state)


def test_pictures_that_are_none(images: Path) -> None:
    whole = (images / "deep" / "3.png").read_bytes()
    (images / "text.png").write_text("no picture")
    (images / "cut.png").write_bytes(whole[:60])
    (images / "script.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    Image.new("L", (300, 200)).save(images / "large.png")
    outside = images.parent / "outside.png"
    outside.write_bytes(whole)
    os.symlink(outside, images / "link.png")
    for name in ("text.png", "cut.png", "script.eps"):
        with pytest.raises(ValueError, match=f"picture '{name}'") as raised:
            draw(images, name)
        assert "\n" not in str(raised.value)
    with pytest.raises(ValueError, match=r"300 x 200 px, more than task\.max_megapixels"):
        draw(images, "large.png", max_megapixels=0.05)
    assert draw(images, "large.png").shape == (200, 300, 3)
    with pytest.raises(ValueError, match=r"leads out of task\.images"):
        draw(images, "link.png")


def test_a_bomb_is_not_unpacked(images: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (2000, 2000)).save(images / "bomb.png")
    monkeypatch.setattr(Image.Image, "convert", lambda *_: pytest.fail("was unpacked"))
    with pytest.raises(ValueError, match="2000 x 2000 px"):
        draw(images, "bomb.png", max_megapixels=1.0)


def test_settings_are_checked(images: Path) -> None:
    for changes, why in (
        ({"held_out": 0.0}, "task.held_out=0.0"),
        ({"held_out": 0.5}, "task.held_out=0.5"),
        ({"broken": "ignore"}, "task.broken='ignore'"),
        ({"max_chars": 0}, "task.max_chars=0"),
        ({"pretraining_images": "x"}, "task.pretraining_images: has no effect"),
    ):
        with pytest.raises(ValueError, match=why):
            task_of(images, usual(), **changes)
    nothing = LlavaData(LlavaSizes())
    with pytest.raises(ValueError, match=r"task\.data: missing"):
        nothing.sample("instruction", "train", 0)
    with pytest.raises(ValueError, match="no such file"):
        LlavaData(LlavaSizes(), data=str(images / "none.json")).sample("instruction", "train", 0)
    with pytest.raises(ValueError, match=r"record 1: task\.images: missing"):
        LlavaData(LlavaSizes(), data=str(images.parent / "data.json")).sample("instruction", "train", 0)


def test_a_good_file_warns_of_nothing(images: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        task = task_of(images, usual(), broken="skip")
        assert np.asarray([task.num_problems("instruction", split) for split in SPLITS]).sum() == 79
