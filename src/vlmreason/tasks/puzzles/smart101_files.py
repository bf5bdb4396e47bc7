"""The folders of SMART-101 as they were released, read as what they are: untrusted, and with quirks.

    <root>/puzzle_type_info.csv                    puzzle_id,type: the skills, checked where the file is there
    <root>/SMART_info_v2.csv                       id,...,difficulty,...: how much a puzzle counts in weighted accuracy
    <root>/icon-classes.txt                        the icons, by which puzzle 1 is answered
    <root>/SMART101-Data/<id>/puzzle_<id>.csv      id,Question,image,A,B,C,D,E,Answer,Note
    <root>/SMART101-Data/<id>/img/<image>

Folder 62 holds puzzle_63.csv; rows may have one field more than the head; five empty options are in the picture and
become the letters. What cannot be used is a `Fault` with its file and row: none is left out without being counted.
"""

from __future__ import annotations

import csv
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from vlmreason.files import read_text
from vlmreason.structure import first_line
from vlmreason.tasks.on_disk import Folder, Limits, shown
from vlmreason.tasks.puzzles.smart101_tables import FILE_OF, FORMS, SKILL_OF, STEPS
from vlmreason.tasks.puzzles.values import OPTIONS, Form

DATA, ICONS, SKILLS = "SMART101-Data", "icon-classes.txt", "puzzle_type_info.csv"
ORIGINALS, DIFFICULTIES = "SMART_info_v2.csv", ("1", "2", "3")
COLUMNS = ("Question", "image", *OPTIONS, "Answer")
MAX_QUESTION = 4000  # characters
MAX_SMALL_FILE = 1_000_000  # bytes of the lists beside the data


@dataclass(frozen=True)
class Instance:
    """A row of a root puzzle, counted from 0. image: path below SMART101-Data. Options are written in one way."""

    puzzle: int
    row: int
    question: str
    image: str
    options: tuple[str, ...]
    letter: str


@dataclass(frozen=True)
class Fault:
    """What cannot be used: a row, or with row None a whole file."""

    file: str
    row: int | None
    why: str

    def __str__(self) -> str:
        return f"{self.file}{'' if self.row is None else f', row {self.row + 1}'}: {self.why}"


@dataclass
class Read:
    """What stands in the folders: instances by puzzle and row, rows of each file, faults, and files with rows that have
    a field too many."""

    instances: dict[int, dict[int, Instance]] = field(default_factory=dict)
    num_rows: dict[int, int] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    longer: list[str] = field(default_factory=list)

    def report(self) -> str:
        """Say in a sentence what was read and what was not."""
        used, rows = sum(map(len, self.instances.values())), sum(self.num_rows.values())
        of_files = sum(fault.row is None for fault in self.faults)
        whole = f", and {of_files} whole files" if of_files else ""
        first = f"; the first: {self.faults[0]}" if self.faults else ""
        return f"{rows - used} of {rows} rows of {len(self.num_rows)} puzzles cannot be used{whole}{first}"


class Smart101Files:
    """The released folders below `root`."""

    def __init__(self, root: Path, limits: Limits) -> None:
        self.root, self.limits = root, limits
        self.folder = Folder(root / DATA, limits, setting="task.data")

    def read(self, puzzles: Sequence[int]) -> Read:
        """Read the rows of these puzzles. Raises ValueError for a folder that is no SMART-101 at all."""
        if not (self.root / DATA).is_dir():
            raise ValueError(f"task.data={self.root}: no folder {DATA} in it; the unpacked SMART-101 is expected")
        self._check_skills()
        found = Read()
        for puzzle in puzzles:
            path = self._file(puzzle)
            name = path.relative_to(self.root).as_posix()
            try:
                self._read_puzzle(puzzle, path, name, self.form(puzzle), found)
            except (ValueError, OSError) as error:
                found.faults.append(Fault(name, None, first_line(error)))
        return found

    def form(self, puzzle: int) -> Form:
        """Return how the answers of a puzzle are written. Raises ValueError without the list of icons."""
        form = FORMS[puzzle]
        if form.type != "icon":
            return form
        lines = read_text(self.root / ICONS, MAX_SMALL_FILE).splitlines()
        return dataclasses.replace(form, names=tuple(dict.fromkeys(line.strip() for line in lines if line.strip())))

    def difficulties(self) -> Mapping[int, str]:
        """Return how difficult the original of each puzzle is, where the table of originals is there. Raises ValueError
        where it says something else."""
        path, found = self.root / ORIGINALS, dict[int, str]()
        if not path.is_file():
            return found
        for number, row in enumerate(csv.DictReader(read_text(path, MAX_SMALL_FILE).splitlines()), start=1):
            puzzle, difficulty = str(row.get("id")).strip(), str(row.get("difficulty")).strip()
            if not (puzzle.isdecimal() and int(puzzle[:9]) in FORMS) or difficulty not in DIFFICULTIES:
                raise ValueError(
                    f"{path}, row {number}: id={shown(puzzle)} difficulty={shown(difficulty)}; a puzzle of SMART-101 "
                    f"with {', '.join(DIFFICULTIES)} is expected"
                )
            found[int(puzzle)] = difficulty
        return found

    def _read_puzzle(self, puzzle: int, path: Path, name: str, form: Form, found: Read) -> None:
        instances: dict[int, Instance] = {}
        num, longer = 0, False
        for row, cells in enumerate(self._rows(path)):
            num = row + 1
            if num > self.limits.max_rows:
                raise ValueError(f"more than {self.limits.max_rows} rows")
            try:
                longer |= _check_cells(cells)
                instances[row] = self._instance(puzzle, row, cells, form)
            except ValueError as error:
                found.faults.append(Fault(name, row, first_line(error)))
        if not num:
            raise ValueError("no row")
        found.instances[puzzle], found.num_rows[puzzle] = instances, num
        if longer:
            found.longer.append(name)

    def _rows(self, path: Path) -> Iterator[Mapping[str | None, object]]:
        if not path.parent.is_dir():
            raise ValueError("no such folder")
        if not path.is_file() or path.is_symlink():
            raise ValueError("no such file")
        if path.stat().st_size > self.limits.max_file_gb * 1e9:
            raise ValueError("more than task.max_file_gb")
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            try:
                head = [name.strip() for name in reader.fieldnames or ()]
                if missing := [name for name in COLUMNS if name not in head]:
                    raise ValueError(f"no column {missing[0]} in its head {shown(','.join(head))}")
                reader.fieldnames = head
                yield from reader
            except (csv.Error, UnicodeDecodeError) as error:
                raise ValueError(f"not CSV ({first_line(error)})") from error

    def _instance(self, puzzle: int, row: int, cells: Mapping[str | None, object], form: Form) -> Instance:
        question, image, *options, letter = (" ".join(str(cells[name]).split()) for name in COLUMNS)
        if not 0 < len(question) <= MAX_QUESTION:
            raise ValueError(f"Question={shown(question)}: a text of at most {MAX_QUESTION} characters is expected")
        if letter not in tuple(OPTIONS):
            raise ValueError(f"Answer={shown(letter)}: one of {', '.join(OPTIONS)} is expected")
        if "/" in image or not image:
            raise ValueError(f"image={shown(image)}: the name of a picture is expected")
        path = f"{puzzle}/img/{image}"
        self.folder.check(path)
        written = tuple(_written(form, option) for option in (options if any(options) else OPTIONS))
        return Instance(puzzle, row, question, path, written, letter)

    def _file(self, puzzle: int) -> Path:
        folder = self.root / DATA / str(puzzle)
        names = (f"puzzle_{puzzle}.csv", FILE_OF.get(puzzle))
        return next((folder / name for name in names if name and (folder / name).exists()), folder / str(names[0]))

    def _check_skills(self) -> None:
        """Raise ValueError where the released table of skills is there and says something else."""
        path = self.root / SKILLS
        if not path.is_file():
            return
        for number, row in enumerate(csv.DictReader(read_text(path, MAX_SMALL_FILE).splitlines()), start=1):
            puzzle, skill = row.get("puzzle_id"), row.get("type")
            if not str(puzzle).isdecimal() or SKILL_OF.get(int(str(puzzle)[:9])) != str(skill).strip():
                raise ValueError(f"{path}, row {number}: {shown(f'{puzzle},{skill}')} is not as SMART-101 has it")


def _check_cells(cells: Mapping[str | None, object]) -> bool:
    """Say whether a row has the one field too many that some files have. Raises ValueError for other numbers."""
    if None in (cells[name] for name in COLUMNS):
        raise ValueError("fewer fields than the head")
    further = cells.get(None)
    if isinstance(further, list) and len(further) > 1:
        raise ValueError(f"{len(further)} fields more than the head")
    return further is not None


def _written(form: Form, option: str) -> str:
    """An option in the one way in which answers of its puzzle are written. Raises ValueError."""
    value = form.read(option)
    if form.is_sequence and len(value) > STEPS:
        raise ValueError(f"{shown(option)}: more than {STEPS} elements")
    return form.write(value)
