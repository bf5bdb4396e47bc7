"""Pictures with labels: a vision-language model as a classifier (EMT, chapter 2 of Zhai's dissertation).

A set is a list of labels and pictures with one label each. The model is asked which number or object is in the picture;
what it writes is judged by the labels that it names (judge.py). `correct` is the strict figure: the right label alone.
Parts are the others: `lenient` (the right label, whatever else is said, as long as no other label is), `named` (the
right label is among what is said), `nearest` (its text is nearest to the right label), and one for each category but
the first, which is `correct`, and the last: an answer without any word.
"""

from __future__ import annotations

import functools
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from vlmreason.streams import stream
from vlmreason.structure import check_choice
from vlmreason.tasks.base import MAX_RESPONSE_CHARS, Modality, Score, Task, check_fields, choose_wording
from vlmreason.tasks.images.judge import CATEGORIES, Judge, Verdict
from vlmreason.tasks.images.labels import LABELS

LEVELS = ("all", "first_half", "second_half")
"""All classes, and the two halves of them in the order of the labels; networks learn one and then the other."""


class Labelled(Protocol):
    """What the state of every set has."""

    @property
    def label(self) -> str: ...


State = TypeVar("State", bound=Labelled)


@dataclass(frozen=True)
class PictureSizes:
    """picture: width and height (px); None, of pictures from files: as they are."""

    picture: tuple[int, int] | None = None


@dataclass(frozen=True)
class ImageWording:
    question: str = "Which {thing} is in the picture?"
    listed: str = " One of: {labels}."
    answer: str = "Answer: {label}"


WORDINGS = {
    "terse": ImageWording(),
    "verbose": ImageWording(
        question="Which {thing} is in the picture?",
        listed=" Say exactly one of these labels, and nothing else: {labels}.",
    ),
}


class PictureTask(Task[State]):
    """A set of labelled pictures. Subclasses say which labels there are (`labels`), and what each state is.

    listed: which labels the question lists: `none`, `all`, or `sample:5`, the right one with so many others as make 5.
    foreign: sets whose labels are no answer here (tasks/images/labels.py); None: all other ones.
    """

    levels = LEVELS
    explained = True
    thing = "object"

    def __init__(
        self,
        sizes: PictureSizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        listed: str = "none",
        foreign: Sequence[str] | None = None,
    ) -> None:
        self.wording: ImageWording = choose_wording(WORDINGS, trace, wording or {})
        check_fields(self.wording, ("thing", "labels", "label"))
        for name in foreign or ():
            check_choice("task.foreign", name, LABELS)
        self.sizes = sizes
        self.num_listed = _num_listed(listed)
        self.foreign = tuple(LABELS) if foreign is None else tuple(foreign)

    @property
    @abstractmethod
    def labels(self) -> tuple[str, ...]:
        """Return the labels, in the order of the classes, written as in an answer."""

    def of_level(self, level: str) -> tuple[str, ...]:
        """Return the labels of a level."""
        middle = (len(self.labels) + 1) // 2
        return {"all": self.labels, "first_half": self.labels[:middle], "second_half": self.labels[middle:]}[level]

    @functools.cached_property
    def judge(self) -> Judge:
        return Judge(self.labels, (label for name in self.foreign for label in LABELS[name]))

    def groups(self, state: State) -> Mapping[str, str]:
        return {"label": state.label}

    @property
    def nameable(self) -> Mapping[str, tuple[str, ...]]:
        """Return the one fact of a picture, its label."""
        return {"label": self.labels}

    def named_in(self, state: State) -> Mapping[str, str]:
        """Return the label of a picture."""
        return {"label": state.label}

    def phrase(self, fact: str, value: str) -> str:
        """Say a label as CLIP's classes do."""
        return f'the number "{value}"' if value.isdecimal() else f"a {value}"

    def prompt(self, state: State, modality: Modality) -> str:
        asked = self.wording.question.format(thing=self.thing)
        if shown := self._listed(state):
            asked += self.wording.listed.format(labels=", ".join(shown))
        return f"{self.text(state)}\n{asked}" if modality == "text" else asked

    def convert(self, state: State) -> str:
        return "Convert"

    def thought(self, state: State) -> list[str]:
        return []

    def answer(self, state: State) -> str:
        return self.option(state.label)

    def options(self, state: State) -> tuple[str, ...]:
        return tuple(map(self.option, self._listed(state) or self.labels))

    def verdict(self, state: State, response: str) -> Verdict:
        """Judge what stands behind the last "Answer:", or the whole response where there is none."""
        response = response[:MAX_RESPONSE_CHARS]
        start = self.answer_start(response, 0)
        return self.judge(response[start:] if start < len(response) else response, state.label)

    def score(self, state: State, response: str) -> Score:
        found = self.verdict(state, response)
        category = found.category
        parts: dict[str, float] = {name: float(name == category) for name in CATEGORIES[1:-1]}
        parts |= {
            "lenient": float(category in ("correct", "correct_verbose")),
            "named": float(found.right_named),
            "nearest": float(found.nearest == state.label),
        }
        return Score(category == "correct", bool(found.named), parts)

    def option(self, label: str) -> str:
        """Write a label as an answer."""
        return self.wording.answer.format(label=label)

    def _listed(self, state: State) -> tuple[str, ...]:
        """The labels that the question lists, in the order of the classes."""
        if self.num_listed is None or self.num_listed >= len(self.labels):
            return self.labels
        if self.num_listed == 0:
            return ()
        others = [label for label in self.labels if label != state.label]
        rng = stream(self.name, "listed", self.num_listed, self.key(state))
        chosen = {state.label, *rng.sample(others, self.num_listed - 1)}
        return tuple(label for label in self.labels if label in chosen)


def _num_listed(listed: str) -> int | None:
    """How many labels `listed` is; None: all."""
    if listed in ("none", "all"):
        return 0 if listed == "none" else None
    kind, _, number = str(listed).partition(":")
    if kind != "sample" or not number.isdecimal() or not number.isascii() or int(number) < 2:
        raise ValueError(f"task.listed={listed}: none, all, or sample:N with N from 2 is expected")
    return int(number)


def spoken(name: str) -> str:
    """Return a label as it is said: with blanks in place of underscores."""
    return " ".join(name.replace("_", " ").split())
