"""Both table tasks against a checker that reads only the LaTeX text and the two cells of the prompt.

VLMREASON_NUM_PROBLEMS=1000 checks as many problems of every task, scale and level (default 150).
"""

import dataclasses
import functools
import itertools
import os
import re
import time
from collections import Counter
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.shipped import SCALES, shipped

from vlmreason.dialogue.build import build_dialogue
from vlmreason.tasks.base import MAX_RESPONSE_CHARS, Problem
from vlmreason.tasks.cells import Cell
from vlmreason.tasks.tables.base import TableState, TableTask, latex_table
from vlmreason.tasks.tables.table_readout import TableReadout

NUM = int(os.environ.get("VLMREASON_NUM_PROBLEMS", "150"))
LEVELS = {"table_readout": ("simple", "hard"), "consecutive_table_readout": ("simple", "medium", "hard")}
CASES = [(name, scale, level) for name in LEVELS for scale in SCALES for level in LEVELS[name]]


class Table(NamedTuple):
    cols: list[str]
    rows: list[str]
    values: dict[Cell, int]
    marked: set[Cell]


@functools.cache
def problems(name: str, scale: str, level: str, num: int = NUM) -> list[Problem[TableState]]:
    task = shipped(name, scale)
    return [task.sample(level, ("train", "validation", "test")[i % 3], i // 3) for i in range(num)]


def parse_latex(text: str) -> Table:
    lines = text.split("\n")
    assert re.fullmatch(r"\\begin\{tabular\}\{c+\}", lines[0]) and lines[-1] == "\\end{tabular}"
    grid = [[cell.strip() for cell in line.removesuffix("\\\\").split("&")] for line in lines[1:-1]]
    assert {len(line) for line in grid} == {len(lines[0]) - len("\\begin{tabular}{}")} and grid[0][0] == ""
    values, marked = {}, set()
    for r, line in enumerate(grid[1:], start=1):
        for c, cell in enumerate(line[1:], start=1):
            found = re.fullmatch(r"(\\cellcolor\{yellow\})?(\d)", cell)
            assert found, cell
            values[r, c] = int(found[2])
            if found[1]:
                marked.add((r, c))
    return Table(grid[0][1:], [line[0] for line in grid[1:]], values, marked)


def read_ends(prompt: str) -> tuple[Cell, Cell]:
    (a, b), (c, d) = re.findall(r"\((\d+),(\d+)\)", prompt)
    return (int(a), int(b)), (int(c), int(d))


def marked_path(marked: set[Cell], start: Cell, end: Cell) -> list[Cell]:
    """The one path over all marked cells; fails where the marks leave a choice."""

    def around(cell: Cell) -> list[Cell]:
        near = [(cell[0] + dr, cell[1] + dc) for dr, dc in ((0, 1), (1, 0), (0, -1), (-1, 0))]
        return [other for other in near if other in marked]

    path = [start]
    while path[-1] != end:
        onward = [cell for cell in around(path[-1]) if cell not in path]
        assert len(onward) == 1, "marks that touch"
        path.append(onward[0])
    assert set(path) == marked
    assert all(len(around(cell)) == 2 - (cell in (start, end)) for cell in path)
    return path


def consecutive_path(num_cols: int, start: Cell, end: Cell) -> list[Cell]:
    """Section C.2, one step after the other."""
    (row, col), path = start, [start]
    forward = start[0] < end[0] or (start[0] == end[0] and start[1] <= end[1])
    while (row, col) != end:
        col += 1 if forward else -1
        if col > num_cols:
            row, col = row + 1, 1
        elif col < 1:
            row, col = row - 1, num_cols
        path.append((row, col))
    return path


def solve(task: TableTask, state: TableState) -> tuple[Table, list[Cell]]:
    table = parse_latex(task.text(state))
    start, end = read_ends(task.prompt(state, "image"))
    if task.name == "table_readout":
        return table, marked_path(table.marked, start, end)
    assert not table.marked
    return table, consecutive_path(len(table.cols), start, end)


def runs(path: list[Cell]) -> tuple[list[int], list[int]]:
    """Steps of each straight run, and the side of each turn between them (1 or -1)."""
    moves = [(s - r, d - c) for (r, c), (s, d) in itertools.pairwise(path)]
    grouped = [(move, len(list(group))) for move, group in itertools.groupby(moves)]
    sides = [a * d - b * c for ((a, b), _), ((c, d), _) in itertools.pairwise(grouped)]
    return [length for _, length in grouped], sides


def is_spiral(sides: list[int]) -> bool:
    return len(set(sides)) <= 1


def is_sinusoid(lengths: list[int], sides: list[int]) -> bool:
    """Turns in pairs, the sides alternating, and two steps from the first to the second turn of a pair."""
    pairs = [len(list(group)) for _, group in itertools.groupby(sides)]
    joints = [lengths[i] for i in range(1, len(sides)) if sides[i - 1] == sides[i]]
    return all(n == 2 for n in pairs[1:-1]) and max(pairs, default=1) <= 2 and set(joints) <= {2}


@pytest.mark.parametrize(("name", "scale", "level"), CASES)
def test_answers_are_what_the_text_says(name, scale, level):
    task = shipped(name, scale)
    for problem in problems(name, scale, level):
        state = problem.state
        table, path = solve(task, state)
        assert path == list(state.path)
        values = [table.values[cell] for cell in path]
        listed, _, total = task.answer(state).partition("Sum:")
        assert [int(n) for n in re.findall(r"\d+", listed)] == values
        assert int(total) == sum(values)
        steps = task.thought(state)
        assert len(steps) == len(path)
        for step, (r, c) in zip(steps, path, strict=True):
            pieces = re.findall(r"\(\d+,\d+\)|\w+", step)
            assert pieces[0] == f"({r},{c})"
            assert scale == "nano" or (table.rows[r - 1] in pieces and table.cols[c - 1] in pieces)
            assert int(pieces[-1]) == table.values[r, c]


@pytest.mark.parametrize(("name", "scale", "level"), CASES)
def test_levels_keep_their_limits_and_use_them(name, scale, level):
    task = shipped(name, scale)
    limits = task.sizes.levels[level]
    lengths, num_segments = Counter(), Counter()
    for problem in problems(name, scale, level):
        table, path = solve(task, problem.state)
        assert task.sizes.rows[0] <= len(table.rows) <= task.sizes.rows[1]
        assert task.sizes.cols[0] <= len(table.cols) <= task.sizes.cols[1]
        assert len(set(table.rows)) == len(table.rows) and len(set(table.cols)) == len(table.cols)
        lengths[len(path)] += 1
        num_segments[len(runs(path)[0])] += 1
    low, high = limits.num_cells
    assert low <= min(lengths) and max(lengths) <= high
    if name == "consecutive_table_readout":
        assert set(lengths) == set(range(low, high + 1))
    else:
        low, high = limits.num_segments
        assert set(num_segments) == set(range(low, high + 1))
        assert max(num_segments.values()) < 0.6 * NUM


def test_consecutive_levels_are_the_papers_and_do_not_overlap():
    levels = shipped("consecutive_table_readout", "paper").sizes.levels
    assert [levels[level].num_cells for level in ("simple", "medium", "hard")] == [(5, 10), (15, 20), (25, 30)]
    nano = [limits.num_cells for limits in shipped("consecutive_table_readout").sizes.levels.values()]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(nano))


@pytest.mark.parametrize(("level", "mean", "tolerance"), [("simple", 12, 1), ("hard", 35, 2)])
def test_mean_length_of_paths_is_the_papers(level, mean, tolerance):
    drawn = problems("table_readout", "paper", level, 500)
    assert abs(np.mean([len(problem.state.path) for problem in drawn]) - mean) <= tolerance


@pytest.mark.parametrize("scale", SCALES)
def test_simple_is_one_pattern_and_hard_a_composition(scale):
    kinds = Counter()
    for problem in problems("table_readout", scale, "simple"):
        lengths, sides = runs(list(problem.state.path))
        spiral, sinusoid = is_spiral(sides), is_sinusoid(lengths, sides)
        assert spiral or sinusoid
        if len(sides) == 3:
            kinds["spiral" if spiral else "sinusoid"] += 1
    assert kinds["sinusoid"] and (scale == "nano" or kinds["spiral"])  # 7 cells are too few for a spiral of 4 runs
    for problem in problems("table_readout", scale, "hard"):
        lengths, sides = runs(list(problem.state.path))
        assert len(lengths) > 4 and not is_spiral(sides) and not is_sinusoid(lengths, sides)


@pytest.mark.parametrize("level", LEVELS["table_readout"])
def test_paths_are_many(level):
    drawn = problems("table_readout", "nano", level, 450)
    assert len({problem.state.path for problem in drawn}) > 300


def test_consecutive_reads_both_ways_and_within_a_row():
    for scale in SCALES:
        signs = Counter()
        for problem in problems("consecutive_table_readout", scale, "simple"):
            (r, c), (s, d) = problem.state.path[0], problem.state.path[-1]
            signs[(s > r) - (s < r), (d > c) - (d < c) if r == s else 0] += 1
        assert {(1, 0), (-1, 0), (0, 1), (0, -1)} <= set(signs)


@pytest.mark.parametrize("name", LEVELS)
def test_text_depends_on_the_path_by_its_marks_alone(name):
    task = shipped(name)
    state = problems(name, "nano", "hard")[0].state
    for other in problems(name, "nano", "simple")[:20]:
        changed = dataclasses.replace(state, path=other.state.path)
        texts = [task.text(state), task.text(changed)]
        assert len({text.split("\n")[0] for text in texts}) == 1
        assert len({text.replace("\\cellcolor{yellow}", "") for text in texts}) == 1
        assert (texts[0] != texts[1]) == task.marks_text


@pytest.mark.parametrize("name", LEVELS)
def test_picture_shows_values_names_and_marks(name):
    """One cell changed in the state changes that cell of the picture and nothing else."""
    task = shipped(name)
    state = problems(name, "nano", "hard")[0].state
    picture = task.draw(state)

    def changed_cells(other: TableState) -> set[Cell]:
        rows, cols = np.nonzero((task.draw(other) != picture).any(axis=2))
        return set(zip((rows // 24).tolist(), (cols // 24).tolist(), strict=True))

    values = [list(row) for row in state.values]
    values[1][2] = (values[1][2] + 1) % 10
    assert changed_cells(dataclasses.replace(state, values=tuple(map(tuple, values)))) == {(2, 3)}
    assert changed_cells(dataclasses.replace(state, path=state.path[1:])) == {state.path[0]}
    names = ("upsilon", *state.row_names[1:])
    assert changed_cells(dataclasses.replace(state, row_names=names)) == {(1, 0)}


@pytest.mark.parametrize(("name", "scale", "level"), CASES)
def test_scores_of_answers_and_traces(name, scale, level):
    task = shipped(name, scale)
    for problem in problems(name, scale, level)[:20]:
        state = problem.state
        values = [state.value(cell) for cell in state.path]
        trace, answer = "".join(task.thought(state)), task.answer(state)
        spoiled = [(v + 1) % 10 if i == len(values) // 2 else v for i, v in enumerate(values)]
        bare = ", ".join(map(str, values))
        wrong = f"Answer: {' '.join(map(str, spoiled))} Sum: {sum(values)}"
        swapped = [values[0] + 1, values[1] - 1, *values[2:]]
        cases: list[tuple[str, tuple[bool, bool, bool]]] = [
            (trace + answer, (True, True, True)),
            (answer, (True, False, True)),
            (trace, (False, True, False)),
            (bare, (True, False, False)),
            (bare + f". Sum: {sum(values)}", (True, False, True)),
            (trace + wrong, (False, True, True)),
            (wrong, (False, False, True)),
            (f"Answer: {' '.join(map(str, swapped))} Sum: {sum(values)}", (False, False, True)),
            (f"Answer: {sum(values)}", (False, False, False)),
            (f"Answer: {bare} Sum: {sum(values) + 1}", (True, False, False)),
            (" ".join(map(str, values[:-1])), (False, False, False)),
            (wrong + "\n" + answer, (True, False, True)),
            (task.convert(state) + "\n" + task.text(state) + "\n" + answer, (True, False, True)),
            (task.convert(state) + "\n" + task.text(state) + "\n" + trace + wrong, (False, True, True)),
            (task.convert(state) + "\n" + task.text(state) + "\n", (False, False, False)),
        ]
        for response, (listed, traced, total) in cases:
            score = task.score(state, response)
            assert (score.parts["answer_list"], score.parts["trace_list"], score.parts["sum"]) == (
                listed,
                traced,
                total,
            ), response
            assert score.correct == (listed or traced)
            assert score.parsed or not score.correct


@pytest.mark.parametrize("trace", ["terse", "verbose"])
@pytest.mark.parametrize("name", LEVELS)
def test_both_wordings_and_replaced_ones(name, trace):
    for task in (shipped(name, "nano", trace), _reworded(name, trace)):
        for level in task.levels:
            problem = task.sample(level, "test", 1)
            for view in ("text", "image", "image_via_text"):
                dialogue = build_dialogue(task, problem, view)
                score = task.score(problem.state, dialogue.response.text)
                assert score.correct and score.parsed and set(score.parts.values()) == {1.0}
                assert (task.text(problem.state) in dialogue.prompt) == (view == "text")


def _reworded(name: str, trace: str) -> TableTask:
    old = shipped(name)
    wording = {"answer": "Answer: [{values}], total {sum}.", "step": "* {cell}: {col}/{row} -> {value}\n"}
    return type(old)(old.sizes, trace, wording)


STATE = shipped("table_readout").sample("simple", "test", 0).state
PIECES = st.sampled_from(
    ["Answer:", "Sum:", "(1,2)", "(", ",", ")", "\\end{tabular}", "\n", "7", "-", "99999999999", "(999,999)", "None"]
    + [str(value) for value in STATE.readout]
)


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES | st.text(max_size=6), max_size=30).map("".join))
def test_any_response_is_scored(response):
    score = shipped("table_readout").score(STATE, response)
    assert score.parsed or not score.correct
    assert set(score.parts) == {"answer_list", "trace_list", "sum"} and set(score.parts.values()) <= {0.0, 1.0}


@pytest.mark.parametrize(
    "piece", ["1 ", "9", "(", "(1,2)", "(1,2) 3 ", "Answer:", "answer   ", "\\end{tabular}", "\x00", "\u0663", "\ud800"]
)
def test_huge_responses_are_scored_quickly(piece):
    task = shipped("table_readout")
    response = piece * (3_000_000 // len(piece))
    begin = time.process_time()
    assert not task.score(STATE, response).correct
    assert time.process_time() - begin < 2
    assert not task.score(STATE, " " * MAX_RESPONSE_CHARS + task.answer(STATE)).correct


def test_empty_and_wordy_responses_are_unparsed():
    task = shipped("table_readout")
    for response in ("", "\n", "I cannot tell.", "Answer:", "Sum: 12", task.text(STATE)):
        score = task.score(STATE, response)
        assert not score.parsed and not score.correct, response


@pytest.mark.parametrize(
    ("name", "level", "limits", "message"),
    [
        ("table_readout", "hard", {"num_cells": (26, 30)}, "26 to 30 cells"),
        ("table_readout", "hard", {"num_cells": (22, 25)}, "22 to 25 cells"),
        ("table_readout", "hard", {"num_segments": (20, 20)}, "20 to 20 segments"),
        ("table_readout", "hard", {"num_segments": (1, 2)}, "1 to 2 segments"),
        ("table_readout", "simple", {"num_cells": (1, 1)}, "1 to 1 cells"),
        ("consecutive_table_readout", "hard", {"num_cells": (26, 30)}, "26 to 30 cells"),
    ],
)
def test_impossible_levels_end_with_one_sentence_quickly(name, level, limits, message):
    old = shipped(name)
    changed = dataclasses.replace(old.sizes.levels[level], **limits)
    task = type(old)(dataclasses.replace(old.sizes, levels={**old.sizes.levels, level: changed}))
    begin = time.process_time()
    with pytest.raises(ValueError, match=rf"task={name} level={level}: .*{message}") as caught:
        task.sample(level, "train", 0)
    assert time.process_time() - begin < 4
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": (0, 5)}, "rows="),
        ({"rows": (5, 13)}, "rows="),
        ({"cols": (6, 5)}, "cols="),
        ({"row_names": "long"}, "row_names='long'"),
        ({"levels": {}}, "level"),
        ({"picture": (5, 144)}, "picture="),
    ],
)
def test_sizes_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        TableReadout(dataclasses.replace(shipped("table_readout").sizes, **changes))


@pytest.mark.parametrize("limits", [{"num_cells": (7, 3)}, {"num_segments": (0, 4)}])
def test_limits_are_checked(limits):
    sizes = shipped("table_readout").sizes
    changed = dataclasses.replace(sizes.levels["simple"], **limits)
    with pytest.raises(ValueError, match=r"levels\.simple\.num_"):
        TableReadout(dataclasses.replace(sizes, levels={**sizes.levels, "simple": changed}))


@pytest.mark.parametrize(
    "wording", [{"stop": "{cell}"}, {"step": "{cel} {value}"}, {"step": "{cell"}, {"step": "{cell.x} {value}"}]
)
def test_templates_are_checked(wording):
    with pytest.raises(ValueError, match=r"task\.wording\.st[eo]p"):
        TableReadout(shipped("table_readout").sizes, "terse", wording)


def test_latex_of_a_small_table():
    state = TableState(("alpha", "beta"), ("Jan", "Feb"), ((1, 2), (3, 4)), ((1, 1), (1, 2)))
    assert latex_table(state, {(1, 1)}) == (
        "\\begin{tabular}{ccc}\n & Jan & Feb \\\\\nalpha & \\cellcolor{yellow}1 & 2 \\\\\n"
        "beta & 3 & 4 \\\\\n\\end{tabular}"
    )
