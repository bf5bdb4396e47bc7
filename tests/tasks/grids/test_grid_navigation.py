"""Grid navigation, checked by code of its own: a LaTeX reader, a simulator and a recursive search."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vlmreason.dialogue.build import build_dialogue
from vlmreason.pictures import text_sprite
from vlmreason.segments import VIEWS
from vlmreason.streams import SPLITS, split_of
from vlmreason.structure import structure
from vlmreason.tasks.base import MAX_RESPONSE_CHARS, Problem, state_to_json
from vlmreason.tasks.grids.grid_navigation import DESTINATION_COLOR, START_COLOR, GridNavigation, GridSizes
from vlmreason.tasks.grids.search import OBJECTS, OBSTACLES, GridState, search

CONFIG = yaml.safe_load((Path(__file__).parents[3] / "conf/task/grid_navigation.yaml").read_text())
SCALES = ("nano", "paper")
KINDS = {"dot", "cross", "square", "triangle", "plus"}
STEPS = {"right": (0, 1), "down": (1, 0), "left": (0, -1), "up": (-1, 0)}
NUM = int(os.environ.get("VLMREASON_NUM_PROBLEMS", "200"))
Grid = dict[tuple[int, int], str]


def make(scale: str, trace: str | None = None, **sizes: Any) -> GridNavigation:
    data = {**CONFIG[scale], **sizes}
    return GridNavigation(structure(GridSizes, data, scale), trace or ("terse" if scale == "nano" else "verbose"))


def limits_with(scale: str, level: str, **changes: object) -> dict[str, object]:
    levels = CONFIG[scale]["levels"]
    return {**levels, level: {**levels[level], **changes}}


def problems(scale: str, num: int = NUM) -> Iterator[tuple[GridNavigation, Problem[GridState]]]:
    task = make(scale)
    for level, split in itertools.product(task.levels, SPLITS):
        for index in range(num // len(SPLITS) + 1):
            yield task, task.sample(level, split, index)


def read_grid(latex: str) -> Grid:
    """Cell -> content from a tabular whose first row and column are numbers."""
    lines = latex.splitlines()
    assert re.fullmatch(r"\\begin\{tabular\}\{c+\}", lines[0]) and lines[-1] == "\\end{tabular}"
    rows = [[cell.strip() for cell in line.removesuffix("\\\\").split("&")] for line in lines[1:-1]]
    assert rows[0] == ["", *map(str, range(1, len(rows[0])))]
    assert [row[0] for row in rows[1:]] == [str(r) for r in range(1, len(rows))]
    assert {len(row) for row in rows} == {len(lines[0].rpartition("{")[2]) - 1}
    return {(r, c): cell for r, row in enumerate(rows[1:], 1) for c, cell in enumerate(row[1:], 1)}


def solves(grid: Grid, moves: list[str]) -> bool:
    (r, c), wanted = at(grid, "S"), objects_of(grid)
    for move in moves:
        r, c = r + STEPS[move][0], c + STEPS[move][1]
        if (r, c) not in grid or grid[r, c] in KINDS:
            return False
        wanted.pop((r, c), None)
    return not wanted and grid[r, c] == "D"


def at(grid: Grid, name: str) -> tuple[int, int]:
    (cell,) = [cell for cell, content in grid.items() if content == name]
    return cell


def objects_of(grid: Grid) -> Grid:
    return {cell: name for cell, name in grid.items() if name and name not in KINDS | {"S", "D"}}


def distance(a: tuple[int, int], b: tuple[int, int]) -> int:
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def explore(grid: Grid) -> tuple[int, list[str]]:
    """(search steps, path) by recursion: the rule of E.2 written once more, from the text alone."""
    seen, left, num_steps = {at(grid, "S")}, objects_of(grid), 0

    def visit(cell: tuple[int, int]) -> list[str] | None:
        nonlocal num_steps
        left.pop(cell, None)
        if grid[cell] == "D":
            return []
        while True:
            goal = min(left, key=lambda there: (distance(there, cell), there), default=at(grid, "D"))
            options: list[tuple[int, int, str, tuple[int, int]]] = []
            for move, (dr, dc) in STEPS.items():
                there = (cell[0] + dr, cell[1] + dc)
                if (
                    there in grid
                    and there not in seen
                    and grid[there] not in KINDS
                    and (grid[there] != "D" or not left)
                ):
                    options.append((distance(there, goal), len(options), move, there))
            if not options:
                num_steps += 1
                return None
            _, _, move, there = min(options)
            seen.add(there)
            num_steps += 1
            rest = visit(there)
            if rest is not None:
                return [move, *rest]

    path = visit(at(grid, "S"))
    assert path is not None
    return num_steps, path


def moves_of(answer: str) -> list[str]:
    """The moves of an answer, whose cells are left out."""
    return re.sub(r" \(\d+,\d+\)", "", answer).removeprefix("Answer: ").split(" ")


@pytest.mark.parametrize("scale", SCALES)
def test_answers_and_limits_hold_for_a_reader_of_the_text_alone(scale: str) -> None:
    config = CONFIG[scale]
    for task, problem in problems(scale):
        grid = read_grid(task.text(problem.state))
        moves = moves_of(task.answer(problem.state))
        assert solves(grid, moves), problem.id
        num_steps, path = explore(grid)
        limits = config["levels"][problem.level]
        assert moves == path, problem.id
        assert limits["num_steps"][0] <= num_steps <= limits["num_steps"][1], problem.id
        assert limits["num_objects"][0] <= len(objects_of(grid)) <= limits["num_objects"][1]
        kinds = set(grid.values()) & KINDS
        assert limits["num_kinds"][0] <= len(kinds) <= limits["num_kinds"][1]
        assert len(set(objects_of(grid).values())) == len(objects_of(grid)), "an object occurs twice"
        assert set(objects_of(grid).values()) <= set(config["objects"])
        rows, cols = max(grid)
        assert config["rows"][0] <= rows <= config["rows"][1] and config["cols"][0] <= cols <= config["cols"][1]
        assert len(task.thought(problem.state)) == num_steps + 2  # the head, and the arrival


def test_paper_levels_are_those_of_table_1() -> None:
    levels = CONFIG["paper"]["levels"]
    assert levels["simple"]["num_steps"] == [10, 25] and levels["hard"]["num_steps"] == [26, 60]
    assert levels["simple"]["num_objects"] == [1, 2] and levels["hard"]["num_objects"] == [2, 5]
    assert levels["simple"]["num_kinds"] == [1, 1] and levels["hard"]["num_kinds"] == [3, 5]
    assert len(CONFIG["paper"]["objects"]) == 31 and set(CONFIG["paper"]["obstacles"]) == KINDS
    for scale in SCALES:
        simple, hard = (CONFIG[scale]["levels"][level]["num_steps"] for level in ("simple", "hard"))
        assert simple[1] < hard[0]


@pytest.mark.parametrize("scale", SCALES)
def test_levels_fill_their_ranges_and_go_back_at_times(scale: str) -> None:
    task = make(scale)
    for level in task.levels:
        found = [search(task.sample(level, "train", i).state) for i in range(NUM)]
        low, high = task.sizes.levels[level].num_steps
        counts = [one.num_steps for one in found]
        assert min(counts) <= low + 1 and max(counts) >= high - (high - low) // 3
        assert any(step.move == "back" for one in found for step in one.steps)


@pytest.mark.parametrize("scale", SCALES)
def test_terse_trace_tells_the_truth_about_every_cell(scale: str) -> None:
    """Also with several objects left (at nano two): the target is the nearest one that is not collected."""
    terse, num_with_several_left = make(scale, "terse"), 0
    for index in range(80):
        state = terse.sample("hard", "test", index).state
        grid, steps = read_grid(terse.text(state)), terse.thought(state)
        left, names = objects_of(grid), {name: cell for cell, name in objects_of(grid).items()}
        names["D"] = at(grid, "D")
        listed = " ".join(f"{name} ({r},{c})" for (r, c), name in sorted(left.items()))
        assert steps[0] == f"D ({names['D'][0]},{names['D'][1]}) {listed} S ({at(grid, 'S')[0]},{at(grid, 'S')[1]}) "
        stack, seen = [at(grid, "S")], {at(grid, "S")}
        for line in steps[1:-1]:
            words = line.split()
            cell = stack[-1]
            left.pop(cell, None)
            assert words[0] == f"({cell[0]},{cell[1]})"
            nearest = min((distance(cell, there) for there in left), default=distance(cell, names["D"]))
            assert words[2] == f"({names[words[1]][0]},{names[words[1]][1]})"
            assert names[words[1]] in (left or {names["D"]}) and distance(cell, names[words[1]]) == nearest
            num_with_several_left += len(left) >= (2 if scale == "nano" else 3)
            tried = re.findall(r"(right|down|left|up) (?:(outside)|\((\d+),(\d+)\) (\w+))", line)
            assert len({move for move, *_ in tried}) == len(tried)
            for move, outside, row, col, reason in tried:
                there = (cell[0] + STEPS[move][0], cell[1] + STEPS[move][1])
                assert (there not in grid) == bool(outside)
                if not outside:
                    assert there == (int(row), int(col))
                    truth = grid[there] or "free"
                    truth = "visited" if there in seen else "later" if truth == "D" and left else truth
                    assert reason == truth
            if words[-1] == "back":
                assert len(tried) == 4
                stack.pop()
            else:
                stack.append(there)
                seen.add(there)
        assert steps[-1] == f"({names['D'][0]},{names['D'][1]}) done " and stack[-1] == names["D"]
    assert num_with_several_left >= 20


def test_trace_of_a_small_grid() -> None:
    state = GridState(2, 3, (1, 1), (1, 3), (("star", (2, 2)),), (("dot", (1, 2)),))
    assert make("nano").text(state) == (
        "\\begin{tabular}{cccc}\n & 1 & 2 & 3 \\\\\n1 & S & dot & D \\\\\n2 & & star & \\\\\n\\end{tabular}"
    )
    assert "".join(make("nano").thought(state)) == (
        "D (1,3) star (2,2) S (1,1) (1,1) star (2,2) right (1,2) dot down (2,1) free (2,1) star (2,2) right (2,2) star "
        "(2,2) D (1,3) right (2,3) free (2,3) D (1,3) up (1,3) D (1,3) done "
    )
    assert make("nano", "verbose").thought(state)[1] == (
        "At (1,1), heading for star: right (1,2) is blocked by dot; down (2,1) is free.\n"
    )
    assert make("nano").answer(state) == "Answer: (1,1) down (2,1) right (2,2) right (2,3) up (1,3)"
    assert make("nano", "verbose").answer(state) == "Answer: down right right up"


def test_nearest_of_equally_near_objects_is_the_first_in_reading_order_however_they_are_listed() -> None:
    objects = (("star", (3, 2)), ("heart", (2, 1)), ("flag", (2, 3)))
    state = GridState(4, 4, (2, 2), (4, 4), objects, ())
    for order in itertools.permutations(objects):
        first = search(dataclasses.replace(state, objects=order)).steps[0]
        assert order[first.target] == ("heart", (2, 1))


@pytest.mark.parametrize("scale", SCALES)
def test_own_answer_scores_one_and_spoiled_ones_do_not(scale: str) -> None:
    opposite = {"left": "right", "right": "left", "up": "down", "down": "up"}
    for task, problem in problems(scale, 40):
        state, answer = problem.state, task.answer(problem.state)
        grid, moves = read_grid(task.text(state)), moves_of(answer)
        for view in VIEWS:
            gold = task.score(state, build_dialogue(task, problem, view).response.text)
            assert gold.correct and gold.parsed and set(gold.parts.values()) == {1.0}
        assert not task.score(state, " ".join([*answer.split(), "up", "left"])).correct
        assert not task.score(state, answer.rpartition(moves[-1])[0]).correct
        for i in range(len(moves)):
            for spoiled in ([*moves[:i], opposite[moves[i]], *moves[i + 1 :]], moves[:i] + moves[i + 1 :]):
                verdict = task.score(state, "Answer: " + " ".join(spoiled))
                assert verdict.correct == solves(grid, spoiled)
                assert not verdict.correct


def test_leaving_the_grid_never_wraps_round() -> None:
    """Row or column 0, or one beyond the last, is outside, even where the other side would be the destination."""
    task = make("nano")
    for start, end, move in (
        ((1, 2), (4, 2), "up"),
        ((4, 2), (1, 2), "down"),
        ((2, 1), (2, 4), "left"),
        ((2, 4), (2, 1), "right"),
    ):
        state = GridState(4, 4, start, end, (), ())
        verdict = task.score(state, f"Answer: {move}")
        assert verdict.parsed and not verdict.correct
        assert verdict.parts["inside"] == 0 and verdict.parts["reaches_destination"] == 0
    state = GridState(4, 4, (1, 1), (1, 3), (), (("dot", (1, 2)),))
    over_the_edge = task.score(state, "Answer: up right right down")
    assert not over_the_edge.correct and over_the_edge.parts["inside"] == 0
    for step in search(GridState(1, 3, (1, 1), (1, 3), (), ())).steps:
        for move, cell, reason in step.tried:
            assert (reason == "outside") == (move in ("up", "down") or cell[1] in (0, 4))


def test_parts_are_judged_apart() -> None:
    task = make("nano")
    state = GridState(3, 3, (1, 1), (1, 3), (("star", (2, 2)), ("flag", (2, 1))), (("dot", (1, 2)),))
    assert task.score(state, "Answer: right right").parts == {
        "reaches_destination": 1.0,
        "objects_collected": 0.0,
        "no_obstacle": 0.0,
        "inside": 1.0,
    }
    through = GridState(1, 4, (1, 1), (1, 4), (("star", (1, 2)),), (("dot", (1, 3)),))
    verdict = task.score(through, "Answer: right right right")
    assert not verdict.correct and verdict.parts == {
        "reaches_destination": 1.0,
        "objects_collected": 1.0,
        "no_obstacle": 0.0,
        "inside": 1.0,
    }
    halfway = task.score(state, "Answer: down")
    assert halfway.parts["objects_collected"] == 0.5 and halfway.parts["reaches_destination"] == 0
    assert task.score(state, "Answer: down right right up").correct
    assert task.score(state, "Answer: down (2,1) right (9,9) right up (1,3)").correct, "only the moves count"
    assert task.score(state, "Answer: up up Answer: down right right up").correct, "the last marker counts"
    assert not task.score(state, "Answer: down right right up\nAnswer: up").correct


@pytest.mark.parametrize(
    "response",
    [
        "",
        "down right right up",
        "Answer:",
        "Answer: ",
        "Answer: down right right up now",
        "Answer: down(2,1)",
        "Answer: down (2,1",
        "Answer: (2,1) (2,2) (2,3)",
        "Answer: d r r u",
        "Answer: DOWN",
        "Answer: down; right",
        "Answer: __import__('os').system('true')",
        "\x00\ud800\u202e",
        "Answer: " * 20_000,
        "Answer: " + "right " * MAX_RESPONSE_CHARS,
        "Answer: {0.__class__} %s",
    ],
)
def test_other_responses_are_counted_as_unparsed(response: str) -> None:
    verdict = make("nano").score(GridState(2, 3, (1, 1), (1, 3), (), (("dot", (1, 2)),)), response)
    assert not verdict.parsed and not verdict.correct and not any(verdict.parts.values())


def test_a_long_answer_is_judged_quickly() -> None:
    began = time.process_time()
    verdict = make("nano").score(GridState(2, 2, (1, 1), (2, 2), (), ()), "Answer: " + "right left " * 15_000)
    assert verdict.parsed and not verdict.correct and time.process_time() - began < 2


@pytest.mark.parametrize("scale", SCALES)
def test_picture_shows_each_symbol_in_its_cell(scale: str) -> None:
    task = make(scale)
    side, size = task.sizes.cell, task.sizes.font
    for index in range(10):
        state = task.sample("hard", "validation", index).state
        picture = task.draw(state)
        assert picture.shape == (*task.sizes.picture[::-1], 3) and picture.dtype == np.uint8
        assert picture.tobytes() == make(scale).draw(task.sample("hard", "validation", index).state).tobytes()
        symbols = {cell: {**OBJECTS, **OBSTACLES}[name] for name, cell in state.objects + state.obstacles}
        for r, c in itertools.product(range(1, state.rows + 1), range(1, state.cols + 1)):
            patch = picture[r * side : r * side + side - 1, c * side : c * side + side - 1]
            if (r, c) == state.start or (r, c) == state.destination:
                color = START_COLOR if (r, c) == state.start else DESTINATION_COLOR
                assert (patch == color).all()
            elif (r, c) in symbols:
                sprite = text_sprite(symbols[r, c], size, (0, 0, 0), (255, 255, 255), False, side - 1, side - 1)
                assert (patch == sprite).all() and (patch < 128).any()
            else:
                assert (patch == 255).all()
        assert (picture[: side - 1, side:] < 128).any() and (picture[side:, : side - 1] < 128).any(), "numbers"
    drawn = task.draw(state)
    drawn[:] = 0
    assert task.draw(state).any(), "a caller may write into its picture"


def test_all_symbols_exist_and_differ_in_the_smallest_cells() -> None:
    def ink(text: str) -> bytes:
        return text_sprite(text, 20, (0, 0, 0), (255, 255, 255), False, 23, 23).tobytes()

    glyphs = [*OBJECTS.values(), *OBSTACLES.values()]
    drawn = {ink(glyph) for glyph in glyphs}
    assert len(OBJECTS) == 31 and len(OBSTACLES) == 5 and len(drawn) == 36
    assert ink("\U0010fffd") not in drawn, "the sign for a missing glyph"


@pytest.mark.parametrize("scale", SCALES)
def test_splits_share_no_problem(scale: str) -> None:
    keys: dict[str, set[str]] = {split: set() for split in SPLITS}
    for task, problem in problems(scale, 300):
        assert split_of(task.name, task.key(problem.state)) == problem.split
        keys[problem.split].add(task.text(problem.state))
    assert all(not keys[a] & keys[b] for a, b in itertools.combinations(SPLITS, 2))
    assert all(len(texts) > 150 for texts in keys.values()), "few different problems"


def test_text_tells_the_whole_state_and_prompts_tell_no_more_than_they_should() -> None:
    for scale in SCALES:
        task = make(scale)
        a, b = (task.sample("hard", "train", i).state for i in (0, 1))
        assert task.prompt(a, "image") == task.prompt(b, "image")
        assert task.text(a) in task.prompt(a, "text")
        assert task.convert(a).startswith("Convert")
        grid = read_grid(task.text(a))
        assert (at(grid, "S"), at(grid, "D")) == (a.start, a.destination) and max(grid) == (a.rows, a.cols)
        assert objects_of(grid) == {cell: name for name, cell in a.objects}
        assert {x: n for x, n in grid.items() if n in KINDS} == {cell: name for name, cell in a.obstacles}


@pytest.mark.parametrize(
    "sizes",
    [
        {"levels": limits_with("nano", "hard", num_steps=[300, 400])},
        {"levels": limits_with("nano", "hard", num_steps=[1, 1])},
        {"levels": limits_with("nano", "hard", num_steps=[38, 39])},
        {"levels": limits_with("nano", "hard", obstacle_percent=[95, 100])},
        {"levels": limits_with("nano", "hard", obstacle_percent=[70, 75])},
        {"rows": [1, 1], "cols": [2, 2]},
    ],
)
def test_impossible_sizes_end_quickly_with_a_sentence(sizes: dict[str, Any]) -> None:
    task, began = make("nano", **sizes), time.process_time()
    with pytest.raises(ValueError, match=r"task=grid_navigation level=hard: .*(num_steps|splits)"):
        task.sample("hard", "train", 0)
    assert time.process_time() - began < 3


@pytest.mark.parametrize(
    ("sizes", "named"),
    [
        ({"rows": [5, 4]}, r"rows=\[5, 4\]"),
        ({"rows": [0, 4]}, r"rows=\[0, 4\]"),
        ({"cols": [4, 6]}, r"cols=\[4, 6\].*1 to 5"),
        ({"cell": 0}, "cell=0"),
        ({"objects": ["heart", "hart"]}, "objects='hart'"),
        ({"objects": ["heart", "heart"]}, "heart"),
        ({"obstacles": ["dot", "star"]}, "obstacles='star'"),
        ({"levels": {"simple": CONFIG["nano"]["levels"]["simple"]}}, "level hard"),
        ({"levels": limits_with("nano", "simple", num_objects=[1, 9])}, r"levels.simple.num_objects=\[1, 9\]"),
        ({"levels": limits_with("nano", "simple", num_kinds=[1, 6])}, r"levels.simple.num_kinds=\[1, 6\]"),
    ],
)
def test_wrong_sizes_are_named(sizes: dict[str, Any], named: str) -> None:
    with pytest.raises(ValueError, match=named):
        make("nano", **sizes)


def test_wording_can_be_replaced_and_is_checked() -> None:
    sizes = structure(GridSizes, CONFIG["nano"])
    task = GridNavigation(sizes, "terse", {"answer": "Path = {moves}", "tried_free": "{move} ok"})
    state = task.sample("simple", "train", 0).state
    assert task.answer(state).startswith("Path = ") and task.score(state, task.answer(state)).correct
    assert not task.score(state, "Answer: up").parsed
    assert "ok" in "".join(task.thought(state)) and "free" not in "".join(task.thought(state))
    for wrong in ({"step": "{sell}"}, {"step": "{"}, {"answer": "{moves}"}, {"answer": "Answer"}, {"stepp": "x"}):
        with pytest.raises(ValueError, match=rf"task\.wording\.{next(iter(wrong))}"):
            GridNavigation(sizes, "terse", wrong)
    with pytest.raises(ValueError, match="terse, verbose"):
        GridNavigation(sizes, "loud")


def test_states_travel_as_json_and_damaged_ones_are_refused() -> None:
    task = make("nano")
    state = task.sample("hard", "test", 3).state
    data = state_to_json(state)
    assert task.state_from_json(data) == state
    for key, value in (
        ("start", [0, 1]),
        ("start", data["destination"]),
        ("rows", 1),
        ("rows", 9),
        ("objects", [["hart", [1, 1]]]),
        ("obstacles", [["dot", [1]]]),
        ("destination", None),
    ):
        with pytest.raises(ValueError, match="problem of grid_navigation"):
            task.state_from_json({**data, key: value})
    with pytest.raises(ValueError, match="no solution"):
        task.answer(GridState(1, 3, (1, 1), (1, 3), (), (("dot", (1, 2)),)))
