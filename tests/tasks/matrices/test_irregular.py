"""Irregular puzzles: one rule that the panels show, one of four choices that obeys it, looks that say nothing."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from support.shipped import shipped

from vlmreason.tasks.base import state_to_json
from vlmreason.tasks.matrices.irregular_drawing import IrregularSizes
from vlmreason.tasks.matrices.irregular_rules import (
    LAYOUTS,
    NUM_CHOICES,
    PATTERNS,
    IrregularState,
    rules_for,
    shown_rules,
    solve,
)

TASK = shipped("irregular")


@pytest.mark.parametrize("level", PATTERNS)
def test_the_panels_leave_the_intended_answer_alone(level: str) -> None:
    answers: Counter[int] = Counter()
    found = set()
    for index in range(600):
        state = TASK.sample(level, "train", index).state
        assert solve(state).answer == state.answer
        assert len({value for value, _ in state.choices}) == NUM_CHOICES
        answers[state.answer] += 1
        found.add((state.layout, solve(state).rule))
    assert found == {(layout, rule) for layout in PATTERNS[level].layouts for rule in rules_for(level, layout)}
    assert min(answers.values()) > 110


@pytest.mark.parametrize(
    ("pattern", "layout", "values", "wanted"),
    [
        ("counting", "sequence", (1, 2, 3, 4), [("step", 5)]),
        ("counting", "sequence", (3, 4, 5, 6), []),  # it would leave the range
        ("counting", "sequence", (2, 5, 2, 5), [("alternate", 2)]),
        ("counting", "sequence", (2, 5, 2, 5, 2), [("alternate", 5)]),
        ("counting", "sequence", (1, 2, 3, 5), [("sum", 8)][:0]),
        ("arithmetic", "sequence", (1, 2, 3, 5), [("sum", 8)]),
        ("arithmetic", "sequence", (8, 5, 3, 2), [("difference", 1)]),
        ("arithmetic", "two_row", (1, 2, 3, 4, 5), [("step", 6), ("sum", 9)]),
        ("arithmetic", "matrix", (9, 2, 7, 5, 4, 1, 6, 1), [("difference", 5)]),
        ("counting", "two_row", (4, 4, 4, 1, 1), [("same", 1)]),
        ("counting", "two_row", (4, 4, 4, 4, 4), []),
        ("closed", "matrix", (0, 3, 5, 3, 5, 0, 5, 0), [("distribute", 3)]),
        ("closed", "matrix", (0, 3, 5, 5, 0, 3, 3, 5), [("distribute", 0)]),
        ("closed", "matrix", (0, 3, 5, 3, 5, 0, 3, 5), []),
        ("rotation", "sequence", (5, 6, 7, 0), [("step", 1)]),
        ("rotation", "two_row", (6, 0, 2, 1, 7), []),
        ("symmetry", "sequence", (0, 1, 2), []),
        ("symmetry", "group", (3, 3, 3), [("same", 3)]),
        ("symmetry", "group", (3, 3, 2), []),
    ],
)
def test_rules_are_derived_from_values(pattern: str, layout: str, values: tuple[int, ...], wanted: list) -> None:
    assert shown_rules(pattern, layout, values) == wanted


def test_choices_alone_do_not_tell_the_answer() -> None:
    """Neither the least nor the most value, nor the commonest look, is right more often than chance allows."""
    right: Counter[str] = Counter()
    num = 0
    for level in PATTERNS:
        for index in range(300):
            state = TASK.sample(level, "train", index).state
            values = [value for value, _ in state.choices]
            looks = Counter(look for _, look in state.choices)
            right["least"] += values.index(min(values)) == state.answer
            right["most"] += values.index(max(values)) == state.answer
            common = [i for i, (_, look) in enumerate(state.choices) if looks[look] == max(looks.values())]
            right["look"] += (state.answer in common) / len(common)
            num += 1
    assert all(0.15 < count / num < 0.34 for count in right.values()), right


@pytest.mark.parametrize("level", PATTERNS)
@pytest.mark.parametrize("scale", ["nano", "paper"])
def test_panels_look_different_where_they_are(level: str, scale: str) -> None:
    task, known = shipped("irregular", scale), PATTERNS[level]
    panels = [
        (v, k) for v in range(known.values[0], known.values[1] + 1) for k in range(known.looks[0], known.looks[1] + 1)
    ]
    inks = {panel: task.artist.panel(level, panel).tobytes() for panel in panels}
    by_value = {value: {inks[panel] for panel in panels if panel[0] == value} for value, _ in panels}
    for value, some in by_value.items():
        assert all(not some & others for other, others in by_value.items() if other != value)


def test_symmetric_figures_have_their_axes_and_no_other() -> None:
    for value in range(4):
        for look in range(1, 7):
            ink = TASK.artist.panel("symmetry", (value, look))[:21, :21] < 128
            rows, columns = np.nonzero(ink)
            assert len(rows) and len(columns)
    paper = shipped("irregular", "paper")
    for value in range(4):
        for look in range(1, 7):
            ink = paper.artist.panel("symmetry", (value, look)) < 128
            grid = ink[32:176:36, 32:176:36]
            axes = int((grid == grid[:, ::-1]).all()) + 2 * int((grid == grid[::-1]).all())
            assert grid.shape == (4, 4) and axes == value


@pytest.mark.parametrize("trace", ["terse", "verbose"])
@pytest.mark.parametrize("level", PATTERNS)
def test_process_is_scored_statement_by_statement(level: str, trace: str) -> None:
    task = shipped("irregular", "nano", trace)
    for index in range(40):
        state = task.sample(level, "test", index).state
        seen, options = task.thought(state)
        whole = task.score(state, task.condition(state) + seen + options + task.answer(state))
        assert whole.correct and set(whole.parts.values()) == {1.0}
        without = task.score(state, seen + task.answer(state)).parts
        num = len(state.context) + NUM_CHOICES
        assert without["values"] == pytest.approx(len(state.context) / num) and without["proven"] == 0
        wrong = next(rule for name, rule in task.rules.items() if name != solve(state).rule)
        other = task.score(state, seen.replace(f" {task.rules[solve(state).rule]}", f" {wrong}") + options).parts
        assert other["rule"] == 0 and other["process"] == 0
        assert task.score(state, task.answer(state)).parts["values"] == 0


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"answer": 3}, "answer=3"),
        ({"layout": "ring"}, "layout='ring'"),
        ({"pattern": "colour"}, "pattern='colour'"),
        ({"layout": "matrix"}, "none of layout matrix"),
        ({"context": [[1, 1], [2, 1], [3, 1], [9, 1]]}, "value 9"),
        ({"context": [[1, 1], [2, 1], [4, 1], [6, 1]]}, "show 0 rules"),
        ({"choices": [[5, 1], [5, 2], [1, 1], [2, 1]]}, "2 choices obey"),
    ],
)
def test_puzzles_that_are_none_are_named(change: dict, said: str) -> None:
    good = IrregularState("counting", "sequence", ((1, 1), (2, 1), (3, 1), (4, 1)), ((5, 1), (6, 2), (1, 1), (2, 1)), 0)
    data = state_to_json(good)
    assert TASK.state_from_json(data) == good
    with pytest.raises(ValueError, match=f"problem of irregular: .*{said}"):
        TASK.state_from_json(data | change)


@pytest.mark.parametrize(
    ("pattern", "layout", "values", "choices", "said"),
    [
        ("counting", "sequence", (1, 2, 3, 5), (1, 2, 3, 4), "show 0 rules"),
        ("counting", "sequence", (1, 1, 2, 3), (5, 1, 2, 4), "pattern counting has no rule sum in layout sequence"),
        ("arithmetic", "group", (2, 2, 2), (2, 3, 4, 5), "pattern arithmetic has no rule same in layout group"),
        ("arithmetic", "matrix", (1, 1, 1, 2, 2, 2, 3, 3), (3, 1, 2, 4), "pattern arithmetic has no rule same"),
    ],
)
def test_patterns_that_cannot_carry_a_rule_are_named(pattern, layout, values, choices, said: str) -> None:
    panels, options = (tuple((value, 1) for value in some) for some in (values, choices))
    state = IrregularState(pattern, layout, panels, options, 0)
    with pytest.raises(ValueError, match=f"problem of irregular: .*{said}"):
        TASK.state_from_json(state_to_json(state))


def test_layouts_and_sizes() -> None:
    assert {TASK.sample(level, "train", i).state.layout for level in PATTERNS for i in range(30)} == set(LAYOUTS)
    with pytest.raises(ValueError, match=r"choices=\[96, 96\]: 4 x 1 panels"):
        IrregularSizes((144, 144), 24, (24, 0), (96, 96), 160)
    with pytest.raises(ValueError, match=r"picture=\[1000000, 144\]: allowed is up to 8192 px a side"):
        IrregularSizes((1_000_000, 144), 24, (24, 0), (24, 96), 160)
    with pytest.raises(ValueError, match="panel=8"):
        IrregularSizes((144, 144), 8, (24, 0), (24, 96), 160)
