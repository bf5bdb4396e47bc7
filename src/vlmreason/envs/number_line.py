"""NumberLine (appendix C.1): move the current number to the target, one up or down at a turn.

The reward is 1 at the target, -1 for a move that does not bring the number closer (at an end of the line it stays
where it is), else 0. An episode ends at the target or after twice as many turns as the line is long. There are few
different episodes (30 on a line from 0 to 5), so all of them are in every split.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from vlmreason.envs.base import ActionEnv, Outcome
from vlmreason.pictures import Picture, blank, text_sprite
from vlmreason.structure import check_positive
from vlmreason.tasks.base import Belongs, Modality, choose_wording

UP, DOWN = "+", "-"
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
_GRID = 6  # cells along a side of the picture: a label takes three, a number one
_MIN_CELL = 8  # pixels


@dataclass(frozen=True)
class NumberLineSizes:
    """`max_number` is the last position, the first is 0; in pixels: `picture` (width, height) and `font`."""

    max_number: int
    picture: tuple[int, int]
    font: int

    def __post_init__(self) -> None:
        check_positive(self, "max_number")
        if min(self.picture) < _GRID * _MIN_CELL:
            raise ValueError(f"picture={list(self.picture)}: {_GRID * _MIN_CELL} pixels or more a side are expected")
        if self.font < 1:
            raise ValueError(f"font={self.font}: 1 pixel or more is expected")


@dataclass(frozen=True)
class NumberLineState:
    target: int
    current: int
    turn: int = 0


@dataclass(frozen=True)
class NumberLineWording:
    """Templates. A prompt is one of the first two, then what is to be replied, with or without chain of thought; they
    may use {max_number}, `prompt_text` also {text}. The chain of thought is `read` and `decide`, which may use
    {current}, {target} and {move} (up or down); with the action behind them they are one JSON object.
    """

    prompt_text: str
    prompt_image: str
    reply: str
    reply_action: str
    convert: str
    read: str
    decide: str


WORDINGS: Mapping[str, NumberLineWording] = {
    "terse": NumberLineWording(
        prompt_text="{text}\nMove to the target: ",
        prompt_image="Move to the target: ",
        reply="+ or -",
        reply_action="only + or -",
        convert="Convert the picture to text:",
        read='{{"thoughts": "{current}',
        decide=' {move} to {target}", ',
    ),
    "verbose": NumberLineWording(
        prompt_text="You move along a number line with the positions 0 to {max_number}. This is the position to "
        "reach (Target) and the one where you are (Current):\n{text}\n",
        prompt_image="You move along a number line with the positions 0 to {max_number}. The picture shows the "
        "position to reach (Target) and the one where you are (Current).\n",
        reply='The action "+" adds one to the current number and "-" takes one away. Choose the one that brings you '
        "closer to the target. Reply with one JSON object of this form:\n"
        '{{\n  "current number": "<the current number>",\n  "target number": "<the target number>",\n'
        '  "thoughts": "<compare the two numbers, then decide>",\n  "action": "<+ or ->"}}',
        reply_action='The action "+" adds one to the current number and "-" takes one away. Choose the one that brings '
        'you closer to the target. Reply with one JSON object of this form:\n{{"action": "<+ or ->"}}',
        convert="Convert the picture to text, one line for each number:",
        read='{{\n  "current number": "{current}",\n  "target number": "{target}",\n',
        decide='  "thoughts": "I am at {current} and have to get to {target}, so I go {move} by one.",\n  ',
    ),
}


class NumberLine(ActionEnv[NumberLineState]):
    """Each state is as likely as the others at the start, but for those at the target; splits share episodes."""

    name = "number_line"
    version = 1
    levels = ("standard",)
    state_type = NumberLineState
    sizes_type = NumberLineSizes
    undivided = "a line has few different episodes, 30 from 0 to 5"

    def __init__(
        self,
        sizes: NumberLineSizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        cot: bool = True,
        penalty: float | None = None,
    ) -> None:
        self.sizes = sizes
        self.wording: NumberLineWording = choose_wording(WORDINGS, trace, wording or {})
        self.cot = cot
        self.penalty = penalty
        self.check_wording(NumberLineState(target=0, current=1), DOWN)

    @property
    def max_turns(self) -> int:
        return 2 * self.sizes.max_number

    def actions(self, state: NumberLineState) -> Sequence[str]:
        return (UP, DOWN)

    def best(self, state: NumberLineState) -> Collection[str]:
        return () if state.current == state.target else (UP if state.current < state.target else DOWN,)

    def act(self, state: NumberLineState, action: str) -> Outcome[NumberLineState]:
        moved = state.current + (1 if action == UP else -1)
        current = min(max(moved, 0), self.sizes.max_number)
        after = replace(state, current=current, turn=state.turn + 1)
        if current == state.target:
            return Outcome(after, {"env": 1.0}, done=True, success=True)
        closer = abs(state.target - current) < abs(state.target - state.current)
        return Outcome(after, {"env": 0.0 if closer else -1.0}, done=after.turn >= self.max_turns)

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> NumberLineState:
        target, current = rng.sample(range(self.sizes.max_number + 1), 2)
        return NumberLineState(target, current)

    def key(self, state: NumberLineState) -> object:
        return [state.target, state.current]

    def text(self, state: NumberLineState) -> str:
        return f"Target: {state.target}\nCurrent: {state.current}"

    def draw(self, state: NumberLineState) -> Picture:
        width, height = self.sizes.picture
        cell_w, cell_h = width // _GRID, height // _GRID
        picture = blank(height, width, WHITE)
        for row, label, number in ((1, "Target:", state.target), (3, "Current:", state.current)):
            words = text_sprite(label, self.sizes.font, BLACK, WHITE, False, 3 * cell_w, cell_h)
            digits = text_sprite(str(number), self.sizes.font, BLACK, WHITE, False, cell_w, cell_h)
            picture[row * cell_h : (row + 1) * cell_h, cell_w : 4 * cell_w] = words
            picture[row * cell_h : (row + 1) * cell_h, 4 * cell_w : 5 * cell_w] = digits
        return picture

    def prompt(self, state: NumberLineState, modality: Modality) -> str:
        shown = self.wording.prompt_text if modality == "text" else self.wording.prompt_image
        asked = self.wording.reply if self.cot else self.wording.reply_action
        text = self.text(state) if modality == "text" else ""
        return (shown + asked).format(text=text, max_number=self.sizes.max_number)

    def convert(self, state: NumberLineState) -> str:
        return self.wording.convert

    def thought(self, state: NumberLineState) -> list[str]:
        if not self.cot:
            return []
        move = "up" if state.current < state.target else "down"
        known = {"current": state.current, "target": state.target, "move": move}
        return [part.format(**known) for part in (self.wording.read, self.wording.decide)]

    def answer(self, state: NumberLineState) -> str:
        action = UP if state.current < state.target else DOWN
        return self.write_answer(action)
