"""What went wrong on a matrix, and where in the picture its trace is."""

from __future__ import annotations

import numpy as np
import pytest
from support.shipped import shipped

from vlmreason.analysis.failures import check_task
from vlmreason.tasks.findings import Finding
from vlmreason.tasks.matrices.marvel_files import MarvelFiles, MarvelSizes, MarvelState
from vlmreason.tasks.matrices.panels import CONFIGURATIONS
from vlmreason.tasks.matrices.raven import Raven
from vlmreason.tasks.matrices.raven_files import RavenFiles

TASK = shipped("raven")
assert isinstance(TASK, Raven)


def found(thought: str, answer: int, level: str = "center") -> Finding:
    state = TASK.sample(level, "test", 0).state
    return TASK.finding(state, f"{thought}Answer: {answer}", thought)


def thoughts(level: str = "center") -> tuple[list[str], int]:
    state = TASK.sample(level, "test", 0).state
    return TASK.thought(state), state.answer + 1


@pytest.mark.parametrize("level", tuple(CONFIGURATIONS))
def test_a_right_trace_has_no_failure(level: str) -> None:
    steps, answer = thoughts(level)
    finding = found("".join(steps), answer, level)
    assert finding.correct and finding.failure is None and finding.severity == 0 and all(finding.shares.values())
    assert len(finding.ratios) >= 3 and all(right == total > 0 for right, total in finding.ratios.values())


def test_the_first_thing_that_went_wrong_is_named() -> None:
    steps, answer = thoughts()
    other = answer % 8 + 1
    assert found("".join(steps), other).failure == "choice"
    assert found("".join(steps[:-1]), other).failure == "elimination"
    assert found("", other).failure == "choice" and found("", other).shares["levels_right"] is None
    state = TASK.sample("center", "test", 0).state
    assert TASK.finding(state, "no idea", "").failure == "unparsed"
    rows = steps[0]
    line = rows.replace(rows.split()[1], "zzz", 1)
    spoiled = found("".join([line, *steps[1:]]), other)
    assert (spoiled.failure, spoiled.correct, spoiled.shares["levels_right"]) == ("misread", False, False)
    assert spoiled.first_error == 0 and 0 < spoiled.severity < 1
    right, total = next(iter(spoiled.ratios.values()))
    assert right < total == 8


@pytest.mark.parametrize("scale", ["nano", "paper"])
def test_regions_are_the_panels(scale: str) -> None:
    task = shipped("raven", scale)
    state = task.sample("left_right", "test", 1).state
    regions = task.regions(state)
    assert "".join(stretch.text for stretch in regions.stretches) == "".join(task.thought(state))
    area = task.sizes.panel**2
    sizes = {name: int(mask.sum()) // area for name, mask in regions.masks.items()}
    assert sizes == {"context": 8, "answer": 1, "other choices": 7}
    union = np.logical_or.reduce(list(regions.masks.values()))
    assert union.sum() == 16 * area and union.shape == task.draw(state).shape[:2]
    assert (regions.stretches[-1].mask == (regions.masks["answer"] | regions.masks["other choices"])).all()


def test_a_puzzle_without_a_grammar_is_misread_or_its_rule_is_not_found() -> None:
    task = shipped("irregular")
    state = task.sample("counting", "test", 1).state
    seen, options = task.thought(state)
    wrong = f"Answer: {(state.answer + 1) % 4 + 1}"

    def failure(thought: str, answer: str = wrong) -> Finding:
        return task.finding(state, thought + answer, thought)

    right = failure(seen + options, task.answer(state))
    assert right.correct and right.failure is None and right.severity == 0 and all(right.shares.values())
    first, last = str(state.context[0][0]), seen.split()[-1]
    rule = next(word for word in task.rules.values() if word in seen)
    other = next(word for word in task.rules.values() if word != rule)
    misread = failure(seen.replace(first, "9", 1) + options)
    assert misread.failure == "misread" and misread.first_error == 0 and 0 < misread.severity < 1
    assert misread.ratios["read_panels"][0] < misread.ratios["read_panels"][1] == len(state.context)
    assert failure(seen.replace(rule, other) + options).failure == "rule"
    assert failure(seen.replace(f"{rule} {last}", f"{rule} 9") + options).failure == "prediction"
    assert failure(seen).failure == "misread_choice" and failure(seen).ratios["read_choices"] == (0, 4)
    assert failure(seen + options).failure == failure("").failure == "choice"
    assert failure("").shares["rule_right"] is None and not failure("").ratios
    assert task.finding(state, "no idea", "").failure == "unparsed"


def test_the_kind_of_the_first_question_without_its_right_answer_is_named() -> None:
    task = shipped("raven_perception")
    state = task.sample("elicit", "test", 0).state
    lines = task.answer(state).splitlines(keepends=True)
    right = task.finding(state, "".join(lines), "")
    assert right.correct and right.failure is None and right.ratios["read_layout"] == (1, 1)
    at = next(number for number, (kind, _, _) in enumerate(state.questions) if kind in ("size", "color"))
    level = int(task.reply(state, at))
    near, far = (lines[at].replace(f" {level}\n", f" {other}\n") for other in (level + 1, level + 3))
    for line, off in ((near, (1, 1)), (far, (0, 1))):
        found = task.finding(state, "".join([*lines[:at], line, *lines[at + 1 :]]), "")
        assert (found.failure, found.first_error, found.ratios["one_level_off"]) == (state.questions[at][0], at, off)
    assert task.finding(state, "".join(lines[:at]), "").failure == "left_out"
    empty = task.finding(state, "no idea", "")
    assert empty.failure == "unparsed" and empty.severity == 1 and empty.first_error == 0
    single = task.sample("direct_turns", "test", 3).state
    kind = single.questions[single.asked][0]
    assert task.finding(single, "Answer: none", "").failure == kind
    assert task.finding(single, task.answer(single), "").ratios[f"read_{kind}"] == (1, 1)


@pytest.mark.parametrize(
    ("asked", "response", "failure", "adds_up"),
    [
        ("reasoning", "Answer: 2", None, None),
        ("reasoning", "Answer: 3", "choice", None),
        ("reasoning", "Answer: 7", "unparsed", None),
        ("fine", "Answer: three", "detail", None),
        ("coarse", "Answer: 5, 4, 9", None, True),
        ("coarse", "Answer: 6, 4, 10", "context", True),
        ("coarse", "Answer: 5, 3, 8", "choices", True),
        ("coarse", "Answer: 5, 4, 8", "total", False),
        ("coarse", "Answer: 5", "unparsed", None),
    ],
)
def test_which_of_marvels_answers_is_wrong(asked: str, response: str, failure, adds_up) -> None:
    state = MarvelState(asked, 1, "1", "2", "f", "1.png", "?", 2, "?", ("two", "three"), "?", (5, 4, 9))
    found = MarvelFiles(MarvelSizes()).finding(state, response, "")
    assert (found.failure, found.correct, found.shares["adds_up"]) == (failure, failure is None, adds_up)
    assert (found.shares["context_right"] is None) == (adds_up is None)


def test_tasks_of_a_family_have_what_is_about_them() -> None:
    for name in ("irregular", "raven_perception"):
        check_task(shipped(name))
        with pytest.raises(ValueError, match=f"task={name}: its family has no regions"):
            shipped(name).family("regions")
    assert shipped("irregular").family("failures") is not TASK.family("failures") is RavenFiles.family("failures")
