"""Drawn pairs of pictures that differ in one detail, of nine visual patterns, and need no download.

Every picture has a detail of each pattern, drawn independently, so all nine can be asked of any of them. Problems 2k
and 2k + 1 are a pair: the same scene but for the detail that is asked about, the same question and options. Levels are
the patterns of MMVP; `mixed` draws one for each pair. The pictures are none of MMVP's.
"""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from PIL import Image, ImageDraw

from vlmreason.pictures import Color, Picture, font
from vlmreason.streams import stream
from vlmreason.structure import structure
from vlmreason.tasks.base import MAX_ATTEMPTS, Belongs, Modality
from vlmreason.tasks.pairs.base import PATTERNS, PairTask

MIXED = "mixed"
INKS: Mapping[str, Color] = {
    "red": (210, 50, 50), "blue": (50, 80, 210), "green": (30, 140, 60), "purple": (130, 50, 160),
    "brown": (130, 85, 35), "orange": (225, 130, 20),
}  # fmt: skip
DETAILS: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "orientation": ("Where does the arrow point?", ("left", "right", "up", "down")),
    "feature": ("Is there a cross on the body?", ("yes", "no")),
    "state": ("Is the lid of the body open or closed?", ("open", "closed")),
    "count": ("How many dots are in the row?", ("one", "two", "three", "four")),
    "position": ("Where is the block, seen from the body?", ("left", "right", "above", "below")),
    "color": ("Is the block dark or light?", ("dark", "light")),
    "structure": ("What is the form of the body?", ("round", "square", "pointed")),
    "text": ("Which letter is shown?", ("A", "E", "H", "K", "S", "X")),
    "viewpoint": ("Is the body seen from the front or from above?", ("front", "above")),
}
"""Of each pattern its question and the values of its detail."""

STATEMENTS: Mapping[str, str | Mapping[str, str]] = {
    "ink": "a {} body",
    "orientation": "an arrow that points {}",
    "feature": {"yes": "a body with a cross on it", "no": "a body with no cross on it"},
    "state": {"open": "a body with an open lid", "closed": "a body with a closed lid"},
    "count": {
        "one": "a row of one dot",
        "two": "a row of two dots",
        "three": "a row of three dots",
        "four": "a row of four dots",
    },
    "position": {
        "left": "a block left of a body",
        "right": "a block right of a body",
        "above": "a block above a body",
        "below": "a block below a body",
    },
    "color": "a {} block",
    "structure": "a {} body",
    "text": "the letter {}",
    "viewpoint": {"front": "a body from the front", "above": "a body from above"},
}
"""Of each detail what holds of a picture with a value, for towers that compare pictures with texts."""

_TURNS = {"right": 0.0, "down": 90.0, "left": 180.0, "up": 270.0}
_SIDES = {"left": (-1, 0), "right": (1, 0), "above": (0, -1), "below": (0, 1)}


@dataclass(frozen=True)
class PairSizes:
    """picture: width and height (px), the same, 96 or more. All else is drawn in proportion."""

    picture: tuple[int, int] = (144, 144)

    def __post_init__(self) -> None:
        if self.picture[0] != self.picture[1] or not 96 <= self.picture[0] <= 2000:
            raise ValueError(f"task.picture={list(self.picture)}: a square of 96 to 2000 px is expected")


@dataclass(frozen=True)
class Details:
    """What a picture shows: a value of each pattern, and the colour of the body."""

    ink: str
    orientation: str
    feature: str
    state: str
    count: str
    position: str
    color: str
    structure: str
    text: str
    viewpoint: str

    def is_known(self) -> bool:
        """Tell whether there are such values."""
        return self.ink in INKS and all(getattr(self, name) in values for name, (_, values) in DETAILS.items())

    def lines(self) -> str:
        """Write a line for each detail."""
        return "\n".join(f"{name} {value}" for name, value in vars(self).items())


@dataclass(frozen=True)
class PairState:
    """One picture of a pair. values: of the detail that is asked about, as options (a) and (b); shift: of the body in
    1/144 of the picture, across and down; ground: shade of the background."""

    pair: int
    pattern: str
    details: Details
    values: tuple[str, str]
    shift: tuple[int, int]
    ground: int


class VisualPairs(PairTask):
    name = "visual_pairs"
    version = 1
    levels: ClassVar[tuple[str, ...]] = (*PATTERNS, MIXED)
    state_type = PairState
    sizes_type: ClassVar[type] = PairSizes

    def __init__(self, sizes: PairSizes, trace: str = "terse", wording: Mapping[str, str] | None = None) -> None:
        if wording:
            raise ValueError(f"task.wording: {self.name} has no templates")
        self.sizes = sizes

    def _state(self, level: str, split: str, index: int) -> PairState:
        """Return the picture of a pair that an index stands for: the pair is drawn from half of it."""
        number, member = divmod(index, 2)
        rng = stream(self.name, self.version, level, split, number)
        first = self._sample(level, rng, lambda key: self.split_of(key) == split)
        other = next(value for value in first.values if value != getattr(first.details, first.pattern))
        details = dataclasses.replace(first.details, **{first.pattern: other}) if member else first.details
        return dataclasses.replace(first, pair=number, details=details)

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> PairState:
        for _ in range(MAX_ATTEMPTS):
            pattern = rng.choice(PATTERNS) if level == MIXED else level
            details = draw_details(rng)
            shown = getattr(details, pattern)
            values = [shown, rng.choice([value for value in DETAILS[pattern][1] if value != shown])]
            rng.shuffle(values)
            shift, ground = draw_place(rng)
            state = PairState(0, pattern, details, (values[0], values[1]), shift, ground)
            if belongs(self.key(state)):
                return state
        raise self.unreachable(level, "no pair is of the split")

    def key(self, state: PairState) -> object:
        """Return what both pictures of a pair have in common: they are of one split."""
        shared = {name: value for name, value in vars(state.details).items() if name != state.pattern}
        return [state.pattern, shared]

    def groups(self, state: PairState) -> Mapping[str, str]:
        return {"pair": str(state.pair), "pattern": state.pattern}

    def two_options(self, state: PairState) -> tuple[str, str]:
        return state.values

    def right(self, state: PairState) -> int:
        return state.values.index(getattr(state.details, state.pattern))

    def statements(self, state: PairState) -> tuple[str, str]:
        first, second = (self.phrase(state.pattern, one) for one in state.values)
        return first, second

    @property
    def nameable(self) -> Mapping[str, tuple[str, ...]]:
        """Return the colour of the body and the detail of each pattern, with their values."""
        return {"ink": tuple(INKS)} | {name: values for name, (_, values) in DETAILS.items()}

    def named_in(self, state: PairState) -> Mapping[str, str]:
        """Return the values that a picture shows."""
        return dict(vars(state.details))

    def phrase(self, fact: str, value: str) -> str:
        """Say a detail as statements of pairs do."""
        form = STATEMENTS[fact]
        return form.format(value) if isinstance(form, str) else form[value]

    def text(self, state: PairState) -> str:
        """Return a line for each detail."""
        return state.details.lines()

    def prompt(self, state: PairState, modality: Modality) -> str:
        asked = self.asked(state, DETAILS[state.pattern][0])
        return f"{self.text(state)}\n{asked}" if modality == "text" else asked

    def draw(self, state: PairState) -> Picture:
        return draw(state, self.sizes.picture[0])

    def state_from_json(self, data: object) -> PairState:
        state: PairState = structure(PairState, data, f"problem of {self.name}")
        if state.pattern not in DETAILS or not state.details.is_known():
            raise ValueError(f"problem of {self.name}: a pattern, colour or detail that does not exist")
        if len(set(state.values)) < 2 or getattr(state.details, state.pattern) not in state.values:
            raise ValueError(f"problem of {self.name}: values={list(state.values)}: not two, one of them the detail's")
        check_place(self.name, state.shift, state.ground)
        return state


def draw_details(rng: random.Random) -> Details:
    """Draw every detail of a picture."""
    drawn = {name: rng.choice(values) for name, (_, values) in DETAILS.items()}
    return Details(ink=rng.choice(tuple(INKS)), **drawn)


def draw_place(rng: random.Random) -> tuple[tuple[int, int], int]:
    """Draw shift and ground of a picture."""
    return (rng.randint(-6, 6), rng.randint(-6, 6)), rng.randint(225, 255)


def check_place(name: str, shift: tuple[int, int], ground: int) -> None:
    """Raise ValueError for a shift or a ground that no picture has; `name`: of the task."""
    if max(map(abs, shift)) > 6 or not 0 <= ground <= 255:
        raise ValueError(f"problem of {name}: shift={list(shift)} ground={ground}: out of range")


def draw(state: PairState, side: int) -> Picture:
    """Draw a scene: the body with its lid, cross and block, the arrow and the letter above, the row of dots below."""
    details, one = state.details, side / 144
    image = Image.new("RGB", (side, side), (state.ground,) * 3)
    pen, black, wide = ImageDraw.Draw(image), (30, 30, 30), max(2, round(3 * one))
    x, y = ((72 + state.shift[0]) * one, (74 + state.shift[1]) * one)
    across, high = 20 * one, (20 if details.viewpoint == "front" else 11) * one
    box, ink = (x - across, y - high, x + across, y + high), INKS[details.ink]
    if details.structure == "round":
        pen.ellipse(box, fill=ink)
    elif details.structure == "square":
        pen.rectangle(box, fill=ink)
    else:
        pen.polygon([(x, y - high), (x + across, y + high), (x - across, y + high)], fill=ink)
    if details.feature == "yes":
        arm = 5 * one
        pen.line([(x - arm, y - arm), (x + arm, y + arm)], fill=(255, 255, 255), width=wide)
        pen.line([(x - arm, y + arm), (x + arm, y - arm)], fill=(255, 255, 255), width=wide)
    rise = math.radians(45 if details.state == "open" else 0)
    hinge, length = (x - across, y - high - 4 * one), 2 * across * 0.8
    pen.line([hinge, (hinge[0] + length * math.cos(rise), hinge[1] - length * math.sin(rise))], fill=black, width=wide)
    over, down = _SIDES[details.position]
    u, v, half = x + 42 * one * over, y + 42 * one * down, 8 * one
    if down:
        u, v = u + 20 * one, y + 34 * one * down
    shade = (60, 60, 60) if details.color == "dark" else (175, 175, 175)
    pen.rectangle((u - half, v - half, u + half, v + half), fill=shade)
    _arrow(pen, (18 * one, 18 * one), 12 * one, _TURNS[details.orientation], wide)
    pen.text((126 * one, 18 * one), details.text, font=font(round(22 * one), True), fill=black, anchor="mm")
    for number in range(("one", "two", "three", "four").index(details.count) + 1):
        at, radius = (20 + 14 * number) * one, 4 * one
        pen.ellipse((at - radius, 132 * one - radius, at + radius, 132 * one + radius), fill=black)
    return np.asarray(image)


def _arrow(pen: ImageDraw.ImageDraw, at: tuple[float, float], reach: float, turn: float, wide: int) -> None:
    """An arrow of this half length whose point looks `turn` degrees clockwise of the right."""

    def placed(along: float, off: float) -> tuple[float, float]:
        angle = math.radians(turn)
        cos, sin = math.cos(angle), math.sin(angle)
        return at[0] + along * cos - off * sin, at[1] + along * sin + off * cos

    pen.line([placed(-reach, 0), placed(reach * 0.4, 0)], fill=(30, 30, 30), width=wide)
    pen.polygon([placed(reach, 0), placed(0, -reach * 0.7), placed(0, reach * 0.7)], fill=(30, 30, 30))
