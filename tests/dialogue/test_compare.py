"""Where a response parts from the expected one."""

import pytest
from support.tiny import nano_task

from vlmreason.dialogue.compare import Difference, compare, details, first_difference


@pytest.mark.parametrize(
    ("expected", "response", "difference"),
    [
        ("1 2 3", "1 2 3", None),
        ("1 2 3", "1  2\n3", None),
        ("1 2 3", "1 4 3", Difference((2, 3), (2, 3))),
        ("1 2", "1 2 33", Difference(None, (4, 6))),
        ("1 2 3", "1 2", Difference((4, 5), None)),
        ("1", "", Difference((0, 1), None)),
    ],
)
def test_first_difference(expected: str, response: str, difference: Difference | None) -> None:
    assert first_difference(expected, response) == difference


def test_both_words_are_named() -> None:
    task = nano_task()
    problem = task.sample("hard", "test", 0)
    gold = "".join(task.thought(problem.state)) + task.answer(problem.state)
    assert compare(task, problem, "image", gold).words == (None, None)
    spoiled = compare(task, problem, "image", gold.replace("Answer:", "Answers:", 1))
    assert spoiled.words == ("Answer:", "Answers:")
    assert compare(task, problem, "image", gold + " more").words == (None, "more")
    assert compare(task, problem, "image", "").words[1] is None


def test_details_of_a_verdict() -> None:
    assert details(True, {"sum": 1.0, "trace_list": 1 / 3}) == "sum 1, trace_list 0.333"
    assert details(False, {}, cut_off=True) == "unparsed, cut off" and details(True, {}) == ""
