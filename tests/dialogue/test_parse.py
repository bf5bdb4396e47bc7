"""Responses cut into segments: nothing lost, the gold ones where they were put."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.adding import Adding

from vlmreason.dialogue.build import build_dialogue
from vlmreason.dialogue.parse import conversion_exact, split_response
from vlmreason.segments import VIEWS

TASK = Adding()
PROBLEM = TASK.sample("hard", "test", 0)
STATE = PROBLEM.state


def kinds(response: str) -> list[tuple[str, str]]:
    return [(segment.kind, segment.text) for segment in split_response(TASK, STATE, response).segments]


@pytest.mark.parametrize("view", VIEWS)
def test_gold_responses_are_cut_where_they_were_joined(view):
    response = build_dialogue(TASK, PROBLEM, view).response
    assert split_response(TASK, STATE, response.text) == response
    assert conversion_exact(TASK, STATE, response.text) == (True if view == "image_via_text" else None)


def test_conversions_with_faults_end_at_the_last_line_or_after_as_many():
    thought, answer = "".join(TASK.thought(STATE)), TASK.answer(STATE)
    for body in ("begin\n1\nend\n", "begin\n1\n2\n3\n4\n5\nEND\n", "begin\n1\n2\n3\n4\n5\n6\n7\nend\n"):
        convert = TASK.convert(STATE) + "\n" + body
        response = convert + thought + answer
        assert kinds(response) == [("convert", convert), ("thought", thought), ("answer", answer)]
        assert conversion_exact(TASK, STATE, response) is False


def test_unfinished_conversion_is_all_conversion():
    response = build_dialogue(TASK, PROBLEM, "image_via_text").response.text[:35]
    assert kinds(response) == [("convert", response)]
    assert conversion_exact(TASK, STATE, response) is False


def test_answer_begins_at_the_last_marker():
    assert kinds("Answer: 1 no answer : 2") == [("thought", "Answer: 1 no "), ("answer", "answer : 2")]
    assert kinds("") == []


pieces = st.sampled_from([TASK.convert(STATE), TASK.text(STATE), "\n", " ", "end", "Answer:", "then 3 ", "\nend\n"])


@settings(max_examples=100, deadline=None)
@given(st.lists(pieces | st.text(max_size=5), max_size=10).map("".join))
def test_segments_join_to_the_response(response):
    segments = split_response(TASK, STATE, response).segments
    assert "".join(segment.text for segment in segments) == response
    assert all(segment.text for segment in segments)
