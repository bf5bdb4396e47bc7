"""Generic skills on scenes with a wording that varies, to pretrain the nano model; not a task of any paper.

What cells hold, where things are, the sides that are written in a shape, transcription; and what is computed from
numbers of the question alone, beside a scene or its picture: areas of given sides, products, halves of products, sums,
extremes, distances of given cells. `chain` has two steps on something that no task asks for: a thing is found by what
it is or by what it comes after, and numbers of its place are counted or added. Bases differ in whether they know it.
No prompt or trace of a task occurs: nothing is asked about all shapes together, or about what is near to one.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from vlmreason.pictures import Picture
from vlmreason.tasks.base import MAX_ATTEMPTS, Belongs
from vlmreason.tasks.captions import Captions, Slot, num_patches
from vlmreason.tasks.cells import Cell, cell_name
from vlmreason.tasks.compositions import drawing
from vlmreason.tasks.compositions.scenes import (
    KINDS,
    SPLITS_OF,
    CompositionSizes,
    Scene,
    Shape,
    check_scene,
    check_sizes,
    distance,
    draw_scene,
    draw_sides,
    halves,
    key_of,
    write_scene,
)
from vlmreason.tasks.skills import Skills, ask

VERBS: Mapping[str, tuple[str, ...]] = {
    "holds": ("Holds", "Contains"),
    "where": ("Places", "Show", "Look"),
    "things": ("Things", "Objects"),
    "sides": ("Read", "Get"),
    "transcribe": ("Transcribe", "Write", "Render"),
    "areas": ("Area",),
    "products": ("Times",),
    "halves": ("Half",),
    "sums": ("Add",),
    "extremes": ("Pick", "Sort"),
    "distances": ("Distance",),
    "chain": ("Count", "Follow"),
}
EXTREMES: Mapping[str, bool] = {"largest": True, "larger": True, "farthest": True, "nearest": False}
"""Words for the extreme of a list of numbers, and whether it is the greatest."""


@dataclass(frozen=True)
class ShapeReadingState:
    """A scene, what is asked of it or beside it, and the reply."""

    skill: str
    scene: Scene
    question: str
    reply: str


class ShapeReadingSkills(Skills[ShapeReadingState]):
    name = "shape_reading_skills"
    version = 1
    levels = tuple(VERBS)
    state_type = ShapeReadingState
    splits_of = SPLITS_OF
    sizes_type: ClassVar[type] = CompositionSizes

    def __init__(self, sizes: CompositionSizes, trace: str = "terse", wording: Mapping[str, str] | None = None) -> None:
        check_sizes(sizes)
        self.sizes = sizes

    def state_from_json(self, data: object) -> ShapeReadingState:
        state = super().state_from_json(data)
        check_scene(state.scene, self.name)
        return state

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> ShapeReadingState:
        for _ in range(MAX_ATTEMPTS):
            scene = draw_scene(rng, self.sizes)
            if belongs(key_of(scene)):
                parts, reply = self._ask(level, rng, scene)
                return ShapeReadingState(level, scene, ask(rng, VERBS[level], *parts), reply)
        raise self.unreachable(level, "the scenes are too few to be divided into splits")

    def _ask(self, level: str, rng: random.Random, scene: Scene) -> tuple[list[str], str]:
        """The parts of the question behind its verb, and the reply."""
        match level:
            case "holds":
                return _holds(rng, scene)
            case "where":
                return _where(rng, scene)
            case "things":
                return [], " ".join(f"{shape.name} {cell_name(shape.cell)}" for shape in scene.shapes)
            case "sides":
                shapes = rng.sample(scene.shapes, rng.randint(1, len(scene.shapes)))
                return [cell_name(s.cell) for s in shapes], " ".join(f"{cell_name(s.cell)} {_sides(s)}" for s in shapes)
            case "transcribe":
                return [], write_scene(scene)
            case "areas" | "products" | "halves":
                return self._products(level, rng)
            case "sums":
                numbers = [rng.randint(1, self.sizes.dimension[1] ** 2) for _ in range(rng.randint(2, 4))]
                sums = itertools.accumulate(numbers)
                reply = " ".join(f"{number} sum {so_far}" for number, so_far in zip(numbers, sums, strict=True))
                return list(map(str, numbers)), reply
            case "extremes":
                return self._extremes(rng, scene)
            case "distances":
                cells = _cells(scene)
                pairs = [rng.sample(cells, 2) for _ in range(rng.randint(1, 3))]
                named = [f"{cell_name(a)} {cell_name(b)}" for a, b in pairs]
                found = [f"{name} distance {distance(a, b)}" for name, (a, b) in zip(named, pairs, strict=True)]
                return named, " ".join(found)
            case _:
                return _chain(rng, scene)

    def _products(self, level: str, rng: random.Random) -> tuple[list[str], str]:
        """Areas of kinds with sides, or of two sides their product or half of it."""
        parts, found = [], []
        for _ in range(rng.randint(1, 3)):
            kind = {"products": "rectangle", "halves": "triangle"}.get(level) or rng.choice(self.sizes.kinds)
            shape = Shape(kind, "", draw_sides(rng, kind, self.sizes), (1, 1))
            parts.append(f"{kind} {_sides(shape)}" if level == "areas" else _sides(shape))
            found.append(halves(shape.twice_area))
        return [", ".join(parts)], " ".join(found)

    def _extremes(self, rng: random.Random, scene: Scene) -> tuple[list[str], str]:
        """The extreme of some numbers, or the cell that it stands behind."""
        word, most = rng.choice(list(EXTREMES)), self.sizes.dimension[1] ** 2
        num = 2 if word == "larger" else rng.randint(2, 4)
        numbers = rng.sample(range(1, (10 if rng.random() < 0.5 else most) + 1), num)
        extreme = max(numbers) if EXTREMES[word] else min(numbers)
        if rng.random() < 0.5:
            return [word, " ".join(map(str, numbers))], str(extreme)
        cells = rng.sample(_cells(scene), num)
        listed = " ".join(f"{cell_name(cell)} {number}" for cell, number in zip(cells, numbers, strict=True))
        return [word, listed], f"{cell_name(cells[numbers.index(extreme)])} {extreme}"

    def key(self, state: ShapeReadingState) -> object:
        return key_of(state.scene)

    def picture(self, state: ShapeReadingState) -> Picture:
        return drawing.draw(state.scene, self.sizes, "all")

    def text(self, state: ShapeReadingState) -> str:
        return write_scene(state.scene)

    def captions(self, patch: int) -> Captions:
        """Return the form: every cell is a patch, free, with a kind, a colour and sides, blank, or outside the grid."""
        across, down = num_patches(self.sizes.picture, patch, f"task={self.name}")
        if self.sizes.cell != patch or self.sizes.unit:
            raise ValueError(f"task={self.name}: a cell is no patch of {patch} px, so patches have no captions")
        num_sides = max(KINDS[kind] for kind in self.sizes.kinds)
        sides = [Slot(f"side {number}", 1 + self.sizes.dimension[1]) for number in range(1, num_sides + 1)]
        kinds, colors = Slot("kind", 1 + len(self.sizes.kinds)), Slot("color", 1 + len(self.sizes.colors))
        slots = (Slot("cell", 2), kinds, colors, *sides)
        places = tuple(range(across * down))
        return Captions(places, slots, slot_weight=0.5, nothing_weight=0.3, free=places)

    def caption(self, state: ShapeReadingState) -> tuple[list[list[int]], list[list[int]]]:
        scene, s = state.scene, self.sizes
        (width, height), num_sides = s.picture, max(KINDS[kind] for kind in s.kinds)
        shapes = {shape.cell: shape for shape in scene.shapes}
        found = []
        for row, col in itertools.product(range(1, height // s.cell + 1), range(1, width // s.cell + 1)):
            shape = shapes.get((row, col))
            classes = [int(max(row, col) <= scene.size)] + [0] * (2 + num_sides)
            if shape:
                sides = [*shape.dimensions, *[0] * (num_sides - len(shape.dimensions))]
                classes[1:] = [1 + s.kinds.index(shape.kind), 1 + s.colors.index(shape.color), *sides]
            found.append(classes)
        return found, [[] for _ in found]


def _cells(scene: Scene) -> list[Cell]:
    return [(r, c) for r in range(1, scene.size + 1) for c in range(1, scene.size + 1)]


def _sides(shape: Shape) -> str:
    return " ".join(map(str, shape.dimensions))


def _holds(rng: random.Random, scene: Scene) -> tuple[list[str], str]:
    """Cells, about half of them with a shape, and what they hold."""
    full = {shape.cell: f"{shape.name} {_sides(shape)}" for shape in scene.shapes}
    cells = rng.sample(list(full), rng.randint(1, len(full)))
    cells += rng.sample([cell for cell in _cells(scene) if cell not in full], rng.randint(0, 2))
    rng.shuffle(cells)
    return list(map(cell_name, cells)), " ".join(f"{cell_name(cell)} {full.get(cell, 'free')}" for cell in cells)


def _where(rng: random.Random, scene: Scene) -> tuple[list[str], str]:
    """Shapes by their colour, or by kind and sides where no other has both, and their cells."""
    shapes = rng.sample(scene.shapes, rng.randint(1, min(4, len(scene.shapes))))
    written = [f"{shape.kind} {_sides(shape)}" for shape in scene.shapes]
    parts = []
    for shape in shapes:
        looks = f"{shape.kind} {_sides(shape)}"
        parts.append(looks if written.count(looks) == 1 and rng.random() < 0.3 else shape.color)
    return [", ".join(parts)], " ".join(
        f"{part} {cell_name(shape.cell)}" for part, shape in zip(parts, shapes, strict=True)
    )


def _chain(rng: random.Random, scene: Scene) -> tuple[list[str], str]:
    """Find a shape by its colour, or the one that comes next in reading order; then count or add on from it.

    `row`, `column`: how many shapes are in its row or column, and one more; `size`: its first side and its row.
    """
    way, number = rng.choice(("row", "column", "size")), rng.randrange(len(scene.shapes))
    shape = scene.shapes[number]
    parts, found = [way, shape.color], f"{shape.color} {cell_name(shape.cell)}"
    if number + 1 < len(scene.shapes) and rng.random() < 0.5:
        parts, shape = [way, "after", shape.color], scene.shapes[number + 1]
        found += f" {shape.color} {cell_name(shape.cell)}"
    if way == "size":
        return parts, f"{found} {shape.dimensions[0]} sum {shape.dimensions[0] + shape.cell[0]}"
    axis = 0 if way == "row" else 1
    num = sum(other.cell[axis] == shape.cell[axis] for other in scene.shapes)
    return parts, f"{found} number {num} sum {num + 1}"
