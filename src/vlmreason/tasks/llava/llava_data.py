"""Dialogues in LLaVA's data format that the user has, to prepare composed models.

Levels are the data of the two stages: `instruction` (data, images) and `pretraining` (pretraining_data,
pretraining_images; without them the same data). Every answer of a record is a problem, with the earlier turns in its
prompt; problem n of a split is its n-th answer, and after the last one they come round again.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import ImageOps

from vlmreason.tasks.base import MAX_RESPONSE_CHARS, Belongs, Modality, Score, Task, choose_wording
from vlmreason.tasks.llava.llava_file import DialogueFile, Record
from vlmreason.tasks.on_disk import Limits, check_held_out


@dataclass(frozen=True)
class LlavaSizes:
    """picture: width and height (px) to which pictures are brought, with white borders; None: as they are."""

    picture: tuple[int, int] | None = None


@dataclass(frozen=True)
class LlavaState:
    """An answer of a record and what comes before it; `image`: path below the level's folder of images."""

    level: str
    record: str
    image: str | None
    earlier: tuple[tuple[str, str], ...]
    question: str
    answer: str


@dataclass(frozen=True)
class Wording:
    earlier: str = "{question}\n{answer}\n\n"


class LlavaData(Task[LlavaState]):
    name = "llava_data"
    version = 1
    levels = ("instruction", "pretraining")
    state_type = LlavaState
    reads_files = True
    sizes_type: ClassVar[type] = LlavaSizes

    def __init__(
        self,
        sizes: LlavaSizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        data: str | None = None,
        images: str | None = None,
        pretraining_data: str | None = None,
        pretraining_images: str | None = None,
        held_out: float = 0.02,
        broken: Literal["refuse", "skip"] = "refuse",
        max_chars: int = 6000,
        max_file_gb: float = 4.0,
        max_megapixels: float = 50.0,
    ) -> None:
        if pretraining_images is not None and pretraining_data is None:
            raise ValueError("task.pretraining_images: has no effect without task.pretraining_data")
        self.sizes = sizes
        self.wording: Wording = choose_wording({"terse": Wording(), "verbose": Wording()}, trace, wording or {})
        check_held_out(held_out)
        if max_chars < 1:
            raise ValueError(f"task.max_chars={max_chars}: more than 0 is expected")
        self.max_chars = max_chars
        limits = Limits(broken, max_file_gb, max_megapixels)
        self._files = {}
        if data is not None:
            own = self._files["instruction"] = DialogueFile(data, images, limits, held_out, max_chars, self._num_chars)
            self._files["pretraining"] = own
        if pretraining_data is not None:
            folder = images if pretraining_images is None else pretraining_images
            self._files["pretraining"] = DialogueFile(
                pretraining_data, folder, limits, held_out, max_chars, self._num_chars
            )

    def num_problems(self, level: str, split: str) -> int:
        return self._file(level).num(split)

    def _state(self, level: str, split: str, index: int) -> LlavaState:
        record, turn = self._file(level).at(split, index)
        return LlavaState(level, record.id, record.image, record.turns[:turn], *record.turns[turn])

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> LlavaState:
        raise AssertionError("records are not drawn")

    def key(self, state: LlavaState) -> object:
        return state.record

    def draw(self, state: LlavaState) -> Any:
        """Return the picture, or None for a record without one. Raises ValueError where it cannot be read."""
        if state.image is None:
            return None
        try:
            picture = self._file(state.level).folder.picture(state.image)
        except ValueError as error:
            raise ValueError(f"task={self.name}: {error}") from error
        if self.sizes.picture is not None:
            picture = ImageOps.pad(picture, self.sizes.picture, color="white")
        return np.asarray(picture)

    def text(self, state: LlavaState) -> str:
        """Return the question: a record has no other text; it is not for the view image_via_text."""
        return state.question or "-"

    def prompt(self, state: LlavaState, modality: Modality) -> str:
        earlier = [self.wording.earlier.format(question=question, answer=answer) for question, answer in state.earlier]
        return "".join(earlier) + state.question

    def convert(self, state: LlavaState) -> str:
        return "Convert the picture to text."

    def thought(self, state: LlavaState) -> list[str]:
        return []

    def answer(self, state: LlavaState) -> str:
        """Return the record's own; what is beyond max_chars is cut off."""
        return state.answer[: self.max_chars - len(self.prompt(state, "image"))]

    def score(self, state: LlavaState, response: str) -> Score:
        """Tell whether the whole response is the answer, but for case, spaces and a full stop."""
        given = _plain(response[:MAX_RESPONSE_CHARS])
        return Score(correct=bool(given) and given == _plain(self.answer(state)), parsed=bool(given))

    def _file(self, level: str) -> DialogueFile:
        if level not in self._files:
            raise ValueError(
                "task.data: missing, a JSON file in LLaVA's format (and task.images, the folder of pictures)"
            )
        return self._files[level]

    def _num_chars(self, record: Record) -> int:
        """Of the longest prompt: the one of the last answer."""
        last = LlavaState("", record.id, record.image, record.turns[:-1], *record.turns[-1])
        return len(self.prompt(last, "image"))


def _plain(text: str) -> str:
    return " ".join(text.lower().split()).removesuffix(".")
