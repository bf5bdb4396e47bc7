"""Where in a picture and in a response the things are that attribution asks for."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Mask = NDArray[np.bool_]
"""Pixels of a picture, (height, width)."""


@dataclass(frozen=True)
class Stretch:
    """A part of the trace, and the pixels that it is about."""

    name: str
    text: str
    mask: Mask


@dataclass(frozen=True)
class Regions:
    """A trace in stretches, which join to the whole of it, and the regions of its picture by name."""

    stretches: tuple[Stretch, ...]
    masks: Mapping[str, Mask]


def _boxes(picture: tuple[int, int], boxes: Iterable[tuple[int, int, int, int]]) -> Mask:
    """Pixels within any of the boxes (top, left, height, width) of a picture (width, height)."""
    mask = np.zeros((picture[1], picture[0]), dtype=np.bool_)
    for top, left, height, width in boxes:
        mask[top : top + height, left : left + width] = True
    return mask
