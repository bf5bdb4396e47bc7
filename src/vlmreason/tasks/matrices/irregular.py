"""Irregular puzzles: which of four panels goes on, completes the rows, or belongs to the group.

Levels are what panels count: shapes, sums of them, axes, closed lines, dots inside, turns; the layout is drawn (a
sequence, two rows, three rows, a group). They stand for puzzles that people collected, as MARVEL's (arXiv 2404.13591).
Looks of panels are noise; the panels show one rule, and one of four choices with different values obeys it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from vlmreason.files import write_bytes_atomic
from vlmreason.pictures import Picture, png_bytes
from vlmreason.structure import check_choice
from vlmreason.tasks.base import (
    MAX_ATTEMPTS,
    MAX_RESPONSE_CHARS,
    Belongs,
    Modality,
    Problem,
    Score,
    check_fields,
    choose_wording,
)
from vlmreason.tasks.matrices.irregular_drawing import IrregularArtist, IrregularSizes
from vlmreason.tasks.matrices.irregular_rules import (
    GROUP,
    LAYOUTS,
    NUM_CHOICES,
    PATTERNS,
    RULES,
    IrregularState,
    Panel,
    draw_values,
    rows_of,
    rules_for,
    solve,
)
from vlmreason.tasks.matrices.kinds import IRREGULAR, SENTENCES, NumberedPuzzle
from vlmreason.tasks.matrices.marvel_export import FILE, record

_WORD = re.compile(r"[A-Za-z0-9]+")
_MAX_LINE = 1000


@dataclass(frozen=True)
class IrregularWording:
    """Templates. Words are lists with commas between: `looks` of shapes, `axes` of a figure, names of the `rules`.

    A panel is written by the template of its pattern. The trace is `seen` with the values of all panels, the rule and
    the value that it leaves, and `options` with the values of the choices.
    """

    prompt_text: str
    prompt_image: str
    convert: str
    counting: str
    arithmetic: str
    symmetry: str
    closed: str
    inside: str
    rotation: str
    looks: str
    axes: str
    rules: str
    choice: str
    seen: str
    options: str
    answer: str


_ASKED = (
    "question mark, or belongs to the group where there is none? Give the value of every panel that a rule is about, "
    "the rule, and the values of the options. Finish with a line that begins with Answer: and gives the number of the "
    "option."
)

WORDINGS: Mapping[str, IrregularWording] = {
    "terse": IrregularWording(
        prompt_text="{text}\nWhich option fits?",
        prompt_image="Which option fits?",
        convert="Convert the picture to text:",
        counting="{value} {look}",
        arithmetic="{value} {look}",
        symmetry="{look} {value}",
        closed="{value} ring {look} free",
        inside="{value} in ring {look} outside",
        rotation="{value} turn {look}",
        looks="triangle, square, pentagon, hexagon, circle",
        axes="none, vertical, horizontal, mirror",
        rules="step, after, same, sum, without, turn",
        choice="{number}: {panel}",
        seen="Value {values} ? {rule} {value}\n",
        options="Option {values}\n",
        answer="Answer: {number}",
    ),
    "verbose": IrregularWording(
        prompt_text="Below are the panels of a puzzle and 4 options.\n{text}\nWhich option takes the place of the "
        + _ASKED,
        prompt_image="The picture shows the panels of a puzzle and, in its last row, 4 options. Which option takes the "
        "place of the " + _ASKED,
        convert="Convert the puzzle in the picture to text.",
        counting="{value} shapes, each a {look}",
        arithmetic="{value} shapes, each a {look}",
        symmetry="figure {look} with axes {value}",
        closed="{value} closed lines and {look} open ones",
        inside="{value} dots in a ring and {look} outside",
        rotation="a hand at {value} eighths of a turn on a {look}",
        looks="triangle, square, pentagon, hexagon, circle",
        axes="none, vertical, horizontal, mirrored",
        rules="even steps, alternation, one value, sum, difference, the same three values",
        choice="Option {number}: {panel}",
        seen="The values are {values} and ?. The rule is {rule}, so the missing value is {value}.\n",
        options="The options have {values}.\n",
        answer="Answer: option {number}",
    ),
}


class Right(NamedTuple):
    """Which statements of a trace are right: values of the panels that are given and of the choices, the rule, and the
    value that it leaves."""

    context: list[bool]
    choices: list[bool]
    rule: bool
    prediction: bool


class Irregular(NumberedPuzzle[IrregularState]):
    name = "irregular"
    version = 1
    kind, num_choices = IRREGULAR, NUM_CHOICES
    levels = tuple(PATTERNS)
    state_type = IrregularState
    sizes_type: ClassVar[type] = IrregularSizes
    own_file = FILE

    def __init__(self, sizes: IrregularSizes, trace: str = "terse", wording: Mapping[str, str] | None = None) -> None:
        self.sizes, self.artist, self.sentences = sizes, IrregularArtist(sizes), SENTENCES[trace]
        self.wording: IrregularWording = choose_wording(WORDINGS, trace, wording or {})
        check_fields(self.wording, ("text", "value", "look", "number", "panel", "values", "rule"))
        self._looks, self._axes = (_listed(text) for text in (self.wording.looks, self.wording.axes))
        self.rules = dict(zip(RULES, _listed(self.wording.rules), strict=True))

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> IrregularState:
        known = PATTERNS[level]
        layout = rng.choice(known.layouts)
        rule = rng.choice(rules_for(level, layout))
        for _ in range(MAX_ATTEMPTS):
            values = draw_values(rng, level, layout, rule)
            if values is None:
                continue
            *context, answer = [(value, rng.randint(*known.looks)) for value in values]
            if not belongs(_key(level, layout, context)):
                continue
            others = [value for value in range(known.values[0], known.values[1] + 1) if value != answer[0]]
            choices = [(value, rng.randint(*known.looks)) for value in rng.sample(others, NUM_CHOICES - 1)]
            at = rng.randrange(NUM_CHOICES)
            state = IrregularState(level, layout, tuple(context), (*choices[:at], answer, *choices[at:]), at)
            try:
                if solve(state)[::2] == (rule, at):
                    return state
            except ValueError:
                continue
        raise self.unreachable(level, f"no puzzle in layout {layout} was found")

    def key(self, state: IrregularState) -> object:
        return _key(state.pattern, state.layout, state.context)

    def draw(self, state: IrregularState) -> Picture:
        return self.artist.puzzle(state)

    def groups(self, state: IrregularState) -> Mapping[str, str]:
        return {"layout": state.layout, "rule": solve(state).rule}

    def value(self, pattern: str, value: int) -> str:
        """Write a value of a pattern."""
        return self._axes[value] if pattern == "symmetry" else str(value)

    def panel(self, pattern: str, panel: Panel) -> str:
        """Write a panel with its look."""
        value, look = panel
        shape = pattern in ("counting", "arithmetic", "rotation")
        template: str = getattr(self.wording, pattern)
        return template.format(value=self.value(pattern, value), look=self._looks[look - 1] if shape else look)

    def text(self, state: IrregularState) -> str:
        written = [self.panel(state.pattern, panel) for panel in state.context]
        if state.layout != GROUP:
            written.append("?")
        rows = [", ".join(row) for row in rows_of(state.layout, written)]  # type: ignore[arg-type]
        choices = (
            self.wording.choice.format(number=number, panel=self.panel(state.pattern, panel))
            for number, panel in enumerate(state.choices, start=1)
        )
        return "\n".join((*rows, *choices))

    def prompt(self, state: IrregularState, modality: Modality) -> str:
        return (
            self.wording.prompt_image if modality == "image" else self.wording.prompt_text.format(text=self.text(state))
        )

    def convert(self, state: IrregularState) -> str:
        return self.wording.convert

    def _values(self, state: IrregularState) -> tuple[list[str], list[str]]:
        """The values of the panels and of the choices, in words."""
        context, choices = (
            [self.value(state.pattern, value) for value, _ in panels] for panels in (state.context, state.choices)
        )
        return context, choices

    def thought(self, state: IrregularState) -> list[str]:
        """Return a step for the values of the panels with their rule, and one for those of the choices."""
        solution, (context, choices) = solve(state), self._values(state)
        value = self.value(state.pattern, solution.predicted)
        seen = self.wording.seen.format(values=" ".join(context), rule=self.rules[solution.rule], value=value)
        return [seen, self.wording.options.format(values=" ".join(choices))]

    def score(self, state: IrregularState, response: str) -> Score:
        """Return whether the choice behind the last "Answer:" is right.

        Parts are of the trace, derived from the panels: shares of the `values` of panels and choices that are right,
        whether the `rule` and the value that it leaves (`prediction`) are, and all of them (`process`); right choice
        with a right process (`proven`); and whether the response begins with the kind (`kind`).
        """
        response = response[:MAX_RESPONSE_CHARS]
        start = self.answer_start(response, 0)
        given = self.given(response, start)
        correct, right = given == state.answer, self.right(state, response[:start])
        values = [*right.context, *right.choices]
        process = all(values) and right.rule and right.prediction
        parts = {"values": sum(values) / len(values), "rule": float(right.rule), "prediction": float(right.prediction)}
        parts |= {"process": float(process), "proven": float(correct and process)}
        parts["kind"] = float(self.says_kind(state, response))
        return Score(correct, given is not None, parts)

    def right(self, state: IrregularState, trace: str) -> Right:
        """Tell statement by statement what a trace, untrusted text, has right."""
        solution, (context, choices) = solve(state), self._values(state)
        lines = trace.splitlines()
        before, _, behind = _line(lines, self.wording.seen).partition("?")
        words = [word for word in _WORD.findall(before) if word != "and"]
        listed = _WORD.findall(_line(lines, self.wording.options))
        end = " ".join(_WORD.findall(behind))
        named = [rule for rule, word in self.rules.items() if re.search(rf"(?<!\w){re.escape(word)}(?!\w)", end)]
        predicted = end.rpartition(" ")[2] == self.value(state.pattern, solution.predicted)
        return Right(_matches(words, context), _matches(listed, choices), named == [solution.rule], predicted)

    def own_record(self, problem: Problem[IrregularState], folder: Path) -> Mapping[str, Any]:
        """Return a record as MARVEL has it; its picture goes to `Marvel/<index>.png`."""
        picture = folder / "Marvel" / f"{problem.index}.png"
        picture.parent.mkdir(exist_ok=True)
        write_bytes_atomic(picture, png_bytes(self.draw(problem.state)), durable=False)
        return record(problem.state, problem.index)

    def state_from_json(self, data: object) -> IrregularState:
        state = super().state_from_json(data)
        try:
            check_choice("pattern", state.pattern, PATTERNS)
            check_choice("layout", state.layout, LAYOUTS)
            known = PATTERNS[state.pattern]
            num = len(state.context) + (state.layout != GROUP)
            if num not in {"sequence": (5, 6), "two_row": (6,), "matrix": (9,), "group": (3,)}[state.layout]:
                raise ValueError(f"{len(state.context)} panels are none of layout {state.layout}")
            for value, look in (*state.context, *state.choices):
                if not known.values[0] <= value <= known.values[1] or not known.looks[0] <= look <= known.looks[1]:
                    raise ValueError(f"a panel with value {value} and look {look}, which {state.pattern} has not")
            if len(state.choices) != NUM_CHOICES or solve(state).answer != state.answer:
                raise ValueError(f"answer={state.answer}: the rule of the panels says another")
            if (rule := solve(state).rule) not in rules_for(state.pattern, state.layout):
                raise ValueError(f"pattern {state.pattern} has no rule {rule} in layout {state.layout}")
        except ValueError as error:
            raise ValueError(f"problem of {self.name}: {error}") from error
        return state


def _key(pattern: str, layout: str, context: object) -> list[object]:
    return [pattern, layout, context]


def _listed(text: str) -> list[str]:
    return [word.strip() for word in text.split(",")]


def _line(lines: list[str], template: str) -> str:
    """What the last line that begins as a template has behind that beginning."""
    head = template.partition("{values}")[0].strip()
    return next((line for line in reversed(lines) if line.startswith(head)), "")[len(head) :][:_MAX_LINE]


def _matches(words: list[str], wanted: list[str]) -> list[bool]:
    return [i < len(words) and words[i] == word for i, word in enumerate(wanted)]
