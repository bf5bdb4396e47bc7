"""Perception of matrices: questions and answers about the puzzles of `raven`, in three orders and two forms."""

from __future__ import annotations

import itertools

import pytest
from support.shipped import shipped

from vlmreason.dialogue.build import build_dialogue
from vlmreason.dialogue.parse import split_response
from vlmreason.tasks.base import state_to_json
from vlmreason.tasks.matrices.panels import CONFIGURATIONS, read
from vlmreason.tasks.matrices.raven_perception import COARSE, FINE, NUM_FINE, ORDERS, TURNS, RavenPerception

TASK = shipped("raven_perception")


def all_configurations(scale: str = "nano", trace: str = "terse") -> RavenPerception:
    return RavenPerception(shipped("raven", scale).sizes, trace)


def test_puzzles_are_those_of_raven_by_number() -> None:
    raven = shipped("raven")
    for split, number in itertools.product(("train", "test"), range(8)):
        level = TASK.configurations[number % len(TASK.configurations)]
        assert TASK.sample("elicit", split, number).state.matrix == raven.sample(level, split, number).state
    for level in TASK.levels:
        assert TASK.sample(level, "train", 5).state.matrix == raven.sample(TASK.configurations[1], "train", 5).state


def test_orders_ask_the_same_fine_questions() -> None:
    in_order = 0
    for number in range(20):
        direct, elicit, sequential = (TASK.sample(order, "test", number).state.questions for order in ORDERS)
        assert sorted(direct) == sorted(elicit[2:]) == sorted(sequential[2:])
        assert tuple(kind for kind, _, _ in elicit[:2]) == COARSE == tuple(kind for kind, _, _ in sequential[:2])
        panels = [panel for _, panel, _ in sequential[2:]]
        assert panels in ([*range(8)], [*range(8, 16)])
        in_order += [panel for _, panel, _ in elicit[2:]] == panels
        assert not {kind for kind, _, _ in direct} & set(COARSE)
    assert in_order < 3


@pytest.mark.parametrize("order", ORDERS)
def test_turns_are_the_questions_of_a_dialogue_one_by_one(order: str) -> None:
    num = NUM_FINE + (2 if order != "direct" else 0)
    whole = TASK.sample(order, "test", 3).state
    turns = [TASK.sample(order + TURNS, "test", 3 * num + i).state for i in range(num)]
    assert [turn.questions[turn.asked] for turn in turns] == list(whole.questions)
    assert {TASK.groups(turn)["puzzle"] for turn in turns} == {TASK.groups(whole)["puzzle"]}
    assert {TASK.groups(turn)["kind"] for turn in turns} <= {*COARSE, *FINE}
    lines = TASK.answer(whole).splitlines()
    for number, turn in enumerate(turns):
        prompt = TASK.prompt(turn, "image").splitlines()
        assert prompt[:-1] == lines[:number] and prompt[-1] == f"{TASK.question(turn, number)} ?"
        assert lines[number].endswith(TASK.answer(turn).removeprefix("Answer:"))


def test_training_meets_every_turn() -> None:
    asked = {TASK.sample("elicit_turns", "train", i).state.asked for i in range(150)}
    assert asked == set(range(NUM_FINE + 2))
    assert len({TASK.sample("elicit_turns", "train", i).state.puzzle for i in range(40)}) == 40


@pytest.mark.parametrize("trace", ["terse", "verbose"])
def test_a_dialogue_is_read_question_by_question(trace: str) -> None:
    task = all_configurations(trace=trace)
    for number in range(28):
        problem = task.sample("elicit", "test", number)
        state = problem.state
        response = build_dialogue(task, problem, "image_via_text").response
        assert split_response(task, state, response.text) == response
        assert [one.kind for one in response.segments] == ["convert", *["perception"] * len(state.questions)]
        lines = task.answer(state).splitlines()
        for at, (kind, _, _) in enumerate(state.questions):
            spoiled = [*lines[:at], lines[at] + " or 7", *lines[at + 1 :]]
            score = task.score(state, "\n".join(spoiled))
            same = sum(one[0] == kind for one in state.questions)
            assert not score.correct and score.parts[kind] == pytest.approx(1 - 1 / same)
            assert score.parts["questions"] == pytest.approx(1 - 1 / len(lines))
        assert task.score(state, "\n".join(reversed(lines))).correct
        assert not task.score(state, "\n".join(lines[:-1])).correct
        assert not task.score(state, "").parsed


def test_answers_are_what_the_panels_hold() -> None:
    task = all_configurations()
    kinds = set()
    for number in range(70):
        state = task.sample("elicit", "validation", number).state
        panels = (*state.matrix.context, *state.matrix.choices)
        for at, (kind, panel, component) in enumerate(state.questions):
            reply, entities = task.reply(state, at), panels[panel][component]
            kinds.add((kind, reply == "mixed"))
            if kind == "number":
                assert reply == str(len(entities))
            elif kind == "position":
                assert reply == "".join(str(entity[0] + 1) for entity in entities)
            elif kind in ("size", "color"):
                at_entity = FINE.index(kind) - 1
                assert reply == (str(entities[0][at_entity]) if read(entities)[at_entity] >= 0 else "mixed")
            elif kind == "components":
                assert reply == str(len(CONFIGURATIONS[state.matrix.configuration].components))
            least, most = 0, 1
            if kind in FINE[2:]:
                least, most = task.sizes.ranges(state.matrix.configuration, component)[FINE.index(kind) - 1]
            assert least < most
    assert {kind for kind, _ in kinds} == {*COARSE, *FINE} and ("type", True) in kinds


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"asked": 10}, "asked=10 of 10"),
        ({"questions": [["hue", 0, 0]]}, "question='hue'"),
        ({"questions": [["size", 16, 0]]}, "panel 16"),
        ({"questions": []}, "1 to 10 questions"),
    ],
)
def test_states_that_ask_for_nothing_are_named(changed: dict, said: str) -> None:

    data = state_to_json(TASK.sample("elicit", "test", 0).state) | changed
    with pytest.raises(ValueError, match=f"problem of raven_perception: .*{said}"):
        TASK.state_from_json(data)


def test_settings_are_checked() -> None:
    sizes = shipped("raven").sizes
    with pytest.raises(ValueError, match=r"task\.configurations=\[\]"):
        RavenPerception(sizes, configurations=())
    with pytest.raises(ValueError, match=r"task\.configurations='centre'"):
        RavenPerception(sizes, configurations=("centre",))
    for name, text in (("layouts", "a, b"), ("said", "{answer} {question}"), ("answer", "{answer}")):
        with pytest.raises(ValueError, match=rf"task\.wording\.{name}"):
            RavenPerception(sizes, wording={name: text})
