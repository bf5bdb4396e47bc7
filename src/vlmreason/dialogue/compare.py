"""A response held against the expected one: where the two part, and what the verdict says in words."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlmreason.dialogue.build import build_dialogue
from vlmreason.dialogue.parse import split_response
from vlmreason.segments import CONDITION, THOUGHT, Response
from vlmreason.tasks.base import Problem, Task

Span = tuple[int, int]


@dataclass(frozen=True)
class Difference:
    """The first word in which two texts differ: its characters in either; None where that text ended before."""

    expected: Span | None
    response: Span | None


@dataclass(frozen=True)
class Compared:
    """A response and what was expected of one that converts and thinks as it does; difference None: they are equal."""

    expected: Response
    response: Response
    difference: Difference | None

    @property
    def words(self) -> tuple[str | None, str | None]:
        """Return the expected word and the one that stands there; None where a text ends before, or both are equal."""
        if self.difference is None:
            return None, None
        spans = (self.difference.expected, self.difference.response)
        texts = (self.expected.text, self.response.text)
        left, right = (text[slice(*span)] if span else None for text, span in zip(texts, spans, strict=True))
        return left, right


def compare(task: Task[Any], problem: Problem[Any], view: str, response: str) -> Compared:
    """Hold a response to a problem against the expected one."""
    found = split_response(task, problem.state, response)
    kinds = {segment.kind for segment in found.segments if segment.text.strip()}
    shown = "image_via_text" if task.converted_as in kinds else view
    kept = 1.0 if THOUGHT in kinds else 0.0
    expected = build_dialogue(task, problem, shown, kept, condition=CONDITION in kinds).response
    return Compared(expected, found, first_difference(expected.text, response))


def first_difference(expected: str, response: str) -> Difference | None:
    """Say where the first word stands that two texts do not share; white space does not count."""
    pairs = itertools.zip_longest(re.finditer(r"\S+", expected), re.finditer(r"\S+", response))
    for wanted, word in pairs:
        if wanted is None or word is None or wanted.group() != word.group():
            return Difference(wanted and wanted.span(), word and word.span())
    return None


def details(parsed: bool, parts: Mapping[str, float], cut_off: bool = False) -> str:
    """Write what a verdict says beside right and wrong, as `cut off; trace_list 0.5, sum 1`."""
    faults = [*["unparsed"] * (not parsed), *["cut off"] * cut_off]
    numbers = [f"{name} {value:.3g}" for name, value in parts.items()]
    return "; ".join(", ".join(said) for said in (faults, numbers) if said)
