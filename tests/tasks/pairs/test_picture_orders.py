"""Orders about pictures: what is said and the form in which it is said are judged apart."""

from __future__ import annotations

import dataclasses
import itertools

import numpy as np
import pytest
from support.shipped import shipped

from vlmreason.tasks.pairs.picture_orders import NAMED, ORDERS

TASK = shipped("picture_orders")
STATE = TASK.sample("list", "test", 0).state
STATE = dataclasses.replace(
    STATE, details=dataclasses.replace(STATE.details, ink="red", structure="round", count="two")
)


@pytest.mark.parametrize(
    ("said", "correct", "form", "content"),
    [
        ("Answer: red, round, two", True, 1, 1),
        ("answer: Red,  round, two.", True, 1, 1),
        ("red, round, two", True, 1, 1),
        ("Answer: blue, round, two", False, 1, 0),
        ("Answer: round, red, two", False, 0, 1),
        ("Answer: the body is red and round and has two dots", False, 0, 1),
        ("Answer: red blue, round, two", False, 0, 0),
        ("Answer: red, round", False, 0, 0),
        ("", False, 0, 0),
    ],
)
def test_form_and_content(said: str, correct: bool, form: int, content: int) -> None:
    score = TASK.score(STATE, said)
    assert (score.correct, score.parts) == (correct, {"form": form, "content": content})
    assert score.parsed == bool(form)


def test_the_answer_of_an_order_has_the_form_of_no_other() -> None:
    states = {order: TASK.sample(order, "test", 3).state for order in ORDERS}
    for one, other in itertools.permutations(ORDERS, 2):
        assert TASK.score(states[one], TASK.answer(states[other])).parts["form"] == 0


def test_pictures_are_those_of_pairs_and_orders_ask_for_what_captions_name() -> None:
    details = vars(STATE.details)
    assert all(details[name] in values for name, values in NAMED.items())
    first, second = (TASK.draw(dataclasses.replace(STATE, order=order)) for order in ("list", "name"))
    assert np.array_equal(first, second), "an order does not show"
    with pytest.raises(ValueError, match="an order, colour or detail that does not exist"):
        TASK.state_from_json({**dataclasses.asdict(STATE), "order": "sing"})
