"""Sets of labelled pictures: halves of the classes as levels, lists with the right label, pictures of their class."""

from collections import Counter

import numpy as np
import pytest
from support.shipped import shipped

from vlmreason.dialogue.build import build_dialogue
from vlmreason.streams import SPLITS
from vlmreason.tasks.images.base import PictureSizes
from vlmreason.tasks.images.digits import Digits, read_digits
from vlmreason.tasks.images.drawn import GLYPHS, DrawnSizes, Things10
from vlmreason.tasks.images.labels import LABELS

SETS = ("digits", "things10", "things30", "symbols30")


@pytest.mark.parametrize("name", SETS)
def test_levels_are_the_halves_of_the_classes(name):
    task = shipped(name)
    found = {level: {task.sample(level, "train", index).state.label for index in range(500)} for level in task.levels}
    assert found["all"] == set(LABELS[name]) == found["first_half"] | found["second_half"]
    assert not found["first_half"] & found["second_half"]
    assert len(found["first_half"]) == (len(LABELS[name]) + 1) // 2


def test_digits_are_the_real_ones():
    digits = read_digits()
    assert len(digits) == 1797 and len({one.rows for one in digits}) == 1797
    counts = Counter(one.label for one in digits)
    assert set(counts) == set("0123456789") and set(range(174, 184)) >= set(counts.values())
    task = shipped("digits")
    assert sum(task.num_problems("all", split) for split in SPLITS) == 1797
    for level in task.levels[1:]:
        assert sum(task.num_problems(level, split) for split in SPLITS) == sum(
            counts[label] for label in task.of_level(level)
        )
    first = digits[0]
    assert first.label == "0" and first.rows[0] == (0, 0, 5, 13, 9, 1, 0, 0)
    bare = Digits(PictureSizes((8, 8)))
    assert (bare.draw(first)[..., 0] == np.round(np.array(first.rows) * 255 / 16)).all()


def test_digits_without_the_package_say_what_to_install(monkeypatch):
    monkeypatch.setattr("vlmreason.tasks.images.digits.importlib.util.find_spec", lambda name: None)
    read_digits.cache_clear()
    with pytest.raises(ValueError, match=r'task=digits: .*pip install "vlmreason\[digits\]"'):
        Digits(PictureSizes((144, 144))).sample("all", "train", 0)
    read_digits.cache_clear()


def test_every_drawn_class_looks_its_own():
    sizes = DrawnSizes((144, 144), (0.6, 0.6), 0, 0)
    pictures = {}
    for name in SETS[1:]:
        task = type(shipped(name))(sizes)
        for label in LABELS[name]:
            state = next(
                one for one in (task.sample("all", "train", i).state for i in range(2000)) if one.label == label
            )
            upright = type(state)(label, 86, 72, 72, 0, "black", "white", 0)
            picture = task.draw(upright)
            assert 0.01 < (picture < 128).mean() < 0.6, label
            pictures[label] = picture.tobytes()
    assert len(set(pictures.values())) == len(pictures) == len(GLYPHS)


def test_noise_stays_within_its_bounds():
    noisy, clean = (Things10(DrawnSizes((144, 144), noise=noise)) for noise in (40, 0))
    state = noisy.sample("all", "test", 0).state
    change = noisy.draw(state).astype(int) - clean.draw(state)
    assert change.min() >= -40 and change.max() <= 40 and change.std() > 5
    assert (noisy.draw(state) == noisy.draw(state)).all()


@pytest.mark.parametrize("name", SETS)
def test_lists_of_labels_hold_the_right_one(name):
    for listed, num in (("none", 0), ("all", len(LABELS[name])), ("sample:4", 4)):
        task = type(shipped(name))(shipped(name).sizes, listed=listed)
        problem = task.sample("all", "test", 3)
        asked = build_dialogue(task, problem, "image").prompt
        shown = asked.partition("One of: ")[2].rstrip(".").split(", ") if num else []
        assert len(shown) == num and (not num or problem.state.label in shown)
        assert len(task.options(problem.state)) == (num or len(LABELS[name]))
        assert asked == build_dialogue(task, task.sample("all", "test", 3), "image").prompt


@pytest.mark.parametrize("listed", ["some", "sample:1", "sample:x", "sample:", ""])
def test_other_lists_are_named(listed):
    with pytest.raises(ValueError, match=f"task.listed={listed}: none, all, or sample:N"):
        Things10(DrawnSizes(), listed=listed)


def test_only_what_follows_the_last_answer_counts():
    task = shipped("digits")
    state = task.sample("all", "test", 0).state
    written = build_dialogue(task, task.sample("all", "test", 0), "image_via_text").response.text
    assert task.score(state, written).correct
    assert task.score(state, f"1 2 3 Answer: {state.label}").correct
    assert not task.score(state, f"{state.label} Answer: x").correct


def test_parts_are_the_other_figures():
    task = shipped("things10")
    state = task.sample("all", "test", 0).state
    gold, other = state.label, next(label for label in LABELS["things10"] if label != state.label)
    expected = {
        gold: {"lenient", "named", "nearest"},
        f"a big {gold} outdoors": {"correct_verbose", "lenient", "named"},
        other: {"incorrect"},
        f"{gold}, {other}": {"intrinsic", "named"},
        f"{gold} is 8": {"extrinsic", "named"},
    }
    for said, wanted in expected.items():
        score = task.score(state, said)
        assert {part for part, value in score.parts.items() if value} - {"nearest"} == wanted - {"nearest"}
        assert score.correct == (said == gold) and score.parsed


def test_what_sets_do_not_know_is_named():
    with pytest.raises(ValueError, match=r"task.foreign='cifar1': .*cifar10"):
        Things10(DrawnSizes(), foreign=("cifar1",))
    with pytest.raises(ValueError, match="glyph="):
        DrawnSizes((144, 144), (0.8, 0.4))
    own = Things10(DrawnSizes(), foreign=())
    state = own.sample("all", "test", 0).state
    assert own.score(state, f"{state.label} is 8").parts["correct_verbose"]
