"""Skills on scenes: replies are what the scene says, captions what patches show; no task's prompt or trace occurs."""

import re

import numpy as np
import pytest
from support.shipped import shipped

from vlmreason.tasks.compositions import drawing
from vlmreason.tasks.compositions.reading_skills import EXTREMES
from vlmreason.tasks.compositions.scenes import Scene
from vlmreason.tasks.skills import FILLING

TASK = shipped("shape_reading_skills")
TASKS = [shipped(name) for name in ("shape_area", "grid_position", "shape_grid")]


def drawn(level, num=150, task=TASK):
    return [task.sample(level, "train", index).state for index in range(num)]


def cell_of(text):
    return tuple(map(int, text.strip("()").split(",")))


def contents(scene):
    return {shape.cell: " ".join([shape.name, *map(str, shape.dimensions)]) for shape in scene.shapes}


def listed(reply):
    """Cells of a reply, each with what follows it."""
    parts = re.split(r" ?(\(\d,\d\)) ?", reply)
    return list(zip(map(cell_of, parts[1::2]), parts[2::2], strict=True))


def test_cells_hold_what_the_scene_says():
    for state in drawn("holds"):
        full = contents(state.scene)
        assert all(full.get(cell, "free") == what for cell, what in listed(state.reply))
        assert re.findall(r"\(\d,\d\)", state.question) == re.findall(r"\(\d,\d\)", state.reply)
    for state in drawn("sides"):
        full = contents(state.scene)
        assert all(full[cell].split(" ", 2)[2] == sides for cell, sides in listed(state.reply))


def test_things_are_where_they_are():
    for level in ("where", "things"):
        for state in drawn(level):
            names = re.findall(r"([a-z0-9 ]+?) (\(\d,\d\))", state.reply)
            for name, cell in names:
                words = set(name.split())
                assert words <= set(contents(state.scene)[cell_of(cell)].split())
            if level == "things":
                assert [cell_of(cell) for _, cell in names] == [shape.cell for shape in state.scene.shapes]


def test_what_is_computed_is_right():
    for state in drawn("areas", 200):
        asked = re.findall(r"(square|rectangle|triangle) (\d)(?: (\d))?", state.question)
        found = [int(a) * int(b or a) // (2 if kind == "triangle" else 1) for kind, a, b in asked]
        assert list(map(int, state.reply.split())) == found
    for level, part in (("products", 1), ("halves", 2)):
        for state in drawn(level):
            pairs = re.findall(r"(\d) (\d)", state.question)
            assert [int(a) * int(b) / part for a, b in pairs] == list(map(int, state.reply.split()))
    for state in drawn("sums"):
        numbers = list(map(int, re.findall(r"\d+", state.question)))
        sums = np.cumsum(numbers)
        assert state.reply == " ".join(f"{number} sum {so_far}" for number, so_far in zip(numbers, sums, strict=True))
    for state in drawn("distances"):
        for a, b, away in re.findall(r"(\(\d,\d\)) (\(\d,\d\)) distance (\d)", state.reply):
            assert sum(abs(x - y) for x, y in zip(cell_of(a), cell_of(b), strict=True)) == int(away)
    for state in drawn("extremes"):
        word = next(word for word in state.question.split() if word in EXTREMES)
        numbers = [int(number) for number in re.findall(r"(?<![(,\d])\d+(?![,)\d])", state.question)]
        assert int(state.reply.split()[-1]) == (max if EXTREMES[word] else min)(numbers)
        assert state.reply.strip() in state.question


def test_chains_have_two_steps():
    num_next = 0
    for state in drawn("chain"):
        shapes = list(state.scene.shapes)
        words = state.question.rstrip(".").split()
        found = next(i for i, shape in enumerate(shapes) if shape.color in words)
        if "after" in words:
            num_next += 1
            found += 1
        shape = shapes[found]
        assert f"{shape.color} ({shape.cell[0]},{shape.cell[1]}) " in state.reply
        total = int(state.reply.rpartition(" sum ")[2])
        axis = 0 if "row" in words else 1
        num = sum(other.cell[axis] == shape.cell[axis] for other in shapes)
        assert total == (shape.dimensions[0] + shape.cell[0] if "size" in words else num + 1)
    assert 20 < num_next < 100


@pytest.mark.parametrize("level", TASK.levels)
def test_questions_vary_and_are_no_task_s(level):
    states = drawn(level)
    assert len({" ".join(w for w in state.question.split() if w in FILLING) for state in states}) > 30
    prompts = {task.wording.convert for task in TASKS}
    for task in TASKS:
        for asked in task.levels:
            example = task.sample(asked, "train", 0).state
            name = example.scene.shapes[example.target].name
            prompts |= set(task.prompt(example, "image").split(name))
    prompts = {part.strip() for part in prompts if len(part.split()) > 2}
    assert len(prompts) > 5
    steps = re.compile(r"(?:square|rectangle|triangle) [\d ]+ area|nearest \(|farthest \(|larger \d+ $")
    for state in states:
        shown = f"{TASK.prompt(state, 'text')}\n{state.reply}"
        assert not [part for part in prompts if part in shown] and not steps.search(state.reply)
        assert "Answer" not in shown


def test_skills_are_of_scenes_that_no_task_tests():
    keys = {repr(TASK.key(state)) for level in TASK.levels for state in drawn(level)}
    tested = {
        repr(task.key(task.sample(level, "test", i).state))
        for task in TASKS
        for level in task.levels
        for i in range(300)
    }
    assert not keys & tested


def test_captions_say_what_patches_show():
    form = TASK.captions(24)
    assert [slot.name for slot in form.slots] == ["cell", "kind", "color", "side 1", "side 2"]
    assert form.places == tuple(range(36))
    seen = {}
    for state in drawn("transcribe", 100):
        classes, bits = TASK.caption(state)
        picture = TASK.draw(state)
        assert len(classes) == len(bits) == 36
        for place, found in enumerate(classes):
            assert all(0 <= value < slot.num_classes for value, slot in zip(found, form.slots, strict=True))
            top, left = place // 6 * 24, place % 6 * 24
            patch = picture[top : top + 24, left : left + 24].tobytes()
            assert seen.setdefault(patch, found) == found, "equal patches have equal captions"
        num = sum(found[1] > 0 for found in classes)
        assert num == len(state.scene.shapes) and sum(found[0] for found in classes) == state.scene.size**2


def test_pictures_are_those_of_the_tasks():
    state = TASKS[2].sample("nearest_sum", "train", 0).state
    assert np.array_equal(TASKS[2].draw(state), drawing.draw(Scene(*vars(state.scene).values()), TASK.sizes, "all"))


def test_captions_need_cells_that_are_patches():
    with pytest.raises(ValueError, match="a cell is no patch of 12 px"):
        TASK.captions(12)
    with pytest.raises(ValueError, match="do not fall into patches of 14 px"):
        shipped("shape_reading_skills", "paper").captions(14)
