"""Puzzles after the manner of SMART-101, made without end: 24 families, three for each of eight skills.

They mirror its structure where the data are not: a picture, a question whose numbers vary, five options of which one is
right, answers that are numbers, numbers with a unit, letters, operations or sequences, and its partitions. They are not
SMART-101, and no figure on them is one of SMART-101. Problem i of a split is of its i-th family, round and round.
"""

from __future__ import annotations

import functools
import itertools
import random
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from vlmreason.answers import AnswerSpace
from vlmreason.pictures import Picture
from vlmreason.streams import split_of, stream
from vlmreason.structure import check_choice
from vlmreason.tasks.base import MAX_ATTEMPTS, Belongs, choose_wording
from vlmreason.tasks.puzzles.base import LEVEL, PuzzleTask
from vlmreason.tasks.puzzles.families import scene
from vlmreason.tasks.puzzles.families.listed import FAMILIES
from vlmreason.tasks.puzzles.families.scene import Family, Made, Mark
from vlmreason.tasks.puzzles.values import OPTIONS, Form, Value

Partition = Literal["instance", "puzzle", "few_shot", "answer"]
FEW = 10
MAX_DIFFICULTY = 3  # as in SMART-101
HIDDEN = "What is the answer?"
_COUNTED = 400
"""Problems from which the value is found that the partition `answer` withholds."""


@dataclass(frozen=True)
class FamilySizes:
    """picture: width and height (px)."""

    picture: tuple[int, int]


@dataclass(frozen=True)
class FamilyState:
    """A problem. marks: its picture; text: what that shows; steps: its solution."""

    family: str
    question: str
    options: tuple[str, ...]
    letter: str
    marks: tuple[Mark, ...]
    text: str
    steps: tuple[str, ...]


@dataclass(frozen=True)
class Wording:
    step: str = "{step}. "


class SmartFamilies(PuzzleTask[FamilyState]):
    """partition: `instance`: all families in every split; `puzzle`: whole families are held out, one per skill for the
    test and two for validation; `few_shot`: training sees `few` problems of each of those; `answer`: of each family one
    value is only in the test (of sequences none). families: those that are used; None: all.
    question, listed: whether the question and the options are shown."""

    name = "smart_families"
    version = 1
    state_type = FamilyState
    sizes_type: ClassVar[type] = FamilySizes

    def __init__(
        self,
        sizes: FamilySizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        partition: Partition = "instance",
        few: int = FEW,
        question: bool = True,
        listed: bool = True,
        families: tuple[str, ...] | None = None,
    ) -> None:
        self.wording: Wording = choose_wording(
            {"terse": Wording(), "verbose": Wording("{step}.\n")}, trace, wording or {}
        )
        check_choice("task.partition", partition, Partition.__args__)  # type: ignore[attr-defined]
        if few < 1 or (few != FEW and partition != "few_shot"):
            raise ValueError(f"task.few={few}: 1 or more is expected, and another number than {FEW} with few_shot only")
        for name in families or ():
            check_choice("task.families", name, FAMILIES)
        used = FAMILIES if families is None else {name: FAMILIES[name] for name in families}
        self.sizes, self.partition, self.few = sizes, partition, few
        self.shows_question, self.lists_options = question, listed
        self.families: Mapping[str, Family] = used

    def kind_of(self, state: FamilyState) -> str:
        return state.family

    def skill(self, state: FamilyState) -> str:
        return FAMILIES[state.family].skill

    def groups(self, state: FamilyState) -> Mapping[str, str]:
        """Return also how difficult a problem is, as many as its solution has steps, at most 3."""
        return {**super().groups(state), "difficulty": str(max(1, min(MAX_DIFFICULTY, len(state.steps))))}

    def form(self, kind: str) -> Form:
        return FAMILIES[kind].form

    def kinds(self) -> Mapping[str, AnswerSpace]:
        return _spaces(tuple(self.families))

    def key(self, state: FamilyState) -> object:
        return [state.family, state.question, state.text]

    def draw(self, state: FamilyState) -> Picture:
        return scene.draw(state.marks, self.sizes.picture)

    def question(self, state: FamilyState) -> str:
        return state.question if self.shows_question else HIDDEN

    def text(self, state: FamilyState) -> str:
        return state.text

    def thought(self, state: FamilyState) -> list[str]:
        return [self.wording.step.format(step=step) for step in state.steps]

    def _of_split(self, split: str) -> tuple[Family, ...]:
        """The families of which a split has problems."""
        everywhere = self.partition in ("instance", "answer") or (self.partition == "few_shot" and split == "train")
        found = tuple(family for family in self.families.values() if everywhere or family.split == split)
        if not found:
            raise ValueError(f"task.families: none of them is of the split {split} with partition={self.partition}")
        return found

    def _state(self, level: str, split: str, index: int) -> FamilyState:
        families = self._of_split(split)
        family, number = families[index % len(families)], index // len(families)
        if self.partition == "few_shot" and split == "train" and family.split != "train":
            number %= self.few
        return self._of_family(family, split, number)

    def _of_family(self, family: Family, split: str, number: int) -> FamilyState:
        rng = stream(self.name, self.version, LEVEL, split, family.name, number)
        withheld = self._withheld(family) if self.partition == "answer" else None
        for _ in range(MAX_ATTEMPTS):
            made = family.make(rng)
            by_hash = split_of(self.name, [family.name, made.question, made.text])
            if withheld is None:
                own = by_hash
            else:
                own = "test" if made.value == withheld else "validation" if by_hash == "validation" else "train"
            if own == split:
                return _finished(family, made, rng)
        raise self.unreachable(LEVEL, f"no problem of {family.name} was found")

    def _withheld(self, family: Family) -> Value | None:
        return None if family.form.is_sequence else withheld_value(self.name, self.version, family.name)

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> FamilyState:
        raise AssertionError("a problem is of a family by its number")


@functools.cache
def withheld_value(task: str, version: int, family: str) -> Value:
    """Return the value that the partition `answer` keeps for the test: the one of median frequency (the lower one of
    two, of equal ones the smaller) among the first problems of a family."""
    rng = stream(task, version, "answers", family)
    counts = Counter(FAMILIES[family].make(rng).value for _ in range(_COUNTED))
    ordered = sorted(counts, key=lambda value: (counts[value], value))
    middle = counts[ordered[(len(ordered) - 1) // 2]]
    return min(value for value in counts if counts[value] == middle)


@functools.cache
def _spaces(families: tuple[str, ...]) -> Mapping[str, AnswerSpace]:
    return {name: _space(FAMILIES[name]) for name in families}


def _space(family: Family) -> AnswerSpace:
    return family.form.space([(family.values[1],)], family.length)


def _finished(family: Family, made: Made, rng: random.Random) -> FamilyState:
    """A problem with five options: letters in order where they are drawn, else the right one among mistakes."""
    if family.drawn:
        values: list[Value] = [(number,) for number in range(len(OPTIONS))]
    else:
        values = [made.value, *itertools.islice(_others(family, made, rng), len(OPTIONS) - 1)]
        rng.shuffle(values)
    options = tuple(map(family.form.write, values))
    letter = OPTIONS[values.index(made.value)]
    return FamilyState(family.name, made.question, options, letter, made.marks, made.text, made.steps)


def _others(family: Family, made: Made, rng: random.Random) -> Iterator[Value]:
    """Wrong values, each once: up to three of the family's mistakes, then neighbours of the right one, then any."""
    found = {made.value}
    mistakes = [one for one in made.mistakes if _possible(family, one)]
    lower = rng.randint(0, 4)  # of five neighbours with the right one: it is in no place more often than in another
    near = [(made.value[0] - lower + i,) for i in range(5)] if len(made.value) == 1 else []
    rng.shuffle(near)
    first = [*mistakes[:3], *near, *mistakes[3:]]
    for value in itertools.chain(first, (_any(family, made, rng) for _ in itertools.count())):
        if _possible(family, value) and value not in found:
            found.add(value)
            yield value


def _possible(family: Family, value: Value) -> bool:
    if family.form.type == "operator" and value[0] % 10 == 0:
        return False
    return bool(value) and all(family.values[0] <= number <= family.values[1] for number in value)


def _any(family: Family, made: Made, rng: random.Random) -> Value:
    numbers = [rng.randint(*family.values) for _ in made.value]
    return tuple(rng.sample(made.value, len(made.value)) if family.form.is_sequence else numbers)
