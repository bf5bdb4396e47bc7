"""A file of dialogues in LLaVA's data format, read as what it is: untrusted.

The file is a JSON list of records {id, image, conversations}; a conversation alternates `human` and `gpt`, and the
first question holds "<image>" where there is a picture. Sizes, paths and texts are checked before anything is used.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sized
from dataclasses import dataclass
from pathlib import Path

from vlmreason.streams import SPLITS
from vlmreason.tasks.on_disk import Folder, Limits, Rows, check_text, held_out_split, shown

PLACEHOLDER = "<image>"
MAX_TURNS = 1 << 20


@dataclass(frozen=True, slots=True)
class Record:
    id: str
    image: str | None  # path below the folder of images
    turns: tuple[tuple[str, str], ...]  # question and answer


class DialogueFile(Rows[Record]):
    """The answers of a file by split and number: a record, and the turn of the answer.

    A record's split is decided by a hash of its id. `num_chars(record)`: of its longest prompt, which is to be shorter
    than `max_chars`. Raises ValueError.
    """

    def __init__(
        self,
        path: str,
        images: str | None,
        limits: Limits,
        held_out: float,
        max_chars: int,
        num_chars: Callable[[Record], int],
    ) -> None:
        self.folder, self.held_out, self.max_chars, self.num_chars = (
            Folder(images, limits, links=True), held_out, max_chars, num_chars,
        )  # fmt: skip
        super().__init__(Path(path), limits, self._record, self._split, _num_turns)

    def check(self, places: Mapping[Hashable, Sized]) -> None:
        """Check that no split is empty."""
        for split in SPLITS:
            if split not in places:
                share, num = self.held_out, len(self.rows)
                raise ValueError(f"task.held_out={share}: of {num} records none falls into {split}; choose another")

    def _record(self, data: object) -> Record:
        record = _parse(data)
        if record.image is not None:
            self.folder.check(record.image)
        longest, room = self.num_chars(record), self.max_chars
        if longest >= room:
            raise ValueError(f"a prompt of {longest} characters leaves none of task.max_chars={room} for the answer")
        return record

    def _split(self, record: Record) -> str:
        return held_out_split("llava_data", record.id, self.held_out)


def _num_turns(record: Record) -> int:
    return len(record.turns)


def _parse(data: object) -> Record:
    """A record of the file. Raises ValueError that says what is wrong with it."""
    if not isinstance(data, dict):
        raise ValueError("not an object")
    id, image, turns = data.get("id"), data.get("image"), data.get("conversations")
    if not isinstance(id, (str, int)) or isinstance(id, bool):
        raise ValueError("no id")
    if image is not None and not isinstance(image, str):
        raise ValueError(f"image={shown(image)}: one path is expected")
    if not isinstance(turns, list) or not turns or len(turns) % 2 or len(turns) >= MAX_TURNS:
        raise ValueError("conversations: a list of questions and answers in turn is expected")
    values = []
    for number, turn in enumerate(turns):
        speaker = ("human", "gpt")[number % 2]
        if not isinstance(turn, dict) or turn.get("from") != speaker or not isinstance(turn.get("value"), str):
            raise ValueError(f"conversations[{number}]: from={speaker} and a text as value are expected")
        values.append(turn["value"])
    for text in (str(id), image or "", *values):
        check_text(text)
    expected = [1 if image is not None else 0] + [0] * (len(values) - 1)
    if [text.count(PLACEHOLDER) for text in values] != expected:
        raise ValueError(
            f"{PLACEHOLDER} is expected once in the first question of a record with a picture, else nowhere"
        )
    values = [text.replace(PLACEHOLDER, "").strip() for text in values]
    if not all(values[1::2]):
        raise ValueError("an answer is empty")
    return Record(str(id), image, tuple(zip(values[::2], values[1::2], strict=True)))
