"""SMART-101: 101 root puzzles for children of 6 to 8, with pictures, 2,000 instances each, on the user's disk.

Cherian et al., "Are deep neural networks SMARTer than second graders?" (arXiv 2212.09993). One level, `puzzle`; which
rows are of which split is `partition` and `rule` (partitions.py). There is no text form of a picture: the view `text`
shows a question without its picture.
"""

from __future__ import annotations

import functools
import random
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal, cast

import numpy as np
from PIL import ImageOps

from vlmreason.answers import AnswerSpace
from vlmreason.pictures import Picture
from vlmreason.structure import check_choice
from vlmreason.tasks.base import Belongs, choose_wording
from vlmreason.tasks.on_disk import Limits
from vlmreason.tasks.puzzles import partitions
from vlmreason.tasks.puzzles.base import PuzzleTask
from vlmreason.tasks.puzzles.partitions import FEW, Partition, Place, Rows, Rule
from vlmreason.tasks.puzzles.smart101_files import Instance, Read, Smart101Files
from vlmreason.tasks.puzzles.smart101_tables import NUM_PUZZLES, SKILL_OF, STEPS
from vlmreason.tasks.puzzles.values import Form, Value

HIDDEN = "What is the answer?"
"""In place of a question that is not shown."""


@dataclass(frozen=True)
class Smart101Sizes:
    """picture: width and height (px) to which pictures are brought, with white borders; None: as they are."""

    picture: tuple[int, int] | None = None


@dataclass(frozen=True)
class Wording:
    """Has no templates: questions are the data's own."""


class Smart101(PuzzleTask[Instance]):
    """data: the unpacked folder. puzzles: the root puzzles that are used; None: all. few: of partition=few_shot.
    question, listed: whether questions and options are shown. broken: what is done about rows that cannot be used."""

    name = "smart101"
    version = 1
    state_type = Instance
    reads_files = True
    sizes_type: ClassVar[type] = Smart101Sizes

    def __init__(
        self,
        sizes: Smart101Sizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        data: str | None = None,
        partition: Partition = "instance",
        rule: Rule = "published",
        few: int = FEW,
        puzzles: Sequence[int] | None = None,
        question: bool = True,
        listed: bool = True,
        broken: Literal["refuse", "skip"] = "refuse",
        max_file_gb: float = 4.0,
        max_megapixels: float = 50.0,
    ) -> None:
        choose_wording({"terse": Wording(), "verbose": Wording()}, trace, wording or {})
        for where, value, kind in (("partition", partition, Partition), ("rule", rule, Rule)):
            check_choice(f"task.{where}", value, kind.__args__)  # type: ignore[attr-defined]
        if few != FEW and partition != "few_shot":
            raise ValueError(f"task.few={few}: has no effect with task.partition={partition}; few_shot has it")
        if few < 1:
            raise ValueError(f"task.few={few}: 1 or more is expected")
        for puzzle in puzzles or ():
            check_choice("task.puzzles", puzzle, range(1, NUM_PUZZLES + 1))
        self.sizes, self.data = sizes, data
        self.shows_question, self.lists_options = question, listed
        self.partition: Partition = partition
        self.rule: Rule = rule
        self.few = few
        self.puzzles = tuple(range(1, NUM_PUZZLES + 1)) if puzzles is None else tuple(dict.fromkeys(puzzles))
        self.limits = Limits(broken, max_file_gb, max_megapixels)

    @functools.cached_property
    def read(self) -> Read:
        """Return what stands in the folders, with all that cannot be used. Raises ValueError where that is refused."""
        found = self._files.read(self.puzzles)
        if found.faults and (self.limits.broken == "refuse" or not any(found.instances.values())):
            raise ValueError(f"task.data={self.data}: {found.report()} (task.broken=skip leaves them out)")
        if found.faults:
            warnings.warn(f"task.data={self.data}: left out, {found.report()}", stacklevel=2)
        return found

    def num_problems(self, level: str, split: str) -> int:
        return len(self._places[split])

    def kind_of(self, state: Instance) -> str:
        return str(state.puzzle)

    def skill(self, state: Instance) -> str:
        return SKILL_OF[state.puzzle]

    def groups(self, state: Instance) -> Mapping[str, str]:
        """Return also how difficult the original is, where the data say it."""
        difficulty = self._difficulties.get(state.puzzle)
        return {**super().groups(state), **({"difficulty": difficulty} if difficulty else {})}

    def form(self, kind: str) -> Form:
        return self._forms[kind]

    def kinds(self) -> Mapping[str, AnswerSpace]:
        """Return puzzles with their classes: up to the largest right answer of all rows, those of the test included, as
        the papers count them."""
        return self._kinds

    def key(self, state: Instance) -> object:
        return [state.puzzle, state.row]

    def draw(self, state: Instance) -> Picture:
        """Return the picture. Raises ValueError, with file and row, where it is none."""
        try:
            picture = self._files.folder.picture(state.image)
        except ValueError as error:
            raise ValueError(f"task=smart101: puzzle {state.puzzle}, row {state.row + 1}: {error}") from error
        if self.sizes.picture is not None:
            picture = ImageOps.pad(picture, self.sizes.picture, color="white")
        return np.asarray(picture)

    def question(self, state: Instance) -> str:
        return state.question if self.shows_question else HIDDEN

    def text(self, state: Instance) -> str:
        """Return that there is none: a picture of SMART-101 has no text form."""
        return "The picture is not shown."

    def thought(self, state: Instance) -> list[str]:
        return []

    def _state(self, level: str, split: str, index: int) -> Instance:
        found = self._places[split]
        if not found:
            raise ValueError(
                f"task={self.name} split={split}: there is no problem of task.partition={self.partition} in it"
            )
        puzzle, row = found[index % len(found)]
        return self.read.instances[puzzle][row]

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> Instance:
        raise AssertionError("rows are not drawn")

    @functools.cached_property
    def _files(self) -> Smart101Files:
        if self.data is None:
            raise ValueError("task.data: missing, the folder of SMART-101 (its pictures are in SMART101-Data in it)")
        return Smart101Files(Path(self.data), self.limits)

    @functools.cached_property
    def _difficulties(self) -> Mapping[int, str]:
        return self._files.difficulties()

    @functools.cached_property
    def _forms(self) -> Mapping[str, Form]:
        return {str(puzzle): self._files.form(puzzle) for puzzle in self.read.instances}

    @functools.cached_property
    def _rights(self) -> Mapping[int, Mapping[int, Value]]:
        """The right values of each puzzle, by row."""
        return {
            puzzle: {row: self.value(instance) for row, instance in rows.items()}
            for puzzle, rows in self.read.instances.items()
        }

    @functools.cached_property
    def _kinds(self) -> Mapping[str, AnswerSpace]:
        return {
            str(puzzle): self.form(str(puzzle)).space(list(rights.values()), STEPS)
            for puzzle, rights in self._rights.items()
        }

    @functools.cached_property
    def _places(self) -> Mapping[str, Sequence[Place]]:
        rows = {puzzle: Rows(self.read.num_rows[puzzle], rights) for puzzle, rights in self._rights.items()}
        return cast(Mapping[str, Sequence[Place]], partitions.places(rows, self.partition, self.rule, self.few))
