"""Scenes of shapes: what all tasks of compositions ask about (arXiv 2505.19406, section 3).

A scene is a square grid with shapes in some of its cells, each with a kind, a colour that no other has, and integer
dimensions. Cells are (row, column), counted from 1, in everything that is written. The shapes of a scene are in reading
order. For the target that is asked about, the nearest and the farthest of the other shapes by rows plus columns are
one each, and so is the largest shape: a draw with a tie is drawn again.

Areas are kept twice, as integers, so that halves are exact; what is answered is rounded half up.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vlmreason.tasks.cells import Cell, cell_name

KINDS: Mapping[str, int] = {"square": 1, "rectangle": 2, "triangle": 2, "trapezoid": 3}
"""Kinds of shapes with their number of dimensions: side; width, height; base, height; top, bottom, height."""

COLORS: Mapping[str, tuple[int, int, int]] = {
    "red": (255, 130, 130),
    "blue": (135, 175, 255),
    "green": (130, 220, 135),
    "yellow": (255, 238, 110),
    "purple": (200, 155, 240),
    "orange": (255, 187, 100),
    "pink": (255, 190, 220),
    "brown": (208, 168, 128),
    "grey": (190, 190, 190),
    "cyan": (135, 235, 235),
}
"""Light enough for a black label."""

SPLITS_OF = "compositions"
"""Whose splits all tasks on scenes have: a scene that one of them tests, none of them trains."""


@dataclass(frozen=True)
class Shape:
    """A shape with its dimensions in the order of KINDS."""

    kind: str
    color: str
    dimensions: tuple[int, ...]
    cell: Cell

    @functools.cached_property
    def twice_area(self) -> int:
        """Return twice the area, which is whole."""
        match self.kind, self.dimensions:
            case "square", (side,):
                return 2 * side * side
            case "rectangle", (width, height):
                return 2 * width * height
            case "triangle", (base, height):
                return base * height
            case _, (top, bottom, height):
                return (top + bottom) * height
        raise ValueError(f"{self.kind}: {KINDS.get(self.kind, 'no')} dimensions are expected, not {self.dimensions}")

    @property
    def name(self) -> str:
        return f"{self.color} {self.kind}"


@dataclass(frozen=True)
class Scene:
    """A grid of `size` rows and columns, and its shapes in reading order."""

    size: int
    shapes: tuple[Shape, ...]


@dataclass(frozen=True)
class CompositionSizes:
    """Ranges include both ends. In pixels: `picture` (width, height), `cell` a side, `unit` a unit of length, `font`.

    size: rows and columns of the grid. whole: shapes have whole areas, so nothing is rounded. unit: 0: shapes are not
    drawn to scale, they fill their cells. style: one: the pictures of all tasks show all of a scene in one look; paper:
    only what the task asks about, each skill in a look of its own (of `own_picture`), so that the composition is a new
    kind of picture too. caption: responses to pictures begin with a caption, which is the text form. prompts: one: the
    question alone, always; paper: SFT, RL and the evaluation have a prompt each.
    """

    size: tuple[int, int]
    num_shapes: tuple[int, int]
    dimension: tuple[int, int]
    kinds: tuple[str, ...]
    colors: tuple[str, ...]
    whole: bool
    picture: tuple[int, int]
    own_picture: tuple[int, int]
    cell: int
    unit: int
    font: int
    style: Literal["one", "paper"] = "one"
    caption: bool = False
    prompts: Literal["one", "paper"] = "one"


def check_sizes(sizes: CompositionSizes) -> None:
    """Check that shapes, colours and cells suffice. Raises ValueError."""
    for name, values, known in (("kinds", sizes.kinds, KINDS), ("colors", sizes.colors, COLORS)):
        if not values or (unknown := [value for value in values if value not in known]):
            raise ValueError(f"task.{name}={list(values)}: some of {', '.join(known)} are expected")
        assert not unknown
    for name in ("size", "num_shapes", "dimension"):
        low, high = getattr(sizes, name)
        if not 1 <= low <= high:
            raise ValueError(f"task.{name}={[low, high]}: a range from 1 on is expected")
    most = min(len(set(sizes.colors)), sizes.size[0] ** 2)
    if sizes.num_shapes[0] < 2 or sizes.num_shapes[1] > most:
        raise ValueError(f"task.num_shapes={list(sizes.num_shapes)}: 2 to {most} fit, of as many colours and cells")
    side = sizes.cell * sizes.size[1]
    if sizes.cell < 1 or side > min(sizes.picture):
        raise ValueError(f"task.cell={sizes.cell}: {sizes.size[1]} of them are {side} px of {list(sizes.picture)}")
    if sizes.unit * sizes.dimension[1] > sizes.cell:
        raise ValueError(f"task.unit={sizes.unit}: the longest side has no room in a cell of {sizes.cell} px")


def draw_scene(rng: random.Random, sizes: CompositionSizes) -> Scene:
    """Draw a scene: every number uniform, kinds with replacement, colours and cells without."""
    size, num = rng.randint(*sizes.size), rng.randint(*sizes.num_shapes)
    places = sorted(rng.sample(range(size * size), num))
    colors = rng.sample(sizes.colors, num)
    shapes = []
    for place, color in zip(places, colors, strict=True):
        kind = rng.choice(sizes.kinds)
        shape = Shape(kind, color, draw_sides(rng, kind, sizes), (place // size + 1, place % size + 1))
        shapes.append(shape)
    return Scene(size, tuple(shapes))


def draw_sides(rng: random.Random, kind: str, sizes: CompositionSizes) -> tuple[int, ...]:
    """Draw the dimensions of a shape of a kind; again, where its area has to be whole and is not."""
    low, high = sizes.dimension
    while True:
        found = tuple([rng.randint(low, high) for _ in range(KINDS[kind])])
        if not sizes.whole or Shape(kind, "", found, (1, 1)).twice_area % 2 == 0:
            return found


def key_of(scene: Scene) -> list[object]:
    """Return what decides the split of whatever is asked about a scene."""
    return [scene.size, [[s.kind, s.color, list(s.dimensions), list(s.cell)] for s in scene.shapes]]


def distance(a: Cell, b: Cell) -> int:
    """Count rows plus columns from one cell to the other."""
    return abs(a[0] - b[0]) + abs(a[1] - b[1])


def others(scene: Scene, target: int) -> list[Shape]:
    """Return the shapes beside the target, from near to far."""
    cell = scene.shapes[target].cell
    rest = [shape for i, shape in enumerate(scene.shapes) if i != target]
    return sorted(rest, key=lambda shape: distance(cell, shape.cell))


def largest(scene: Scene) -> Shape:
    """Return the shape with the largest area."""
    return max(scene.shapes, key=lambda shape: shape.twice_area)


def has_ties(scene: Scene, target: int) -> bool:
    """Tell whether the nearest or the farthest from the target, or the largest of the shapes, is not one."""
    areas = sorted(shape.twice_area for shape in scene.shapes)
    cell = scene.shapes[target].cell
    found = sorted([distance(cell, shape.cell) for i, shape in enumerate(scene.shapes) if i != target])
    return areas[-1] == areas[-2] or (len(found) > 1 and (found[0] == found[1] or found[-1] == found[-2]))


def halves(twice: int) -> str:
    """Write a number that is given twice, exactly: 9 as 4.5."""
    return f"{twice // 2}.5" if twice % 2 else str(twice // 2)


def rounded(twice: int) -> int:
    """Round a number that is given twice, half up."""
    return (twice + 1) // 2


def check_scene(scene: Scene, name: str) -> None:
    """Check a scene that comes from a file. Raises ValueError."""
    where = f"problem of {name}"
    cells = [shape.cell for shape in scene.shapes]
    if not 1 <= scene.size <= 100 or not 2 <= len(cells) <= len(COLORS):
        raise ValueError(f"{where}: a grid of 1 to 100 rows and 2 to {len(COLORS)} shapes are expected")
    for shape in scene.shapes:
        wanted = KINDS.get(shape.kind)
        if shape.color not in COLORS or wanted != len(shape.dimensions):
            raise ValueError(f"{where}: {shape.color} {shape.kind} {list(shape.dimensions)} is no shape")
        if not all(1 <= side <= 1000 for side in shape.dimensions):
            raise ValueError(f"{where}: sides of 1 to 1000 are expected, not {list(shape.dimensions)}")
        if not all(1 <= number <= scene.size for number in shape.cell):
            raise ValueError(f"{where}: a cell lies outside the {scene.size} x {scene.size} grid")
    if len({shape.color for shape in scene.shapes}) < len(cells) or sorted(set(cells)) != cells:
        raise ValueError(f"{where}: shapes of different colours in cells in reading order are expected")


def write_shape(shape: Shape, cells: bool, sides: bool) -> str:
    """Write a shape as `(2,4) red triangle 4 3`, with its cell and its sides where they are shown."""
    cell = [cell_name(shape.cell)] if cells else []
    return " ".join([*cell, shape.name, *(map(str, shape.dimensions) if sides else ())])


def write_scene(scene: Scene, cells: bool = True, sides: bool = True) -> str:
    """Write a scene: the number of rows where cells are shown, and a line for each shape."""
    rows = [f"{scene.size} rows"] if cells else []
    return "\n".join([*rows, *(write_shape(shape, cells, sides) for shape in scene.shapes)])


def gap(distances: Sequence[int], from_far: bool) -> str:
    """Say how much nearer the nearest is than the next (or farther the farthest), as a group's name."""
    found = sorted(distances, reverse=from_far)
    return str(abs(found[0] - found[1])) if len(found) > 1 else "alone"
