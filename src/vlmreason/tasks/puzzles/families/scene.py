"""What a family of puzzles makes, as plain data: the marks of its picture, its question, its solution."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from vlmreason.pictures import Color, Picture, font
from vlmreason.structure import check_choice
from vlmreason.tasks.puzzles.values import Form, Value

SIDE, CELL, MAX_TEXT = 144, 24, 20
"""Marks are placed on a square of this side, in cells; a picture is drawn at any size."""

ICONS = ("circle", "square", "triangle", "diamond", "star", "cross")
COLORS: dict[str, Color] = {
    "red": (214, 48, 49),
    "blue": (37, 99, 201),
    "green": (34, 139, 66),
    "orange": (235, 140, 20),
    "purple": (130, 60, 170),
    "brown": (120, 75, 40),
}
_INKS: dict[str, Color] = {**COLORS, "black": (0, 0, 0), "white": (255, 255, 255), "grey": (190, 190, 190)}
SHAPES = (*ICONS, "dot", "ring", "text", "line", "frame", "bold", "fill")
_TEXT_PX = 14
_OVERSAMPLING = 4


@dataclass(frozen=True)
class Mark:
    """One thing in a picture, of SHAPES, in the box (x, y, w, h); a line goes from (x, y) to (x + w, y + h), all others
    fill their box or are centred in it. Raises ValueError for what no family draws."""

    shape: str
    x: int
    y: int
    w: int = CELL
    h: int = CELL
    color: str = "black"
    text: str = ""

    def __post_init__(self) -> None:
        check_choice("shape", self.shape, SHAPES)
        check_choice("color", self.color, _INKS)
        if max(map(abs, (self.x, self.y, self.w, self.h))) > SIDE or len(self.text) > MAX_TEXT:
            raise ValueError(f"{self.shape} at {self.x}, {self.y}: outside of the picture, or with a long text")


@dataclass(frozen=True)
class Made:
    """A problem of a family. text: what its picture shows. steps: the solution. mistakes: values that a wrong solution
    gives, the likeliest first."""

    marks: tuple[Mark, ...]
    question: str
    text: str
    steps: tuple[str, ...]
    value: Value
    mistakes: tuple[Value, ...] = ()


@dataclass(frozen=True)
class Family:
    """A root puzzle.

    values: the smallest and the largest answer; of a sequence, of its elements. length: elements of a sequence at most.
    split: of which all its problems are where whole families are held out. drawn: whether its five options are in the
    picture, as letters.
    """

    name: str
    skill: str
    form: Form
    values: tuple[int, int]
    make: Callable[[random.Random], Made]
    split: str = "train"
    length: int = 1
    drawn: bool = False


def cell(row: int, column: int, shape: str, color: str = "black", text: str = "", size: int = CELL) -> Mark:
    """Return a mark in a cell of a grid."""
    return Mark(shape, column * size, row * size, size, size, color, text)


def label(x: int, y: int, text: str, w: int = CELL, h: int = CELL, color: str = "black") -> Mark:
    """Return a text centred in a box."""
    return Mark("text", x, y, w, h, color, text)


def grid_lines(rows: int, columns: int, size: int = CELL, x: int = 0, y: int = 0) -> list[Mark]:
    """Return frames around all cells of a grid."""
    return [
        Mark("frame", x + column * size, y + row * size, size, size, "grey")
        for row in range(rows)
        for column in range(columns)
    ]


def draw(marks: Sequence[Mark], size: tuple[int, int]) -> Picture:
    """Return the picture of marks, (height, width, 3); `size`: width and height (px)."""
    image = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(image)
    across, down = size[0] / SIDE, size[1] / SIDE
    for mark in marks:
        x, y = round(mark.x * across), round(mark.y * down)
        far_x, far_y = round((mark.x + mark.w) * across), round((mark.y + mark.h) * down)
        ink, width = _INKS[mark.color], max(1, round(across))
        match mark.shape:
            case "text":
                face = font(round(_TEXT_PX * down), True)
                pen.text(((x + far_x) / 2, (y + far_y) / 2), mark.text, font=face, fill=ink, anchor="mm")
            case "line":
                pen.line([x, y, far_x, far_y], fill=ink, width=2 * width)
            case "frame":
                pen.rectangle([x, y, far_x - 1, far_y - 1], outline=ink, width=width)
            case "bold":
                pen.rectangle([x, y, far_x - 1, far_y - 1], outline=ink, width=3 * width)
            case "fill":
                pen.rectangle([x + 1, y + 1, far_x - 2, far_y - 2], fill=ink)
            case _:
                sprite = _icon(mark.shape, ink, min(far_x - x, far_y - y))
                image.paste(sprite, ((x + far_x - sprite.width) // 2, (y + far_y - sprite.height) // 2), sprite)
    return np.asarray(image)


@functools.lru_cache(maxsize=512)
def _icon(shape: str, ink: Color, side: int) -> Image.Image:
    """An icon in a square of `side` pixels, with what is around it transparent."""
    big = side * _OVERSAMPLING
    image = Image.new("RGBA", (big, big), (*ink, 0))
    pen = ImageDraw.Draw(image)
    low, middle, high = big * 0.14, big / 2, big * 0.86
    outlines: dict[str, list[tuple[float, float]]] = {
        "triangle": [(middle, low), (high, high), (low, high)],
        "diamond": [(middle, low), (high, middle), (middle, high), (low, middle)],
        "square": [(low, low), (high, low), (high, high), (low, high)],
        "star": [
            (
                middle + big * (0.42 if i % 2 == 0 else 0.17) * np.sin(i * np.pi / 5),
                middle - big * (0.42 if i % 2 == 0 else 0.17) * np.cos(i * np.pi / 5),
            )
            for i in range(10)
        ],
    }
    fill = (*ink, 255)
    if shape == "circle":
        pen.ellipse([low, low, high, high], fill=fill)
    elif shape == "dot":
        pen.ellipse([big * 0.3, big * 0.3, big * 0.7, big * 0.7], fill=fill)
    elif shape == "ring":
        pen.ellipse([big * 0.02, big * 0.02, big * 0.98, big * 0.98], outline=fill, width=max(2, big // 40))
    elif shape == "cross":
        pen.rectangle([big * 0.38, low, big * 0.62, high], fill=fill)
        pen.rectangle([low, big * 0.38, high, big * 0.62], fill=fill)
    else:
        pen.polygon(outlines[shape], fill=fill)
    return image.reduce(_OVERSAMPLING)
