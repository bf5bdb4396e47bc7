"""Regions of a table: the cells of the path, their rows and columns, names, the rest."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence

from vlmreason.tasks.cells import Cell
from vlmreason.tasks.regions import Mask, Regions, Stretch, _boxes
from vlmreason.tasks.tables.base import TableState, TableTask


def runs(path: Sequence[Cell]) -> list[list[Cell]]:
    """Return the straight segments of a path as lists of cells; a cell where it turns ends a segment, as does a
    jump."""
    found, direction = [[path[0]]], None
    for (r, c), (s, d) in itertools.pairwise(path):
        step = (s - r, d - c)
        jump = abs(step[0]) + abs(step[1]) != 1
        if not jump and direction in (None, step):
            found[-1].append((s, d))
        else:
            found.append([(s, d)])
        direction = None if jump else step
    return found


def regions(task: TableTask, state: TableState) -> Regions:
    height, width = task.cell_size(state)

    def mask(cells: Iterable[Cell]) -> Mask:
        return _boxes(task.sizes.picture, ((r * height, c * width, height, width) for r, c in cells))

    steps = iter(task.thought(state))
    stretches = [
        Stretch(f"segment {number}", "".join(next(steps) for _ in run), mask(run))
        for number, run in enumerate(runs(state.path), start=1)
    ]
    names = [cell for r, c in state.path for cell in ((r, 0), (0, c))]
    return Regions(tuple(stretches), {"path": mask(state.path), "path_and_names": mask([*state.path, *names])})
