"""How far a thought is the one that is learned, and whether nothing is wrong with it but that it ends."""

import pytest
from support.tiny import nano_task

from vlmreason.segments import THOUGHT
from vlmreason.tasks.findings import Trace, right_steps, trace_of

STEPS = ("(1,1) 4 ", "(1,2) 0 ", "(1,3) 7 ")


@pytest.mark.parametrize(
    ("thought", "right", "stopped"),
    [
        ("(1,1) 4 (1,2) 0 (1,3) 7 ", 3, False),
        ("(1,1) 4 (1,2) 0 ", 2, True),
        ("(1,1) 4\n(1,2) 0", 2, True),
        ("(1,1) 4 (1,2) 9 (1,3) 7 ", 1, False),  # misread, and goes on
        ("(1,1) 4 (1,2) 9 ", 1, False),  # misread, and ends: it was not the stop
        ("(1,1) 4 (1,2", 1, False),
        ("(1,1) 4 (1,2) 0 (1,3) 7 (1,4) 2 ", 3, False),  # ran on
        ("(1,2) 0 ", 0, False),
        ("", 0, False),
    ],
)
def test_the_first_error_of_a_thought_or_its_end(thought: str, right: int, stopped: bool) -> None:
    assert trace_of(STEPS, thought) == Trace(right, 3, stopped)
    assert right_steps(STEPS, thought) == ((right, 3) if thought else None)


@pytest.mark.parametrize("name", ["consecutive_table_readout", "table_readout", "grid_navigation", "visual_analogy"])
@pytest.mark.parametrize("level", ["simple", "hard"])
def test_families_tell_stopping_from_erring(name: str, level: str) -> None:
    task = nano_task(name)
    state = task.sample(level, "test", 0).state
    steps = [step for one in task.response(state, "text").segments if one.kind == THOUGHT for step in one.steps]
    assert task.trace(state, "".join(steps)) == Trace(len(steps), len(steps), False)
    assert task.trace(state, "".join(steps[:-1])) == Trace(len(steps) - 1, len(steps), True)
    assert task.trace(state, "wrong " + "".join(steps)) == Trace(0, len(steps), False)


def test_a_task_without_thoughts_has_no_trace() -> None:
    task = nano_task("table_reading_skills")
    assert task.trace(task.sample("list", "test", 0).state, "List") is None
