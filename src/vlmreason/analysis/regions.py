"""Which pixels of a picture a stretch of the trace is about: path segments, stretches of a search, rows of panels."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vlmreason.tasks.base import Task
from vlmreason.tasks.grid_navigation import MOVES, GridNavigation, GridState, search
from vlmreason.tasks.tables import Cell, TableState, TableTask
from vlmreason.tasks.visual_analogy import LETTERS, AnalogyState, VisualAnalogy

Mask = NDArray[np.bool_]
"""Pixels of a picture, (height, width)."""


@dataclass(frozen=True)
class Stretch:
    """A part of the trace, and the pixels that it is about."""

    name: str
    text: str
    mask: Mask


@dataclass(frozen=True)
class Regions:
    """A trace in stretches, which join to the whole of it, and the regions of its picture by name."""

    stretches: tuple[Stretch, ...]
    masks: Mapping[str, Mask]


def regions(task: Task[Any], state: Any) -> Regions:
    """The regions of a problem.

    Tables: stretches are the straight segments of the path, each with its cells; masks are the path, and the path
    with the names of its rows and columns. Grids: the head with start, destination and objects, then the stretches
    of the search with one target, each with the cells it stands on; the mask is the path. Analogies: rows of panels
    and the options, each with its panels; the mask is all panels. Raises ValueError for another task.
    """
    if isinstance(task, TableTask):
        return _table(task, state)
    if isinstance(task, GridNavigation):
        return _grid(task, state)
    if isinstance(task, VisualAnalogy):
        return _analogy(task, state)
    raise ValueError(
        f"task={task.name}: it is not known where things are in its pictures; tables, grids, analogies are"
    )


def runs(path: Sequence[Cell]) -> list[list[Cell]]:
    """The straight segments of a path as lists of cells; a cell where it turns ends a segment, as does a jump."""
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


def _table(task: TableTask, state: TableState) -> Regions:
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


def _grid(task: GridNavigation, state: GridState) -> Regions:
    side, found = task.sizes.cell, search(state)

    def mask(cells: Iterable[Cell]) -> Mask:
        return _boxes(task.sizes.picture, ((r * side, c * side, side, side) for r, c in cells))

    head, *texts = task.thought(state)
    stretches = [Stretch("head", head, mask([state.start, state.destination, *(cell for _, cell in state.objects)]))]
    targets = itertools.groupby(zip(found.steps, texts, strict=True), lambda pair: pair[0].target)
    for number, (_, pairs) in enumerate(targets, start=1):
        both = list(pairs)
        stretches.append(
            Stretch(f"stretch {number}", "".join(text for _, text in both), mask(step.cell for step, _ in both))
        )
    path = [state.start]
    for move in found.moves:
        path.append((path[-1][0] + MOVES[move][0], path[-1][1] + MOVES[move][1]))
    return Regions(tuple(stretches), {"path": mask(path)})


def _analogy(task: VisualAnalogy, state: AnalogyState) -> Regions:
    side, (one, two, query, options) = task.sizes.panel, task.panel_places()
    places = {"1": one, "2": two, "relation": (*one, *two), "query": query[:2]}
    places |= {letter: (place,) for letter, place in zip(LETTERS, options, strict=True)}

    def mask(corners: Iterable[tuple[int, int]]) -> Mask:
        return _boxes(task.sizes.picture, ((y, x, side, side) for x, y in corners))

    names = {"1": "example 1", "2": "example 2"} | {letter: f"option {letter}" for letter in LETTERS}
    rows = task.thought_rows(state).items()
    stretches = [Stretch(names.get(name, name), "".join(steps), mask(places[name])) for name, steps in rows]
    return Regions(tuple(stretches), {"panels": mask((*one, *two, *query[:2], *options))})


def _boxes(picture: tuple[int, int], boxes: Iterable[tuple[int, int, int, int]]) -> Mask:
    """Pixels within any of the boxes (top, left, height, width) of a picture (width, height)."""
    mask = np.zeros((picture[1], picture[0]), dtype=np.bool_)
    for top, left, height, width in boxes:
        mask[top : top + height, left : left + width] = True
    return mask
