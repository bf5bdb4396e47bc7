"""Matrices of panels after the grammar of RAVEN: configurations, attributes, panels and what is read of them.

A puzzle has one configuration for all of its panels: one or two components, each with slots that entities may fill.
An entity has a type, a size, a color (a grey, level 0 is white) and an angle. Levels are what rules count in: types by
their number of corners from 1, sizes from 1, colors from 0, numbers as they are, positions as sets of slots. So the
arithmetic of every attribute is that of its levels.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from vlmreason.pictures import MAX_SIDE
from vlmreason.structure import nearest

Entity = tuple[int, int, int, int, int]
"""Slot (from 0), type, size, color, angle (its number in the list of angles)."""
Panel = tuple[tuple[Entity, ...], ...]
"""For every component its entities in the order of their slots."""
Reading = tuple[int, int, int, int]
"""Of a component: its set of slots (bit i is slot i), type, size and color; MIXED where its entities differ."""

PLACE, TYPE, SIZE, COLOR = ATTRIBUTES = ("place", "type", "size", "color")
"""What rules govern, in the order of a reading. The place is Number or Position: only one of them has a rule."""
MIXED = -1
TYPES = ("triangle", "square", "pentagon", "hexagon", "circle")
NUM_CONTEXT, NUM_CHOICES = 8, 8
MAX_SLOTS = 9


class Component(NamedTuple):
    """A part of a configuration: its name and that of its layout in files, and what it holds.

    `grid`: rows and columns of slots. `outer`: it is white and large, and lies around another one.
    """

    name: str
    layout: str
    grid: int = 1
    outer: bool = False


@dataclass(frozen=True)
class Configuration:
    """`folder` and `structure` are its names in files, `line` the one that parts its components."""

    folder: str
    structure: str
    components: tuple[Component, ...]
    line: Literal["", "vertical", "horizontal"] = ""


_OUT = Component("Out", "Out_Center_Single", outer=True)
CONFIGURATIONS: Mapping[str, Configuration] = {
    "center": Configuration("center_single", "Singleton", (Component("Grid", "Center_Single"),)),
    "grid_2x2": Configuration("distribute_four", "Singleton", (Component("Grid", "Distribute_Four", 2),)),
    "grid_3x3": Configuration("distribute_nine", "Singleton", (Component("Grid", "Distribute_Nine", 3),)),
    "left_right": Configuration(
        "left_center_single_right_center_single",
        "Left_Right",
        (Component("Left", "Left_Center_Single"), Component("Right", "Right_Center_Single")),
        "vertical",
    ),
    "up_down": Configuration(
        "up_center_single_down_center_single",
        "Up_Down",
        (Component("Up", "Up_Center_Single"), Component("Down", "Down_Center_Single")),
        "horizontal",
    ),
    "out_in": Configuration(
        "in_center_single_out_center_single", "Out_In", (_OUT, Component("In", "In_Center_Single"))
    ),
    "out_grid": Configuration(
        "in_distribute_four_out_center_single", "Out_In", (_OUT, Component("In", "In_Distribute_Four", 2))
    ),
}
"""The seven of RAVEN, by the names of the levels."""


@dataclass(frozen=True)
class MatrixSizes:
    """In pixels: `picture` (width, height), `panel` its side, `matrix` and `choices` upper left corners (x, y) of the
    three rows of three and of the two rows of four panels, `outline` of an entity.

    `types` from few corners to many, `sizes` as shares of a slot, `colors` grey values from white down, `angles` in
    degrees; `outer_sizes` and `inner_sizes`: the least level of a size around others and in an inner grid; `inner`: how
    much of the panel's side one inner slot, and an inner grid, may take. `frame`: grey value of the lines on the right
    and lower edges of panels.
    """

    picture: tuple[int, int]
    panel: int
    matrix: tuple[int, int]
    choices: tuple[int, int]
    outline: int
    frame: int
    types: tuple[str, ...]
    sizes: tuple[float, ...]
    colors: tuple[int, ...]
    angles: tuple[int, ...]
    outer_sizes: int
    inner_sizes: int
    inner: tuple[float, float]

    def __post_init__(self) -> None:
        for name in self.types:
            if name not in TYPES:
                raise ValueError(f"types: no {name!r}; there are {', '.join(TYPES)}{nearest(name, TYPES)}")
        if list(self.types) != sorted(set(self.types), key=TYPES.index):
            raise ValueError(f"types={list(self.types)}: different types in the order {', '.join(TYPES)} are expected")
        numbers: list[tuple[str, float, float, float]] = [
            ("types", len(self.types), 3, 5),
            ("sizes", len(self.sizes), 3, 9),
            ("colors", len(self.colors), 3, 10),
            ("angles", len(self.angles), 1, 16),
            *(("picture", side, 64, MAX_SIDE) for side in self.picture),
            ("panel", self.panel, 16, min(self.picture)),
            ("outline", self.outline, 1, self.panel // 8),
            ("frame", self.frame, 0, 255),
            ("outer_sizes", self.outer_sizes, 1, len(self.sizes)),
            ("inner_sizes", self.inner_sizes, 1, len(self.sizes)),
            *(("inner", share, 0.1, 0.9) for share in self.inner),
        ]
        for what, value, least, most in numbers:
            if not least <= value <= most:
                raise ValueError(f"{what}={value}: allowed is {least} to {most}")
        if list(self.sizes) != sorted(set(self.sizes)) or not 0.1 <= self.sizes[0] <= self.sizes[-1] <= 1:
            raise ValueError(f"sizes={list(self.sizes)}: growing shares of 0.1 to 1 are expected")
        if list(self.colors) != sorted(set(self.colors), reverse=True) or self.colors[0] != 255 or self.colors[-1] < 0:
            raise ValueError(f"colors={list(self.colors)}: falling grey values from 255 are expected")
        for what, (x, y), across, down in (("matrix", self.matrix, 3, 3), ("choices", self.choices, 4, 2)):
            right, lower = x + across * self.panel, y + down * self.panel
            if x < 0 or y < 0 or right > self.picture[0] or lower > self.picture[1]:
                raise ValueError(f"{what}={[x, y]}: {across} x {down} panels do not lie within the picture")

    def slots(self, configuration: str, component: int) -> tuple[tuple[float, float, float], ...]:
        """Return centre (row, column) and extent of the slots of a component, in units of the panel's side."""
        parts = CONFIGURATIONS[configuration]
        part = parts.components[component]
        if part.outer or (part.grid == 1 and len(parts.components) == 1):
            return ((0.5, 0.5, 1.0),)
        if parts.line:
            near = (0.25, 0.75)[component]
            return ((0.5, near, 0.5) if parts.line == "vertical" else (near, 0.5, 0.5),)
        if len(parts.components) == 1:
            at, extent = ((0.25, 0.75), 0.5) if part.grid == 2 else ((0.16, 0.5, 0.83), 0.33)
        elif part.grid == 1:
            return ((0.5, 0.5, self.inner[0]),)
        else:  # RAVEN: 0.42 and 0.58, 0.15 wide, together 0.31
            away, extent = self.inner[1] * 0.08 / 0.31, self.inner[1] * 0.15 / 0.31
            at = (0.5 - away, 0.5 + away)
        return tuple((row, col, extent) for row, col in itertools.product(at, at))

    def ranges(self, configuration: str, component: int) -> tuple[tuple[int, int], ...]:
        """Return the least and the most level of number, type, size and color of a component."""
        parts = CONFIGURATIONS[configuration].components
        part = parts[component]
        least = self.outer_sizes if part.outer else self.inner_sizes if len(parts) > 1 and part.grid > 1 else 1
        most = 0 if part.outer else len(self.colors) - 1
        return (1, part.grid**2), (1, len(self.types)), (least, len(self.sizes)), (0, most)


@dataclass(frozen=True)
class MatrixState:
    """Eight panels row by row, eight choices for the ninth, and which of them is right (from 0)."""

    configuration: str
    context: tuple[Panel, ...]
    choices: tuple[Panel, ...]
    answer: int


def read(entities: Sequence[Entity]) -> Reading:
    """Return what is read of a component."""
    slot, kind, size, color, _ = entities[0]
    mask = 1 << slot
    for slot, other_kind, other_size, other_color, _ in entities[1:]:
        mask |= 1 << slot
        if other_kind != kind:
            kind = MIXED
        if other_size != size:
            size = MIXED
        if other_color != color:
            color = MIXED
    return mask, kind, size, color


def check_panel(panel: Panel, configuration: str, sizes: MatrixSizes) -> None:
    """Raise ValueError for a panel that has not what its configuration allows."""
    parts = CONFIGURATIONS[configuration].components
    if len(panel) != len(parts):
        raise ValueError(f"a panel of {configuration} has {len(parts)} components, not {len(panel)}")
    for number, entities in enumerate(panel):
        slots = [entity[0] for entity in entities]
        num = parts[number].grid ** 2
        if not slots or slots != sorted(set(slots)) or slots[0] < 0 or slots[-1] >= num:
            raise ValueError(f"a component holds entities in different slots of {num}, in their order")
        _, *ranges = sizes.ranges(configuration, number)
        for _, *levels, angle in entities:
            for name, level, (least, most) in zip(ATTRIBUTES[1:], levels, ranges, strict=True):
                if not least <= level <= most:
                    raise ValueError(f"{name} {level} of an entity: allowed is {least} to {most}")
            if not 0 <= angle < len(sizes.angles):
                raise ValueError(f"angle {angle} of an entity: allowed is 0 to {len(sizes.angles) - 1}")


@functools.cache
def members(mask: int) -> tuple[int, ...]:
    """Return the slots of a set, in order."""
    return tuple(slot for slot in range(mask.bit_length()) if mask >> slot & 1)
