"""Panels of an analogy as pixels."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vlmreason.pictures import Picture, blank, text_sprite
from vlmreason.tasks.analogies.panels import COLORS, LETTERS, SIZES, AnalogySizes, Panel, _flat

WHITE, BLACK, FRAME = (255, 255, 255), (0, 0, 0), (160, 160, 160)
_OVERSAMPLING = 8


Ink = NDArray[np.uint8]
"""Grey levels, shape (height, width)."""


@functools.lru_cache(maxsize=16)
def _layout(picture: tuple[int, int], panel: int) -> tuple[tuple[tuple[int, int], ...], ...]:
    """Upper left corners (x, y) of the panels, row by row; the third place of the query is the question mark's."""
    gap_x, gap_y = (picture[0] - 4 * panel) // 5, (picture[1] - 4 * panel) // 5
    return tuple(
        tuple((gap_x + c * (panel + gap_x), gap_y + r * (panel + gap_y)) for c in range(num))
        for r, num in enumerate((3, 3, 3, 4))
    )


@functools.lru_cache(maxsize=16)
def _frames(picture: tuple[int, int], panel: int) -> Picture:
    """White panels with frames, the question mark and, where there is room, the letters of the options."""
    canvas = blank(picture[1], picture[0], WHITE)
    places = _layout(picture, panel)
    for x, y in _flat(places):
        canvas[y : y + panel, x : x + panel] = FRAME
        canvas[y + 1 : y + panel - 1, x + 1 : x + panel - 1] = WHITE
    inner = panel - 2
    x, y = places[2][2]
    canvas[y + 1 : y + 1 + inner, x + 1 : x + 1 + inner] = text_sprite(
        "?", inner * 3 // 4, BLACK, WHITE, True, inner, inner
    )
    height = min(40, (picture[1] - 4 * panel) // 5 - 4)
    if height >= 10:
        for letter, (x, y) in zip(LETTERS, places[3], strict=True):
            canvas[y - 2 - height : y - 2, x : x + panel] = text_sprite(
                letter, height * 3 // 4, BLACK, WHITE, True, panel, height
            )
    canvas.setflags(write=False)
    return canvas


def _draw_panel(sizes: AnalogySizes, panel: Panel) -> Ink:
    """The inside of a panel: lines first (where they cross the darker shows), shapes above them."""
    inner, side = sizes.panel - 2, (sizes.panel - 2) // sizes.positions
    if panel.lines:
        ink = _line_sprite(*panel.lines[0], inner, sizes.line_width)
        for i, (kind, color) in enumerate(panel.lines[1:]):
            sprite = _line_sprite(kind, color, inner, sizes.line_width)
            ink = np.minimum(ink, sprite, out=ink if i else None)
        ink = ink.copy() if len(panel.lines) == 1 and panel.shapes else ink
    else:
        ink = np.full((inner, inner), 255, dtype=np.uint8)
    for kind, color, size, (r, c) in panel.shapes:
        sprite, covered = _shape_sprite(kind, color, sizes.shape_px[SIZES.index(size)], sizes.outline, side)
        target = ink[(r - 1) * side : r * side, (c - 1) * side : c * side]
        if panel.lines:
            np.copyto(target, sprite, where=covered)
        else:
            target[:] = sprite
    return ink


@functools.lru_cache(maxsize=1024)
def _shape_sprite(kind: str, color: str, diameter: int, outline: int, side: int) -> tuple[Ink, NDArray[np.bool_]]:
    """A shape in the middle of a square of `side` pixels, and which pixels it covers."""
    k = _OVERSAMPLING
    corner, size, edge = (side - diameter) // 2 * k, diameter * k, outline * k
    ink = Image.new("L", (side * k, side * k), 255)
    cover = Image.new("L", ink.size, 0)
    for shrink, target, fill in ((0, ink, 0), (edge, ink, COLORS[color]), (0, cover, 255)):
        pen = ImageDraw.Draw(target)
        middle = corner + size / 2
        if kind == "circle":
            far = corner + size - 1 - shrink
            pen.ellipse([corner + shrink, corner + shrink, far, far], fill)
        elif kind == "rectangle":
            low = size * 0.2
            pen.rectangle(
                [corner + shrink, corner + low + shrink, corner + size - 1 - shrink, corner + size - 1 - low - shrink],
                fill,
            )
        else:
            num = {"triangle": 3, "pentagon": 5, "hexagon": 6}[kind]
            radius = size / 2 - shrink / np.cos(np.pi / num)  # edges move inwards by `shrink`
            down = size / 8 if num == 3 else 0.0
            radius += size / 12 if num == 3 else 0.0
            angles = [2 * np.pi * i / num - np.pi / 2 for i in range(num)]
            pen.polygon([(middle + radius * np.cos(a), middle + down + radius * np.sin(a)) for a in angles], fill)
    sprite, covered = (np.array(image.reduce(k)) for image in (ink, cover))
    sprite.setflags(write=False)
    return sprite, covered > 0


@functools.lru_cache(maxsize=256)
def _line_sprite(kind: str, color: str, side: int, width: int) -> Ink:
    """A line across a white square of `side` pixels."""
    k = _OVERSAMPLING
    end, low, middle = side * k - 1, side * k // 16, side * k // 2
    high = end - low
    points: Mapping[str, list[tuple[int, int]]] = {
        "falling": [(0, 0), (end, end)],
        "rising": [(0, end), (end, 0)],
        "horizontal": [(0, middle), (end, middle)],
        "vertical": [(middle, 0), (middle, end)],
        "diamond": [(middle, low), (high, middle), (middle, high), (low, middle), (middle, low), (high, middle)],
        "upward": [(low, low), (middle, high), (high, low)],
        "leftward": [(low, low), (high, middle), (low, high)],
        "downward": [(low, high), (middle, low), (high, high)],
        "rightward": [(high, low), (low, middle), (high, high)],
    }
    image = Image.new("L", (side * k, side * k), 255)
    pen = ImageDraw.Draw(image)
    if kind == "ring":
        margin = side * k // 4
        pen.ellipse([margin, margin, end - margin, end - margin], outline=COLORS[color], width=width * k)
    else:
        pen.line(points[kind], fill=COLORS[color], width=width * k, joint="curve")
    sprite = np.array(image.reduce(k))
    sprite.setflags(write=False)
    return sprite
