"""Panels of a matrix as pixels: entities as cached sprites."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vlmreason.pictures import Picture, text_sprite
from vlmreason.tasks.matrices.panels import CONFIGURATIONS, MatrixSizes, MatrixState, Panel

Ink = NDArray[np.uint8]
"""Grey levels, shape (height, width)."""
WHITE, BLACK = 255, 0
_OVERSAMPLING = 8
_CORNERS = {"triangle": 3, "square": 4, "pentagon": 5, "hexagon": 6}


def draw_panel(panel: Panel, configuration: str, sizes: MatrixSizes) -> Ink:
    """Draw a panel without a frame, as files hold it."""
    ink = np.full((sizes.panel, sizes.panel), WHITE, np.uint8)
    _put(ink, panel, configuration, sizes)
    return ink


def draw_matrix(state: MatrixState, sizes: MatrixSizes) -> Picture:
    """Draw eight panels with a question mark, and below them the eight choices in two rows."""
    return draw_panels((*state.context, None, *state.choices), state.configuration, sizes)


def draw_panels(panels: Sequence[Panel | None], configuration: str, sizes: MatrixSizes) -> Picture:
    """Draw 17 panels at their places in a picture, row by row; None: a question mark."""
    ink = np.full(sizes.picture[::-1], WHITE, np.uint8)
    side = sizes.panel
    for (x, y), panel in zip(places(sizes), panels, strict=True):
        target = ink[y : y + side, x : x + side]
        if panel is None:
            color = (WHITE,) * 3
            target[:] = text_sprite("?", side * 3 // 4, (BLACK,) * 3, color, True, side, side)[:, :, 0]
        else:
            _put(target, panel, configuration, sizes)
        target[-1] = target[:, -1] = sizes.frame
    return np.repeat(ink[:, :, None], 3, axis=2)


@functools.lru_cache(maxsize=16)
def places(sizes: MatrixSizes) -> tuple[tuple[int, int], ...]:
    """Return upper left corners (x, y) of the nine panels of the matrix, then of the eight choices."""
    side = sizes.panel
    found = []
    for (x, y), rows, columns in ((sizes.matrix, 3, 3), (sizes.choices, 2, 4)):
        found += [(x + column * side, y + row * side) for row in range(rows) for column in range(columns)]
    return tuple(found)


def _put(target: Ink, panel: Panel, configuration: str, sizes: MatrixSizes) -> None:
    line = CONFIGURATIONS[configuration].line
    for number, entities in enumerate(panel):
        boxes = _boxes(configuration, number, sizes)
        for slot, kind, size, color, angle in entities:
            top, left, side = boxes[slot]
            sprite, covered = _sprite(kind, size, color, angle, side, sizes)
            box = target[top : top + side, left : left + side]
            if number and not line:
                np.copyto(box, sprite, where=covered)  # it lies on another one
            else:
                box[:] = sprite
    if line == "vertical":
        target[:, len(target) // 2] = sizes.frame
    elif line == "horizontal":
        target[len(target) // 2] = sizes.frame


@functools.lru_cache(maxsize=64)
def _boxes(configuration: str, component: int, sizes: MatrixSizes) -> tuple[tuple[int, int, int], ...]:
    """Top, left and side of the slots of a component (px), within the panel."""
    found = []
    for row, col, extent in sizes.slots(configuration, component):
        side = round(extent * sizes.panel)
        most = sizes.panel - side
        top, left = (min(max(0, round(at * sizes.panel - side / 2)), most) for at in (row, col))
        found.append((top, left, side))
    return tuple(found)


@functools.lru_cache(maxsize=20_000)
def _sprite(
    kind: int, size: int, color: int, angle: int, side: int, sizes: MatrixSizes
) -> tuple[Ink, NDArray[np.bool_]]:
    """An entity in the middle of a square of `side` pixels, and which pixels it covers."""
    k = _OVERSAMPLING if side < 64 else 2
    ink = Image.new("L", (side * k, side * k), WHITE)
    cover = Image.new("L", ink.size, 0)
    name, middle, radius = sizes.types[kind - 1], (side * k - 1) / 2, sizes.sizes[size - 1] * side * k / 2
    edge = sizes.outline * k
    for shrink, target, fill in ((0, ink, BLACK), (edge, ink, sizes.colors[color]), (0, cover, 255)):
        pen = ImageDraw.Draw(target)
        if name == "circle":
            r = radius - shrink
            pen.ellipse([middle - r, middle - r, middle + r, middle + r], fill)
            continue
        num = _CORNERS[name]
        r = radius - shrink / np.cos(np.pi / num)  # edges move inwards by `shrink`
        turn = np.deg2rad(sizes.angles[angle]) + (np.pi / 4 if num == 4 else 0.0)
        angles = [2 * np.pi * i / num - np.pi / 2 + turn for i in range(num)]
        if r > 0:
            pen.polygon([(middle + r * np.cos(a), middle + r * np.sin(a)) for a in angles], fill)
    sprite, covered = (np.array(image.reduce(k)) for image in (ink, cover))
    sprite.setflags(write=False)
    return sprite, covered > 0
