"""The skills on grids that the nano bases are trained on are told right and show no prompt or path of a task."""

import functools
import re

import pytest
from support.shipped import shipped

from vlmreason.dialogue.build import build_dialogue
from vlmreason.segments import VIEWS
from vlmreason.tasks.base import state_to_json
from vlmreason.tasks.grids.search import simulate

NUM = 150
SCALES = ("nano", "paper")
LEVELS = shipped("grid_skills").levels
STEPS = {"right": (0, 1), "down": (1, 0), "left": (0, -1), "up": (-1, 0)}


@functools.cache
def drawn(level, scale="nano", num=NUM):
    return [shipped("grid_skills", scale).sample(level, "train", index) for index in range(num)]


def read_grid(text):
    """Number of rows and columns and the content of every cell, from the LaTeX alone."""
    lines = text.splitlines()[2:-1]
    rows = [[entry.strip() for entry in line.removesuffix("\\\\").split("&")[1:]] for line in lines]
    return {(r, c): entry or "free" for r, row in enumerate(rows, 1) for c, entry in enumerate(row, 1)}


def cells_in(text):
    return [(int(r), int(c)) for r, c in re.findall(r"\((\d+),(\d+)\)", text)]


def near(cell, move):
    return cell[0] + STEPS[move][0], cell[1] + STEPS[move][1]


def things_of(grid, task):
    """D, the objects in reading order and S, each with its cell."""
    things = ["D", *(name for _, name in sorted(grid.items()) if name in task.sizes.objects), "S"]
    where = {name: cell for cell, name in grid.items()}
    return " ".join(f"{name} ({where[name][0]},{where[name][1]})" for name in things)


def distance(a, b):
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


@pytest.mark.parametrize("level", LEVELS)
def test_no_wording_of_the_task_occurs(level):
    task = shipped("grid_skills")
    words = {"Collect", "Convert", "Answer", "later", "back", "done", "path", "destination"}
    for problem in drawn(level):
        for view in VIEWS:
            dialogue = build_dialogue(task, problem, view)
            shown = dialogue.prompt + "\n" + dialogue.response.text
            assert not [word for word in words if word in shown]


def test_walks_are_hardly_ever_paths_of_the_task():
    """Moves are drawn at random: fewer than one walk in 50 happens to go from S by all objects to D."""
    paths = 0
    for problem in drawn("walk", num=1000):
        state = problem.state
        made = shipped("grid_skills").answer(state).split(" : ")[1].split()[::2]
        if made != ["none"]:
            walk = simulate(state.grid, made)
            paths += walk.end == state.grid.destination and len(walk.collected) == len(state.grid.objects)
    assert paths < 20


@pytest.mark.parametrize("scale", SCALES)
def test_walks_are_told_move_by_move(scale):
    task, blocked = shipped("grid_skills", scale), 0
    for problem in drawn("walk", scale):
        state, grid = problem.state, read_grid(task.text(problem.state))
        word, *moves = task.prompt(state, "image").split()
        assert word == "Walk"
        told, made = task.answer(state).split(" : ")
        cell = next(cell for cell, thing in grid.items() if thing == "S")
        visited, pieces, done = set(), [], []
        pieces.append(f"({cell[0]},{cell[1]})")
        for move in moves:
            visited.add(cell)
            there = near(cell, move)
            holds = "visited" if there in visited else grid.get(there)
            pieces.append(f"{move} ({there[0]},{there[1]}) {holds}" if holds else f"{move} outside")
            if holds is None or holds == "visited" or holds in task.sizes.obstacles:
                blocked += 1
                continue
            cell = there
            pieces.append(f"({cell[0]},{cell[1]})")
            done.append(f"{move} ({there[0]},{there[1]})")
        assert told.endswith(" " + " ".join(pieces))
        assert made == (" ".join(done) or "none")
    assert blocked > NUM


@pytest.mark.parametrize("scale", SCALES)
def test_trails_go_on_to_the_first_open_neighbour(scale):
    """Whatever the objects are: the trail has no aim, so it is not the search of the task."""
    task, ends = shipped("grid_skills", scale), 0
    for problem in drawn("trail", scale):
        grid = read_grid(task.text(problem.state))
        assert task.prompt(problem.state, "image") == "Trail"
        told, made = task.answer(problem.state).split(" : ")
        cell = next(cell for cell, thing in grid.items() if thing == "S")
        pieces, visited, moves = [things_of(grid, task)], [], []
        while cell:
            visited.append(cell)
            pieces.append(f"({cell[0]},{cell[1]})")
            following = None
            for move in STEPS:
                there = near(cell, move)
                holds = "visited" if there in visited else grid.get(there)
                pieces.append(f"{move} ({there[0]},{there[1]}) {holds}" if holds else f"{move} outside")
                if holds and holds != "visited" and holds not in task.sizes.obstacles:
                    following = there
                    moves.append(f"{move} ({there[0]},{there[1]})")
                    break
            cell = following
        assert told == " ".join(pieces)
        assert made == (" ".join(moves) or "none")
        ends += grid[visited[-1]] == "D"
    assert ends < NUM / 5


@pytest.mark.parametrize("scale", SCALES)
def test_things_are_listed_with_their_places(scale):
    task = shipped("grid_skills", scale)
    for problem in drawn("things", scale):
        grid = read_grid(task.text(problem.state))
        assert task.answer(problem.state) == things_of(grid, task)


@pytest.mark.parametrize("scale", SCALES)
def test_things_are_where_they_are_said_to_be(scale):
    task = shipped("grid_skills", scale)
    for problem in drawn("find", scale):
        grid, words = read_grid(task.text(problem.state)), task.answer(problem.state).split()
        assert words[::2] == task.prompt(problem.state, "image").split()[1:]
        for thing, cell in zip(words[::2], words[1::2], strict=True):
            assert grid[cells_in(cell)[0]] == thing
            assert list(grid.values()).count(thing) == 1


@pytest.mark.parametrize("scale", SCALES)
def test_moves_that_lead_nearer_are_told_first(scale):
    task = shipped("grid_skills", scale)
    for problem in drawn("toward", scale):
        grid = read_grid(task.text(problem.state))
        head, answer = things_of(grid, task), task.answer(problem.state)
        assert answer.startswith(head)
        told = re.findall(r"\((\d+),(\d+)\) (\w+) \((\d+),(\d+)\) ([a-z ]+?)(?= \(|$)", answer[len(head) :])
        assert len(told) == len(problem.state.cells)
        for r, c, thing, to_r, to_c, moves in told:
            cell, target = (int(r), int(c)), (int(to_r), int(to_c))
            assert grid[target] == thing
            nearer = [move for move in STEPS if distance(near(cell, move), target) < distance(cell, target)]
            assert moves.split() == nearer + [move for move in STEPS if move not in nearer]


@pytest.mark.parametrize("scale", SCALES)
def test_objects_are_named_from_close_to_far(scale):
    task = shipped("grid_skills", scale)
    for problem in drawn("closest", scale):
        grid = read_grid(task.text(problem.state))
        objects = sorted(cell for cell, name in grid.items() if name in task.sizes.objects)
        head, answer = things_of(grid, task), task.answer(problem.state)
        assert answer.startswith(head)
        told = iter(cells_in(answer[len(head) :]))
        for cell in problem.state.cells:
            assert next(told) == cell
            assert [next(told) for _ in objects] == sorted(objects, key=lambda one, cell=cell: distance(one, cell))
        assert not list(told)


@pytest.mark.parametrize("scale", SCALES)
def test_neighbours_are_told_with_their_cells(scale):
    task, outside = shipped("grid_skills", scale), 0
    for problem in drawn("around", scale):
        grid, state = read_grid(task.text(problem.state)), problem.state
        expected = []
        for cell in state.cells:
            expected.append(f"({cell[0]},{cell[1]})")
            for move in STEPS:
                there = near(cell, move)
                outside += there not in grid
                expected.append(f"{move} ({there[0]},{there[1]}) {grid[there]}" if there in grid else f"{move} outside")
        assert task.answer(state) == " ".join(expected)
    assert outside


@pytest.mark.parametrize("field", ["rows", "cols"])
@pytest.mark.parametrize("value", [2147483648, 10**6, -5])
def test_a_grid_that_does_not_fit_is_refused(field, value):
    task = shipped("grid_skills")
    for level in task.levels:
        data = state_to_json(task.sample(level, "test", 0).state)
        assert task.state_from_json(data).grid.rows > 0
        data["grid"][field] = value
        with pytest.raises(ValueError, match=r"problem of grid_skills: .* do not fit into the picture"):
            task.state_from_json(data)
