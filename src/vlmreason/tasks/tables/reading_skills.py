"""Generic skills on tables with a wording that varies, to pretrain the nano model; not a task of any paper.

Lists of cells from one given end to the other in orders that no task asks for, with a table and without one; copies of
digits; look-ups of cells; transcription; marked cells, their neighbours, trails over them. Marks are scattered. Long
lists and trails are of text alone: pictures get the short ones, so that how far what was learned in text carries over
to pictures stays a question. No prompt, answer or whole trace of a task occurs.
"""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

from vlmreason.pictures import Picture
from vlmreason.tasks.base import MAX_ATTEMPTS, MAX_RESPONSE_CHARS, Belongs, Score
from vlmreason.tasks.captions import Captions, Slot, num_patches
from vlmreason.tasks.cells import Cell, cell_name
from vlmreason.tasks.skills import Skills, ask, ends
from vlmreason.tasks.tables.base import MONTHS, TableSizes, TableState, check_table, latex_table, segments
from vlmreason.tasks.tables.table_readout import TableReadout
from vlmreason.tasks.tables.table_skills import marks_beside, names_of, trail_over_marks

ORDERS: Mapping[str, Callable[[Cell], tuple[int, ...]]] = {
    "columns": lambda cell: (cell[1], cell[0]),
    "snake": lambda cell: (cell[0], cell[1] if cell[0] % 2 else -cell[1]),
    "waves": lambda cell: (cell[1], cell[0] if cell[1] % 2 else -cell[0]),
    "mirror": lambda cell: (cell[0], -cell[1]),
    "diagonals": lambda cell: (cell[0] + cell[1], cell[0]),
    "turned": lambda cell: (-cell[1], cell[0]),
    "middle": lambda cell: (cell[0], abs(cell[1] - 3), cell[1]),
    "odd": lambda cell: (cell[0], (cell[1] + 1) % 2, cell[1]),
    "even": lambda cell: (cell[0], cell[1] % 2, cell[1]),
    "rotated": lambda cell: (cell[0], (cell[1] + 2) % 5),
    "below": lambda cell: (-cell[0], cell[1]),
    "sides": lambda cell: (cell[1], abs(cell[0] - 3), cell[0]),
}
"""Ways through all cells; row by row from left to right, a task's own, is none of them."""

MOST_SEGMENTS = 4
"""Straight segments of a path that all marks of a table may form."""

LONGEST, SHORTEST = 25, 6
"""Most cells of a list or trail, and of a short one."""

AGAIN = ("list", "values", "again", "digits", "so", "all")
"""Words that announce the digits of a list once more."""

_ANNOUNCED = re.compile(rf" (?:{'|'.join(AGAIN)}):")

VERBS: Mapping[str, tuple[str, ...]] = {
    "list": ("List", "Give", "Write", "Show", "Tell"),
    "copy": ("Copy", "Repeat", "Echo"),
    "value": ("Value", "Look", "Get"),
    "rows": ("Rows", "Lines"),
    "columns": ("Columns", "Tops"),
    "names": ("Names", "Called"),
    "transcribe": ("Transcribe", "Write", "Render"),
    "marked": ("Marked", "Yellow"),
    "beside": ("Beside", "Next"),
    "trail": ("Trail", "Follow"),
}

SHARES = (0.0, 0.2, 0.4, 0.6)
"""How much of a table is marked."""

NUM_CELLS: Mapping[str, tuple[int, int]] = {
    "value": (4, 22),
    "rows": (4, 12),
    "columns": (4, 12),
    "names": (2, 8),
    "then_value": (2, 8),
    "beside": (3, 8),
}
FEW = (1, 5)
"""Cells of the same look-ups where few are asked for."""


@dataclass(frozen=True)
class ReadingState:
    """A table (its path: the marked cells in reading order) or none, what is asked of it, and the reply."""

    skill: str
    table: TableState | None
    question: str
    reply: str


class TableReadingSkills(Skills[ReadingState]):
    name = "table_reading_skills"
    version = 2
    text_only = ("bare", "copies")
    levels = (
        *text_only,
        *("list", "short_list", "value", "rows", "columns", "names", "transcribe", "then_value"),
        *("few_values", "few_rows", "few_columns", "few_names"),
        *("marked", "few_marked", "beside", "trail", "short_trail", "trail_to", "short_trail_to"),
    )
    state_type = ReadingState
    sizes_type: ClassVar[type] = TableSizes

    def __init__(self, sizes: TableSizes, trace: str = "terse", wording: Mapping[str, str] | None = None) -> None:
        self.sizes = sizes
        self._tables = TableReadout(sizes, trace, wording)

    def state_from_json(self, data: object) -> ReadingState:
        state = super().state_from_json(data)
        if state.table is not None:
            check_table(state.table, self.name)
        if (state.table is None) != (state.skill in self.text_only):
            raise ValueError(f"problem of {self.name}: a table is expected, unless skill is of {self.text_only}")
        return state

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> ReadingState:
        if level not in self.text_only:
            table = self._table(level, rng, belongs)
            return ReadingState(level, table, *_REPLIES[level](rng, table))
        rows, cols = self.sizes.rows[1], self.sizes.cols[1]
        for _ in range(MAX_ATTEMPTS):
            question, reply = _bare(rng, rows, cols) if level == "bare" else _copies(rng, rows, cols)
            if belongs(question):
                return ReadingState(level, None, question, reply)
        raise self.unreachable(level, "the questions are too few to be divided into splits")

    def _table(self, level: str, rng: random.Random, belongs: Belongs) -> TableState:
        """A table with scattered marks: some where the skill needs one, few where few are to be found."""
        rows, cols = rng.randint(*self.sizes.rows), rng.randint(*self.sizes.cols)
        every, trails = _every(rows, cols), level.removeprefix("short_").startswith("trail")
        for _ in range(MAX_ATTEMPTS):
            share = rng.choice(SHARES[1:] if trails or level == "beside" else SHARES)
            marked = tuple(cell for cell in every if rng.random() < share)
            if level == "few_marked" and len(marked) > SHORTEST:
                continue
            table = self._tables._fill(rng, rows, cols, marked, belongs)
            if _holds_a_long_path(table):
                continue
            if not trails or _starts(table, SHORTEST if level.startswith("short") else LONGEST):
                return table
        raise self.unreachable(level, f"no table of {rows} x {cols} cells has marks as the skill needs them")

    def key(self, state: ReadingState) -> object:
        return state.question if state.table is None else self._tables.key(state.table)

    def picture(self, state: ReadingState) -> Picture:
        assert state.table is not None
        return self._tables.draw(state.table)

    def score(self, state: ReadingState, response: str) -> Score:
        """Return match of the whole reply, whichever word announces the digits once more: it is drawn at random."""
        found = (_ANNOUNCED.sub(" :", text.strip()[:MAX_RESPONSE_CHARS]) for text in (response, state.reply))
        return Score(correct=len(set(found)) == 1, parsed=bool(response.strip()))

    def captions(self, patch: int) -> Captions:
        """Return the form: every cell is a patch, a name, a digit, or a digit that is marked; names are free."""
        across, down = num_patches(self.sizes.picture, patch, f"task={self.name}")
        if (across, down) != (self.sizes.cols[1] + 1, self.sizes.rows[1] + 1):
            raise ValueError(f"task={self.name}: a cell is no patch of {patch} px, so patches have no captions")
        num_names = len(self._tables._names) + len(MONTHS)
        names = tuple(i for i in range(1, across * down) if i < across or i % across == 0)
        return Captions(tuple(range(across * down)), (Slot("cell", 1 + num_names + 20),), free=names)

    def caption(self, state: ReadingState) -> tuple[list[list[int]], list[list[int]]]:
        table = state.table
        assert table is not None
        names = (*self._tables._names, *MONTHS)
        first_digit, marked = 1 + len(names), set(table.path)
        found = []
        for row, col in itertools.product(range(self.sizes.rows[1] + 1), range(self.sizes.cols[1] + 1)):
            inside = row <= len(table.row_names) and col <= len(table.col_names)
            if not inside or row == col == 0:
                found.append(0)
            elif row == 0 or col == 0:
                found.append(1 + names.index(table.col_names[col - 1] if row == 0 else table.row_names[row - 1]))
            else:
                found.append(first_digit + table.value((row, col)) + 10 * ((row, col) in marked))
        return [[one] for one in found], [[] for _ in found]

    def text(self, state: ReadingState) -> str:
        return state.question if state.table is None else _latex(state.table)


def _every(rows: int, cols: int) -> list[Cell]:
    return [(r, c) for r in range(1, rows + 1) for c in range(1, cols + 1)]


def _every_of(table: TableState) -> list[Cell]:
    return _every(len(table.row_names), len(table.col_names))


def _holds_a_long_path(table: TableState) -> bool:
    """Whether a single trail with more than four straight segments takes in all marks, as in hard problems."""
    trails = (trail_over_marks(table, cell) for cell in table.path)
    return any(len(trail) == len(table.path) and len(segments(trail)) > MOST_SEGMENTS for trail in trails)


def _latex(table: TableState) -> str:
    return latex_table(table, set(table.path))


def _listed(cells: list[Cell]) -> list[str]:
    return [cell_name(cell) for cell in cells]


def _pairs(table: TableState, cells: list[Cell]) -> str:
    return " ".join(f"{cell_name(cell)} {table.value(cell)}" for cell in cells)


def _way(rng: random.Random, every: list[Cell], most: int) -> tuple[list[str], list[Cell]]:
    """An order with the ends of a list, as parts of a question, and its cells; either way round."""
    order = rng.choice(list(ORDERS))
    num = rng.randint(1, min(most, len(every)))
    first = rng.randrange(len(every) - num + 1)
    cells = sorted(every, key=ORDERS[order])[first : first + num]
    if rng.random() < 0.5:
        cells.reverse()
    parts = [order, ends(rng, cell_name(cells[0]), cell_name(cells[-1]))]
    return parts[::-1] if rng.random() < 0.3 else parts, cells


def _bare(rng: random.Random, rows: int, cols: int) -> tuple[str, str]:
    """A list of cells without a table; in half of them a digit of the prompt stands behind every cell."""
    parts, cells = _way(rng, _every(rows, cols), LONGEST)
    if rng.random() < 0.5:
        digit = rng.randrange(10)
        return ask(rng, VERBS["list"], *parts, f"with {digit}"), " ".join(f"{one} {digit}" for one in _listed(cells))
    return ask(rng, VERBS["list"], *parts), " ".join(_listed(cells))


def _copies(rng: random.Random, rows: int, cols: int) -> tuple[str, str]:
    """Digits once more: plain, or those of cells with digits; of the prompt or of what was just written."""
    every = _every(rows, cols)
    num = rng.randint(1, min(LONGEST, len(every)) if rng.random() < 0.4 else SHORTEST)
    digits = [rng.randrange(10) for _ in range(num)]
    plain, kind = " ".join(map(str, digits)), rng.random()
    if kind < 0.35:
        return ask(rng, VERBS["copy"], plain), plain
    named = zip(_listed(rng.sample(every, num)), digits, strict=True)
    full = " ".join(f"{name} {digit}" for name, digit in named)
    question = ask(rng, VERBS["copy"], full)
    return question, plain if kind < 0.7 else f"{full} {rng.choice(AGAIN)}: {plain}"


def _list(most: int) -> Callable[[random.Random, TableState], tuple[str, str]]:
    """A list with values; in some the digits are written once more behind it."""

    def reply(rng: random.Random, table: TableState) -> tuple[str, str]:
        parts, cells = _way(rng, _every_of(table), most)
        again = rng.random() < 0.5
        found = _pairs(table, cells)
        if again:
            found += f" {rng.choice(AGAIN)}: " + " ".join(str(table.value(cell)) for cell in cells)
        return ask(rng, VERBS["copy" if again else "list"], *parts), found

    return reply


def _look_up(
    skill: str, write: Callable[[TableState, Cell], str], few: bool = False
) -> Callable[[random.Random, TableState], tuple[str, str]]:
    def reply(rng: random.Random, table: TableState) -> tuple[str, str]:
        cells = _some(rng, table, FEW if few else NUM_CELLS[skill])
        found = " ".join(f"{cell_name(cell)} {write(table, cell)}" for cell in cells)
        return ask(rng, VERBS[skill], *_listed(cells)), found

    return reply


def _some(rng: random.Random, table: TableState, num: tuple[int, int]) -> list[Cell]:
    return rng.sample(_every_of(table), min(rng.randint(*num), len(_every_of(table))))


def _transcribe(rng: random.Random, table: TableState) -> tuple[str, str]:
    return ask(rng, VERBS["transcribe"]), _latex(table)


def _then_value(rng: random.Random, table: TableState) -> tuple[str, str]:
    """The table, then values of it: texts that begin where a conversion begins."""
    cells = _some(rng, table, NUM_CELLS["then_value"])
    verb = rng.choice(VERBS["value"]).lower()
    return ask(rng, VERBS["transcribe"], "then", verb, *_listed(cells)), f"{_latex(table)}\n{_pairs(table, cells)}"


def _marked(rng: random.Random, table: TableState) -> tuple[str, str]:
    return ask(rng, VERBS["marked"]), _pairs(table, list(table.path)) or "none"


def _starts(table: TableState, most: int) -> list[Cell]:
    """The marked cells from which a trail has at most so many cells."""
    return [cell for cell in table.path if len(trail_over_marks(table, cell)) <= most]


def _trail(most: int, to: bool = False) -> Callable[[random.Random, TableState], tuple[str, str]]:
    """A trail from a cell on; `to`: the question names its last cell too, as that of a list does."""

    def reply(rng: random.Random, table: TableState) -> tuple[str, str]:
        start = rng.choice(_starts(table, most))
        trail = trail_over_marks(table, start)
        asked = ends(rng, cell_name(start), cell_name(trail[-1])) if to else cell_name(start)
        return ask(rng, VERBS["trail"], asked), _pairs(table, trail)

    return reply


_WRITTEN: Mapping[str, Callable[[TableState, Cell], str]] = {
    "value": lambda table, cell: str(table.value(cell)),
    "rows": lambda table, cell: table.row_names[cell[0] - 1],
    "columns": lambda table, cell: table.col_names[cell[1] - 1],
    "names": names_of,
}
_REPLIES: Mapping[str, Callable[[random.Random, TableState], tuple[str, str]]] = {
    "list": _list(LONGEST),
    "short_list": _list(SHORTEST),
    **{skill: _look_up(skill, write) for skill, write in _WRITTEN.items()},
    **{f"few_{skill.removesuffix('s')}s": _look_up(skill, write, few=True) for skill, write in _WRITTEN.items()},
    "transcribe": _transcribe,
    "then_value": _then_value,
    "marked": _marked,
    "few_marked": _marked,
    "beside": _look_up("beside", lambda table, cell: f"{marks_beside(table, cell)};"),
    "trail": _trail(LONGEST),
    "short_trail": _trail(SHORTEST),
    "trail_to": _trail(LONGEST, to=True),
    "short_trail_to": _trail(SHORTEST, to=True),
}
