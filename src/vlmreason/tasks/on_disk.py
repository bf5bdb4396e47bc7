"""Sets on disk: tasks whose problems are rows of a file, with pictures in a folder; read as what they are: untrusted.

A set is a class below `DiskTask` that says what one row is (`read`) and how such a problem is asked and judged. The
index is JSON (a list), JSON lines or CSV. Sizes, nesting, paths and checksums are checked before anything is used,
pictures are opened when they are drawn, and a message names the file and the record. `Rows`, `Folder` and `Checksums`
are the parts, for sets that need them otherwise (`llava/llava_data.py`).
"""

from __future__ import annotations

import csv
import functools
import hashlib
import itertools
import json
import os
import random
import warnings
from abc import abstractmethod
from array import array
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, Generic, Literal, TypeVar

import numpy as np
from PIL import Image

from vlmreason.files import MAX_JSON_BYTES, has_rest, read_jsonl, read_text
from vlmreason.pictures import Picture, open_picture
from vlmreason.streams import SPLITS, split_of, stream
from vlmreason.structure import check_choice, first_line
from vlmreason.tasks.base import Belongs, State, Task, state_to_json

MAX_SHOWN = 60  # characters of a file's content in a message
_PARTS = 1 << 20  # problems of a row, at most

Row = TypeVar("Row")


@dataclass(frozen=True)
class Limits:
    """What is used of a set. Raises ValueError.

    broken: what is done about rows that cannot be used. The others are what may be at most; max_depth: of lists and
    objects within each other in a row.
    """

    broken: Literal["refuse", "skip"] = "refuse"
    max_file_gb: float = 4.0
    max_megapixels: float = 50.0
    max_rows: int = 10_000_000
    max_depth: int = 32

    def __post_init__(self) -> None:
        check_choice("task.broken", self.broken, ("refuse", "skip"))
        for key in ("max_file_gb", "max_megapixels", "max_rows", "max_depth"):
            if not getattr(self, key) > 0:
                raise ValueError(f"task.{key}={getattr(self, key)}: more than 0 is expected")


class Checksums:
    """A list as `sha256sum` writes it, of files below the folder where it lies; it is read when it is first needed."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def check(self, path: Path) -> None:
        """Raise ValueError for a file that is not as the list has it, or not in it."""
        name = Path(os.path.relpath(path.resolve(), self.path.parent.resolve())).as_posix()
        if name not in self._wanted:
            raise ValueError(f"{name} is not in task.checksums={self.path}")
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != self._wanted[name]:
            raise ValueError(f"{name} is damaged: it is not the file of task.checksums={self.path}")

    @functools.cached_property
    def _wanted(self) -> dict[str, str]:
        try:
            lines = read_text(self.path, MAX_JSON_BYTES).splitlines()
        except ValueError as error:
            raise ValueError(f"task.checksums={error}") from None
        pairs = [line.split(maxsplit=1) for line in lines if line.strip()]
        for number, pair in enumerate(pairs, start=1):
            if len(pair) != 2 or len(pair[0]) != 64:
                raise ValueError(f"task.checksums={self.path}:{number}: a SHA-256 and a name are expected")
        return {PurePosixPath(name.removeprefix("*")).as_posix(): digest.lower() for digest, name in pairs}


class Folder:
    """The folder of pictures, of whose subfolders each is listed once.

    links: whether a name may be a link to somewhere else in the folder; one that leads out of it never may. setting:
    what names the folder.
    """

    def __init__(
        self,
        root: str | Path | None,
        limits: Limits,
        checksums: Checksums | None = None,
        links: bool = False,
        setting: str = "task.images",
    ) -> None:
        self.root = None if root is None else Path(root)
        self.limits, self.checksums, self.links, self.setting = limits, checksums, links, setting
        self._names: dict[Path, set[str]] = {}

    def check(self, name: str) -> None:
        """Raise ValueError unless the picture is there, by name."""
        path = self._path(name)
        folder = path.parent
        if folder not in self._names:
            self._names[folder] = set(os.listdir(folder)) if folder.is_dir() else set()
        if path.name not in self._names[folder]:
            raise ValueError(f"image={shown(name)}: not in {self.setting}={self.root}")

    def picture(self, name: str) -> Image.Image:
        """Open a picture in RGB. Raises ValueError, in one line, where it cannot be read."""
        try:
            path = self.locate(name)
            if self.checksums is not None:
                self.checksums.check(path)
            return open_picture(path, self.limits.max_megapixels, "task.max_megapixels")
        except (OSError, ValueError) as error:
            raise ValueError(f"picture {shown(name)}: {first_line(error)}") from error

    def locate(self, name: str) -> Path:
        """Say where a picture is. Raises ValueError for what is outside of the folder, by a link too, or no file."""
        path = self._path(name)
        assert self.root is not None
        root, found = self.root.resolve(), resolved(path)
        if not found.is_relative_to(root):
            raise ValueError(f"leads out of {self.setting}={self.root}")
        if not self.links and found != root / path.relative_to(self.root):
            raise ValueError("a link, and files are expected")
        if found.exists() and not found.is_file():
            raise ValueError("no regular file")
        return found

    def _path(self, name: str) -> Path:
        if self.root is None:
            raise ValueError(f"{self.setting}: missing, the folder with the pictures")
        pure = PurePosixPath(name)
        if pure.is_absolute() or ".." in pure.parts or not pure.name or "\0" in name or "\\" in name:
            raise ValueError(f"image={shown(name)}: a path below {self.setting} is expected")
        return self.root / pure


def resolved(path: Path) -> Path:
    """Say where a path leads. Raises ValueError for a link that leads back to itself."""
    try:
        return path.resolve()
    except RuntimeError:
        raise ValueError(f"{path.name}: a link that leads back to itself") from None


class Rows(Generic[Row]):
    """The rows of an index by place (a split, or a level in a split) and number; it is read when one is asked for.

    read: a row from what stands in the file; raises ValueError, LookupError or TypeError where it cannot be used.
    place: where a row belongs. parts: how many problems it is. name: what no two rows may share; None: anything.
    """

    def __init__(
        self,
        path: Path,
        limits: Limits,
        read: Callable[[Any], Row],
        place: Callable[[Row], Hashable],
        parts: Callable[[Row], int] = lambda row: 1,
        checksums: Checksums | None = None,
        name: Callable[[Row], Hashable] = lambda row: None,
    ) -> None:
        self.path, self.limits, self.checksums = path, limits, checksums
        self._read, self._place, self._parts, self._name = read, place, parts, name

    def num(self, place: Hashable) -> int:
        """Count the problems of a place."""
        return len(self.places.get(place, ()))

    def at(self, place: Hashable, index: int) -> tuple[Row, int]:
        """Find a row and its part by the number of the problem; after the last one they come round again."""
        problems = self.places[place]
        number, part = divmod(problems[index % len(problems)], _PARTS)
        return self.rows[number], part

    @functools.cached_property
    def places(self) -> dict[Hashable, array[int]]:
        """Return the problems of each place, as number of the row * _PARTS + part."""
        found: dict[Hashable, array[int]] = {}
        for number, row in enumerate(self.rows):
            problems = found.setdefault(self._place(row), array("q"))
            problems.extend(number * _PARTS + part for part in range(self._parts(row)))
        self.check(found)
        return found

    def check(self, places: Mapping[Hashable, Sized]) -> None:
        """Raise ValueError for places that are not as they should be; replaced by files that know what they need."""

    @functools.cached_property
    def rows(self) -> list[Row]:
        """Return all rows that can be used. Raises ValueError."""
        used, faults, names = [], [], dict[Hashable, int]()
        for number, data in enumerate(read_index(self.path, self.limits, self.checksums)):
            try:
                if _depth(data) > self.limits.max_depth:
                    raise ValueError(f"lists and objects nested deeper than {self.limits.max_depth}")
                row = self._read(data)
                if (name := self._name(row)) is not None and (first := names.setdefault(name, number)) != number:
                    raise ValueError(f"{shown(name)} is record {first} already")
                used.append(row)
            except KeyError as error:
                faults.append(f"record {number}: no {shown(error.args[0]) if error.args else 'such key'}")
            except (ValueError, LookupError, TypeError) as error:
                faults.append(f"record {number}: {first_line(error)}")
        num = len(used) + len(faults)
        if faults and (self.limits.broken == "refuse" or not used):
            raise ValueError(
                f"{self.path}: {len(faults)} of {num} records cannot be used (task.broken=skip leaves them out); "
                f"{faults[0]}"
            )
        if faults:
            warnings.warn(f"{self.path}: {len(faults)} of {num} records are left out; {faults[0]}", stacklevel=2)
        return used


def read_index(path: Path, limits: Limits, checksums: Checksums | None = None) -> Iterator[Any]:
    """Read what stands in an index row by row, by the end of its name: .jsonl, .csv, else JSON. Raises ValueError."""
    where = f"task.data={path}"
    if not path.is_file():
        raise ValueError(f"{where}: no such file")
    size = path.stat().st_size
    if size > limits.max_file_gb * 1e9:
        raise ValueError(f"{where}: {size / 1e9:.1f} GB, more than task.max_file_gb")
    kinds: dict[str, Callable[[Path], Iterator[Any]]] = {".jsonl": _read_lines, ".csv": _read_csv}
    try:
        if checksums is not None:
            checksums.check(path)
        empty = True
        for number, row in enumerate(kinds.get(path.suffix.lower(), _read_list)(path)):
            if number >= limits.max_rows:
                raise ValueError(f"more than {limits.max_rows} records")
            empty = False
            yield row
    except ValueError as error:
        raise ValueError(f"{where}: {first_line(error)}") from error
    if empty:
        raise ValueError(f"{where}: a list of records is expected")


def _read_list(path: Path) -> Iterator[Any]:
    try:
        rows = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"not JSON ({first_line(error)})") from error
    if not isinstance(rows, list):
        raise ValueError("a list of records is expected")
    rows.reverse()
    while rows:
        yield rows.pop()  # what was read is freed as it is used


def _read_lines(path: Path) -> Iterator[Any]:
    end = 0
    for line in read_jsonl(path):
        end = line.end
        if not line.utf8:
            raise ValueError(f"{line.where}: no UTF-8")
        yield line.data
    if has_rest(path, end):
        raise ValueError("the last line is cut off")


def _read_csv(path: Path) -> Iterator[Any]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            for row in csv.DictReader(file, strict=True):
                if None in row or None in row.values():
                    raise ValueError(f"a row has other cells than the head, {shown(next(iter(row.values())))}")
                yield row
    except csv.Error as error:
        raise ValueError(f"not CSV ({first_line(error)})") from error


def _depth(value: Any) -> int:
    """How deep lists and objects stand within each other."""
    level, depth = [value], 0
    while level := [one for one in level if isinstance(one, (dict, list))]:
        depth += 1
        level = list(itertools.chain.from_iterable(one.values() if isinstance(one, dict) else one for one in level))
    return depth


def shown(value: object) -> str:
    """Return a value of a file for a message: printable and short."""
    return ascii(value if not isinstance(value, str) else value[:MAX_SHOWN])[: MAX_SHOWN + 2]


def check_text(text: str) -> str:
    """Return a text that a file holds. Raises ValueError for one that no UTF-8 can say."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{shown(text)}: no valid text (a lone surrogate)") from None
    return text


def held_out_split(task: str, key: object, held_out: float) -> str:
    """Return the split of a key where validation and test have this share each."""
    place = stream(task, key).random()
    return "validation" if place < held_out else "test" if place < 2 * held_out else "train"


def check_held_out(held_out: float) -> None:
    """Raise ValueError for a share that leaves a split without problems."""
    if not 0 < held_out < 0.5:
        raise ValueError(f"task.held_out={held_out}: more than 0 and less than 0.5 is expected")


@dataclass(frozen=True)
class NoSizes:
    """A set has the sizes that it has."""


class DiskTask(Task[State]):
    """A task whose problems are rows of files; subclasses say what a row is and what every task says.

    data: the index; `{level}` and `{split}` in it stand for files of their own, of which some may not exist. images:
    the folder of the pictures; None: that of the data. checksums: a list as `sha256sum` writes it, of the index and
    all pictures. held_out: share of validation and of test each; None: half of the rows are for training.
    """

    reads_files = True
    sizes_type: ClassVar[type] = NoSizes

    def __init__(
        self,
        sizes: Any = None,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        data: str | None = None,
        images: str | None = None,
        checksums: str | None = None,
        held_out: float | None = None,
        broken: Literal["refuse", "skip"] = "refuse",
        max_file_gb: float = 4.0,
        max_megapixels: float = 50.0,
    ) -> None:
        if wording:
            raise ValueError(f"task.wording: {self.name} has no templates")
        if held_out is not None:
            check_held_out(held_out)
        self.data, self.held_out = data, held_out
        self.limits = Limits(broken, max_file_gb, max_megapixels)
        self.checksums = None if checksums is None else Checksums(Path(checksums))
        if images is None and data is not None:
            images = str(Path(*itertools.takewhile(lambda part: "{" not in part, Path(data).parent.parts)))
        self.folder = Folder(images, self.limits, self.checksums)
        self._files: dict[str, Rows[State]] = {}

    @abstractmethod
    def read(self, row: Any) -> State:
        """Make the state of a row as the file has it: an object, of CSV with texts alone.

        Raises ValueError, LookupError or TypeError for one that cannot be used. `image` checks a picture's name.
        """

    def level(self, state: State) -> str:
        """Return the level of a row where the levels have no files of their own."""
        return self.levels[0]

    def split(self, state: State) -> str:
        """Return the split of a row where the splits have no files of their own: by a hash of its key."""
        if self.held_out is None:
            return split_of(self.name, self.key(state))
        return held_out_split(self.name, self.key(state), self.held_out)

    def key(self, state: State) -> object:
        return state_to_json(state)

    def row_name(self, state: State) -> Hashable:
        """Return what no two rows of a file may have the same, as their number; here None: they may be equal."""
        return None

    def image(self, name: str) -> str:
        """Check that a picture is there, by name, and return it. Raises ValueError."""
        if not isinstance(name, str):
            raise ValueError(f"image={shown(name)}: one path is expected")
        self.folder.check(name)
        return name

    def picture(self, name: str) -> Picture:
        """Open a picture. Raises ValueError, in one line, where it is damaged."""
        try:
            return np.asarray(self.folder.picture(name))
        except ValueError as error:
            raise ValueError(f"task={self.name}: {error}") from error

    def num_problems(self, level: str, split: str) -> int:
        rows = self._rows(level, split)
        return 0 if rows is None else rows.num((level, split))

    def met_in_training(self, trained: Collection[str], level: str, split: str) -> str:
        """Compare keys, where the splits have files of their own."""
        if self.data is None or "{split}" not in self.data:
            return ""
        met = {key for each in trained for key in self._keys(each, "train")}
        keys = self._keys(level, split)
        shared = sum(key in met for key in keys)
        return f"{shared} of its {len(keys)} problems in task.data are there for training too" if shared else ""

    def _keys(self, level: str, split: str) -> list[str]:
        if (rows := self._rows(level, split)) is None:
            return []
        states = (rows.at((level, split), index)[0] for index in range(rows.num((level, split))))
        return [json.dumps(self.key(state)) for state in states]

    def _state(self, level: str, split: str, index: int) -> State:
        rows = self._rows(level, split)
        if rows is None or not rows.num((level, split)):
            raise ValueError(f"task={self.name} level={level} split={split}: there is no problem")
        return rows.at((level, split), index)[0]

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> State:
        raise AssertionError("rows are not drawn")

    def _rows(self, level: str, split: str) -> Rows[State] | None:
        """The rows of the file that has a level and split; None where others have files and these have not."""
        if self.data is None:
            raise ValueError(f"task.data: missing, the index of {self.name} (and task.images, its folder of pictures)")
        files = {(k, s): self.data.replace("{level}", k).replace("{split}", s) for k in self.levels for s in SPLITS}
        name = files[level, split]
        if not Path(name).exists() and any(Path(other).exists() for other in files.values()):
            return None
        if name not in self._files:
            place = functools.partial(self._place, level, split)
            self._files[name] = Rows(
                Path(name), self.limits, self.read, place, checksums=self.checksums, name=self.row_name
            )
        return self._files[name]

    def _place(self, level: str, split: str, state: State) -> tuple[str, str]:
        assert self.data is not None
        own = level if "{level}" in self.data else self.level(state)
        check_choice("level", own, self.levels)
        return own, split if "{split}" in self.data else self.split(state)
