"""What EZPoints and Points24 share: a formula of the cards is written piece by piece (appendix C.1).

A turn appends a number, an operator or a bracket to the formula, or ends the episode with "=". Numbers are illegal
where no card counts so, or every card that does is used: the formula then stays as it is and the reward is -1.
Operators, brackets and "=" are legal at any place, as in the paper. "=" gives 10 where the formula is worth the target
and uses every card, else -1; other turns give 0. After the last turn an episode ends without a further reward.
"""

from __future__ import annotations

import random
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

from vlmreason.envs.base import ActionEnv, Outcome
from vlmreason.envs.cards.deck import (
    FACE_RULES,
    Card,
    card_boxes,
    check_card,
    deck,
    paste_cards,
    rank_name,
    substance,
    value,
)
from vlmreason.envs.cards.formula import FormulaError, complete, evaluate, join, next_pieces, solvable
from vlmreason.pictures import Picture, blank, text_sprite
from vlmreason.structure import check_choice, check_positive
from vlmreason.tasks.base import MAX_ATTEMPTS, Belongs, Modality, choose_wording

END = "="
WHITE, BLACK = (255, 255, 255), (0, 0, 0)
RULES: Mapping[str, Mapping[str, str]] = {
    "terse": {"ten": "J Q K are 10", "ranks": "J is 11, Q 12, K 13"},
    "verbose": {
        "ten": "J, Q and K each count 10 and A counts 1",
        "ranks": "J counts 11, Q counts 12, K counts 13 and A counts 1",
    },
}
"""The rules of the face cards in words, for the prompts of each trace."""


@dataclass(frozen=True)
class PointsSizes:
    """All in pixels, width and height: the picture, a card, and the cell of one sign of the formula below the cards.

    The formula takes `rows` rows of such cells and begins with `label`, which may be empty.
    """

    picture: tuple[int, int]
    card: tuple[int, int]
    sign: tuple[int, int]
    rows: int
    label: str

    def __post_init__(self) -> None:
        check_positive(self, "rows")
        if min(self.sign) < 4:
            raise ValueError(f"sign={list(self.sign)}: 4 pixels or more are expected")
        if len(self.label) >= self.picture[0] // self.sign[0]:
            raise ValueError(f"label={self.label!r}: fewer signs than fit in a row are expected")

    @property
    def room(self) -> int:
        """Return signs that fit below the cards."""
        return self.picture[0] // self.sign[0] * self.rows

    @property
    def area(self) -> tuple[int, int]:
        """Return width and height of what is left for the cards (px)."""
        return self.picture[0], self.picture[1] - self.rows * self.sign[1]


@dataclass(frozen=True)
class PointsState:
    """`formula`: the pieces appended so far, as "10", "+" and "("."""

    cards: tuple[Card, ...]
    formula: tuple[str, ...] = ()
    turn: int = 0


@dataclass(frozen=True)
class PointsWording:
    """Templates. A prompt is one of the first two, then what is to be replied, with or without chain of thought; they
    may use {target}, {rule} (of the face cards), {formula} and {actions}, `prompt_text` also {text}. `nothing` is what
    an empty formula is called. The chain of thought is `read`, then one of the others: `go_on` where a solution can be
    reached, `done` at one, `stuck` where none can be reached. They may use {cards} (what the cards count), {target},
    {formula}, {solution} and {piece}; with the action behind them they are one JSON object.
    """

    prompt_text: str
    prompt_image: str
    reply: str
    reply_action: str
    convert: str
    nothing: str
    read: str
    go_on: str
    done: str
    stuck: str


_VERBOSE_GAME = (
    "Your task is a formula that is worth {target} and uses the number of every card exactly once; {rule}. It is "
    "written piece by piece, and so far it reads '{formula}'. Your action is the next piece, one of [{actions}]; '=' "
    "says that the formula is finished. A number that no unused card shows cannot be appended. "
    "Reply with one JSON object of this form:\n"
)
WORDINGS: Mapping[str, PointsWording] = {
    "terse": PointsWording(
        prompt_text="{text}\nMake {target}, {rule}: ",
        prompt_image="Formula: {formula}\nMake {target}, {rule}: ",
        reply="cards, thoughts, action",
        reply_action="only the action",
        convert="Convert the picture to text:",
        nothing="none",
        read='{{"cards": [{cards}], ',
        go_on='"thoughts": "{solution}", ',
        done='"thoughts": "{formula} done", ',
        stuck='"thoughts": "stuck", ',
    ),
    "verbose": PointsWording(
        prompt_text="You play a card game. These are your cards and the formula so far:\n{text}\n",
        prompt_image="You play a card game. The picture shows your cards and, below them, the formula so far. ",
        reply=_VERBOSE_GAME + '{{\n  "cards": [<what each card counts>],\n  "formula": "<the formula so far>",\n'
        '  "thoughts": "<is the formula finished? If not, which formula do you aim at and what comes next?>",\n'
        '  "action": "<the next piece>"\n}}',
        reply_action=_VERBOSE_GAME + '{{"action": "<the next piece>"}}',
        convert="Convert the picture to text, the cards first and then the formula:",
        nothing="",
        read='{{\n  "cards": [{cards}],\n  "formula": "{formula}",\n',
        go_on="  \"thoughts\": \"The cards count {cards}. '{formula}' is not complete. '{solution}' is worth {target}, "
        "so I append '{piece}'.\",\n  ",
        done='  "thoughts": "The cards count {cards}. \'{formula}\' is complete: it is worth {target} and uses every '
        "card, so I end with '='.\",\n  ",
        stuck='  "thoughts": "The cards count {cards}. \'{formula}\' can no longer be worth {target} with every card '
        "used once, so I end with '='.\",\n  ",
    ),
}


class Points(ActionEnv[PointsState]):
    """Subclasses say how many cards there are, what is to be reached in how many turns, and with which operators.

    The expert goes on with the formula towards a solution; where none can be reached any more, or not in the turns
    that are left, it ends the episode with "=". Its actions are all pieces that keep a solution in reach.
    """

    version = 1
    levels = ("standard",)
    state_type = PointsState
    sizes_type = PointsSizes
    num_cards: ClassVar[int]
    target: ClassVar[int]
    turns: ClassVar[int]
    operators: ClassVar[str]
    brackets: ClassVar[bool]

    def __init__(
        self,
        sizes: PointsSizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        cot: bool = True,
        penalty: float | None = None,
        face_cards: str = "ten",
        solvable: bool = True,
    ) -> None:
        self.sizes = sizes
        self.wording: PointsWording = choose_wording(WORDINGS, trace, wording or {})
        self.cot = cot
        self.penalty = penalty
        check_choice("face_cards", face_cards, FACE_RULES)
        self.face_cards = face_cards
        self.solvable = solvable
        self._rule = RULES[trace][face_cards]
        numbers = tuple(str(number) for number in range(1, 11 if face_cards == "ten" else 14))
        self._actions = (*numbers, *self.operators, *("()" if self.brackets else ""), END)
        self._boxes = card_boxes(self.num_cards, sizes.card, sizes.area)
        self._deck = deck()
        rng = random.Random(0)
        deals = (PointsState(tuple(rng.sample(self._deck, self.num_cards))) for _ in range(MAX_ATTEMPTS))
        deal, plan = next((deal, plan) for deal in deals if (plan := self._plan(deal)))
        for formula, action in (((), plan[0]), (plan, END), (("+",), END)):  # to go on with, done and stuck
            self.check_wording(replace(deal, formula=formula), action)

    @property
    def max_turns(self) -> int:
        return self.turns

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> PointsState:
        for _ in range(MAX_ATTEMPTS):
            state = PointsState(tuple(rng.sample(self._deck, self.num_cards)))
            if belongs(self.key(state)) and (
                not self.solvable or solvable(self.values(state), self.target, self.operators)
            ):
                return state
        raise self.unreachable(level, "no deal was found")

    def key(self, state: PointsState) -> object:
        return substance(state.cards)

    def values(self, state: PointsState) -> list[int]:
        """Return what the cards count, in their order."""
        return [value(card, self.face_cards) for card in state.cards]

    def actions(self, state: PointsState) -> Sequence[str]:
        return self._actions

    def legal(self, state: PointsState) -> Sequence[str]:
        left = self._left(state)
        return [action for action in self._actions if not action.isdigit() or action in left]

    def _left(self, state: PointsState) -> list[str]:
        """The numbers of the cards that the formula has not used."""
        left = [str(number) for number in self.values(state)]
        for piece in state.formula:
            if piece.isdigit():
                left.remove(piece)
        return left

    def act(self, state: PointsState, action: str) -> Outcome[PointsState]:
        after = replace(state, turn=state.turn + 1)
        over = after.turn >= self.turns
        if action == END:
            right = self._right(state)
            return Outcome(after, {"env": 10.0 if right else -1.0}, done=True, success=right)
        if action.isdigit() and action not in self._left(state):
            return Outcome(after, {"env": -1.0}, done=over)
        return Outcome(replace(after, formula=(*state.formula, action)), {"env": 0.0}, done=over)

    def _right(self, state: PointsState) -> bool:
        try:
            found = evaluate(join(state.formula))
        except FormulaError:
            return False
        return found.value == self.target and sorted(found.numbers) == sorted(self.values(state))

    def best(self, state: PointsState) -> Collection[str]:
        plan = self._plan(state)
        if not plan:
            return (END,)
        found = next_pieces(state.formula, self.values(state), self.target, self.operators) & set(self._actions)
        return {
            piece
            for piece in found
            if self._in_time(replace(state, formula=(*state.formula, piece), turn=state.turn + 1))
        }

    def _plan(self, state: PointsState) -> tuple[str, ...] | None:
        """The pieces that the expert would append before "="; None where no solution can be reached in time."""
        plan = complete(state.formula, self.values(state), self.target, self.operators)
        return plan if plan is not None and len(plan) < self.turns - state.turn else None

    def _in_time(self, state: PointsState) -> bool:
        """Whether a formula that can be completed can be so in the turns that are left."""
        num_left = self.num_cards - sum(piece.isdigit() for piece in state.formula)
        if 4 * num_left + state.formula.count("(") < self.turns - state.turn:
            return True  # each number may need an operator and a pair of brackets, each open bracket its other half
        return self._plan(state) is not None

    def text(self, state: PointsState) -> str:
        cards = " ".join(rank_name(card) for card in state.cards)
        return f"Cards: {cards}\nFormula: {self._formula(state)}"

    def _formula(self, state: PointsState) -> str:
        return join(state.formula) or self.wording.nothing

    def draw(self, state: PointsState) -> Picture:
        """Return the cards above the formula, of which the last signs are shown where it is too long (no solution
        is)."""
        width, height = self.sizes.picture
        picture = blank(height, width, WHITE)
        paste_cards(picture, state.cards, self.sizes.card, self._boxes)
        sign_w, sign_h = self.sizes.sign
        columns, top, first = width // sign_w, self.sizes.area[1], len(self.sizes.label)
        if label := self.sizes.label.rstrip():
            picture[top : top + sign_h, : first * sign_w] = self._ink(label, first * sign_w)
        for number, sign in enumerate(join(state.formula)[first - self.sizes.room :], start=first):
            if sign != " ":
                x, y = number % columns * sign_w, top + number // columns * sign_h
                picture[y : y + sign_h, x : x + sign_w] = self._ink(sign, sign_w)
        return picture

    def _ink(self, text: str, width: int) -> Picture:
        height = self.sizes.sign[1]
        return text_sprite(text, height * 3 // 4, BLACK, WHITE, False, width, height)

    def prompt(self, state: PointsState, modality: Modality) -> str:
        shown = self.wording.prompt_text if modality == "text" else self.wording.prompt_image
        asked = self.wording.reply if self.cot else self.wording.reply_action
        return (shown + asked).format(
            text=self.text(state) if modality == "text" else "",
            formula=self._formula(state),
            target=self.target,
            rule=self._rule,
            actions=", ".join(f"'{action}'" for action in self._actions),
        )

    def convert(self, state: PointsState) -> str:
        return self.wording.convert

    def thought(self, state: PointsState) -> list[str]:
        if not self.cot:
            return []
        plan = self._plan(state)
        template = self.wording.go_on if plan else self.wording.stuck if plan is None else self.wording.done
        known = {
            "cards": ", ".join(map(str, self.values(state))),
            "target": self.target,
            "formula": join(state.formula),
            "solution": join((*state.formula, *(plan or ()))),
            "piece": plan[0] if plan else END,
        }
        return [part.format(**known) for part in (self.wording.read, template)]

    def answer(self, state: PointsState) -> str:
        plan = self._plan(state)
        return self.write_answer(plan[0] if plan else END)

    def state_from_json(self, data: object) -> PointsState:
        state = super().state_from_json(data)
        for card in state.cards:
            check_card(card)
        used = [piece for piece in state.formula if piece.isdigit()]
        left = [str(number) for number in self.values(state)]
        if (
            len(state.cards) != self.num_cards
            or not set(state.formula) <= set(self._actions) - {END}
            or any(used.count(piece) > left.count(piece) for piece in used)
            or not 0 <= state.turn <= self.turns
        ):
            raise ValueError(f"problem of {self.name}: {self.num_cards} cards and a formula of them are expected")
        return state
