"""Panels of a matrix as pixels: entities as cached sprites."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from vlmreason.pictures import Picture, text_sprite
from vlmreason.tasks.matrices.panels import CONFIGURATIONS, NUM_CONTEXT, Entity, MatrixSizes, Panel

Ink = NDArray[np.uint8]
"""Grey levels, shape (height, width)."""
WHITE, BLACK = 255, 0
Stamp = tuple[tuple[slice, slice], Ink, NDArray[np.bool_]]
"""Where in a panel an entity lies, its sprite, and which pixels of that it covers."""
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
        self._stamps: dict[str, list[dict[Entity, Stamp]]] = {}  # by configuration, of each component

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
        picture = np.empty((*ink.shape, 3), np.uint8)
        for channel in range(3):
            picture[:, :, channel] = ink
        return picture

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
        line = CONFIGURATIONS[configuration].line
        stamps = self._stamps.get(configuration) or self._no_stamps(configuration)
        for number, entities in enumerate(panel):
            known = stamps[number]
            if number and not line:  # it lies on another one
                for entity in entities:
                    where, sprite, covered = known.get(entity) or self._stamp(entity, configuration, number)
                    np.copyto(target[where], sprite, where=covered)
            else:
                for entity in entities:
                    where, sprite, _ = known.get(entity) or self._stamp(entity, configuration, number)
                    target[where] = sprite
        if line == "vertical":
            target[:, len(target) // 2] = self.sizes.frame
        elif line == "horizontal":
            target[len(target) // 2] = self.sizes.frame

    def _no_stamps(self, configuration: str) -> list[dict[Entity, Stamp]]:
        return self._stamps.setdefault(configuration, [{} for _ in CONFIGURATIONS[configuration].components])

    def _stamp(self, entity: Entity, configuration: str, component: int) -> Stamp:
        slot, *key = entity
        top, left, side = self._find_boxes(configuration)[component][slot]
        sprite, covered = self._sprites.get((*key, side)) or self._draw((*key, side))
        found = (slice(top, top + side), slice(left, left + side)), sprite, covered
        stamps = self._stamps[configuration][component]
        if len(stamps) < _MOST_SPRITES:
            stamps[entity] = found
        return found

    def _find_boxes(self, configuration: str) -> list[list[tuple[int, int, int]]]:
        """Top, left and side of the slots of every component (px), within the panel."""
        if configuration in self._boxes:
            return self._boxes[configuration]
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

    def _draw(self, key: tuple[int, ...]) -> tuple[Ink, NDArray[np.bool_]]:
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
