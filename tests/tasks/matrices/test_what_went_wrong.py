"""What went wrong on a matrix, and where in the picture its trace is."""

from __future__ import annotations

import numpy as np
import pytest
from support.shipped import shipped

from vlmreason.tasks.findings import Finding
from vlmreason.tasks.matrices.panels import CONFIGURATIONS
from vlmreason.tasks.matrices.raven import Raven

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
