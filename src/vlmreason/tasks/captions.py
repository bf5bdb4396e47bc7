"""What the patches of a picture show, as classes: what a vision tower is taught before anything is asked of it.

A task whose pictures fall into patches says it by `captions` (the form) and `caption` (of one problem); the form is
the same for all of its problems.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable


@dataclass(frozen=True)
class Slot:
    """A thing that a patch may show, in classes from 0, which is nothing. Slots of one name are measured together."""

    name: str
    num_classes: int


@dataclass(frozen=True)
class Captions:
    """places: the patches that are read, by their numbers row by row; each has a class in every slot, and bits.

    Weights are of a slot's cross entropy, of its places where nothing is, and of the bits' cross entropy. `free` are
    patches whose tokens may change although others are kept (Phase.keep), by their numbers.
    """

    places: tuple[int, ...]
    slots: tuple[Slot, ...]
    num_bits: int = 0
    slot_weight: float = 1.0
    nothing_weight: float = 1.0
    bits_weight: float = 1.0
    free: tuple[int, ...] = ()


@runtime_checkable
class Captioned(Protocol):
    """A task with captions."""

    def captions(self, patch: int) -> Captions:
        """Return the form for square patches of so many pixels. Raises ValueError where they do not fit."""

    def caption(self, state: Any) -> tuple[Sequence[Sequence[int]], Sequence[Sequence[int]]]:
        """Return the classes (places, slots) and bits (places, bits) of a problem's picture."""


def num_patches(picture: tuple[int, int], patch: int, where: str) -> tuple[int, int]:
    """Count the patches of a picture across and down. Raises ValueError where it is no whole number."""
    width, height = picture
    if width % patch or height % patch:
        raise ValueError(f"{where}: pictures of {width} x {height} px do not fall into patches of {patch} px")
    return width // patch, height // patch
