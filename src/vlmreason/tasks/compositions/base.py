"""What the tasks on scenes share: one state, one picture, one text form, one way to read what a response says.

**How answers are read.** The last `Answer:` counts, and what stands behind it has to be the answer and nothing else;
white space is free, and one full stop at the end is let pass. A number is 1 to 9 digits; a unit, a sign, a fraction or
a second number beside it leaves the response unread, and so does a longer one. A cell is two numbers of at most 9
digits with a comma between them, in round brackets or without: `(2, 4)`, `2,4` and `( 2 , 4 )` are one cell.

**How traces are read.** Areas and distances that a trace states are facts, each in a slot of its own: the shape, or
the cell, that it is about. A slot that is stated twice with different values is stated wrongly.
"""

from __future__ import annotations

import random
import re
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from vlmreason.pictures import Picture
from vlmreason.segments import CAPTION, THOUGHT, Response
from vlmreason.tasks.base import (
    MAX_ATTEMPTS,
    MAX_RESPONSE_CHARS,
    AskedByPurpose,
    Belongs,
    Modality,
    Score,
    Task,
    choose_wording,
    pattern_of,
)
from vlmreason.tasks.cells import Cell, cell_name
from vlmreason.tasks.compositions import drawing
from vlmreason.tasks.compositions.scenes import (
    COLORS,
    KINDS,
    SPLITS_OF,
    CompositionSizes,
    Scene,
    Shape,
    check_scene,
    check_sizes,
    distance,
    draw_scene,
    gap,
    halves,
    has_ties,
    key_of,
    largest,
    others,
    write_scene,
)
from vlmreason.tasks.compositions.wording import WORDINGS, CompositionWording


@dataclass(frozen=True)
class CompositionState:
    """A scene, what is asked of it (the level), and the number of the shape in the scene that it is asked about.

    Whole-scene questions have a target too, which they do not name.
    """

    scene: Scene
    asked: str
    target: int


class Composition(AskedByPurpose, Task[CompositionState]):
    """A task on scenes; subclasses say what it shows (`shows`), its questions (`questions`), trace and answer."""

    state_type = CompositionState
    explained = True
    splits_of = SPLITS_OF
    converted_as = CAPTION
    sizes_type: ClassVar[type] = CompositionSizes
    shows: ClassVar[drawing.Shows]
    questions: ClassVar[Mapping[str, str]]
    """The template of the question of each level."""

    def __init__(self, sizes: CompositionSizes, trace: str = "terse", wording: Mapping[str, str] | None = None) -> None:
        check_sizes(sizes)
        own = sizes.style == "paper" and self.shows != "all"
        self.sizes = replace(sizes, picture=sizes.own_picture) if own else sizes
        self.cells, self.sides = not own or self.shows == "places", not own or self.shows == "areas"
        self.wording: CompositionWording = choose_wording(WORDINGS, trace, wording or {})
        self._facts = {
            "area": re.compile(pattern_of(self.wording.area.strip(), _FIELDS)),
            "distance": re.compile(pattern_of(self.wording.distance.strip(), _FIELDS)),
        }

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> CompositionState:
        for _ in range(MAX_ATTEMPTS):
            scene = draw_scene(rng, self.sizes)
            target = rng.randrange(len(scene.shapes))
            if not has_ties(scene, target) and belongs(key_of(scene)):
                return CompositionState(scene, level, target)
        raise self.unreachable(level, "no scene of these sizes without ties is of the split")

    def key(self, state: CompositionState) -> object:
        return key_of(state.scene)

    def draw(self, state: CompositionState) -> Picture:
        return drawing.draw(state.scene, self.sizes, self.shows)

    def text(self, state: CompositionState) -> str:
        return write_scene(state.scene, self.cells, self.sides)

    def prompt(self, state: CompositionState, modality: Modality) -> str:
        question = getattr(self.wording, self.questions[state.asked]).format(target=target_of(state).name)
        template = self.wording.text if modality == "text" else self.wording.image
        asked = template.format(question=question, text=self.text(state) if modality == "text" else "")
        return asked if self.sizes.prompts == "one" else self._as_in_the_paper(asked, modality)

    def _as_in_the_paper(self, asked: str, modality: Modality) -> str:
        """Put a question into the prompt of its purpose: before it stands what SFT has (and RL on text), behind it what
        RL has on pictures, or, with captions and in every evaluation, what asks for a caption too."""
        if self.purpose == "supervised" or (self.purpose == "reinforced" and modality == "text"):
            return f"{self.wording.before}{asked}"
        captioned = self.purpose == "evaluated" or self.sizes.caption
        return f"{asked}{self.wording.caption_behind if captioned else self.wording.behind}"

    def convert(self, state: CompositionState) -> str:
        return self.wording.convert

    def response(self, state: CompositionState, view: str) -> Response:
        """Write the response; with a caption in front where the view, or the setting of the task, wants one."""
        return super().response(state, "image_via_text" if self.sizes.caption and view == "image" else view)

    @abstractmethod
    def value_of(self, state: CompositionState, shape: Shape | None) -> str:
        """Return what is asked for, as it is written, if this were the shape that is meant; None: all are."""

    def value(self, state: CompositionState) -> str:
        """Return what is asked for, as it is written."""
        return self.value_of(state, meant(state))

    def floors(self, state: CompositionState) -> Mapping[str, float]:
        """Say how likely it is right to answer for any shape that could be meant (`random`), and for the nearest where
        the farthest is (`nearest`)."""
        shape, right = meant(state), self.value(state)
        if shape is None:
            return {}
        given = state.asked.startswith(("nearest", "farthest"))
        could = others(state.scene, state.target) if given else state.scene.shapes
        found = {"random": sum(self.value_of(state, other) == right for other in could) / len(could)}
        if state.asked.startswith("farthest"):
            found["nearest"] = float(self.value_of(state, could[0]) == right)
        return found

    def answer(self, state: CompositionState) -> str:
        return self.wording.answer.format(answer=self.value(state))

    def groups(self, state: CompositionState) -> Mapping[str, str]:
        """Name the number of shapes, of rows, and how much nearer (or farther) the shape asked for is than the next."""
        target = target_of(state)
        distances = [distance(target.cell, shape.cell) for shape in others(state.scene, state.target)]
        found = {"shapes": str(len(state.scene.shapes)), "rows": str(state.scene.size)}
        for word in ("nearest", "farthest"):
            if state.asked.startswith(word):
                found["gap"] = gap(distances, from_far=word == "farthest")
        return found

    def conversion_end(self, response: str, start: int) -> int:
        """Say where a caption ends: behind its last line that is one of a scene, before the answer."""
        marker = self.answer_marker().search(response, start)
        at = end = start
        for line in response[start : marker.start() if marker else len(response)].splitlines(keepends=True):
            at += len(line)
            if _LINE.fullmatch(line.strip()):
                end = at
        return end

    def facts(self, state: CompositionState, kind: str, text: str) -> Mapping[object, object] | None:
        """Read areas and distances of a thought, and the shapes of a caption; of other segments nothing is read."""
        if kind == THOUGHT:
            return _once(self._stated(text[:MAX_RESPONSE_CHARS]))
        if kind == CAPTION:
            return _once(read_shapes(text[:MAX_RESPONSE_CHARS], self.cells, self.sides))
        return None

    def _stated(self, text: str) -> list[tuple[object, object]]:
        areas = [(("area", found["name"]), _twice(found["area"])) for found in self._facts["area"].finditer(text)]
        away = [
            (("distance", read_cell(found["cell"])), _twice(found["distance"]))
            for found in self._facts["distance"].finditer(text)
        ]
        return [*areas, *away]

    def state_from_json(self, data: object) -> CompositionState:
        state = super().state_from_json(data)
        check_scene(state.scene, self.name)
        if not 0 <= state.target < len(state.scene.shapes):
            raise ValueError(f"problem of {self.name}: target={state.target} of {len(state.scene.shapes)} shapes")
        if state.asked not in self.levels:
            raise ValueError(f"problem of {self.name}: asked={state.asked!r}, allowed are {', '.join(self.levels)}")
        return state

    # Steps of traces.

    def target_step(self, state: CompositionState) -> str:
        """Write where the target is."""
        shape = target_of(state)
        return self.wording.target.format(name=shape.name, cell=cell_name(shape.cell))

    def area_step(self, shape: Shape) -> str:
        """Write a shape's area, with what it is computed from."""
        return self.wording.area.format(
            place=self.wording.place.format(cell=cell_name(shape.cell)) if self.cells else "",
            name=shape.name,
            sides=" ".join(map(str, shape.dimensions)),
            formula=formula(shape),
            area=halves(shape.twice_area),
        )

    def distance_steps(self, state: CompositionState) -> list[str]:
        """Write how far each other shape is from the target, in reading order."""
        cell = target_of(state).cell
        return [
            self.wording.distance.format(
                name=shape.name, cell=cell_name(shape.cell), distance=distance(cell, shape.cell)
            )
            for number, shape in enumerate(state.scene.shapes)
            if number != state.target
        ]

    def choice_step(self, state: CompositionState) -> str:
        """Write which shape it is that is asked for."""
        shape, near = chosen(state), state.asked.startswith("nearest")
        template = self.wording.nearest_is if near else self.wording.farthest_is
        return template.format(name=shape.name, cell=cell_name(shape.cell))

    def last_answer(self, response: str) -> str:
        """Return what stands behind the last `Answer:`, without white space and one full stop at its ends; "" where
        there is none."""
        if len(response) > MAX_RESPONSE_CHARS:
            return ""
        end = None
        for mark in self.answer_marker().finditer(response):
            end = mark.end()
        return "" if end is None else response[end:].strip().removesuffix(".").strip()


class AreaTask(Composition):
    """A task whose answer is an area."""

    def score(self, state: CompositionState, response: str) -> Score:
        """Return whether the integer behind the last `Answer:` is the area, rounded half up."""
        found = read_number(self.last_answer(response))
        return Score(found is not None and str(found) == self.value(state), found is not None)


def target_of(state: CompositionState) -> Shape:
    """Return the shape that is asked about."""
    return state.scene.shapes[state.target]


def meant(state: CompositionState) -> Shape | None:
    """Return the shape that decides the answer beside the target; None where all of them do."""
    match state.asked:
        case "total":
            return None
        case "largest":
            return largest(state.scene)
        case "named":
            return target_of(state)
        case _:
            return chosen(state)


def chosen(state: CompositionState) -> Shape:
    """Return the shape nearest to, or farthest from, the target."""
    return others(state.scene, state.target)[0 if state.asked.startswith("nearest") else -1]


def formula(shape: Shape) -> str:
    """Write how the area of a shape is computed, as `(2 + 4) * 3 / 2`."""
    match shape.kind:
        case "square":
            return f"{shape.dimensions[0]} * {shape.dimensions[0]}"
        case "rectangle":
            return "{} * {}".format(*shape.dimensions)
        case "triangle":
            return "{} * {} / 2".format(*shape.dimensions)
        case _:
            return "({} + {}) * {} / 2".format(*shape.dimensions)


def read_number(text: str) -> int | None:
    """Read an integer of 1 to 9 digits; None for anything else."""
    return int(text) if _NUMBER.fullmatch(text) else None


def read_cell(text: str) -> Cell | None:
    """Read a cell, in brackets or without; None for anything else."""
    found = _CELL.fullmatch(text)
    numbers = [part for part in found.groups() if part] if found else []
    return (int(numbers[0]), int(numbers[1])) if numbers else None


def read_shapes(text: str, cells: bool, sides: bool) -> list[tuple[object, object]]:
    """Return what a caption says of shapes line by line: kind and sides of each colour in a cell; lines that are no
    shape are passed over."""
    found: list[tuple[object, object]] = []
    for line in text.splitlines():
        match = _SHAPE.fullmatch(line.strip())
        if match and bool(match["cell"]) == cells and bool(match["sides"]) == sides:
            where = read_cell(match["cell"]) if cells else match["color"]
            what = (match["color"], match["kind"], tuple(map(int, match["sides"].split())))
            found.append((where, what))
    return found


def _once(stated: Sequence[tuple[object, object]]) -> Mapping[object, object]:
    """What is stated by slot; None, which is no value, where a slot has two."""
    found: dict[object, object] = {}
    for slot, value in stated:
        found[slot] = value if found.get(slot, value) == value else None
    return found


def _twice(number: str) -> int:
    whole, _, half = number.partition(".")
    return 2 * int(whole) + bool(half)


_NUMBER = re.compile("[0-9]{1,9}")
_CELL = re.compile(r"\(\s{0,9}([0-9]{1,9})\s{0,9},\s{0,9}([0-9]{1,9})\s{0,9}\)|([0-9]{1,9})\s{0,9},\s{0,9}([0-9]{1,9})")
_NAME = rf"(?:{'|'.join(COLORS)}) (?:{'|'.join(KINDS)})"
_SHAPE = re.compile(
    rf"(?:(?P<cell>\([0-9]{{1,3}},[0-9]{{1,3}}\)) )?(?P<color>{'|'.join(COLORS)}) (?P<kind>{'|'.join(KINDS)})"
    r"(?P<sides>(?: [0-9]{1,4}){0,3})"
)
_LINE = re.compile(rf"[0-9]{{1,3}} rows|{_SHAPE.pattern}")
_FIELDS = {
    "place": "(?P<place>[^\n=]{0,20}?)",
    "name": f"(?P<name>{_NAME})",
    "cell": r"(?P<cell>\([0-9]{1,3},[0-9]{1,3}\))",
    "sides": "(?P<sides>[0-9]{1,4}(?: [0-9]{1,4}){0,2})",
    "formula": "(?P<formula>[0-9 ()+*/]{1,40})",
    "area": r"(?P<area>[0-9]{1,9}(?:\.5)?)",
    "distance": "(?P<distance>[0-9]{1,9})",
}
