"""Failures on tables (appendix K.1): where a readout first errs, what it lists, which shortcuts it takes.

The cells are those of the trace; a response without one is judged by the numbers of its answer alone.

- first error: numbers read off correctly before the first mistake. "early" counts incorrect responses whose first
  error comes within the mean length of the simplest level's paths (12 at the paper's sizes).
- precision and recall: cells correctly listed of cells listed, and of cells on the path, wherever in the list they
  stand; a cell that is listed twice is right once.
- shortcut: the list leaves the path and joins it again further on. `skipped_per_shortcut` counts the cells of the
  path in between, `direct` the shortcuts on which no move leads away from the path's end.
"""

from __future__ import annotations

import functools
import itertools
import statistics
from collections.abc import Sequence

from vlmreason.tasks.cells import Cell
from vlmreason.tasks.findings import Finding
from vlmreason.tasks.tables.base import TableState, TableTask, read_answer, read_cells

_NUM_LENGTHS = 200  # problems over which the mean length of the simplest level is taken


def find(task: TableTask, state: TableState, response: str, thought: str) -> Finding:
    """Return `failure` of an incorrect response, at its first error:

    misread (the right cell, another number), skipped (a later cell of the path), repeated (an earlier one),
    left_path (a cell that is not marked), no_such_cell, stopped_early, ran_on (cells behind the path's end),
    wrong_list (no trace), unparsed.
    """
    score = task.score(state, response)
    entries, (listed, total) = read_cells(response), read_answer(response)
    cells = [cell for cell, _ in entries]
    path, where = state.path, {cell: number for number, cell in enumerate(state.path)}
    if entries:
        gold = [(cell, state.value(cell)) for cell in path]
        first_error = _first_difference(entries, gold)
        failure = _failure(state, entries, first_error, where)
    else:
        first_error = _first_difference(listed, state.readout)
        failure = "wrong_list"
    inside = [(cell, value) for cell, value in entries if _inside(state, cell)]
    num_misread = sum(value != state.value(cell) for cell, value in inside)
    num_right = len(set(cells) & set(path))
    taken = shortcuts(path, cells)
    ratios = {}
    if entries:
        ratios = {
            "precision": (float(num_right), float(len(cells))),
            "recall": (float(num_right), float(len(path))),
            "misread_cells": (float(num_misread), float(len(inside))),
            "skipped_per_shortcut": (float(sum(skipped for skipped, _ in taken)), float(len(taken))),
            "direct": (float(sum(direct for _, direct in taken)), float(len(taken))),
        }
    wrong = not (score.correct and score.parsed)
    return Finding(
        correct=not wrong,
        failure=None if not wrong else failure if score.parsed else "unparsed",
        first_error=first_error if wrong and score.parsed else None,
        severity=1 - (first_error if first_error is not None else len(path)) / len(path) if score.parsed else 1.0,
        shares={
            "shortcut": bool(taken) if entries else None,
            "misread": num_misread > 0 if entries else None,
            "reaches_end": cells[-1] == path[-1] if entries else None,
            "early": first_error is not None and first_error < simple_length(task) if wrong and score.parsed else None,
            "list_differs_from_trace": listed != [value for _, value in entries] if entries and listed else None,
            "sum_wrong": total != sum(listed) if listed else None,
        },
        means={"path_cells": float(len(path)), "listed_cells": float(len(cells)) if entries else None},
        ratios=ratios,
    )


@functools.lru_cache(maxsize=16)
def simple_length(task: TableTask) -> float:
    """Return mean number of cells on the paths of the task's first level."""
    problems = (task.sample(task.levels[0], "train", index) for index in range(_NUM_LENGTHS))
    return statistics.fmean(len(problem.state.path) for problem in problems)


def shortcuts(path: Sequence[Cell], cells: Sequence[Cell]) -> list[tuple[int, bool]]:
    """Return (cells of the path that were skipped, whether no move leads away from its end), one per shortcut."""
    where = {cell: number for number, cell in enumerate(path)}
    found, last, since = [], -1, list[Cell]()
    for cell in cells:
        since.append(cell)
        if cell not in where:
            continue
        if where[cell] > last + 1:
            distances = [abs(path[-1][0] - r) + abs(path[-1][1] - c) for r, c in since]
            direct = all(after <= before for before, after in itertools.pairwise(distances))
            found.append((where[cell] - last - 1, direct))
        last, since = where[cell], [cell]
    return found


def _first_difference(given: Sequence[object], gold: Sequence[object]) -> int | None:
    for number, (one, other) in enumerate(itertools.zip_longest(given, gold)):
        if one != other:
            return number
    return None


def _failure(
    state: TableState, entries: Sequence[tuple[Cell, int | None]], first_error: int | None, where: dict[Cell, int]
) -> str:
    if first_error is None:
        return "wrong_list"
    if first_error == len(entries):
        return "stopped_early"
    if first_error == len(state.path):
        return "ran_on"
    cell = entries[first_error][0]
    if not _inside(state, cell):
        return "no_such_cell"
    if cell not in where:
        return "left_path"
    if where[cell] == first_error:
        return "misread"
    return "skipped" if where[cell] > first_error else "repeated"


def _inside(state: TableState, cell: Cell) -> bool:
    return 1 <= cell[0] <= len(state.row_names) and 1 <= cell[1] <= len(state.col_names)
