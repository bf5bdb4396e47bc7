"""Generic skills on tables, to pretrain the nano model; not a task of any paper.

One skill per level. Tables here carry marks on scattered cells, never a task's path; walks go where the prompt
says, trails over whatever is marked; no prompt, answer or whole trace of a task occurs. A reply names a cell by
its coordinates before its content, because that order is what lets a small model learn the look-up by row and
column; the terse trace of the table tasks writes a cell in the same way.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from vlmreason.pictures import Picture
from vlmreason.tasks.base import Belongs, Modality, Score, Task
from vlmreason.tasks.cells import Cell, cell_name
from vlmreason.tasks.tables.base import TableSizes, TableState, check_table, latex_table
from vlmreason.tasks.tables.table_readout import TableReadout

MOVES: Mapping[str, Cell] = {"right": (0, 1), "down": (1, 0), "left": (0, -1), "up": (-1, 0)}


@dataclass(frozen=True)
class SkillState:
    """A table (its path: the marked cells in reading order), the cells asked for, and moves of a walk."""

    skill: str
    table: TableState
    cells: tuple[Cell, ...]
    moves: tuple[str, ...]


class TableSkills(Task[SkillState]):
    name = "table_skills"
    version = 1
    levels = (
        *("value", "names", "row", "entry", "find", "transcribe", "copy"),
        *("marked", "count", "around", "beside", "walk", "visit", "trail"),
    )
    state_type = SkillState
    sizes_type: ClassVar[type] = TableSizes

    def __init__(self, sizes: TableSizes, trace: str = "terse", wording: Mapping[str, str] | None = None) -> None:
        self.sizes = sizes
        self._tables = TableReadout(sizes, trace, wording)

    def state_from_json(self, data: object) -> SkillState:
        state = super().state_from_json(data)
        check_table(state.table, self.name)
        return state

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> SkillState:
        rows, cols = rng.randint(*self.sizes.rows), rng.randint(*self.sizes.cols)
        every = [(r, c) for r in range(1, rows + 1) for c in range(1, cols + 1)]
        share = rng.choice((0.0, 0.2, 0.4, 0.6))
        marked = tuple(cell for cell in every if rng.random() < share)
        table = self._tables._fill(rng, rows, cols, marked, belongs)
        moves: tuple[str, ...] = ()
        if level in ("walk", "visit"):
            cells, moves = _walk(rng, rows, cols, num_cells=rng.randint(2, 20))
        elif level == "trail":
            cells = (rng.choice(marked or tuple(every)),)
        elif level == "row":
            r, c = rng.randint(1, rows), rng.randint(1, cols)
            line = [(r, k) for k in range(1, cols + 1)] if rng.random() < 0.5 else [(k, c) for k in range(1, rows + 1)]
            cells = tuple(line)
        else:
            num = {
                "value": (4, 16),
                "names": (4, 12),
                "entry": (2, 12),
                "find": (2, 8),
                "around": (2, 6),
                "beside": (6, 14),
                "copy": (3, 16),
            }.get(level)
            cells = tuple(rng.sample(every, min(len(every), rng.randint(*num)))) if num else ()
        return SkillState(level, table, cells, moves)

    def key(self, state: SkillState) -> object:
        return self._tables.key(state.table)

    def draw(self, state: SkillState) -> Picture:
        return self._tables.draw(state.table)

    def text(self, state: SkillState) -> str:
        return latex_table(state.table, set(state.table.path))

    def prompt(self, state: SkillState, modality: Modality) -> str:
        question = self._question(state)
        return f"{self.text(state)}\n{question}" if modality == "text" else question

    def _question(self, state: SkillState) -> str:
        cells = " ".join(map(cell_name, state.cells))
        match state.skill:
            case "find":
                return "Find " + " ".join(names_of(state.table, cell) for cell in state.cells)
            case "transcribe" | "marked" | "count":
                return state.skill.capitalize()
            case "row":
                return f"Row {cell_name(state.cells[0])} {cell_name(state.cells[-1])}"
            case "trail":
                return f"Trail {cells}"
            case "walk" | "visit":
                return f"{state.skill.capitalize()} {cell_name(state.cells[0])} {' '.join(state.moves)}"
            case skill:
                return f"{skill.capitalize()} {cells}"

    def convert(self, state: SkillState) -> str:
        return "Transcribe"

    def thought(self, state: SkillState) -> list[str]:
        return []

    def answer(self, state: SkillState) -> str:
        table = state.table
        match state.skill:
            case "value" | "row" | "walk":
                return " ".join(f"{cell_name(cell)} {table.value(cell)}" for cell in state.cells)
            case "names":
                return " ".join(f"{cell_name(cell)} {names_of(table, cell)}" for cell in state.cells)
            case "entry" | "visit":
                return " ".join(f"{cell_name(c)} {table.value(c)} {names_of(table, c)}" for c in state.cells)
            case "find":
                return " ".join(f"{names_of(table, c)} {cell_name(c)} {table.value(c)}" for c in state.cells)
            case "transcribe":
                return self.text(state)
            case "marked":
                return " ".join(f"{cell_name(cell)} {table.value(cell)}" for cell in table.path) or "none"
            case "count":
                return str(len(table.path))
            case "trail":
                return " ".join(
                    f"{cell_name(cell)} {table.value(cell)}" for cell in trail_over_marks(table, state.cells[0])
                )
            case "beside":
                return " ".join(f"{cell_name(cell)} {marks_beside(table, cell)};" for cell in state.cells)
            case "copy":
                entries = " ".join(f"{cell_name(cell)} {table.value(cell)}" for cell in state.cells)
                return f"{entries} : {' '.join(str(table.value(cell)) for cell in state.cells)}"
            case _:
                return " ".join(f"{cell_name(cell)} {_around(table, cell)}" for cell in state.cells)

    def score(self, state: SkillState, response: str) -> Score:
        """Return exact match of the whole reply."""
        return Score(correct=response.strip() == self.answer(state), parsed=bool(response.strip()))


def names_of(table: TableState, cell: Cell) -> str:
    return f"{table.row_names[cell[0] - 1]} {table.col_names[cell[1] - 1]}"


def _around(table: TableState, cell: Cell) -> str:
    """The directions in which a marked cell lies next to `cell`."""
    marked = set(table.path)
    found = [move for move, (dr, dc) in MOVES.items() if (cell[0] + dr, cell[1] + dc) in marked]
    return " ".join(found) or "none"


def marks_beside(table: TableState, cell: Cell) -> str:
    """Name the marked cells next to `cell`."""
    marked = set(table.path)
    beside = [(cell[0] + dr, cell[1] + dc) for dr, dc in MOVES.values()]
    return " ".join(cell_name(one) for one in beside if one in marked) or "none"


def trail_over_marks(table: TableState, start: Cell) -> list[Cell]:
    """Go from a cell on to marked neighbours not yet visited, in the order of MOVES, until there is none."""
    marked, trail = set(table.path), [start]
    while True:
        r, c = trail[-1]
        steps = ((r + dr, c + dc) for dr, dc in MOVES.values())
        following = next((cell for cell in steps if cell in marked and cell not in trail), None)
        if following is None:
            return trail
        trail.append(following)


def _walk(rng: random.Random, rows: int, cols: int, num_cells: int) -> tuple[tuple[Cell, ...], tuple[str, ...]]:
    """A walk of single moves that stays inside, keeps its direction for a while and may cross itself."""
    cell = (rng.randint(1, rows), rng.randint(1, cols))
    cells, moves, move = [cell], [], rng.choice(list(MOVES))
    while len(cells) < num_cells:
        target = (cell[0] + MOVES[move][0], cell[1] + MOVES[move][1])
        if not (1 <= target[0] <= rows and 1 <= target[1] <= cols):
            move = rng.choice(list(MOVES))
            continue
        cell = target
        cells.append(cell)
        moves.append(move)
        if rng.random() < 0.3:
            move = rng.choice(list(MOVES))
    return tuple(cells), tuple(moves)
