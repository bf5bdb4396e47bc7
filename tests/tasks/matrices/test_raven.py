"""Matrices: one answer under the rules, found from the panels alone; choices that give it away or do not."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections import Counter

import pytest
from support.shipped import shipped

from vlmreason.assembly.build import build_tasks
from vlmreason.assembly.compose import Composer
from vlmreason.tasks.base import state_to_json
from vlmreason.tasks.matrices.choices import most_similar
from vlmreason.tasks.matrices.panels import CONFIGURATIONS, MatrixState, read
from vlmreason.tasks.matrices.raven import Raven
from vlmreason.tasks.matrices.rules import rules_of_levels, rules_of_places, solve

LEVELS = tuple(CONFIGURATIONS)
TASK = shipped("raven")


def task_with(scale: str = "nano", **changes: str) -> Raven:
    return Raven(shipped("raven", scale).sizes, **changes)  # type: ignore[arg-type]


def drawn(task: Raven, level: str, num: int) -> list:
    return [task.sample(level, "train", index).state for index in range(num)]


@pytest.mark.parametrize("choices", ["raven", "iraven"])
@pytest.mark.parametrize("level", LEVELS)
def test_the_rules_of_the_panels_leave_the_intended_answer_alone(level: str, choices: str) -> None:
    for scale, sampling in itertools.product(("nano", "paper"), ("balanced", "reference")):
        task = task_with(scale, choices=choices, sampling=sampling)
        for state in drawn(task, level, 60):
            found = solve(state, task.sizes)
            assert found.answer == state.answer
            assert all(len(rules) <= 1 for ruled in found.components for rules in ruled.rules)
            upright = {tuple(entity[:4] for part in panel for entity in part) for panel in state.choices}
            assert len(upright) == 8


DRAWN = {
    "raven": dict(
        zip(LEVELS, ["658ac0f0", "7b49ec57", "1663e9e4", "7926db65", "a55a308b", "f4438570", "cb5b4524"], strict=True)
    ),
    "iraven": dict(
        zip(LEVELS, ["bd60a24b", "2fcd25f2", "2462d1c5", "401cd4db", "e5ab6391", "73fad99f", "be198cbc"], strict=True)
    ),
}
"""A hash of the first puzzles and traces of version 1."""


@pytest.mark.parametrize("choices", DRAWN)
def test_puzzles_of_a_version_stay_the_same(choices: str) -> None:
    assert Raven.version == 1, "a new version has puzzles of its own"
    task = task_with(choices=choices)
    for level in LEVELS:
        total = hashlib.blake2b(digest_size=4)
        for index in range(20):
            state = task.sample(level, "test", index).state
            total.update(json.dumps(state_to_json(state)).encode() + "".join(task.thought(state)).encode())
        assert total.hexdigest() == DRAWN[choices][level], level


@pytest.mark.parametrize("level", LEVELS)
def test_wrong_choices_of_raven_differ_in_one_attribute(level: str) -> None:
    for state in drawn(task_with(choices="raven"), level, 80):
        answer = [read(part) for part in state.choices[state.answer]]
        for number, panel in enumerate(state.choices):
            if number == state.answer:
                continue
            changed = [(i, a) for i, part in enumerate(panel) for a in range(4) if read(part)[a] != answer[i][a]]
            components = {i for i, _ in changed}
            assert len(components) == 1
            # entities that are left out or added may change what the rest has in common
            assert len(changed) == 1 or (components.pop(), 0) in changed


@pytest.mark.parametrize("level", LEVELS)
def test_every_value_of_iraven_occurs_in_four_choices(level: str) -> None:
    for state in drawn(task_with(choices="iraven"), level, 80):
        for component in range(len(state.choices[0])):
            places = Counter(read(panel[component])[0].bit_count() for panel in state.choices)
            assert set(places.values()) in ({8}, {4})
            if set(places) == {1}:
                for attribute in (1, 2, 3):
                    found = Counter(read(panel[component])[attribute] for panel in state.choices)
                    assert set(found.values()) in ({8}, {4})


def test_the_most_similar_choice_tells_the_answer_of_raven_alone() -> None:
    def share(choices: str) -> float:
        task, right = task_with(choices=choices), 0.0
        states = [state for level in LEVELS for state in drawn(task, level, 120)]
        for state in states:
            guesses = most_similar(state.choices)
            right += (state.answer in guesses) / len(guesses)
        return right / len(states)

    assert share("raven") > 0.9
    assert share("iraven") == pytest.approx(0.125, abs=0.02)


def test_balanced_puzzles_have_every_rule_evenly() -> None:
    found: dict[str, Counter[tuple[str, str]]] = {}
    for sampling in ("balanced", "reference"):
        task = task_with(sampling=sampling)
        counts: Counter[tuple[str, str]] = Counter()
        for state in drawn(task, "grid_2x2", 400):
            for (rules,) in zip(*(ruled.rules for ruled in solve(state, task.sizes).components), strict=True):
                counts.update((one.on, one.rule) for one in rules if one.rule != "constant")
        found[sampling] = counts
    places = {
        sampling: sum(count for (on, _), count in counts.items() if on in ("number", "position"))
        for sampling, counts in found.items()
    }
    assert len(found["balanced"]) == 14 and min(found["balanced"].values()) > 20
    assert places["balanced"] > 300


def test_rules_are_derived_from_levels() -> None:
    def named(*levels: int, on: str = "color") -> list[tuple[str, int, int]]:
        return [(one.rule, one.parameter, one.predicted) for one in rules_of_levels(on, levels, 0, 9)]

    assert named(1, 1, 1, 4, 4, 4, 0, 0) == [("constant", 0, 0)]
    assert named(1, 3, 5, 0, 2, 4, 2, 4) == [("progression", 2, 6)]
    assert named(5, 4, 3, 3, 2, 1, 1, 0) == []  # it would leave the range
    assert named(1, 3, 4, 0, 2, 2, 2, 5) == [("arithmetic", 1, 7)]
    assert named(5, 3, 2, 9, 2, 7, 2, 2) == [("arithmetic", -1, 0)]
    assert named(5, 3, 2, 9, 2, 7, 2, 2, on="type") == []
    assert named(5, 3, 0, 3, 0, 5, 0, 5) == [("distribute three", 1, 3)]
    assert named(5, 3, 0, 0, 5, 3, 3, 0) == [("distribute three", -1, 5)]
    assert named(1, 2, 3, 2, 3, 5, 1, 1) == [("arithmetic", 1, 2)]
    assert {one[0] for one in named(1, 2, 3, 1, 2, 3, 1, 2)} == {"progression", "arithmetic"}
    assert named(-1, -1, -1, 1, 1, 1, -1, -1) == [("constant", 0, -1)]
    assert named(-1, 1, 2, 1, 2, -1, 2, -1) == []


def test_rules_are_derived_from_places() -> None:
    def named(*masks: int) -> list[tuple[str, str, int, int]]:
        return [(one.on, one.rule, one.parameter, one.predicted) for one in rules_of_places(masks, 4)]

    assert named(1, 1, 1, 6, 6, 6, 3, 3) == [("position", "constant", 0, 3)]
    assert named(1, 2, 4, 12, 9, 3, 3, 6) == [("position", "progression", 1, 12)]
    assert named(1, 2, 3, 5, 8, 13, 2, 4) == [("position", "arithmetic", 1, 6)]
    assert named(3, 2, 1, 13, 8, 5, 6, 12) == [("position", "arithmetic", -1, 2)]
    assert named(1, 6, 8, 6, 8, 1, 8, 1) == [("position", "distribute three", 1, 6)]
    assert named(1, 6, 11, 3, 8, 7, 4, 3) == [("number", "arithmetic", 1, 3)]
    assert named(3, 14, 15, 1, 6, 11, 8, 5) == [("number", "progression", 1, 3)]


def test_process_is_scored_statement_by_statement() -> None:
    state = TASK.sample("center", "test", 0).state
    thought = TASK.thought(state)
    lines, out = thought[:-1], thought[-1]
    assert len(lines) == 3
    whole = TASK.score(state, TASK.condition(state) + "".join(thought) + TASK.answer(state))
    assert whole.correct and set(whole.parts.values()) == {1.0}
    head, _, rest = lines[1].partition("size ")
    spoiled = head + "size " + {"1": "2", "2": "3", "3": "4", "4": "1"}[rest[0]] + rest[1:]
    one_level = TASK.score(state, "".join([lines[0], spoiled, lines[2], out]) + TASK.answer(state))
    assert one_level.parts["levels"] == pytest.approx(23 / 24) and one_level.parts["rules"] == 1
    assert one_level.correct and not one_level.parts["process"] and not one_level.parts["proven"]
    no_line = TASK.score(state, "".join([*lines[:2], out]) + TASK.answer(state))
    assert no_line.parts["levels"] == pytest.approx(16 / 24) and no_line.parts["rules"] == pytest.approx(2 / 3)
    assert no_line.parts["predictions"] == pytest.approx(2 / 3) and no_line.parts["ruled_out"] == 1
    without = TASK.score(state, "".join(lines) + TASK.answer(state))
    assert without.parts["ruled_out"] == 0 and without.parts["rules"] == 1
    wrong = TASK.score(state, "".join(thought) + TASK.options(state)[state.answer - 1])
    assert not wrong.correct and wrong.parsed and wrong.parts["process"] and not wrong.parts["proven"]
    bare = TASK.score(state, TASK.answer(state))
    assert bare.correct and bare.parts["statements"] == 0


def test_answers_are_read_in_every_common_form() -> None:
    state = TASK.sample("left_right", "test", 1).state
    right = state.answer + 1
    for text in (f"Answer: {right}", f"answer:{right}.", f"Answer: option {right}", f"Answer: ({right})"):
        assert TASK.score(state, text).correct, text
    for text in (f"{right}", f"Answer: {right}1", "Answer: 0", "Answer: 9", f"Answer: x {right}", "Answer: "):
        assert not TASK.score(state, text).parsed, text


def test_groups_are_rules() -> None:
    state = TASK.sample("out_grid", "test", 3).state
    groups = TASK.groups(state)
    assert set(groups) == {"type", "size", "color", "place"}
    assert groups["color"].startswith("constant, ") and groups["place"].split()[0] in ("number", "position")


def test_puzzles_that_do_not_hold_together_are_refused() -> None:
    def refused(change, match: str) -> None:
        data = state_to_json(TASK.sample("center", "test", 2).state)
        change(data)
        with pytest.raises(ValueError, match=f"problem of raven: {match}"):
            TASK.state_from_json(data)

    refused(lambda data: data.update(configuration="circle"), "configuration='circle'")
    refused(lambda data: data["choices"].pop(), "8 panels and 8 choices are expected")
    refused(lambda data: data.update(answer=(data["answer"] + 1) % 8), "answer=.: the rules of the panels say")
    refused(lambda data: data["context"][0][0][0].__setitem__(2, 99), "size 99 of an entity: allowed is 1 to 4")
    refused(lambda data: data["context"][0][0].clear(), "a component holds entities in different slots of 1")
    refused(lambda data: data.update(choices=[data["choices"][data["answer"]]] * 8), "8 choices obey the rules")


def test_settings_are_checked() -> None:
    with pytest.raises(ValueError, match=r"task\.choices='fair'"):
        task_with(choices="fair")
    with pytest.raises(ValueError, match=r"task\.sampling='even'"):
        task_with(sampling="even")
    with pytest.raises(ValueError, match="picture=1000000: allowed is 64 to 8192"):
        dataclasses.replace(TASK.sizes, picture=(144, 1_000_000))
    with pytest.raises(ValueError, match=r"task\.wording\.rules='same, step'"):
        Raven(TASK.sizes, wording={"rules": "same, step"})


HELD_OUT = (("size", "progression"), ("position", "arithmetic"), ("center", "distribute three"))


def kinds_of(task: Raven, state: MatrixState) -> set[tuple[str, str]]:
    """The rules that the panels of a puzzle show, by attribute and by configuration."""
    found = [one for part in solve(state, task.sizes).components for rules in part.rules for one in rules]
    return {(one.on, one.rule) for one in found} | {(state.configuration, one.rule) for one in found}


@pytest.mark.parametrize("sampling", ["balanced", "reference"])
def test_no_pair_that_is_held_out_occurs_in_training(sampling: str) -> None:
    task = task_with(sampling=sampling, held_out=HELD_OUT)  # type: ignore[arg-type]
    free, met = task_with(sampling=sampling), set()
    assert set(task.levels) == {*LEVELS, *(f"{level}_held_out" for level in LEVELS)}
    for level in LEVELS:
        for state in drawn(task, level, 60):
            assert not kinds_of(task, state).intersection(HELD_OUT)
        for state in drawn(task, f"{level}_held_out", 20):
            assert state.configuration == level
            kinds = kinds_of(task, state).intersection(HELD_OUT)
            assert kinds
            met |= kinds
        met_free = {kind for state in drawn(free, level, 60) for kind in kinds_of(free, state)}
        assert met_free.intersection(HELD_OUT), "what is held out would have been drawn"
    assert met == set(HELD_OUT)


def test_levels_of_what_is_held_out_are_those_of_configurations_that_can_show_it() -> None:
    task = task_with(held_out=[["number", "progression"]])  # type: ignore[arg-type]
    assert task.levels[len(LEVELS) :] == ("grid_2x2_held_out", "grid_3x3_held_out", "out_grid_held_out")
    assert task_with(held_out=[]).levels == LEVELS  # type: ignore[arg-type]
    rules = ("progression", "arithmetic", "distribute three")
    nothing_left = task_with(held_out=[["center", rule] for rule in rules])  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"level=center.*task\.held_out: center has none of the rules"):
        nothing_left.sample("center", "train", 0)
    for pairs, match in (
        ([["sise", "progression"]], "no attribute or configuration 'sise'.*did you mean 'size'"),
        ([["type", "arithmetic"]], "no configuration can carry type arithmetic"),
        ([["size", "constant"]], "no rule 'constant'; there are progression, arithmetic, distribute three"),
        ("size", "a list of pairs of attribute or configuration and rule"),
    ):
        with pytest.raises(ValueError, match=rf"task\.held_out.*{match}"):
            task_with(held_out=pairs)  # type: ignore[arg-type]


def test_questions_beside_traces_are_of_puzzles_without_what_is_held_out() -> None:
    cfg = Composer().config({"task": "raven", "supervision": "avr", "task.held_out": [list(pair) for pair in HELD_OUT]})
    asked, told = (build_tasks(cfg)[name] for name in ("raven_perception", "raven"))
    for index in range(40):
        state = asked.sample("elicit", "train", index).state.matrix
        assert state == told.sample(state.configuration, "train", index).state
        assert not kinds_of(told, state).intersection(HELD_OUT)  # type: ignore[arg-type]
