"""What the answers of a kind of problem can be, as classes: what a task says of it and a network has outputs for."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

HEAD = "Answer: "


@dataclass(frozen=True)
class AnswerSpace:
    """The answers of a kind of problem: `elements` are the texts of its classes.

    steps: elements of an answer at most; with more than one it is a sequence, which `end` (a class of its own, behind
    the elements) fills up. joint: what stands between the elements of a sequence. head: what every answer begins with.
    """

    elements: tuple[str, ...]
    steps: int = 1
    joint: str = ""
    head: str = HEAD

    def __post_init__(self) -> None:
        if not self.elements or len(set(self.elements)) < len(self.elements) or self.steps < 1:
            raise ValueError(f"answers: different elements and 1 or more steps are expected, got {self.elements[:9]}")

    @property
    def is_sequence(self) -> bool:
        return self.steps > 1

    @property
    def end(self) -> int:
        """Return the class that fills up a sequence."""
        return len(self.elements)

    @property
    def num_classes(self) -> int:
        return len(self.elements) + self.is_sequence

    def numbers(self, text: str) -> list[int]:
        """Return the classes of an answer as it is written, one for each step. Raises ValueError for another one."""
        written = text.removeprefix(self.head)
        parts = self._parts(written) if self.is_sequence else [written]
        if len(parts) > self.steps or any(part not in self._classes for part in parts):
            raise ValueError(f"{text[:80]!r}: no answer of this kind of problem")
        return [self._classes[part] for part in parts] + [self.end] * (self.steps - len(parts))

    def write(self, numbers: Sequence[int]) -> str:
        """Return the answer of these classes; a sequence ends before its first `end`."""
        kept = list(numbers)
        if self.end in kept:
            kept = kept[: kept.index(self.end)]
        return self.head + self.joint.join(self.elements[number] for number in kept)

    def _parts(self, written: str) -> list[str]:
        if not written:
            return []
        return written.split(self.joint) if self.joint else list(written)

    @functools.cached_property
    def _classes(self) -> Mapping[str, int]:
        return {element: number for number, element in enumerate(self.elements)}
