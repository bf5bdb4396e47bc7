"""Paths of Table Readout without values: the same problems, judged by their cells alone."""

import re

import pytest
from support.shipped import SCALES, shipped

from vlmreason.dialogue.build import build_dialogue

TRACES = ("terse", "verbose")


@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("level", ["simple", "hard"])
@pytest.mark.parametrize("split", ["train", "test"])
def test_problems_are_those_of_table_readout(scale, level, split):
    paths, readout = shipped("table_paths", scale), shipped("table_readout", scale)
    for index in range(20):
        state = paths.sample(level, split, index).state
        assert state == readout.sample(level, split, index).state
        assert paths.key(state) == readout.key(state) and paths.text(state) == readout.text(state)
    assert paths.split_of([1, 2, 3]) == readout.split_of([1, 2, 3])


@pytest.mark.parametrize("trace", TRACES)
def test_responses_hold_the_path_and_no_value(trace):
    task = shipped("table_paths", trace=trace)
    for index in range(50):
        problem = task.sample("hard", "train", index)
        text = build_dialogue(task, problem, "text").response.text
        cells = [(int(row), int(col)) for row, col in re.findall(r"\((\d+),(\d+)\)", text)]
        assert cells == [*problem.state.path] * 2
        assert not re.search(r"\d", re.sub(r"\(\d+,\d+\)", "", text))


@pytest.mark.parametrize("trace", TRACES)
def test_it_is_asked_otherwise_than_the_readout(trace):
    asked, read = shipped("table_paths", trace=trace), shipped("table_readout", trace=trace)
    state = asked.sample("simple", "train", 0).state
    for modality in ("text", "image"):
        assert asked.prompt(state, modality) != read.prompt(state, modality)


def test_answer_or_trace_counts_and_order_matters():
    task = shipped("table_paths")
    state = task.sample("hard", "test", 0).state
    right = [f"({row},{col})" for row, col in state.path]
    cases = {
        " ".join(right): (True, 0.0, 1.0),
        "Answer: " + " ".join(right): (True, 1.0, 0.0),
        f"{right[0]} Answer: {' '.join(right)}": (True, 1.0, 0.0),
        f"{' '.join(right)} Answer: {right[0]}": (True, 0.0, 1.0),
        f"{task.text(state)}\n{' '.join(right)} Answer: {' '.join(right)}": (True, 1.0, 1.0),
        "Answer: " + " ".join(right[::-1]): (False, 0.0, 0.0),
        "Answer: " + " ".join(right[:-1]): (False, 0.0, 0.0),
        "Answer: " + " ".join(map(str, state.readout)): (False, 0.0, 0.0),
    }
    for text, expected in cases.items():
        score = task.score(state, text)
        assert (score.correct, score.parts["answer_list"], score.parts["trace_list"]) == expected, text
    assert not task.score(state, "Answer: 1 2 3").parsed


def test_a_template_may_use_its_fields_alone():
    from vlmreason.tasks.tables.table_paths import TablePaths

    sizes = shipped("table_paths").sizes
    assert TablePaths(sizes, wording={"step": "{cell}; "}).wording.step == "{cell}; "
    with pytest.raises(ValueError, match=r"task\.wording\.step='\{value\} \{sum\}': fields in braces may be"):
        TablePaths(sizes, wording={"step": "{value} {sum}"})
