"""What the two table tasks share: the table as state, picture, LaTeX, trace, answer and scorer.

A table has named rows and columns and one digit per cell; a path of cells is to be read out in order
(sections 2.2, C.2, C.3, E.1). Cells are (row, column), counted from 1, without the header.
"""

from __future__ import annotations

import itertools
import random
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Formatter
from typing import ClassVar

from vlmreason.pictures import Picture, blank, text_sprite
from vlmreason.structure import check_choice
from vlmreason.tasks.base import MAX_ATTEMPTS, MAX_RESPONSE_CHARS, Belongs, Modality, Score, Task, choose_wording
from vlmreason.tasks.cells import Cell, cell_name

MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")
SHORT_NAMES = ("alpha", "beta", "gamma", "delta", "zeta", "eta", "theta", "iota", "kappa", "sigma", "tau", "omega")
_NOUNS = ("Lamp", "Chair", "Radio", "Clock", "Kettle", "Mirror", "Basket", "Helmet", "Violin")
PRODUCT_NAMES = tuple(greek.capitalize() + noun for noun in _NOUNS for greek in SHORT_NAMES)
NUMBER_WORDS = ("ZERO", "ONE", "TWO", "THREE", "FOUR", "FIVE", "SIX", "SEVEN", "EIGHT", "NINE")

HEADER, BODY, MARKED = (47, 79, 79), (240, 240, 240), (255, 230, 0)
_MAX_TABLES = 1000  # tables in which a path is looked for before a level counts as unreachable
_MIN_CELL = 4  # pixels

WHITE, BLACK, LINE = (255, 255, 255), (0, 0, 0), (160, 160, 160)


@dataclass(frozen=True)
class Limits:
    """What a level allows: numbers of cells on the path and of straight segments, both ends included."""

    num_cells: tuple[int, int]
    num_segments: tuple[int, int] = (1, 1000)


@dataclass(frozen=True)
class TableSizes:
    """Ranges include both ends. `picture` is width and height in pixels; `row_names` short or product."""

    rows: tuple[int, int]
    cols: tuple[int, int]
    picture: tuple[int, int]
    font: int
    row_names: str
    levels: dict[str, Limits]


@dataclass(frozen=True)
class TableState:
    row_names: tuple[str, ...]
    col_names: tuple[str, ...]
    values: tuple[tuple[int, ...], ...]
    path: tuple[Cell, ...]

    def value(self, cell: Cell) -> int:
        return self.values[cell[0] - 1][cell[1] - 1]

    @property
    def readout(self) -> list[int]:
        return [self.value(cell) for cell in self.path]


def check_table(table: TableState, name: str) -> None:
    """Check that a table from a file has a name for each row and column and holds its path. Raises ValueError."""
    num_rows, num_cols = len(table.row_names), len(table.col_names)
    if len(table.values) != num_rows or any(len(row) != num_cols for row in table.values):
        raise ValueError(f"problem of {name}: {num_rows} x {num_cols} values are expected, one of each row and column")
    if any(not (1 <= row <= num_rows and 1 <= col <= num_cols) for row, col in table.path):
        raise ValueError(f"problem of {name}: the path leaves the table")


@dataclass(frozen=True)
class TableWording:
    """Templates. A step begins with the cell's coordinates and ends with its value: the scorer relies on it.

    The verbose steps name row and column, as the paper's do. The terse ones leave the names out, because the nano
    base hardly reads them; `task.wording.step="{cell} {row} {col} {value} "` brings them back.
    """

    prompt_text: str
    prompt_image: str
    convert: str
    step: str
    answer: str
    value_joint: str


WORDINGS: Mapping[str, TableWording] = {
    "terse": TableWording(
        prompt_text="{text}\nRead {kind} from {start} to {end}.",
        prompt_image="Read {kind} from {start} to {end}.",
        convert="Convert the picture to LaTeX:",
        step="{cell} {value} ",
        answer="Answer: {values} Sum: {sum}",
        value_joint=" ",
    ),
    "verbose": TableWording(
        prompt_text="Here is a table as LaTeX code.\n{text}\n"
        "Beginning at cell {start} and ending at cell {end}, read the numbers on {kind} one after the other. "
        "A cell is (row, column), without the header and counted from 1. "
        "For every cell say where it is, what its row and column are called and what it holds; "
        "then list the numbers and give their sum.",
        prompt_image="The picture shows a table whose numbers are written as words. "
        "Beginning at cell {start} and ending at cell {end}, read the numbers on {kind} one after the other. "
        "A cell is (row, column), without the header and counted from 1. "
        "For every cell say where it is, what its row and column are called and what it holds; "
        "then list the numbers and give their sum.",
        convert="Convert the table in the picture to LaTeX code.",
        step="{cell} is in row {row} and column {col}, and the number there is {value}\n",
        answer="Answer: the numbers are {values}. Sum: {sum}",
        value_joint=", ",
    ),
}


class TableTask(Task[TableState]):
    """A table task; subclasses draw the path and say how the path is called and whether the text marks it."""

    state_type = TableState
    explained = True
    sizes_type: ClassVar[type] = TableSizes
    wordings: ClassVar[Mapping[str, TableWording]] = WORDINGS
    kind: ClassVar[str]
    marks_text: ClassVar[bool]

    def __init__(self, sizes: TableSizes, trace: str = "terse", wording: Mapping[str, str] | None = None) -> None:
        self.sizes = sizes
        self.wording: TableWording = choose_wording(self.wordings, trace, wording or {})
        for name, template in (wording or {}).items():
            _check_template(name, template, self.wordings)
        names = {"short": SHORT_NAMES, "product": PRODUCT_NAMES}
        check_choice("task.row_names", sizes.row_names, names)
        self._names = names[sizes.row_names]
        if missing := [level for level in self.levels if level not in sizes.levels]:
            raise ValueError(f"task sizes of {self.name}: no limits for level {missing[0]}")
        for what, (low, high), most in (("rows", sizes.rows, len(self._names)), ("cols", sizes.cols, len(MONTHS))):
            if not 1 <= low <= high <= most:
                raise ValueError(f"{what}={[low, high]}: allowed is a range within 1 to {most}")
        width, height = sizes.picture
        if width // (sizes.cols[1] + 1) < _MIN_CELL or height // (sizes.rows[1] + 1) < _MIN_CELL:
            raise ValueError(f"picture={[width, height]}: cells of {_MIN_CELL} pixels or more are expected")
        for level, limits in sizes.levels.items():
            for what in ("num_cells", "num_segments"):
                low, high = getattr(limits, what)
                if not 1 <= low <= high:
                    raise ValueError(f"levels.{level}.{what}={[low, high]}: a range from 1 or more upwards is expected")

    def state_from_json(self, data: object) -> TableState:
        state = super().state_from_json(data)
        check_table(state, self.name)
        return state

    @abstractmethod
    def _path(self, level: str, rng: random.Random, rows: int, cols: int) -> tuple[Cell, ...] | None:
        """A path of the level in a table of rows x cols, or None where this attempt gave none."""

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> TableState:
        fits = self.sizes.levels[level].num_cells[0] <= self.sizes.rows[1] * self.sizes.cols[1]
        for _ in range(_MAX_TABLES if fits else 0):
            rows, cols = rng.randint(*self.sizes.rows), rng.randint(*self.sizes.cols)
            path = self._path(level, rng, rows, cols)
            if path is not None:
                break
        else:
            limits = self.sizes.levels[level]
            (least, most), runs = limits.num_cells, limits.num_segments
            straight = f" and {runs[0]} to {runs[1]} segments" if runs != Limits.num_segments else ""
            raise self.unreachable(
                level,
                f"no path of {least} to {most} cells{straight} was found in tables of "
                f"{self.sizes.rows[0]}-{self.sizes.rows[1]} rows and {self.sizes.cols[0]}-{self.sizes.cols[1]} columns",
            )
        return self._fill(rng, rows, cols, path, belongs)

    def _fill(self, rng: random.Random, rows: int, cols: int, path: tuple[Cell, ...], belongs: Belongs) -> TableState:
        row_names = tuple(rng.sample(self._names, rows))
        col_names = tuple(rng.sample(MONTHS, cols))
        for _ in range(MAX_ATTEMPTS):
            values = rng.choices(range(10), k=rows * cols)
            if belongs(values):
                table = tuple(tuple(values[r * cols : (r + 1) * cols]) for r in range(rows))
                return TableState(row_names, col_names, table, path)
        raise ValueError(f"tables of {rows} x {cols} cells are too few to be divided into splits")

    def key(self, state: TableState) -> object:
        return [value for row in state.values for value in row]

    def draw(self, state: TableState) -> Picture:
        width, height = self.sizes.picture
        cols, (cell_h, cell_w) = len(state.col_names), self.cell_size(state)
        size = self.sizes.font
        picture = blank(height, width, WHITE)

        def paste(row: int, col: int, text: str, background: tuple[int, int, int], header: bool) -> None:
            fill = WHITE if header else BLACK
            sprite = text_sprite(text, size, fill, background, header, cell_w, cell_h, LINE)
            picture[row * cell_h : (row + 1) * cell_h, col * cell_w : (col + 1) * cell_w] = sprite

        marked = set(state.path)
        paste(0, 0, "", HEADER, True)
        for c, name in enumerate(state.col_names, start=1):
            paste(0, c, name, HEADER, True)
        for r, name in enumerate(state.row_names, start=1):
            paste(r, 0, name, HEADER, True)
            for c in range(1, cols + 1):
                color = MARKED if (r, c) in marked else BODY
                paste(r, c, NUMBER_WORDS[state.value((r, c))], color, False)
        return picture

    def cell_size(self, state: TableState) -> tuple[int, int]:
        """Return height and width of a cell of the picture (px); cell (r, c) begins r heights below and c widths
        right."""
        width, height = self.sizes.picture
        rows, cols = max(len(state.row_names), self.sizes.rows[1]), max(len(state.col_names), self.sizes.cols[1])
        return height // (rows + 1), width // (cols + 1)

    def text(self, state: TableState) -> str:
        return latex_table(state, set(state.path) if self.marks_text else set())

    def prompt(self, state: TableState, modality: Modality) -> str:
        template = self.wording.prompt_text if modality == "text" else self.wording.prompt_image
        start, end = cell_name(state.path[0]), cell_name(state.path[-1])
        text = self.text(state) if modality == "text" else ""
        return template.format(text=text, kind=self.kind, start=start, end=end)

    def convert(self, state: TableState) -> str:
        return self.wording.convert

    def thought(self, state: TableState) -> list[str]:
        return [
            self.wording.step.format(
                cell=cell_name(cell),
                row=state.row_names[cell[0] - 1],
                col=state.col_names[cell[1] - 1],
                value=state.value(cell),
            )
            for cell in state.path
        ]

    def answer(self, state: TableState) -> str:
        values = state.readout
        joined = self.wording.value_joint.join(map(str, values))
        return self.wording.answer.format(values=joined, sum=sum(values))

    def score(self, state: TableState, response: str) -> Score:
        """Return exact list in order, from the answer or from the trace: the better counts (appendix E.1)."""
        gold = state.readout
        listed, total = read_answer(response)
        traced = read_trace(response)
        in_answer, in_trace = listed == gold, traced == gold
        return Score(
            correct=in_answer or in_trace,
            parsed=bool(listed or traced),
            parts={
                "answer_list": float(in_answer),
                "trace_list": float(in_trace),
                "sum": float(total == sum(gold)),
            },
        )


def _check_template(name: str, template: str, wordings: Mapping[str, TableWording]) -> None:
    """A replaced template may use what one of the shipped ones uses: {cell} and the like."""
    shipped = "".join(getattr(wording, name) for wording in wordings.values())
    known = sorted({field for _, field, _, _ in Formatter().parse(shipped) if field})
    try:
        template.format(**dict.fromkeys(known, ""))
    except (LookupError, ValueError, AttributeError):
        allowed = ", ".join(f"{{{field}}}" for field in known) or "none"
        raise ValueError(f"task.wording.{name}={template!r}: fields in braces may be {allowed}") from None


def latex_table(state: TableState, marked: set[Cell]) -> str:
    """Return a LaTeX tabular. Only the marked cells depend on `marked`: the column specification never does."""
    lines = ["\\begin{tabular}{" + "c" * (len(state.col_names) + 1) + "}"]
    lines.append("".join(f" & {name}" for name in state.col_names) + " \\\\")
    for r, name in enumerate(state.row_names, start=1):
        cells = ("\\cellcolor{yellow}" * ((r, c) in marked) + str(v) for c, v in enumerate(state.values[r - 1], 1))
        lines.append(name + "".join(f" & {cell}" for cell in cells) + " \\\\")
    lines.append("\\end{tabular}")
    return "\n".join(lines)


def segments(path: Sequence[Cell]) -> list[tuple[Cell, int]]:
    """Return the straight segments of a path as (direction, number of steps)."""
    runs: list[tuple[Cell, int]] = []
    for (r, c), (s, d) in itertools.pairwise(path):
        direction = (s - r, d - c)
        if runs and runs[-1][0] == direction:
            runs[-1] = (direction, runs[-1][1] + 1)
        else:
            runs.append((direction, 1))
    return runs


_ANSWER = re.compile(r"answer\s*:", re.IGNORECASE)
_SUM = re.compile(r"\b(?:sum|total)\b", re.IGNORECASE)
_CELL = re.compile(r"\(\s*[0-9]{1,3}\s*,\s*[0-9]{1,3}\s*\)")
_INTEGER = re.compile(r"-?[0-9]{1,9}")


def _solution(response: str) -> str:
    """The response behind a conversion, capped in length."""
    return response[:MAX_RESPONSE_CHARS].rpartition("\\end{tabular}")[2]


def read_answer(response: str) -> tuple[list[int], int | None]:
    """Return the listed numbers and the sum behind the last "Answer:"; without a marker and a trace, all of the
    text."""
    solution = _solution(response)
    marks = list(_ANSWER.finditer(solution))
    if marks:
        solution = solution[marks[-1].end() :]
    elif _CELL.search(solution):
        return [], None
    split = _SUM.search(solution)
    listed = solution[: split.start()] if split else solution
    total = _INTEGER.search(solution, split.end()) if split else None
    return [int(n) for n in _INTEGER.findall(listed)], int(total.group()) if total else None


def read_trace(response: str) -> list[int]:
    """Return the last number behind each cell's coordinates, up to the answer; [] where a cell has none."""
    values = [value for _, value in read_cells(response)]
    return [] if None in values else [value for value in values if value is not None]


def read_cells(response: str) -> list[tuple[Cell, int | None]]:
    """Return each cell of the trace with the last number behind its coordinates (None: there is none), up to the
    answer."""
    solution = _solution(response)
    marks = list(_ANSWER.finditer(solution))
    if marks:
        solution = solution[: marks[-1].start()]
    found: list[tuple[Cell, int | None]] = []
    starts = list(_CELL.finditer(solution))
    for match, after in itertools.zip_longest(starts, starts[1:]):
        numbers = _INTEGER.findall(solution, match.end(), after.start() if after else len(solution))
        row, col = map(int, _INTEGER.findall(match.group()))
        found.append(((row, col), int(numbers[-1]) if numbers else None))
    return found


def read_listed_cells(response: str) -> list[Cell]:
    """Return the cells behind the last "Answer:"; [] where there is none."""
    marks = list(_ANSWER.finditer(solution := _solution(response)))
    listed = _CELL.findall(solution, marks[-1].end()) if marks else []
    return [(row, col) for row, col in (map(int, _INTEGER.findall(cell)) for cell in listed)]
