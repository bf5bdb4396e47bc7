"""Coloured pictures of things and symbols, drawn from the glyphs of one font: they stand for CIFAR and miniImageNet.

They are not those sets, and no figure on them is one of theirs. What they keep of their relation: three sets with the
same question, one of 10 classes and two of 30, beside one set in grey with a foreign question (digits.py). Each class
is one drawing; place, size, turn, colours and noise are drawn anew for every picture.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image, ImageDraw

from vlmreason.pictures import Color, Picture, font
from vlmreason.streams import stream
from vlmreason.structure import check_choice
from vlmreason.tasks.base import MAX_ATTEMPTS, Belongs
from vlmreason.tasks.images.base import PictureSizes, PictureTask
from vlmreason.tasks.images.labels import SYMBOLS30, THINGS10, THINGS30

GLYPHS: Mapping[str, str] = dict(
    zip(
        THINGS10 + THINGS30 + SYMBOLS30,
        "\u2708\u260e\u2602\U0001f431\u265e\u2615\u2702\u2302\u2709\u2693"
        "\U0001f42d\U0001f42e\U0001f435\u265c\u265a\u265f\u265d\u2328\u270f\u2712\u270c\u2603\u2604\u2600\u2601\u263e\u2740"
        "\u2744\u2618\u2620\u2699\u2696\u2691\u2694\u26b0\u26b1\u267f\u2660\u2665\u263b"
        "\u2648\u2649\u264a\u264b\u264c\u264d\u264e\u264f\u2650\u2651\u2652\u2653\u263f\u2640\u2642\u2643\u2644\u2645\u2646"
        "\u2647\u266a\u266d\u266e\u266f\u269b\u2623\u2625\u2638\u262e\u269c",
        strict=True,
    )
)

INKS: Mapping[str, Color] = {
    "red": (200, 30, 30), "blue": (30, 60, 200), "green": (20, 120, 40), "black": (20, 20, 20),
    "purple": (120, 30, 140), "brown": (120, 70, 20),
}  # fmt: skip
GROUNDS: Mapping[str, Color] = {
    "white": (255, 255, 255), "yellow": (250, 235, 150), "pink": (250, 205, 210), "sky": (195, 225, 250),
    "mint": (200, 240, 205), "grey": (205, 205, 205),
}  # fmt: skip

GRAIN = 4  # side of the squares (px) in which noise is the same


@dataclass(frozen=True)
class DrawnSizes(PictureSizes):
    """glyph: least and greatest size of a glyph, as shares of the picture's side; turn: greatest turn to either side
    (degrees); noise: greatest change of a value of a pixel, from 0 to 255."""

    picture: tuple[int, int] = (144, 144)
    glyph: tuple[float, float] = (0.4, 0.75)
    turn: int = 15
    noise: int = 40

    def __post_init__(self) -> None:
        if not 0 < self.glyph[0] <= self.glyph[1] <= 1:
            raise ValueError(f"glyph={list(self.glyph)}: two shares of the side are expected, the least first")
        if not 0 <= self.turn <= 180 or not 0 <= self.noise <= 255:
            raise ValueError(f"turn={self.turn} noise={self.noise}: 0 to 180 and 0 to 255 are allowed")


@dataclass(frozen=True)
class Drawn:
    """A picture: label; size of the glyph and place of its centre (px); turn (degrees); colours; seed of the noise."""

    label: str
    size: int
    x: int
    y: int
    turn: int
    ink: str
    ground: str
    noise: int


class DrawnTask(PictureTask[Drawn]):
    """outlined: whether glyphs are drawn as outlines."""

    state_type = Drawn
    sizes_type: ClassVar[type] = DrawnSizes
    sizes: DrawnSizes
    outlined = False

    def key(self, state: Drawn) -> object:
        return [state.label, state.size, state.x, state.y, state.turn, state.ink, state.ground]

    def draw(self, state: Drawn) -> Picture:
        width, height = self.sizes.picture
        ink, ground = INKS[state.ink], GROUNDS[state.ground]
        image = Image.new("RGB", (width, height), ground)
        ImageDraw.Draw(image).text(
            (state.x, state.y), GLYPHS[state.label], font=font(state.size), anchor="mm",
            fill=ground if self.outlined else ink,
            stroke_width=max(1, state.size // 30) if self.outlined else 0, stroke_fill=ink,
        )  # fmt: skip
        place = (state.x, state.y)
        turned = image.rotate(state.turn, Image.Resampling.BILINEAR, center=place, fillcolor=ground)
        drawn = np.array(turned)
        most = self.sizes.noise
        if not most:
            return drawn
        coarse = (-(-height // GRAIN), -(-width // GRAIN), 3)
        values = np.frombuffer(stream(self.name, "noise", state.noise).randbytes(math.prod(coarse)), np.uint8)
        change = values.reshape(coarse).astype(np.int16) * (2 * most + 1) // 256 - most
        change = change.repeat(GRAIN, axis=0).repeat(GRAIN, axis=1)[:height, :width]
        return (drawn.astype(np.int16) + change).clip(0, 255).astype(np.uint8)

    def text(self, state: Drawn) -> str:
        """Return what is drawn, where and how."""
        return (
            f"{state.ink} {state.label} on {state.ground}, {state.size} px at ({state.x},{state.y}), "
            f"turned by {state.turn}"
        )

    def state_from_json(self, data: object) -> Drawn:
        state = super().state_from_json(data)
        try:
            check_choice("label", state.label, self.labels)
            check_choice("ink", state.ink, INKS)
            check_choice("ground", state.ground, GROUNDS)
            width, height = self.sizes.picture
            if not (0 < state.size <= min(width, height) and 0 <= state.x < width and 0 <= state.y < height):
                raise ValueError(f"size={state.size} at ({state.x},{state.y}): within the picture is expected")
        except ValueError as error:
            raise ValueError(f"problem of {self.name}: {error}") from error
        return state

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> Drawn:
        for _ in range(MAX_ATTEMPTS):
            state = self._any(level, rng)
            if belongs(self.key(state)):
                return state
        raise self.unreachable(level, "no picture was found")

    def _any(self, level: str, rng: random.Random) -> Drawn:
        width, height = self.sizes.picture
        side = min(width, height)
        size = rng.randint(*(round(share * side) for share in self.sizes.glyph))
        half = size // 2
        return Drawn(
            label=rng.choice(self.of_level(level)),
            size=size,
            x=rng.randint(half, width - half - 1) if half < width - half - 1 else width // 2,
            y=rng.randint(half, height - half - 1) if half < height - half - 1 else height // 2,
            turn=rng.randint(-self.sizes.turn, self.sizes.turn),
            ink=rng.choice(tuple(INKS)),
            ground=rng.choice(tuple(GROUNDS)),
            noise=rng.getrandbits(31),
        )


class Things10(DrawnTask):
    name = "things10"
    version = 1

    @property
    def labels(self) -> tuple[str, ...]:
        return THINGS10


class Things30(DrawnTask):
    name = "things30"
    version = 1

    @property
    def labels(self) -> tuple[str, ...]:
        return THINGS30


class Symbols30(DrawnTask):
    name = "symbols30"
    version = 1
    outlined = True

    @property
    def labels(self) -> tuple[str, ...]:
        return SYMBOLS30
