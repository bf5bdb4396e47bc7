"""MARVEL (arXiv 2404.13591) from the user's disk: 770 puzzles in one JSON list, with a picture for each.

Every record asks three things: which of four panels fits (`reasoning`), one detail of a choice (`fine`), and how many
panels there are in the context, in the choices, in all (`coarse`). Levels ask one of them; `together` asks all three of
each puzzle, one after the other, so that the group `puzzle` says whether all are right: whether a right choice was seen
or guessed. Puzzles that are variants of one another share the group `family`, over which intervals are taken.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from PIL import Image, ImageOps

from vlmreason.pictures import MAX_SIDE, Picture
from vlmreason.tasks.base import ANSWER_MARKER, Modality, Score
from vlmreason.tasks.on_disk import DiskTask, check_text, shown

NUM_CHOICES = 4
TOGETHER = "together"
QUESTIONS = ("reasoning", "fine", "coarse")
_MAX_TEXT = 4000
_NUMBER = re.compile(r"\d{1,3}", re.ASCII)
_PLACEHOLDER = "-"


@dataclass(frozen=True)
class MarvelSizes:
    """picture: width and height (px) to which pictures are brought, with white borders; None: as they are."""

    picture: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        if self.picture is not None and not 1 <= min(self.picture) <= max(self.picture) <= MAX_SIDE:
            raise ValueError(f"picture={list(self.picture)}: allowed is 1 to {MAX_SIDE} px a side")


@dataclass(frozen=True)
class MarvelState:
    """`asked` is one of QUESTIONS; `answer` from 1, `counts` of the panels in context, choices and in all."""

    asked: str
    id: int
    pattern: str
    layout: str
    family: str
    image: str
    question: str
    answer: int
    fine_question: str
    fine_answers: tuple[str, str]
    coarse_question: str
    counts: tuple[int, int, int]


class MarvelFiles(DiskTask[MarvelState]):
    """data: marvel_label.json. images: the folder with Marvel/<id>.png, or <id>/<id>.png, in it."""

    name = "marvel_files"
    version = 1
    levels = (*QUESTIONS, TOGETHER)
    state_type = MarvelState
    sizes_type: ClassVar[type] = MarvelSizes

    def __init__(
        self,
        sizes: MarvelSizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        data: str | None = None,
        images: str | None = None,
        picture_name: str = "Marvel/{id}.png",
        checksums: str | None = None,
        held_out: float | None = None,
        broken: Literal["refuse", "skip"] = "refuse",
        max_megapixels: float = 50.0,
    ) -> None:
        super().__init__(sizes, trace, wording, data, images, checksums, held_out, broken, 0.1, max_megapixels)
        if picture_name.count("{id}") < 1 or picture_name.replace("{id}", "").count("{"):
            raise ValueError(f"task.picture_name={picture_name!r}: a path with {{id}} in it is expected")
        self.sizes, self.picture_name = sizes, picture_name

    def read(self, row: Any) -> MarvelState:
        if not isinstance(row, dict):
            raise ValueError("an object is expected")
        number = _whole(row, "id", 0, 10**9)
        counts = row["c_perception_answer_tuple"]
        if (
            not isinstance(counts, list)
            or len(counts) != 3
            or any(type(n) is not int or not 0 <= n < 100 for n in counts)
        ):
            raise ValueError(f"c_perception_answer_tuple={shown(counts)}: three numbers of panels are expected")
        right, other = (_text(row, f"f_perception_{what}") for what in ("answer", "distractor"))
        if not _plain(right) or not _plain(other) or ANSWER_MARKER.search(right + other):
            said = f"f_perception_answer={shown(right)}, f_perception_distractor={shown(other)}"
            raise ValueError(f"{said}: words without Answer: are expected")
        if _plain(right) == _plain(other):
            raise ValueError(f"f_perception_distractor={shown(other)}: it is the answer, and not a wrong one")
        pattern, layout = _label(row, "pattern"), _label(row, "task_configuration")
        family = hashlib.blake2b(
            json.dumps([pattern, layout, _text(row, "explanation", empty=True)]).encode(), digest_size=6
        ).hexdigest()
        return MarvelState(
            asked=QUESTIONS[0],
            id=number,
            pattern=pattern,
            layout=layout,
            family=family,
            image=self.image(self.picture_name.replace("{id}", str(number))),
            question=_text(row, "avr_question"),
            answer=_whole(row, "answer", 1, NUM_CHOICES),
            fine_question=_text(row, "f_perception_question"),
            fine_answers=(right, other),
            coarse_question=_question(row["c_perception_question_tuple"]),
            counts=tuple(counts),
        )

    def key(self, state: MarvelState) -> object:
        """Return the family: its puzzles are of one split."""
        return state.family

    def row_name(self, state: MarvelState) -> int:
        return state.id

    def num_problems(self, level: str, split: str) -> int:
        return super().num_problems(QUESTIONS[0], split) * (len(QUESTIONS) if level == TOGETHER else 1)

    def _state(self, level: str, split: str, index: int) -> MarvelState:
        number, asked = divmod(index, len(QUESTIONS)) if level == TOGETHER else (index, QUESTIONS.index(level))
        return dataclasses.replace(super()._state(QUESTIONS[0], split, number), asked=QUESTIONS[asked])

    def groups(self, state: MarvelState) -> Mapping[str, str]:
        """Return pattern, layout, the question, the puzzle, and the family of its variants."""
        return {
            "pattern": state.pattern,
            "layout": state.layout,
            "question": state.asked,
            "puzzle": str(state.id),
            "family": state.family,
        }

    def draw(self, state: MarvelState) -> Picture:
        picture = self.picture(state.image)
        if self.sizes.picture is None:
            return picture
        (height, width), most = picture.shape[:2], self.sizes.picture
        if min(most[0] / width, most[1] / height) * min(width, height) <= 0.5:
            said = f"{width} x {height} px, of which {most[0]} x {most[1]} px would show nothing"
            raise ValueError(f"task={self.name}: picture {shown(state.image)}: {said}")
        return np.asarray(ImageOps.pad(Image.fromarray(picture), most, color="white"))

    def text(self, state: MarvelState) -> str:
        """Return nothing of the picture: it has no text form, and is not for views of text."""
        return _PLACEHOLDER

    def prompt(self, state: MarvelState, modality: Modality) -> str:
        if state.asked == "coarse":
            return f"{state.coarse_question} Finish with Answer: and the numbers in this order, commas between."
        if state.asked == "fine":
            one, other = self._fine(state)
            return f"{state.fine_question} Finish with Answer: {one} or Answer: {other}."
        return f"{state.question} Finish with Answer: and the number of the choice, 1 to {NUM_CHOICES}."

    def _fine(self, state: MarvelState) -> tuple[str, ...]:
        """Both answers in an order that says nothing."""
        return tuple(sorted(state.fine_answers))

    def convert(self, state: MarvelState) -> str:
        return "Convert the picture to text."

    def thought(self, state: MarvelState) -> list[str]:
        return []

    def answer(self, state: MarvelState) -> str:
        if state.asked == "coarse":
            return "Answer: " + ", ".join(map(str, state.counts))
        return f"Answer: {state.fine_answers[0] if state.asked == 'fine' else state.answer}"

    def options(self, state: MarvelState) -> tuple[str, ...] | None:
        if state.asked == "coarse":
            return None
        words = self._fine(state) if state.asked == "fine" else range(1, NUM_CHOICES + 1)
        return tuple(f"Answer: {word}" for word in words)

    def score(self, state: MarvelState, response: str) -> Score:
        """Judge what is behind the last "Answer:": the choice, one of the two details, or all three numbers."""
        given, numbers = self._given(response), self.numbers(response)
        if state.asked == "fine":
            return Score(given == _plain(state.fine_answers[0]), given in map(_plain, state.fine_answers))
        if state.asked == "coarse":
            return Score(tuple(numbers) == state.counts, len(numbers) == len(state.counts))
        return Score(numbers == [state.answer], len(numbers) == 1 and 1 <= numbers[0] <= NUM_CHOICES)

    def numbers(self, response: str) -> list[int]:
        """Read the numbers that a response answers, in their order."""
        return [int(number) for number in _NUMBER.findall(self._given(response))]

    def _given(self, response: str) -> str:
        return _plain(self.answer_text(response) or "")


def _plain(text: str) -> str:
    """How answers are compared."""
    return " ".join(text.lower().split()).rstrip(". ")


def _whole(row: Any, name: str, least: int, most: int) -> int:
    value = row[name]
    if type(value) is not int or not least <= value <= most:
        raise ValueError(f"{name}={shown(value)}: a whole number from {least} to {most} is expected")
    return value


def _text(row: Any, name: str, empty: bool = False) -> str:
    value = row[name]
    if not isinstance(value, str) or len(value) > _MAX_TEXT or not (value.strip() or empty):
        raise ValueError(f"{name}={shown(value)}: a text of 1 to {_MAX_TEXT} characters is expected")
    return check_text(value).strip()


def _label(row: Any, name: str) -> str:
    value = row[name]
    return str(value) if type(value) is int else _text(row, name)


def _question(value: Any) -> str:
    """The question of a record, or the questions of a list one after the other."""
    name = "c_perception_question_tuple"
    parts = value if isinstance(value, list) else [value]
    return _text({name: " ".join([_text({name: part}, name) for part in parts])}, name)
