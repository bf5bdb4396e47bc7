"""A file of dialogues in LLaVA's data format, read as what it is: untrusted.

The file is a JSON list of records {id, image, conversations}; a conversation alternates `human` and `gpt`, and the
first question holds "<image>" where there is a picture. Sizes, paths and texts are checked before anything is used.
"""

from __future__ import annotations

import functools
import json
import os
import warnings
from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from PIL import Image

from vlmreason.streams import SPLITS, stream
from vlmreason.structure import check_choice, first_line

PLACEHOLDER = "<image>"
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP")
MAX_SHOWN = 60  # characters of a file's content in a message
_TURNS = 1 << 20  # more than a record may have


@dataclass(frozen=True, slots=True)
class Record:
    id: str
    image: str | None  # path below the folder of images
    turns: tuple[tuple[str, str], ...]  # question and answer


@dataclass(frozen=True)
class Limits:
    """What of a file is used; see conf/task/llava_data.yaml. Raises ValueError."""

    held_out: float
    broken: Literal["refuse", "skip"]
    max_chars: int
    max_file_gb: float
    max_megapixels: float

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 0.5:
            raise ValueError(f"task.held_out={self.held_out}: more than 0 and less than 0.5 is expected")
        check_choice("task.broken", self.broken, ("refuse", "skip"))
        for key in ("max_chars", "max_file_gb", "max_megapixels"):
            if not getattr(self, key) > 0:
                raise ValueError(f"task.{key}={getattr(self, key)}: more than 0 is expected")


class DialogueFile:
    """The answers of a file by split and number; it is read when the first one is asked for.

    A record's split is decided by a hash of its id. `num_chars(record)`: of its longest prompt.
    """

    def __init__(self, path: str, images: str | None, limits: Limits, num_chars: Callable[[Record], int]) -> None:
        self.path, self.folders, self.limits, self.num_chars = Path(path), Folders(images), limits, num_chars

    def num_answers(self, split: str) -> int:
        return len(self._answers[split])

    def answer(self, split: str, index: int) -> tuple[Record, int]:
        """A record and the turn of the answer; after the last one they come round again."""
        answers = self._answers[split]
        number, turn = divmod(answers[index % len(answers)], _TURNS)
        return self._records[number], turn

    def picture(self, image: str) -> Image.Image:
        """The picture in RGB. Raises ValueError where it cannot be read."""
        try:
            with Image.open(self.folders.locate(image), formats=FORMATS) as opened:
                if opened.width * opened.height > self.limits.max_megapixels * 1e6:
                    raise ValueError(f"{opened.width} x {opened.height} px, more than task.max_megapixels")
                return opened.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"task=llava_data: picture {_shown(image)}: {first_line(error)}") from error

    @functools.cached_property
    def _records(self) -> list[Record]:
        read, faults = [], []
        for number, data in enumerate(_read(self.path, self.limits.max_file_gb)):
            try:
                read.append(self._record(data))
            except ValueError as error:
                faults.append(f"record {number}: {error}")
        num = len(read) + len(faults)
        if faults and (self.limits.broken == "refuse" or not read):
            raise ValueError(
                f"{self.path}: {len(faults)} of {num} records cannot be used (task.broken=skip leaves them out); "
                f"{faults[0]}"
            )
        if faults:
            warnings.warn(f"{self.path}: {len(faults)} of {num} records are left out; {faults[0]}", stacklevel=2)
        return read

    def _record(self, data: object) -> Record:
        record = _parse(data)
        if record.image is not None:
            self.folders.check(record.image)
        longest, room = self.num_chars(record), self.limits.max_chars
        if longest >= room:
            raise ValueError(f"a prompt of {longest} characters leaves none of task.max_chars={room} for the answer")
        return record

    @functools.cached_property
    def _answers(self) -> dict[str, array[int]]:
        """Of each split the answers, as number of the record * _TURNS + turn."""
        found = {split: array("q") for split in SPLITS}
        for number, record in enumerate(self._records):
            found[self._split(record.id)].extend(number * _TURNS + turn for turn in range(len(record.turns)))
        for split, answers in found.items():
            if not answers:
                held_out, num = self.limits.held_out, len(self._records)
                raise ValueError(f"task.held_out={held_out}: of {num} records none falls into {split}; choose another")
        return found

    def _split(self, id: str) -> str:
        place, held_out = stream("llava_data", id).random(), self.limits.held_out
        return "validation" if place < held_out else "test" if place < 2 * held_out else "train"


class Folders:
    """The folder of images, of whose subfolders each is listed once."""

    def __init__(self, images: str | None) -> None:
        self.root = None if images is None else Path(images)
        self._names: dict[Path, set[str]] = {}

    def check(self, image: str) -> None:
        """Raise ValueError unless the picture is there, by name."""
        path = self._path(image)
        folder = path.parent
        if folder not in self._names:
            self._names[folder] = set(os.listdir(folder)) if folder.is_dir() else set()
        if path.name not in self._names[folder]:
            raise ValueError(f"image={_shown(image)}: not in task.images={self.root}")

    def locate(self, image: str) -> Path:
        """Where the picture is. Raises ValueError for one outside of the folder, by a link too."""
        path = self._path(image).resolve()
        assert self.root is not None
        if not path.is_relative_to(self.root.resolve()):
            raise ValueError(f"leads out of task.images={self.root}")
        return path

    def _path(self, image: str) -> Path:
        if self.root is None:
            raise ValueError("task.images: missing, the folder with the pictures")
        pure = PurePosixPath(image)
        if pure.is_absolute() or ".." in pure.parts or not pure.name or "\0" in image or "\\" in image:
            raise ValueError(f"image={_shown(image)}: a path below task.images is expected")
        return self.root / pure


def _read(path: Path, max_gb: float) -> Iterator[object]:
    if not path.is_file():
        raise ValueError(f"task.data={path}: no such file")
    size = path.stat().st_size
    if size > max_gb * 1e9:
        raise ValueError(f"task.data={path}: {size / 1e9:.1f} GB, more than task.max_file_gb")
    try:
        records = json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ValueError(f"task.data={path}: not JSON ({first_line(error)})") from error
    if not isinstance(records, list) or not records:
        raise ValueError(f"task.data={path}: a list of records is expected")
    records.reverse()
    while records:
        yield records.pop()  # what was read is freed as it is used


def _parse(data: object) -> Record:
    """A record of the file. Raises ValueError that says what is wrong with it."""
    if not isinstance(data, dict):
        raise ValueError("not an object")
    id, image, turns = data.get("id"), data.get("image"), data.get("conversations")
    if not isinstance(id, (str, int)) or isinstance(id, bool):
        raise ValueError("no id")
    if image is not None and not isinstance(image, str):
        raise ValueError(f"image={_shown(image)}: one path is expected")
    if not isinstance(turns, list) or not turns or len(turns) % 2 or len(turns) >= _TURNS:
        raise ValueError("conversations: a list of questions and answers in turn is expected")
    values = []
    for number, turn in enumerate(turns):
        speaker = ("human", "gpt")[number % 2]
        if not isinstance(turn, dict) or turn.get("from") != speaker or not isinstance(turn.get("value"), str):
            raise ValueError(f"conversations[{number}]: from={speaker} and a text as value are expected")
        values.append(turn["value"])
    for text in (str(id), image or "", *values):
        _check_text(text)
    expected = [1 if image is not None else 0] + [0] * (len(values) - 1)
    if [text.count(PLACEHOLDER) for text in values] != expected:
        raise ValueError(
            f"{PLACEHOLDER} is expected once in the first question of a record with a picture, else nowhere"
        )
    values = [text.replace(PLACEHOLDER, "").strip() for text in values]
    if not all(values[1::2]):
        raise ValueError("an answer is empty")
    return Record(str(id), image, tuple(zip(values[::2], values[1::2], strict=True)))


def _check_text(text: str) -> None:
    try:
        text.encode()
    except UnicodeEncodeError:
        raise ValueError(f"{_shown(text)}: no valid text (a lone surrogate)") from None


def _shown(value: object) -> str:
    return ascii(value if not isinstance(value, str) else value[:MAX_SHOWN])[: MAX_SHOWN + 2]
