"""Consecutive Table Readout (section C.2): read all numbers between two cells in row-major order.

Downwards each row is read from left to right, upwards from right to left, within one row from the start to
the end. The picture marks the cells, the text does not: the prompt names both ends.
"""

from __future__ import annotations

import random

from vlmreason.tasks.cells import Cell
from vlmreason.tasks.tables.base import TableTask


class ConsecutiveTableReadout(TableTask):
    name = "consecutive_table_readout"
    version = 1
    levels = ("simple", "medium", "hard")
    kind = "all cells"
    marks_text = False

    def _path(self, level: str, rng: random.Random, rows: int, cols: int) -> tuple[Cell, ...] | None:
        low, high = self.sizes.levels[level].num_cells
        high = min(high, rows * cols)
        if low > high:
            return None
        num_cells = rng.randint(low, high)
        first = rng.randrange(rows * cols - num_cells + 1)
        order = range(first, first + num_cells)
        path = tuple((n // cols + 1, n % cols + 1) for n in order)
        return path if rng.random() < 0.5 else path[::-1]
