"""Regions of a grid: the cells of the path, objects, obstacles, the rest."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from vlmreason.tasks.cells import Cell
from vlmreason.tasks.grids.grid_navigation import GridNavigation
from vlmreason.tasks.grids.search import MOVES, GridState, search
from vlmreason.tasks.regions import Mask, Regions, Stretch, _boxes


def regions(task: GridNavigation, state: GridState) -> Regions:
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
