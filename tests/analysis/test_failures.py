"""Failure measures on responses whose faults are known, for each kind of task."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
from support.tiny import TRACES, nano_task

from vlmreason.analysis.failures import Failures, Settings, check_task, judge, run
from vlmreason.analysis.subjects import Responses
from vlmreason.evaluation.predictions import Prediction
from vlmreason.evaluation.problems import read_answered
from vlmreason.intervals import mean, ratio, share
from vlmreason.tasks.analogies.failures import ROWS
from vlmreason.tasks.analogies.panels import RELATIONS, solve
from vlmreason.tasks.base import Problem, Task
from vlmreason.tasks.cells import cell_name
from vlmreason.tasks.findings import Finding, right_steps
from vlmreason.tasks.grids.search import MOVES, simulate
from vlmreason.tasks.tables import failures

NAMES = (
    "table_readout",
    "consecutive_table_readout",
    "grid_navigation",
    "visual_analogy",
    "pattern_heldout_visual_analogy",
)


def gold(task: Task[Any], state: Any, converted: bool = False) -> str:
    conversion = task.convert(state) + "\n" + task.text(state) + "\n" if converted else ""
    return conversion + "".join(task.thought(state)) + task.answer(state)


def found(task: Task[Any], state: Any, response: str) -> Finding:
    return judge(task, state, response)


def analyze_files(task: Task[Any], split: str, paths: list[Path]) -> list[Failures]:
    return run(Responses(task, read_answered(task, split, paths)), Settings())


def hard(name: str, index: int = 0, trace: str | None = None) -> tuple[Task[Any], Any]:
    task = nano_task(name, trace)
    return task, task.sample(task.levels[-1], "test", index).state


@pytest.mark.parametrize("converted", [False, True])
@pytest.mark.parametrize("trace", TRACES)
@pytest.mark.parametrize("name", NAMES)
def test_gold_responses_have_no_failures(name: str, trace: str, converted: bool) -> None:
    task = nano_task(name, trace)
    errors_only = {"shortcut", "misread", "list_differs_from_trace", "sum_wrong", *ROWS}
    for level in task.levels:
        for index in range(4):
            state = task.sample(level, "test", index).state
            finding = found(task, state, gold(task, state, converted))
            assert finding.correct and finding.failure is None and finding.first_error is None
            assert finding.severity == 0
            for measure, value in finding.shares.items():
                assert value is None or value == (measure not in errors_only), measure
            assert right_steps(task.thought(state), "".join(task.thought(state))) == (len(task.thought(state)),) * 2
            for measure in ("precision", "recall"):
                if measure in finding.ratios:
                    part, whole = finding.ratios[measure]
                    assert part == whole > 0


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("response", ["", "Answer:", "Answer: ?", "x" * 300_000, "(1,1) (2,2) \\end{tabular}"])
def test_unusable_responses_are_failures(name: str, response: str) -> None:
    task, state = hard(name)
    finding = found(task, state, response)
    assert not finding.correct and finding.failure
    assert 0 < finding.severity <= 1


def reading(task: Task[Any], state: Any, cells: list[tuple[int, int]], wrong_at: int | None = None) -> str:
    values = [(state.value(cell) + (number == wrong_at)) % 10 for number, cell in enumerate(cells)]
    steps = "".join(f"{cell_name(cell)} {value} " for cell, value in zip(cells, values, strict=True))
    return f"{steps}Answer: {' '.join(map(str, values))} Sum: {sum(values)}"


def test_table_misread_stopped_and_ran_on() -> None:
    task, state = hard("table_readout")
    path = list(state.path)
    misread = found(task, state, reading(task, state, path, wrong_at=3))
    assert (misread.failure, misread.first_error) == ("misread", 3)
    assert misread.ratios["precision"] == misread.ratios["recall"] == (len(path), len(path))
    assert misread.ratios["misread_cells"] == (1, len(path))
    assert misread.shares["misread"] and not misread.shares["shortcut"]
    stopped = found(task, state, reading(task, state, path[:-2]))
    assert (stopped.failure, stopped.first_error) == ("stopped_early", len(path) - 2)
    assert stopped.ratios["precision"] == (len(path) - 2, len(path) - 2)
    assert stopped.ratios["recall"] == (len(path) - 2, len(path))
    assert stopped.shares["reaches_end"] is False
    ran_on = found(task, state, reading(task, state, [*path, path[0]]))
    assert (ran_on.failure, ran_on.first_error) == ("ran_on", len(path))
    assert ran_on.ratios["precision"] == (len(path), len(path) + 1)
    repeated = found(task, state, reading(task, state, [path[0], path[0], *path[1:]]))
    assert (repeated.failure, repeated.first_error) == ("repeated", 1)
    outside = found(task, state, "(99,1) 3 " + reading(task, state, path).partition("Answer")[0])
    assert (outside.failure, outside.first_error) == ("no_such_cell", 0)


def test_table_shortcut_is_measured() -> None:
    task, state = hard("table_readout")
    path = list(state.path)
    skipping = found(task, state, reading(task, state, path[:2] + path[5:]))
    assert (skipping.failure, skipping.first_error) == ("skipped", 2)
    assert skipping.shares["shortcut"] and skipping.shares["reaches_end"]
    assert skipping.ratios["skipped_per_shortcut"] == (3, 1)
    off = next((r, c) for r in range(1, 6) for c in range(1, 6) if (r, c) not in path)
    leaving = found(task, state, reading(task, state, [*path[:4], off, *path[6:]]))
    assert (leaving.failure, leaving.first_error) == ("left_path", 4)
    assert leaving.ratios["precision"] == (len(path) - 2, len(path) - 1)
    assert leaving.ratios["recall"] == (len(path) - 2, len(path))
    assert leaving.ratios["skipped_per_shortcut"] == (2, 1)


def test_shortcut_is_direct_where_no_move_leads_away() -> None:
    path = [(1, 1), (2, 1), (3, 1), (3, 2), (3, 3), (2, 3), (1, 3)]
    assert failures.shortcuts(path, [(1, 1), (1, 2), (1, 3)]) == [(5, True)]
    assert failures.shortcuts(path, [(1, 1), (2, 1), (3, 1), (3, 3)]) == [(1, True)]
    assert failures.shortcuts(path, [(1, 1), (2, 2), (1, 2), (4, 2), (3, 3)]) == [(3, False)]
    assert failures.shortcuts(path, path) == []
    assert failures.shortcuts(path, path[::-1]) == [(6, True)]


def test_answers_without_a_trace_are_judged_by_their_numbers() -> None:
    task, state = hard("consecutive_table_readout")
    values = state.readout
    wrong = [*values[:4], (values[4] + 1) % 10, *values[5:]]
    finding = found(task, state, f"Answer: {' '.join(map(str, wrong))} Sum: 7")
    assert (finding.failure, finding.first_error) == ("wrong_list", 4)
    assert finding.shares["shortcut"] is None and "precision" not in finding.ratios
    assert finding.shares["sum_wrong"]


def walkable(index: int) -> tuple[Task[Any], Any, list[str]]:
    task, state = hard("grid_navigation", index)
    return task, state, task.answer(state).removeprefix("Answer: ").split()[1::2]  # without the cells


def answered(task: Task[Any], state: Any, moves: list[str]) -> str:
    return "".join(task.thought(state)) + "Answer: " + " ".join(moves)


def test_grid_faults_are_told_apart() -> None:
    task, state, moves = walkable(0)
    outside = found(task, state, answered(task, state, ["up"] * 9))
    assert outside.failure == "outside" and outside.shares["stays_inside"] is False
    short = found(task, state, answered(task, state, moves[:-1]))
    assert short.failure == "destination" and not short.shares["reaches_destination"]
    assert short.means["objects_collected"] == 1 and short.means["obstacles"] == 0
    assert short.first_error is None  # the trace is right, the moves are not
    unparsed = found(task, state, "".join(task.thought(state)) + "Answer: sideways")
    assert unparsed.failure == "unparsed" and unparsed.means["objects_collected"] == 0
    assert unparsed.means["obstacles"] is None


def straight(state: Any) -> list[str]:
    """Moves from start to destination, rows first, whatever is in between."""
    rows, cols = state.destination[0] - state.start[0], state.destination[1] - state.start[1]
    return ["down" if rows > 0 else "up"] * abs(rows) + ["right" if cols > 0 else "left"] * abs(cols)


def test_grid_counts_obstacles_and_objects() -> None:
    seen = set()
    for index in range(30):
        task, state, _ = walkable(index)
        moves = straight(state)
        finding = found(task, state, answered(task, state, moves))
        cells, (r, c) = [], state.start
        for move in moves:
            r, c = r + MOVES[move][0], c + MOVES[move][1]
            cells.append((r, c))
        num_obstacles = sum(cell in cells for _, cell in state.obstacles)
        assert finding.shares["reaches_destination"]
        assert finding.means["obstacles"] == num_obstacles
        assert finding.means["objects_collected"] == sum(cell in cells for _, cell in state.objects) / len(
            state.objects
        )
        if not finding.correct:
            assert finding.failure == ("obstacle" if num_obstacles else "objects")
        seen.add(finding.failure)
        assert simulate(state, moves).inside
    assert {"obstacle", "objects"} <= seen


@pytest.mark.parametrize("trace", TRACES)
def test_grid_head_is_read(trace: str) -> None:
    task, state = hard("grid_navigation", 1, trace)
    head, *rest = task.thought(state)
    start, destination = (cell_name(cell) for cell in (state.start, state.destination))
    name, _ = state.objects[0]
    changes = {
        "source_parsed": head.replace(start, "(7,7)", 1),
        "destination_parsed": head.replace(destination, "(7,7)", 1),
        "objects_parsed": head.replace(f"{name} ", "wheel ", 1),
    }
    for measure, changed in changes.items():
        assert changed != head
        finding = found(task, state, changed + "".join(rest) + "Answer: up")
        wrong = {name for name in changes if not finding.shares[name]}
        assert wrong == {measure}
        assert finding.first_error == 0
    step_changed = found(task, state, head + rest[0] + "nonsense Answer: up")
    assert step_changed.first_error == 2 and all(step_changed.shares[name] for name in changes)


def test_grid_traces_that_do_not_begin_as_they_should_parse_nothing() -> None:
    task, state = hard("grid_navigation", 1)
    finding = found(task, state, "hello " + "Answer: up")
    assert [finding.shares[f"{what}_parsed"] for what in ("source", "destination", "objects")] == [False] * 3


@pytest.mark.parametrize("trace", TRACES)
def test_analogy_errors_are_found_at_their_step(trace: str) -> None:
    task, state = hard("visual_analogy", 0, trace)
    thought, answer = "".join(task.thought(state)), task.answer(state)
    right = solve(state).letter

    def errors(response: str) -> set[str]:
        return {name for name, value in found(task, state, response).shares.items() if value}

    other = next(letter for letter in "ABCD" if letter != right)
    assert errors(thought + answer.replace(f"option {right}", f"option {other}")) == {"solution", "exact_match"}
    first, (_, relation) = answer.split(";")[0], solve(state).example_patterns[0]
    swapped = first.replace(relation, next(r for r in RELATIONS if r != relation))
    assert errors(thought + answer.replace(first, swapped)) == {"examples_pattern", "examples_relation", "exact_match"}
    no_trace = found(task, state, answer)
    assert no_trace.correct and no_trace.shares["trace"] is None and no_trace.shares["examples_type"] is None


def test_analogy_option_values_are_read() -> None:
    task, state = hard("visual_analogy", 2)
    rows = "".join(task.thought(state)).split("\n")
    at = next(number for number, row in enumerate(rows) if row.startswith("B: "))
    words = ("circle", "triangle", "rectangle", "black", "dark", "grey", "light", "small")
    item = next(word for word in words if word in rows[at])
    rows[at] = rows[at].replace(item, "vertical")
    finding = found(task, state, "\n".join(rows) + task.answer(state))
    assert finding.shares["trace"] and not finding.shares["exact_match"]
    values = task.option_values(state, "\n".join(rows) + task.answer(state))
    assert values[0] and values[2] and values[3]
    assert not task.option_values(state, "\n".join(rows[:at]))[1]


def write(path: Path, predictions: list[Prediction]) -> Path:
    path.write_text("".join(json.dumps(p.to_json()) + "\n" for p in predictions))
    return path


def predict(problem: Problem[Any], response: str, finished: bool = True) -> Prediction:
    return Prediction(problem.id, response, view="image", finished=finished)


def analyzed(tmp_path: Path) -> tuple[Failures, list[Problem[Any]]]:
    task = nano_task()
    problems = [task.sample("hard", "test", index) for index in range(8)]
    responses = [gold(task, p.state) for p in problems[:5]]
    responses += [reading(task, problems[5].state, list(problems[5].state.path), wrong_at=2)]
    responses += [reading(task, problems[6].state, list(problems[6].state.path)[:-1]), "nothing"]
    found = [predict(p, r, r != "nothing") for p, r in zip(problems, responses, strict=True)]
    (cell,) = analyze_files(task, "test", [write(tmp_path / "hard-image.jsonl", found)])
    return cell, problems


def test_files_are_added_up(tmp_path: Path) -> None:
    cell, problems = analyzed(tmp_path)
    assert (cell.level, cell.view, cell.num, cell.cut_off) == ("hard", "image", 8, 1)
    assert cell.incorrect.count == 3 and cell.incorrect.share == 3 / 8
    assert {name: one.count for name, one in cell.failures.items()} == {"misread": 1, "stopped_early": 1, "unparsed": 1}
    assert sum(one.share for one in cell.failures.values()) == pytest.approx(1)
    length = len(problems[6].state.path)
    assert cell.first_errors == {2: 1, length - 1: 1}
    assert cell.first_error.mean == pytest.approx((2 + length - 1) / 2)
    total = sum(len(p.state.path) for p in problems[:7])
    assert (cell.ratios["recall"].numerator, cell.ratios["recall"].denominator) == (total - 1, total)
    assert cell.ratios["precision"].ratio == 1
    assert cell.shares["early"].num == 2
    assert cell.worst == (problems[7].id, problems[5].id, problems[6].id)
    json.dumps(dataclasses.asdict(cell), allow_nan=False)


def test_a_long_simple_path_makes_errors_early() -> None:
    task = nano_task()
    mean_length = failures.simple_length(task)
    low, high = task.sizes.levels["simple"].num_cells
    assert low <= mean_length <= high
    _, state = hard("table_readout")
    early = found(task, state, reading(task, state, list(state.path), wrong_at=int(mean_length) - 1))
    late = found(task, state, reading(task, state, list(state.path), wrong_at=int(mean_length) + 2))
    assert early.shares["early"] and not late.shares["early"]


def test_bad_files_are_named(tmp_path: Path) -> None:
    task = nano_task()
    problem = task.sample("hard", "test", 0)
    damaged = tmp_path / "a.jsonl"
    damaged.write_text('{"id": 3\n{"id": "x"}\n')
    with pytest.raises(ValueError, match=r"a\.jsonl:1"):
        analyze_files(task, "test", [damaged])
    with pytest.raises(ValueError, match="no validation problem"):
        analyze_files(task, "validation", [write(tmp_path / "b.jsonl", [predict(problem, "x")])])
    with pytest.raises(ValueError, match="twice"):
        analyze_files(task, "test", [write(tmp_path / "c.jsonl", [predict(problem, "x")] * 2)])
    with pytest.raises(ValueError, match="task=table_skills: its family has no failures"):
        check_task(nano_task("table_skills"))


def test_intervals() -> None:
    assert share(0, 0).share is None and mean([]).mean is None and mean([3.0]).ci_low is None
    one = mean([1.0, 2.0, 3.0, 4.0])
    assert one.mean == 2.5 and one.ci_high - 2.5 == pytest.approx(3.182446 * 1.2909944 / 2, rel=1e-5)
    whole = ratio([(1, 2), (2, 4), (5, 10)])  # always one half: nothing is uncertain
    assert whole.ratio == 0.5 and whole.ci_low == pytest.approx(0.5) and whole.ci_high == pytest.approx(0.5)
    assert ratio([(0, 0)]).ratio is None
    bounded = ratio([(2, 2), (1, 2), (2, 2)])
    assert bounded.ci_low < 5 / 6 < bounded.ci_high <= 1
    assert ratio([(15, 1), (3, 1)]).ci_high > 9
