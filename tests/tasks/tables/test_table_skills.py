"""The skills that the nano base is pretrained on show no prompt, answer or hard problem of the table tasks."""

import functools
import itertools
import re

import pytest
from support.shipped import shipped

from vlmreason.dialogue.build import build_dialogue
from vlmreason.segments import VIEWS
from vlmreason.tasks.base import state_to_json
from vlmreason.tasks.cells import Cell
from vlmreason.tasks.skills import FILLING

NUM = 150
TASKS = ("table_readout", "consecutive_table_readout")
LEVELS = shipped("table_skills").levels
READING = shipped("table_reading_skills")
STEPS = {"right": (0, 1), "down": (1, 0), "left": (0, -1), "up": (-1, 0)}


@functools.cache
def drawn(level, num=NUM, name="table_skills"):
    return [shipped(name).sample(level, "train", index) for index in range(num)]


def path_of_marks(marked: set[Cell]) -> list[Cell]:
    """The path that all marked cells form, from one end to the other; [] where they form none."""
    near = {
        cell: [(cell[0] + dr, cell[1] + dc) for dr, dc in STEPS.values() if (cell[0] + dr, cell[1] + dc) in marked]
        for cell in marked
    }
    ends = [cell for cell in marked if len(near[cell]) == 1]
    if len(ends) != 2 or any(len(cells) > 2 for cells in near.values()):
        return []
    path = [ends[0]]
    while onward := [cell for cell in near[path[-1]] if cell not in path]:
        path.append(onward[0])
    return path if len(path) == len(marked) else []


def is_hard(marked: set[Cell]) -> bool:
    """Whether the marks could be those of a hard problem: a path with more than 4 straight segments that turns at
    least twice to one side before it turns to the other, but for its ends."""
    path = path_of_marks(marked)
    moves = [move for move, _ in itertools.groupby((s - r, d - c) for (r, c), (s, d) in itertools.pairwise(path))]
    sides = [len(list(g)) for _, g in itertools.groupby(a * d - b * c for (a, b), (c, d) in itertools.pairwise(moves))]
    return len(moves) > 4 and all(num >= 2 for num in sides[1:-1])


def test_hard_marks_are_recognised():
    task = shipped("table_readout")
    for index in range(100):
        assert is_hard(set(task.sample("hard", "train", index).state.path))
        assert not is_hard(set(task.sample("simple", "train", index).state.path))
    assert not path_of_marks({(1, 1), (1, 2), (2, 1), (2, 2)}) and not path_of_marks({(1, 1), (1, 3)})


def test_marks_are_those_of_no_hard_problem():
    """Marks are scattered: fewer than one table in 10,000 of the older skills holds such a path, of these none."""
    tables = [problem.state.table for level in LEVELS for problem in drawn(level, 300)]
    for level in READING.levels:
        if level not in READING.text_only:
            tables += [problem.state.table for problem in drawn(level, 300, READING.name)]
    assert len(tables) > 6000
    assert not [table for table in tables if is_hard(set(table.path))]


@pytest.mark.parametrize("level", LEVELS)
def test_no_wording_of_a_task_occurs(level):
    task = shipped("table_skills")
    phrases = {"Read ", " from ", "Answer", "Sum", "Convert", "convert", "path", "all cells", "is in row"}
    for name in TASKS:
        phrases |= {shipped(name).kind, shipped(name).wording.convert}
    for problem in drawn(level):
        for view in VIEWS:
            dialogue = build_dialogue(task, problem, view)
            shown = dialogue.prompt + "\n" + dialogue.response.text
            assert not [phrase for phrase in phrases if phrase in shown]


@pytest.mark.parametrize("level", READING.levels)
def test_no_wording_of_a_task_occurs_in_skills_whose_wording_varies(level):
    """They say where a list ends as the tasks do, "from (1,1) to (2,3)", and nothing else of theirs."""
    phrases = {"Read ", "Answer", "Sum", "Convert", "convert", "path", "all cells", "is in row"}
    phrases |= {shipped(name).kind for name in TASKS} | {shipped(name).wording.convert for name in TASKS}
    for problem in drawn(level, name=READING.name):
        for view in READING.shown(level, VIEWS):
            dialogue = build_dialogue(READING, problem, view)
            shown = dialogue.prompt + "\n" + dialogue.response.text
            assert not [phrase for phrase in phrases if phrase in shown]


def cells_of(text):
    return [(int(a), int(b)) for a, b in re.findall(r"\((\d+),(\d+)\)", text)]


@pytest.mark.parametrize("level", ["bare", "list", "short_list"])
def test_no_list_goes_on_from_one_row_to_the_next_as_a_task_does(level):
    lengths, ends_named = set(), 0
    for problem in drawn(level, 400, READING.name):
        cells, asked = cells_of(problem.state.reply), cells_of(problem.state.question)
        lengths.add(len(cells))
        assert not [(a, b) for a, b in itertools.pairwise(cells) if a[1] == 5 and b == (a[0] + 1, 1)]
        assert len(set(cells)) == len(cells)
        ends_named += asked == [cells[0], cells[-1]]
    assert ends_named == 400, "the question names both ends"
    assert {1, 6} <= lengths and (max(lengths) == 25) == (level != "short_list")


@pytest.mark.parametrize("level", ["trail_to", "short_trail_to"])
def test_a_trail_to_a_given_end_follows_marks_where_a_list_would_go_straight_on(level):
    for problem in drawn(level, 300, READING.name):
        cells, asked = cells_of(problem.state.reply), cells_of(problem.state.question)
        assert asked == [cells[0], cells[-1]]
        assert set(cells) <= set(problem.state.table.path)
        assert all(abs(a[0] - b[0]) + abs(a[1] - b[1]) == 1 for a, b in itertools.pairwise(cells))


@pytest.mark.parametrize("level", ["short_list", "few_marked", "short_trail", "short_trail_to"])
def test_pictures_get_short_ones(level):
    found = [len(cells_of(problem.state.reply)) for problem in drawn(level, 300, READING.name)]
    assert max(found) == 6
    longer = {"short_list": "list", "few_marked": "marked", "short_trail": "trail", "short_trail_to": "trail_to"}[level]
    assert max(len(cells_of(problem.state.reply)) for problem in drawn(longer, 300, READING.name)) > 10


@pytest.mark.parametrize("level", READING.levels)
def test_questions_vary_in_verb_filling_and_end(level):
    questions = [problem.state.question for problem in drawn(level, name=READING.name)]
    assert len({question.split()[0] for question in questions}) >= 2
    assert {question.endswith(".") for question in questions} == {True, False}
    filled = [len(set(re.findall("[a-z]+", question)) & set(FILLING)) for question in questions]
    assert min(filled) == 0 and max(filled) >= 3


def test_the_word_that_announces_the_digits_does_not_count():
    replies = [(p.state, p.state.reply) for p in drawn("list", name=READING.name) if ":" in p.state.reply]
    assert len({reply.partition(":")[0].split()[-1] for _, reply in replies}) == 6
    for state, reply in replies[:20]:
        cells, _, digits = reply.partition(":")
        for word in ("so", "again"):
            assert READING.score(state, f"{cells.rpartition(' ')[0]} {word}:{digits}").correct
        assert not READING.score(state, f"{cells.rpartition(' ')[0]} sum:{digits}").correct
        assert not READING.score(state, reply + " 1").correct


def test_replies_read_the_table():
    for level in ("value", "rows", "columns", "names", "list"):
        for problem in drawn(level, 40, READING.name):
            table, words = problem.state.table, problem.state.reply.split(":")[0]
            for r, c, rest in re.findall(r"\((\d),(\d)\) ([^(]*)", words):
                cell = (int(r), int(c))
                names = [table.row_names[cell[0] - 1], table.col_names[cell[1] - 1]]
                expected = {"rows": names[:1], "columns": names[1:], "names": names}.get(level)
                assert rest.split()[: len(expected or "1")] == (expected or [str(table.value(cell))])


@pytest.mark.parametrize("level", ["walk", "visit"])
def test_walks_are_told_move_by_move(level):
    task = shipped("table_skills")
    lengths = set()
    for problem in drawn(level):
        word, start, *moves = task.prompt(problem.state, "image").split()
        assert word == level.capitalize()
        r, c = map(int, start.strip("()").split(","))
        cells = [(r, c)]
        for move in moves:
            r, c = r + STEPS[move][0], c + STEPS[move][1]
            cells.append((r, c))
        found = [(int(a), int(b)) for a, b in re.findall(r"\((\d+),(\d+)\)", task.answer(problem.state))]
        assert found == cells and len(moves) == len(cells) - 1
        lengths.add(len(cells))
    assert {2, 20} <= lengths


@pytest.mark.parametrize("name", ["table_readout", "consecutive_table_readout", "table_skills"])
def test_a_table_that_does_not_hold_together_is_refused(name):
    task = shipped(name)
    for level in task.levels:
        for spoil in (
            lambda table: table["row_names"].append("more"),
            lambda table: table["col_names"].pop(),
            lambda table: table["values"][0].append(1),
            lambda table: table["path"].append([1, 10**6]),
            lambda table: table["path"].append([0, 1]),
        ):
            data = state_to_json(task.sample(level, "test", 0).state)
            assert task.state_from_json(data)
            spoil(data.get("table", data))
            with pytest.raises(ValueError, match=f"problem of {name}: "):
                task.state_from_json(data)
