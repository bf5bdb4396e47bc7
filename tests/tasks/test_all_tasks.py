"""What holds for every task in conf/task, at every scale and level; a new task is checked without a change here."""

import hashlib
import itertools
import json
import os
import re
import string
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.shipped import SCALES, SKILLS, TASKS, shipped

from vlmreason.dialogue.build import build_dialogue
from vlmreason.segments import ANSWER, THOUGHT, VIEWS
from vlmreason.streams import SPLITS
from vlmreason.tasks.base import state_to_json

NUM = 8


def thinks(name, level):
    task = shipped(name)
    return bool(task.thought(task.sample(level, "test", 0).state))


FULL_WIDTH = "".join(chr(0xFF10 + digit) for digit in range(10))
CASES = [(name, scale, level) for name in TASKS for scale in SCALES for level in shipped(name, scale).levels]
PICTURED_CASES = [case for case in CASES if case[2] not in shipped(*case[:2]).text_only]
REASONING_CASES = [(name, scale, level) for name, scale, level in CASES if thinks(name, level)]
LABELLED = ("digits", "things10", "things30", "symbols30")
"""Sets of labelled pictures, which have no chain of thought."""


def problems(name, scale, level, split="test", num=NUM):
    task = shipped(name, scale)
    return task, [task.sample(level, split, index) for index in range(num)]


def response(task, problem, view=None):
    view = view or ("text" if problem.level in task.text_only else "image")
    return build_dialogue(task, problem, view).response.text


def views_of(task, level):
    return list(task.shown(level, VIEWS))


def answered_views(name, level):
    """Skills transcribe as a skill of its own, never before another one."""
    return [view for view in views_of(shipped(name), level) if view != "image_via_text" or name not in SKILLS]


def test_skills_are_no_task_of_a_paper():
    assert set(SKILLS) < set(TASKS)


@pytest.mark.parametrize(("name", "scale", "level"), CASES)
def test_own_responses_are_right(name, scale, level):
    task, drawn = problems(name, scale, level)
    for problem, view in itertools.product(drawn, answered_views(name, level)):
        score = task.score(problem.state, response(task, problem, view))
        assert score.correct and score.parsed
    for problem in drawn:
        assert task.score(problem.state, task.answer(problem.state)).correct


@pytest.mark.parametrize(("name", "scale", "level"), CASES)
def test_spoiled_responses_are_wrong(name, scale, level):
    task, drawn = problems(name, scale, level)
    num_mistaken = 0
    for problem, other in itertools.pairwise(drawn):
        state, answer = problem.state, task.answer(problem.state)
        for text in (answer[: len(answer) // 2], response(task, problem)[: len(response(task, problem)) // 3]):
            assert not task.score(state, text).correct
        if task.answer(other.state) != answer:
            num_mistaken += task.score(state, response(task, other)).correct
    assert num_mistaken <= 1  # an answer may happen to solve another problem too


@pytest.mark.parametrize(("name", "scale", "level"), CASES)
def test_options_are_different_answers_and_one_is_right(name, scale, level):
    """Of a task that asks for more beside the option, by its part `option`."""
    task, drawn = problems(name, scale, level)
    for problem in drawn:
        options = task.options(problem.state)
        if options is None:
            continue
        scores = [task.score(problem.state, option) for option in options]
        assert len(set(options)) == len(options) > 1
        assert all(score.parsed for score in scores)
        assert sum(score.parts.get("option", float(score.correct)) for score in scores) == 1


def test_tasks_with_options():
    found = {name for name in TASKS if offers_options(name)}
    assert found == {
        "visual_analogy",
        "pattern_heldout_visual_analogy",
        "raven",
        "irregular",
        "smart_families",
        "visual_pairs",
        *LABELLED,
    }


def offers_options(name):
    task = shipped(name, "nano")
    return task.options(task.sample(task.levels[0], "test", 0).state) is not None


@pytest.mark.parametrize(("name", "scale", "level"), CASES)
def test_scores_have_the_same_parts_whatever_the_response(name, scale, level):
    task, drawn = problems(name, scale, level, num=2)
    for problem in drawn:
        parts = set(task.score(problem.state, response(task, problem)).parts)
        for text in ("", " \n", "?", "Answer:", "Answer: " * 3, "\ud800", "9" * 5000, task.convert(problem.state)):
            score = task.score(problem.state, text)
            assert not score.correct
            assert set(score.parts) == parts and all(0 <= value <= 1 for value in score.parts.values())
        assert not task.score(problem.state, "").parsed


@pytest.mark.parametrize("digits", ["\u0660\u0661\u0662\u0663\u0664\u0665\u0666\u0667\u0668\u0669", FULL_WIDTH])
@pytest.mark.parametrize("name", TASKS)
def test_digits_of_other_scripts_do_not_count(name, digits):
    task = shipped(name)
    for level in task.levels:
        state = task.sample(level, "test", 0).state
        answer = task.answer(state).translate(str.maketrans(string.digits, digits))
        assert answer.isascii() or not task.score(state, answer).correct
    assert task.score(state, task.answer(state)).correct


@pytest.mark.parametrize("name", TASKS)
def test_hostile_responses_are_scored(name):
    task = shipped(name)
    states = [task.sample(level, "test", 0).state for level in task.levels]
    words = sorted({word for state in states for word in re.findall(r"\S+\s?", task.answer(state) + task.text(state))})
    pieces = st.sampled_from([*words, "Answer:", "\n", "(1,1)", "%s", "{0}", "\\end{tabular}"]) | st.text(max_size=4)

    @settings(max_examples=40, deadline=None, database=None)
    @given(st.sampled_from(states), st.lists(pieces, max_size=25).map("".join))
    def check(state, text):
        score = task.score(state, text)
        assert score.parsed or not score.correct

    check()


@pytest.mark.parametrize(("name", "scale", "level"), PICTURED_CASES)
def test_pictures_have_the_size_of_the_configuration(name, scale, level):
    task, drawn = problems(name, scale, level, "train", num=3)
    width, height = task.sizes.picture
    pictures = [task.draw(problem.state) for problem in drawn]
    for picture in pictures:
        assert picture.dtype == np.uint8 and picture.shape == (height, width, 3)
        assert len(np.unique(picture)) > 1
    if scale == "nano":
        assert (width, height) == (144, 144)
    assert any((picture != pictures[0]).any() for picture in pictures)
    before = pictures[0].copy()
    task.draw(drawn[1].state)
    assert (pictures[0] == before).all()


@pytest.mark.parametrize(("name", "scale", "level"), PICTURED_CASES)
def test_prompts_hold_the_text_or_nothing_of_it(name, scale, level):
    task, drawn = problems(name, scale, level)
    for problem in drawn:
        text, asked = task.text(problem.state), task.prompt(problem.state, "image")
        assert text in task.prompt(problem.state, "text")
        assert not [line for line in text.splitlines() if len(line) > 11 and line in asked]
        assert text.strip() and asked.strip()


@pytest.mark.parametrize(("name", "scale", "level"), PICTURED_CASES)
def test_both_is_the_prompt_and_response_of_text_with_the_picture(name, scale, level):
    task, drawn = problems(name, scale, level, num=3)
    for problem in drawn:
        text, both = (build_dialogue(task, problem, view) for view in ("text", "both"))
        assert (both.prompt, both.response) == (text.prompt, text.response) and text.image is None
        assert np.array_equal(both.image, task.draw(problem.state))


def test_a_level_of_text_alone_has_no_picture():
    cases = [case for case in CASES if case not in PICTURED_CASES]
    assert len(cases) >= 6
    for name, scale, level in cases:
        task, (problem,) = problems(name, scale, level, num=1)
        for view in VIEWS[1:]:
            with pytest.raises(ValueError, match=f"task={name} level={level}: a skill of text alone"):
                build_dialogue(task, problem, view)


@pytest.mark.parametrize(("name", "scale", "level"), CASES)
def test_everything_written_is_ascii(name, scale, level):
    task, drawn = problems(name, scale, level)
    for problem, view in itertools.product(drawn, views_of(task, level)):
        dialogue = build_dialogue(task, problem, view)
        assert (dialogue.prompt + dialogue.response.text).isascii()


@pytest.mark.parametrize(("name", "scale", "level"), REASONING_CASES)
def test_responses_convert_first_and_answer_once(name, scale, level):
    task, drawn = problems(name, scale, level)
    for problem in drawn:
        segments = build_dialogue(task, problem, "image_via_text").response.segments
        assert [segment.kind for segment in segments] == [task.converted_as, THOUGHT, ANSWER]
        assert segments[0].text.startswith(("Convert", "Caption")) and segments[0].text.endswith("\n")
        assert task.text(problem.state) in segments[0].text
        assert not re.search("convert|caption", segments[1].text + segments[2].text, re.IGNORECASE)
        assert len(re.findall(r"answer\s*:", "".join(segment.text for segment in segments), re.IGNORECASE)) == 1
        assert segments[2].text.startswith("Answer:") and segments[2].text == segments[2].text.rstrip()
        assert segments[1].text[-1].isspace()
        assert len(task.thought(problem.state)) > 1


@pytest.mark.parametrize("trace", ["terse", "verbose"])
@pytest.mark.parametrize("name", TASKS)
def test_both_wordings_are_right(name, trace):
    task = shipped(name, "nano", trace)
    for level, index in itertools.product(task.levels, range(3)):
        problem = task.sample(level, "validation", index)
        assert task.score(problem.state, response(task, problem, answered_views(name, level)[-1])).correct
        assert problem == shipped(name).sample(level, "validation", index)


@pytest.mark.parametrize("name", TASKS)
def test_splits_share_no_problem(name):
    task = shipped(name)
    keys = {
        split: {
            json.dumps(task.key(task.sample(level, split, index).state))
            for level, index in itertools.product(task.levels, range(60))
        }
        for split in SPLITS
    }
    for split, found in keys.items():
        assert {task.split_of(json.loads(key)) for key in found} == {split}
    assert not keys["train"] & keys["test"] and not keys["train"] & keys["validation"]
    assert not keys["validation"] & keys["test"]


@pytest.mark.parametrize(("name", "scale", "level"), CASES)
def test_problems_differ_by_index(name, scale, level):
    task, drawn = problems(name, scale, level, "train", 30)
    assert len({(task.text(problem.state), task.prompt(problem.state, "image")) for problem in drawn}) == 30
    assert len({problem.id for problem in drawn}) == 30


@pytest.mark.parametrize(("name", "scale", "level"), CASES)
def test_states_survive_json(name, scale, level):
    task, drawn = problems(name, scale, level)
    for problem in drawn:
        data = json.loads(json.dumps(state_to_json(problem.state)))
        assert task.state_from_json(data) == problem.state
        assert task.key(task.state_from_json(data)) == task.key(problem.state)
        for field in data:
            with pytest.raises(ValueError, match=f"problem of {name}"):
                task.state_from_json({key: value for key, value in data.items() if key != field})


@pytest.mark.parametrize("name", TASKS)
def test_unknown_levels_splits_and_indices_are_named(name):
    task = shipped(name)
    with pytest.raises(ValueError, match="level='nonsense'"):
        task.sample("nonsense", "train", 0)
    with pytest.raises(ValueError, match="split='nonsense'"):
        task.sample(task.levels[0], "nonsense", 0)
    with pytest.raises(ValueError, match="index=-1"):
        task.sample(task.levels[0], "train", -1)


def digests(cases, num=2):
    """A hash of everything that the first problems of each case show."""
    found = {}
    for name, scale, level in cases:
        task, total = shipped(name, scale), hashlib.sha256()
        for split in SPLITS:
            drawn = [task.sample(level, split, index) for index in reversed(range(num))]
            for problem in reversed(drawn):
                total.update(json.dumps(state_to_json(problem.state)).encode())
                if level not in task.text_only:
                    total.update(task.draw(problem.state).tobytes())
                for view in views_of(task, level):
                    dialogue = build_dialogue(task, problem, view)
                    total.update(repr((dialogue.prompt, dialogue.response.segments)).encode())
        found["/".join((name, scale, level))] = total.hexdigest()
    return found


@pytest.mark.slow
def test_processes_orders_and_hash_seeds_give_the_same_problems():
    seed = "2" if os.environ.get("PYTHONHASHSEED") == "1" else "1"
    program = "import json, test_all_tasks as t; print(json.dumps(t.digests(t.CASES[::-1])))"
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={
            **os.environ,
            "PYTHONHASHSEED": seed,
            "OMP_NUM_THREADS": "1",
            "PYTHONPATH": str(Path(__file__).parents[1]),
        },
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(done.stdout) == digests(CASES)
