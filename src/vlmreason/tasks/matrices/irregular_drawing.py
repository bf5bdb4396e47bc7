"""Panels of irregular puzzles as pixels: a drawing for each pattern, kept for each value and look."""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw

from vlmreason.pictures import MAX_SIDE, Picture, text_sprite
from vlmreason.streams import stream
from vlmreason.tasks.matrices.drawing import BLACK, WHITE, Ink
from vlmreason.tasks.matrices.irregular_rules import GROUP, NUM_CHOICES, SEQUENCE, IrregularState, Panel

_OVERSAMPLING = 8
_THIRDS = (0.2, 0.48, 0.76)
_CORNERS = {1: 3, 2: 4, 3: 5, 4: 6}  # of shapes by their look; 5: a circle


@dataclass(frozen=True)
class IrregularSizes:
    """In pixels: `picture` (width, height), `panel` its side, `context` and `choices` upper left corners (x, y) of the
    panels and of the row of four; a row of more than three panels begins at the left edge. `frame`: grey value of the
    lines on the right and lower edges of panels."""

    picture: tuple[int, int]
    panel: int
    context: tuple[int, int]
    choices: tuple[int, int]
    frame: int

    def __post_init__(self) -> None:
        if max(self.picture) > MAX_SIDE:
            raise ValueError(f"picture={list(self.picture)}: allowed is up to {MAX_SIDE} px a side")
        if not 16 <= self.panel <= min(self.picture):
            raise ValueError(f"panel={self.panel}: allowed is 16 to {min(self.picture)}")
        if not 0 <= self.frame <= 255:
            raise ValueError(f"frame={self.frame}: allowed is 0 to 255")
        places = (
            ("context", self.context, 3, 3),
            ("choices", self.choices, 4, 1),
            ("context", (0, self.context[1]), 6, 1),
        )
        for what, (x, y), across, down in places:
            right, lower = x + across * self.panel, y + down * self.panel
            if x < 0 or y < 0 or right > self.picture[0] or lower > self.picture[1]:
                raise ValueError(f"{what}={[x, y]}: {across} x {down} panels do not lie within the picture")


def places_of(state: IrregularState, sizes: IrregularSizes) -> list[tuple[int, int]]:
    """Return upper left corners (x, y) of the context, of the missing panel (not of a group), of the choices."""
    num = len(state.context) + (state.layout != GROUP)
    columns, (x, y), side = (
        (num, (0, sizes.context[1]), sizes.panel) if state.layout == SEQUENCE else (3, sizes.context, sizes.panel)
    )
    found = [(x + i % columns * side, y + i // columns * side) for i in range(num)]
    return found + [(sizes.choices[0] + i * side, sizes.choices[1]) for i in range(NUM_CHOICES)]


class IrregularArtist:
    """Draws puzzles of given sizes."""

    def __init__(self, sizes: IrregularSizes) -> None:
        self.sizes = sizes
        self._inks: dict[tuple[str, Panel], Ink] = {}

    def puzzle(self, state: IrregularState) -> Picture:
        side = self.sizes.panel
        ink = np.full(self.sizes.picture[::-1], WHITE, np.uint8)
        missing = [] if state.layout == GROUP else [None]
        panels: Sequence[Panel | None] = [*state.context, *missing, *state.choices]
        for (x, y), panel in zip(places_of(state, self.sizes), panels, strict=True):
            ink[y : y + side, x : x + side] = self._mark() if panel is None else self.panel(state.pattern, panel)
            ink[y + side - 1, x : x + side] = ink[y : y + side, x + side - 1] = self.sizes.frame
        return np.repeat(ink[:, :, None], 3, axis=2)

    def _mark(self) -> Ink:
        side = self.sizes.panel
        return text_sprite("?", side * 3 // 4, (BLACK,) * 3, (WHITE,) * 3, True, side, side)[:, :, 0]

    def panel(self, pattern: str, panel: Panel) -> Ink:
        """Draw a panel without its frame; what was drawn once is kept."""
        if (pattern, panel) not in self._inks:
            value, look = panel
            size = self.sizes.panel * (_OVERSAMPLING if self.sizes.panel < 64 else 2)
            image = Image.new("L", (size, size), WHITE)
            _DRAWINGS[pattern](_Pen(image), value, look, stream("irregular", pattern, value, look))
            self._inks[pattern, panel] = np.array(image.reduce(size // self.sizes.panel))
        return self._inks[pattern, panel]


class _Pen:
    """Draws in units of the panel's side."""

    def __init__(self, image: Image.Image) -> None:
        self.draw, self.size = ImageDraw.Draw(image), image.width
        self.width = round(0.05 * self.size)

    def shape(self, x: float, y: float, radius: float, look: int) -> None:
        """Fill a shape by its look: of so many corners, or a circle."""
        if look not in _CORNERS:
            self.disc(x, y, radius, BLACK, None)
            return
        num = _CORNERS[look]
        turn = math.pi / 4 if num == 4 else 0.0
        angles = [2 * math.pi * i / num + turn for i in range(num)]
        points = [(x + radius * math.sin(angle), y - radius * math.cos(angle)) for angle in angles]
        self.draw.polygon([(a * self.size, b * self.size) for a, b in points], fill=BLACK)

    def disc(self, x: float, y: float, radius: float, fill: int | None, outline: int | None) -> None:
        box = [(x - radius) * self.size, (y - radius) * self.size, (x + radius) * self.size, (y + radius) * self.size]
        self.draw.ellipse(box, fill=fill, outline=outline, width=self.width)

    def line(self, *points: tuple[float, float]) -> None:
        self.draw.line([(a * self.size, b * self.size) for a, b in points], fill=BLACK, width=self.width, joint="curve")


def _cells(rng: random.Random, num: int) -> list[tuple[float, float]]:
    return rng.sample(list(itertools.product(_THIRDS, _THIRDS)), num)


def _count(pen: _Pen, value: int, look: int, rng: random.Random) -> None:
    for x, y in _cells(rng, value):
        pen.shape(x, y, 0.13, look)


def _symmetry(pen: _Pen, value: int, look: int, rng: random.Random) -> None:
    """A figure of 4 x 4 squares with a vertical axis (1), a horizontal one (2), both (3) or none (0)."""
    while True:
        grid = np.array([[rng.random() < 0.5 for _ in range(4)] for _ in range(4)])
        if value & 1:
            grid[:, 2:] = grid[:, 1::-1]
        if value & 2:
            grid[2:] = grid[1::-1]
        axes = int((grid == grid[:, ::-1]).all()) + 2 * int((grid == grid[::-1]).all())
        if axes == value and 5 <= grid.sum() <= 11:
            break
    step = 0.2
    for row, column in zip(*np.nonzero(grid), strict=True):
        x, y = ((0.08 + step * at) * pen.size for at in (column, row))
        pen.draw.rectangle([x, y, x + step * pen.size - 1, y + step * pen.size - 1], fill=BLACK)


def _closed(pen: _Pen, value: int, look: int, rng: random.Random) -> None:
    r = 0.1
    for number, (x, y) in enumerate(_cells(rng, value + look)):
        if number < value:
            pen.line((x - r, y - r), (x + r, y - r), (x + r, y + r), (x - r, y + r), (x - r, y - r), (x + r, y - r))
        else:
            pen.line((x - r, y - r), (x - r, y + r), (x + r, y + r), (x + r, y - r))


def _inside(pen: _Pen, value: int, look: int, rng: random.Random) -> None:
    pen.disc(0.48, 0.48, 0.36, None, BLACK)
    near = (0.3, 0.48, 0.66)
    corners = [(x, y) for x in (0.07, 0.89) for y in (0.07, 0.89)]
    for x, y in (*rng.sample(list(itertools.product(near, near)), value), *rng.sample(corners, look)):
        pen.disc(x, y, 0.06, BLACK, None)


def _rotation(pen: _Pen, value: int, look: int, rng: random.Random) -> None:
    angle = math.pi / 4 * value
    pen.line((0.48, 0.48), (0.48 + 0.42 * math.sin(angle), 0.48 - 0.42 * math.cos(angle)))
    pen.shape(0.48, 0.48, 0.17, look)


_DRAWINGS: Mapping[str, Callable[[_Pen, int, int, random.Random], None]] = {
    "counting": _count,
    "arithmetic": _count,
    "symmetry": _symmetry,
    "closed": _closed,
    "inside": _inside,
    "rotation": _rotation,
}
