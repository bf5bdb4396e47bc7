"""Panels of a matrix as pixels: entities as cached sprites."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vlmreason.pictures import Picture, text_sprite
from vlmreason.tasks.matrices.panels import CONFIGURATIONS, NUM_CONTEXT, MatrixSizes, Panel

Ink = NDArray[np.uint8]
"""Grey levels, shape (height, width)."""
WHITE, BLACK = 255, 0
_MISSING = NUM_CONTEXT
_MOST_SPRITES = 10_000
_OVERSAMPLING = 8
_CORNERS = {"triangle": 3, "square": 4, "pentagon": 5, "hexagon": 6}


class Artist:
    """Draws panels of given sizes; what was drawn once is pasted from then on."""

    def __init__(self, sizes: MatrixSizes) -> None:
        self.sizes = sizes
        self._boxes: dict[str, list[list[tuple[int, int, int]]]] = {}
        self._sprites: dict[tuple[int, ...], tuple[Ink, NDArray[np.bool_]]] = {}

    def panel(self, panel: Panel, configuration: str) -> Ink:
        """Draw a panel without a frame, as files hold it."""
        ink = np.full((self.sizes.panel, self.sizes.panel), WHITE, np.uint8)
        self._put(ink, panel, configuration)
        return ink

    def panels(self, panels: Sequence[Panel | None], configuration: str) -> Picture:
        """Draw 17 panels at their places in a picture, row by row; None: a question mark."""
        ink, side = self._canvas.copy(), self.sizes.panel
        for (x, y), panel in zip(self.places, panels, strict=True):
            if panel is not None:
                target = ink[y : y + side, x : x + side]
                if panels[_MISSING] is not None:
                    target[:] = WHITE
                self._put(target, panel, configuration)
        return self._framed(ink)

    def inks(self, panels: Sequence[Ink | None]) -> Picture:
        """Put 17 panels that are drawn already at their places; None: a question mark."""
        ink, side = self._canvas.copy(), self.sizes.panel
        for (x, y), panel in zip(self.places, panels, strict=True):
            if panel is not None:
                ink[y : y + side, x : x + side] = panel
        return self._framed(ink)

    def _framed(self, ink: Ink) -> Picture:
        ink.reshape(-1)[self._frames] = self.sizes.frame
        return ink.repeat(3).reshape(*ink.shape, 3)

    @functools.cached_property
    def places(self) -> tuple[tuple[int, int], ...]:
        """Return upper left corners (x, y) of the nine panels of the matrix, then of the eight choices."""
        side, found = self.sizes.panel, []
        for (x, y), rows, columns in ((self.sizes.matrix, 3, 3), (self.sizes.choices, 2, 4)):
            found += [(x + column * side, y + row * side) for row in range(rows) for column in range(columns)]
        return tuple(found)

    @functools.cached_property
    def _canvas(self) -> Ink:
        """White, with the question mark."""
        ink = np.full(self.sizes.picture[::-1], WHITE, np.uint8)
        (x, y), side, white = self.places[_MISSING], self.sizes.panel, (WHITE,) * 3
        mark = text_sprite("?", side * 3 // 4, (BLACK,) * 3, white, True, side, side)
        ink[y : y + side, x : x + side] = mark[:, :, 0]
        return ink

    @functools.cached_property
    def _frames(self) -> NDArray[np.intp]:
        """The right and lower edges of all panels, as places in the picture row by row."""
        mask, side = np.zeros(self.sizes.picture[::-1], np.bool_), self.sizes.panel
        for x, y in self.places:
            mask[y + side - 1, x : x + side] = mask[y : y + side, x + side - 1] = True
        return np.flatnonzero(mask)

    def _put(self, target: Ink, panel: Panel, configuration: str) -> None:
        line, sprites = CONFIGURATIONS[configuration].line, self._sprites
        boxes = self._boxes.get(configuration) or self._find_boxes(configuration)
        for number, entities in enumerate(panel):
            for slot, kind, size, color, angle in entities:
                top, left, side = boxes[number][slot]
                key = (kind, size, color, angle, side)
                sprite, covered = sprites.get(key) or self._draw(key)
                box = target[top : top + side, left : left + side]
                if number and not line:
                    np.copyto(box, sprite, where=covered)  # it lies on another one
                else:
                    box[:] = sprite
        if line == "vertical":
            target[:, len(target) // 2] = self.sizes.frame
        elif line == "horizontal":
            target[len(target) // 2] = self.sizes.frame

    def _find_boxes(self, configuration: str) -> list[list[tuple[int, int, int]]]:
        """Top, left and side of the slots of every component (px), within the panel."""
        found: list[list[tuple[int, int, int]]] = []
        for component in range(len(CONFIGURATIONS[configuration].components)):
            found.append([])
            for row, col, extent in self.sizes.slots(configuration, component):
                side = round(extent * self.sizes.panel)
                most = self.sizes.panel - side
                top, left = (min(max(0, round(at * self.sizes.panel - side / 2)), most) for at in (row, col))
                found[-1].append((top, left, side))
        self._boxes[configuration] = found
        return found

    def _draw(self, key: tuple[int, int, int, int, int]) -> tuple[Ink, NDArray[np.bool_]]:
        """An entity in the middle of a square of `side` pixels, and which pixels it covers."""
        kind, size, color, angle, side = key
        sizes = self.sizes
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
        found = (sprite, covered > 0)
        if len(self._sprites) < _MOST_SPRITES:
            self._sprites[key] = found
        return found
