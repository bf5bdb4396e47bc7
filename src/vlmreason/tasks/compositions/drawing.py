"""Scenes as pixels: one routine, with a look for each of what a picture may show.

In the style `one` every picture has grid lines and shapes with their sides written in them. In the style `paper` the
areas are shown without a grid, shapes to scale and scattered, with the sides written above them; places with lines and
without sides, not to scale; the composition as in the style `one`. Where shapes fill their cells (`unit: 0`) nothing
is scattered. Scattered shapes lie in fields of their own, so they never overlap; where in them follows from the scene.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
from PIL import Image, ImageDraw

from vlmreason.pictures import Box, Picture, blank, font
from vlmreason.streams import stream
from vlmreason.tasks.compositions.scenes import COLORS, CompositionSizes, Scene, key_of

WHITE, BLACK, LINE = (255, 255, 255), (0, 0, 0), (200, 200, 200)
SCATTERED_UNIT = 10  # px of a unit of length where shapes are scattered
LABEL_FONT, LABEL_HEIGHT = 12, 16  # px, of labels above shapes
Shows = Literal["all", "areas", "places"]
"""What a task asks about: areas alone, places alone, or both."""


@dataclass(frozen=True)
class Look:
    """How a scene is drawn.

    lines: width of grid lines (px), 0: none. label: where the sides are written. unit: px of a unit of length, 0: not
    to scale, shapes take the share `fill` of their cell. scattered: shapes lie in fields and not in their cells.
    """

    lines: int
    label: Literal["within", "above", "none"]
    unit: int
    fill: float
    font: int
    scattered: bool = False


def look_of(sizes: CompositionSizes, shows: Shows) -> Look:
    """Return the look of a picture that shows so much, at these sizes."""
    width = 2 if sizes.unit else 1
    if sizes.style == "one" or shows == "all":
        return Look(width, "within", sizes.unit, 0.8, sizes.font)
    if shows == "places":
        return Look(1, "none", 0, 0.6 if sizes.unit else 0.8, sizes.font)
    if sizes.unit:
        return Look(0, "above", SCATTERED_UNIT, 0.8, LABEL_FONT, scattered=True)
    return Look(0, "within", 0, 0.8, sizes.font)


def draw(scene: Scene, sizes: CompositionSizes, shows: Shows) -> Picture:
    """Return the picture of a scene."""
    look, cell = look_of(sizes, shows), cell_side(scene, sizes, shows)
    picture = _grid(*sizes.picture, 0 if look.scattered else scene.size, cell, look.lines).copy()
    for shape, (top, left, height, width) in zip(scene.shapes, boxes(scene, sizes, shows), strict=True):
        sides = shape.dimensions if look.label != "none" or look.unit else ()
        picture[top : top + height, left : left + width] = _sprite(shape.kind, shape.color, sides, height, width, look)
    return picture


def cell_side(scene: Scene, sizes: CompositionSizes, shows: Shows) -> int:
    """Return the side of a cell (px): that of the sizes, or the grid fills the picture where places alone are shown."""
    if sizes.style == "paper" and shows == "places" and sizes.unit:
        return min(sizes.picture) // scene.size
    return sizes.cell


def boxes(scene: Scene, sizes: CompositionSizes, shows: Shows) -> list[Box]:
    """Return what each shape is drawn in: the inside of its cell, or its part of a field."""
    look = look_of(sizes, shows)
    if not look.scattered:
        side, edge = cell_side(scene, sizes, shows), look.lines
        inner = side - edge
        return [((r - 1) * side, (c - 1) * side, inner, inner) for r, c in (shape.cell for shape in scene.shapes)]
    rng = stream("places of", key_of(scene))
    across = math.ceil(math.sqrt(len(scene.shapes)))
    field_height, field_width = sizes.picture[1] // across, sizes.picture[0] // across
    most = sizes.dimension[1] * look.unit
    height, width = most + LABEL_HEIGHT, max(most, 80)
    found = []
    for field in rng.sample(range(across * across), len(scene.shapes)):
        top = field // across * field_height + rng.randint(0, max(0, field_height - height))
        left = field % across * field_width + rng.randint(0, max(0, field_width - width))
        found.append((top, left, min(height, field_height), min(width, field_width)))
    return found


@functools.lru_cache(maxsize=64)
def _grid(width: int, height: int, size: int, cell: int, line: int) -> Picture:
    """White, with lines along the right and lower edges of the cells, which lie from the upper left on."""
    picture = blank(height, width, WHITE)
    side = size * cell
    for number in range(1, size + 1 if line else 0):
        end = number * cell
        picture[:side, end - line : end] = LINE
        picture[end - line : end, :side] = LINE
    picture.setflags(write=False)
    return picture


@functools.lru_cache(maxsize=2048)
def _sprite(kind: str, color: str, sides: tuple[int, ...], height: int, width: int, look: Look) -> Picture:
    """A shape, its middle in the middle of (height, width, 3), under its label where that is above."""
    image = Image.new("RGB", (width, height), WHITE)
    pen = ImageDraw.Draw(image)
    room = LABEL_HEIGHT if look.label == "above" else 0
    wide, high, points = _outline(kind, sides, look, min(width, height - room))
    left, top = (width - wide) / 2, room + (height - room - high) / 2
    end = (round(left + wide) - 1, round(top + high) - 1)
    pen.polygon([(min(round(left + x), end[0]), min(round(top + y), end[1])) for x, y in points], fill=COLORS[color])
    if look.label != "none" and sides:
        middle = (width / 2, top - room / 2) if room else (width / 2, top + high / 2)
        pen.text(middle, label(kind, sides, look), font=font(look.font, bold=True), fill=BLACK, anchor="mm")
    sprite = np.array(image)
    sprite.setflags(write=False)
    return sprite


def _outline(
    kind: str, sides: tuple[int, ...], look: Look, side: int
) -> tuple[float, float, list[tuple[float, float]]]:
    """Width, height and corners of a shape; to scale, or as large as the look says of a square of `side` px."""
    full = look.fill * side
    flat = {"square": (1.0, 1.0), "rectangle": (1.0, 2 / 3), "triangle": (1.0, 1.0), "trapezoid": (0.6, 1.0, 0.6)}
    long = tuple(look.unit * one for one in sides) if look.unit else tuple(full * share for share in flat[kind])
    if kind == "square":
        long = (long[0], long[0])
    if kind == "trapezoid":
        upper, lower, high = long
        wide = max(upper, lower)
        a, b = (wide - upper) / 2, (wide - lower) / 2
        return wide, high, [(a, 0), (a + upper, 0), (b + lower, high), (b, high)]
    wide, high = long[0], long[1]
    if kind == "triangle":  # the right angle at the lower left
        return wide, high, [(0, 0), (wide, high), (0, high)]
    return wide, high, [(0, 0), (wide, 0), (wide, high), (0, high)]


def label(kind: str, sides: tuple[int, ...], look: Look) -> str:
    """Write the sides as a picture shows them: numbers alone where shapes fill their cells."""
    if not look.unit:
        return " ".join(map(str, sides))
    forms = {"square": "s={}", "trapezoid": "{}, {}, h={}"}
    written = forms.get(kind, "{} x {}").format(*sides)
    return written if look.label == "above" else written.replace(" ", "")
