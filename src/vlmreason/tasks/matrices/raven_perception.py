"""Perception of matrices as dialogues: what the panels of a puzzle show, from coarse to fine, without its rules.

Coarse questions are about the structure that all panels share, fine ones each about one attribute in one panel, of the
eight panels of the matrix or of the eight choices. The order is what LLaVA-AVR (arXiv 2504.01324) varies:

- `direct`: fine questions alone, shuffled.
- `elicit`: coarse ones first, then the fine ones, shuffled.
- `elicit_sequential`: coarse ones first, then the fine ones in the order of the picture, which can be learned instead
  of the picture.

Each order is a level in two forms. A whole dialogue is one response: the prompt lists the questions, the response
repeats each with its answer. In `<order>_turns` one question is asked, and the prompt holds the earlier turns with
their answers; all questions of a puzzle are then problems one after the other, with the puzzle as their group. Only in
training each number is another puzzle. Puzzles are those of `raven` by the same numbers: traces and questions share
them.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

from vlmreason.pictures import Picture
from vlmreason.segments import ANSWER, PERCEPTION, Response, Segment
from vlmreason.streams import stream
from vlmreason.structure import check_choice
from vlmreason.tasks.base import (
    MAX_RESPONSE_CHARS,
    Belongs,
    Modality,
    Problem,
    Score,
    Task,
    check_fields,
    choose_wording,
    pattern_of,
)
from vlmreason.tasks.matrices.panels import CONFIGURATIONS, NUM_CHOICES, NUM_CONTEXT, MatrixSizes, MatrixState, read
from vlmreason.tasks.matrices.raven import Raven
from vlmreason.tasks.matrices.sampler import pick

ORDERS = ("direct", "elicit", "elicit_sequential")
TURNS = "_turns"
COARSE = ("layout", "components")
FINE = ("number", "position", "type", "size", "color")
NUM_FINE = 8
_CACHED = 64


@dataclass(frozen=True)
class PerceptionWording:
    """Templates. `layouts` are what answers call the configurations, with commas between, in their order; `one` and
    `two` stand in a question for the first and the second of two components; a choice is called `option`.

    `said` is a question with its answer, `asked` the one that is to be answered now.
    """

    prompt: str
    layout: str
    components: str
    layouts: str
    fine: str
    one: str
    two: str
    option: str
    number: str
    position: str
    type: str
    size: str
    color: str
    said: str
    asked: str
    answer: str


WORDINGS: Mapping[str, PerceptionWording] = {
    "terse": PerceptionWording(
        prompt="Describe",
        layout="Places",
        components="Count",
        layouts="middle, grid 2, grid 3, left right, up down, outside middle, outside grid",
        fine="{panel}{component} {attribute}",
        one=" One",
        two=" Two",
        option="{number}",
        number="number",
        position="place",
        type="shape",
        size="size",
        color="color",
        said="{question} {answer}\n",
        asked="{question} ?",
        answer="Answer: {answer}",
    ),
    "verbose": PerceptionWording(
        prompt="The picture shows a puzzle of three rows of three panels, named by row and column, without the last "
        "one, and 8 options for it. Repeat each question, each on a line of its own, and answer it behind a colon.",
        layout="How are the shapes of every panel arranged",
        components="How many components has every panel",
        layouts="one in the middle, two rows of two, three rows of three, left and right, above and below, one inside "
        "another, a grid inside a shape",
        fine="What is the {attribute}{component} in {panel}",
        one=" of the first component",
        two=" of the second component",
        option="option {number}",
        number="number of shapes",
        position="set of places",
        type="shape",
        size="size",
        color="color",
        said="{question}: {answer}\n",
        asked="{question}? Finish with Answer: and nothing but the answer.",
        answer="Answer: {answer}",
    ),
}

Question = tuple[str, int, int]
"""Its kind, one of COARSE or FINE; of a fine one the number of the panel (of context and choices) and the component."""


@dataclass(frozen=True)
class PerceptionState:
    """`puzzle`: its number among those of its configuration. `asked`: which of the questions comes now; None: all."""

    matrix: MatrixState
    puzzle: int
    questions: tuple[Question, ...]
    asked: int | None


class RavenPerception(Task[PerceptionState]):
    """configurations: what puzzles are of, one after the other. Other settings as those of `raven`."""

    name = "raven_perception"
    version = 1
    levels = (*ORDERS, *(order + TURNS for order in ORDERS))
    state_type = PerceptionState
    sizes_type: ClassVar[type] = MatrixSizes
    splits_of = Raven.name

    def __init__(
        self,
        sizes: MatrixSizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        choices: Literal["raven", "iraven"] = "iraven",
        sampling: Literal["balanced", "reference"] = "balanced",
        configurations: tuple[str, ...] = tuple(CONFIGURATIONS),
        held_out: Iterable[Sequence[str]] = (),
    ) -> None:
        for name in configurations:
            check_choice("task.configurations", name, CONFIGURATIONS)
        if not configurations or len(set(configurations)) < len(configurations):
            raise ValueError(f"task.configurations={list(configurations)}: different ones are expected")
        self.sizes, self.configurations = sizes, tuple(configurations)
        self.raven = Raven(sizes, trace, None, choices, sampling, held_out)
        self.wording: PerceptionWording = choose_wording(WORDINGS, trace, wording or {})
        self._layouts = _checked(self.wording)
        self._puzzle = functools.lru_cache(maxsize=_CACHED)(self._drawn)
        self._marker = re.compile(_pattern(self.wording), re.MULTILINE)

    def _drawn(self, split: str, number: int) -> Problem[MatrixState]:
        return self.raven.sample(self.configurations[number % len(self.configurations)], split, number)

    def _state(self, level: str, split: str, index: int) -> PerceptionState:
        order, turns = level.removesuffix(TURNS), level.endswith(TURNS)
        num = NUM_FINE + (len(COARSE) if order != ORDERS[0] else 0)
        number, asked = divmod(index, num) if turns and split != "train" else (index, 0)
        matrix = self._puzzle(split, number).state
        rng = stream(self.name, self.version, split, number)
        questions = [
            *(((kind, 0, 0) for kind in COARSE) if order != ORDERS[0] else ()),
            *self._fine(rng, matrix, order),
        ]
        if turns and split == "train":
            asked = int(rng.random() * num)
        return PerceptionState(matrix, number, tuple(questions), asked if turns else None)

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> PerceptionState:
        raise AssertionError("puzzles are those of raven")

    def _fine(self, rng: random.Random, matrix: MatrixState, order: str) -> list[Question]:
        """A question about each panel of the matrix, or about each choice; the same ones in every order.

        Nothing is asked that is the same in all puzzles, as the color of what lies around something.
        """
        first = 0 if rng.random() < 0.5 else NUM_CONTEXT
        parts = range(len(CONFIGURATIONS[matrix.configuration].components))
        ranges = [self.sizes.ranges(matrix.configuration, component) for component in parts]
        kinds = [
            [kind for kind, (least, most) in zip(FINE, (of_part[0], *of_part), strict=True) if least < most]
            for of_part in ranges
        ]
        found: list[Question] = []
        for panel in range(first, first + NUM_FINE):
            component = pick(rng, parts)
            found.append((pick(rng, kinds[component]), panel, component))
        shuffled = rng.sample(found, len(found))
        return found if order == ORDERS[2] else shuffled

    def key(self, state: PerceptionState) -> object:
        return self.raven.key(state.matrix)

    def draw(self, state: PerceptionState) -> Picture:
        return self.raven.draw(state.matrix)

    def text(self, state: PerceptionState) -> str:
        return self.raven.text(state.matrix)

    def convert(self, state: PerceptionState) -> str:
        return self.raven.convert(state.matrix)

    def groups(self, state: PerceptionState) -> Mapping[str, str]:
        """Return configuration and puzzle, and of a single question its kind."""
        name = state.matrix.configuration
        kind = {} if state.asked is None else {"kind": state.questions[state.asked][0]}
        return {"configuration": name, "puzzle": f"{name} {state.puzzle}", **kind}

    def question(self, state: PerceptionState, number: int) -> str:
        """Write a question, without a mark behind it."""
        kind, panel, component = state.questions[number]
        wording = self.wording
        if kind in COARSE:
            return str(getattr(wording, kind))
        two = len(CONFIGURATIONS[state.matrix.configuration].components) > 1
        return wording.fine.format(
            panel=f"({panel // 3 + 1},{panel % 3 + 1})"
            if panel < NUM_CONTEXT
            else wording.option.format(number=panel - NUM_CONTEXT + 1),
            component=(wording.one, wording.two)[component] if two else "",
            attribute=getattr(wording, kind),
        )

    def reply(self, state: PerceptionState, number: int) -> str:
        """Write what is right."""
        kind, panel, component = state.questions[number]
        if kind == "layout":
            return self._layouts[list(CONFIGURATIONS).index(state.matrix.configuration)]
        if kind == "components":
            return str(len(CONFIGURATIONS[state.matrix.configuration].components))
        mask, *levels = read((*state.matrix.context, *state.matrix.choices)[panel][component])
        level = {"number": mask.bit_count(), "position": mask, **dict(zip(FINE[2:], levels, strict=True))}[kind]
        return self.raven.phrases.level(kind, level)

    def said(self, state: PerceptionState, number: int) -> str:
        """Write a question with its answer."""
        return self.wording.said.format(question=self.question(state, number), answer=self.reply(state, number))

    def prompt(self, state: PerceptionState, modality: Modality) -> str:
        if state.asked is None:
            lines = [self.wording.prompt, *(self.question(state, i) for i in range(len(state.questions)))]
        else:
            turns = [self.said(state, i).rstrip("\n") for i in range(state.asked)]
            lines = [*turns, self.wording.asked.format(question=self.question(state, state.asked))]
        return "\n".join([self.text(state), *lines] if modality == "text" else lines)

    def thought(self, state: PerceptionState) -> list[str]:
        return []

    def answer(self, state: PerceptionState) -> str:
        """Return the answer to one question, or all questions with theirs."""
        if state.asked is None:
            return "".join(self.said(state, i) for i in range(len(state.questions)))
        return self.wording.answer.format(answer=self.reply(state, state.asked))

    def response(self, state: PerceptionState, view: str) -> Response:
        """Write a segment for each question of a dialogue; where one is asked, its answer."""
        if state.asked is None:
            numbers = range(len(state.questions))
            found = [Segment(PERCEPTION, self.said(state, i), self.question(state, i)) for i in numbers]
        else:
            found = [Segment(ANSWER, self.answer(state))]
        return Response((*((self.conversion(state),) if view == "image_via_text" else ()), *found))

    def markers(self) -> Mapping[str, re.Pattern[str]]:
        return {PERCEPTION: self._marker}

    def score(self, state: PerceptionState, response: str) -> Score:
        """Return whether the answer is right; of a dialogue whether all are, in parts which share of each kind is.

        Of a question that is answered several times the last answer counts. The order of answers does not.
        """
        given = self.given(state, response)
        parsed = any(answer is not None for answer in given.values())
        right = {number: answer == self.reply(state, number) for number, answer in given.items()}
        if state.asked is not None:
            return Score(right[state.asked], parsed)
        of_kinds: dict[str, list[bool]] = {}
        for number, is_right in right.items():
            of_kinds.setdefault(state.questions[number][0], []).append(is_right)
        parts = {kind: sum(of_kind) / len(of_kind) for kind, of_kind in of_kinds.items()}
        return Score(all(right.values()), parsed, parts | {"questions": sum(right.values()) / len(right)})

    def given(self, state: PerceptionState, response: str) -> Mapping[int, str | None]:
        """Read what a response answers to each question that is asked, by its number; None: nothing."""
        if state.asked is not None:
            return {state.asked: _plain(self.answer_text(response) or "") or None}
        lines, found = response[:MAX_RESPONSE_CHARS].splitlines(), dict[int, str | None]()
        for number in range(len(state.questions)):
            head = self.wording.said.partition("{answer}")[0].format(question=self.question(state, number))
            line = next((line for line in reversed(lines) if line.startswith(head)), None)
            found[number] = None if line is None else _plain(line[len(head) :])
        return found

    def state_from_json(self, data: object) -> PerceptionState:
        state = super().state_from_json(data)
        try:
            self.raven.check(state.matrix)
            parts = CONFIGURATIONS[state.matrix.configuration].components
            if not state.questions or len(state.questions) > len(COARSE) + NUM_FINE:
                raise ValueError(f"1 to {len(COARSE) + NUM_FINE} questions are expected")
            for kind, panel, component in state.questions:
                check_choice("question", kind, (*COARSE, *FINE))
                if not 0 <= panel < NUM_CONTEXT + NUM_CHOICES or not 0 <= component < len(parts):
                    raise ValueError(f"a question about panel {panel}, component {component}, which is not there")
            if state.asked is not None and not 0 <= state.asked < len(state.questions):
                raise ValueError(f"asked={state.asked} of {len(state.questions)} questions")
        except ValueError as error:
            raise ValueError(f"problem of {self.name}: {error}") from error
        return state


def _plain(text: str) -> str:
    return text.strip().removesuffix(".").strip()


def _checked(wording: PerceptionWording) -> list[str]:
    """The names of the layouts. Raises ValueError for templates that do not fit."""
    check_fields(wording, ("panel", "component", "attribute", "number", "question", "answer"))
    layouts = [name.strip() for name in wording.layouts.split(",")]
    if len(set(layouts)) != len(CONFIGURATIONS) or not all(layouts):
        raise ValueError(
            f"task.wording.layouts={wording.layouts!r}: {len(CONFIGURATIONS)} different names, comma between"
        )
    if not wording.said.endswith("{answer}\n") or "{question}" not in wording.said:
        raise ValueError(f"task.wording.said={wording.said!r}: {{question}} and at the end {{answer}}\\n are expected")
    if not wording.answer.startswith("Answer:"):
        raise ValueError(f"task.wording.answer={wording.answer!r}: must begin with Answer:")
    return layouts


def _pattern(wording: PerceptionWording) -> str:
    """What a question begins a line with, as a label."""
    one_of = "|".join
    fields = {
        "panel": rf"(?:\([1-3],[1-3]\)|{pattern_of(wording.option, {'number': f'[1-{NUM_CHOICES}]'})})",
        "component": f"(?:{one_of(map(re.escape, ('', wording.one, wording.two)))})",
        "attribute": f"(?:{one_of(re.escape(getattr(wording, kind)) for kind in FINE)})",
    }
    coarse = (re.escape(getattr(wording, kind)) for kind in COARSE)
    question = f"(?P<label>{one_of([*coarse, pattern_of(wording.fine, fields)])})"
    return "^" + pattern_of(wording.said.partition("{answer}")[0].rstrip("\n"), {"question": question})
