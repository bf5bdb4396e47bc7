"""GeneralPoints (section 5.4, appendix D.1): a formula that uses every card once and is worth the target.

A turn is an attempt: a JSON object with the cards' names ("cards"), what they count ("number") and the formula, which
"= number" may follow. Earlier responses and what the verifier said of them stay in the prompt (sequential revision).
The rewards, by name:

formula      5 where the formula is right: it and "number" use what each card counts exactly once, and it is worth the
             target; -1 where only its value is wrong (or the number behind "="); -2 where it or "number" has numbers
             that no card counts; -3 for all else: what cannot be read or computed, or uses a card twice or not at all
limit        -1 at a last attempt that fails, which comes on top of what its formula gave; else 0
recognition  -1.5 where "cards" are not the cards' names, in any order; only where the cards are seen as a picture

Levels: the face cards count 10 and the suits are black (standard); they count 11, 12 and 13 and each deal has one
(rule_ood); or the suits are red (visual_ood). The sets of values are divided among the splits, on all levels alike, so
that no set of a test deal comes in training under either rule (`deck.substance`).

Sets of ranks that can be solved, of all, and the share of the deals that they are:
  4 cards, target 24   standard 1165 of 1651 (76.2 %)   rule_ood 758 of 1036 (78.2 %)
  3 cards, target 24   standard 100 of 442 (22.0 %)     rule_ood 52 of 232 (23.6 %)
  3 cards, target 12   standard 148 of 442 (37.2 %)     rule_ood 83 of 232 (29.9 %)
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

from vlmreason.envs.base import Env, Outcome, Reward, given
from vlmreason.envs.cards.deck import (
    FACE_RULES,
    SUITS,
    Card,
    card_boxes,
    check_card,
    deck,
    paste_cards,
    rank_name,
    substance,
    value,
)
from vlmreason.envs.cards.formula import MAX_CARDS, OPERATORS, FormulaError, evaluate, solvable, solve
from vlmreason.envs.cards.points import RULES
from vlmreason.envs.replies import read_object
from vlmreason.pictures import Picture, blank
from vlmreason.streams import stream
from vlmreason.structure import check_choice, check_positive
from vlmreason.tasks.base import MAX_ATTEMPTS, Belongs, Modality, Score, choose_wording

WHITE = (255, 255, 255)
Verdict = Literal["solved", "value", "numbers", "illegal"]
REWARDS: Mapping[Verdict, float] = {"solved": 5.0, "value": -1.0, "numbers": -2.0, "illegal": -3.0}
LIMIT = -1.0
RECOGNITION = 1.5


@dataclass(frozen=True)
class Deal:
    """How a level deals: `num_cards` of the suits (all, black or red), with `faces` or more of jack, queen and king.

    `face_cards`: those count 10 ("ten") or 11, 12 and 13 ("ranks").
    """

    num_cards: int
    target: int
    face_cards: str
    faces: int
    suits: str

    def __post_init__(self) -> None:
        if not 2 <= self.num_cards < MAX_CARDS:
            raise ValueError(f"num_cards={self.num_cards}: allowed is 2 to {MAX_CARDS - 1}")
        check_positive(self, "target")
        if not 0 <= self.faces <= self.num_cards:
            raise ValueError(f"faces={self.faces}: allowed is 0 to num_cards={self.num_cards}")
        check_choice("suits", self.suits, SUITS)
        check_choice("face_cards", self.face_cards, FACE_RULES)


@dataclass(frozen=True)
class GeneralPointsSizes:
    """`picture` and `card` are width and height (px). `kept_chars` of an earlier response stay in the prompt."""

    picture: tuple[int, int]
    card: tuple[int, int]
    kept_chars: int
    levels: dict[str, Deal]

    def __post_init__(self) -> None:
        check_positive(self, "kept_chars")
        for deal in self.levels.values():
            card_boxes(deal.num_cards, self.card, self.picture)


@dataclass(frozen=True)
class GeneralPointsState:
    """`face_cards` is the rule of the deal; `responses` (as they are kept) and `verdicts` have one entry a turn."""

    cards: tuple[Card, ...]
    target: int
    face_cards: str
    responses: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    turn: int = 0


@dataclass(frozen=True)
class GeneralPointsWording:
    """Templates. A prompt is one of the first two, then what is to be replied, with or without chain of thought, then
    `earlier` for each earlier response, which may use {turn}, {response} and {verdict}; that is one of the last four.
    All others may use {target} and {rule} (of the face cards), `prompt_text` also {text}. The chain of thought is
    `name` and `count` and may use {cards} (in quotes) and {numbers}, the `answer` {formula}; together they are one
    JSON object. Without chain of thought it is `answer_alone`.
    """

    prompt_text: str
    prompt_image: str
    reply: str
    reply_formula: str
    convert: str
    name: str
    count: str
    answer: str
    answer_alone: str
    earlier: str
    solved: str
    value: str
    numbers: str
    illegal: str


_VERBOSE_GAME = (
    "Find a formula that is worth {target} and uses the number of every card exactly once, with +, -, *, / and "
    "brackets. The rule of this game: {rule}. Reply with one JSON object of this form:\n"
)
WORDINGS: Mapping[str, GeneralPointsWording] = {
    "terse": GeneralPointsWording(
        prompt_text="{text}\nMake {target}, {rule}: ",
        prompt_image="Make {target}, {rule}: ",
        reply="cards, number, formula",
        reply_formula="only the formula",
        convert="Convert the picture to text:",
        name='{{"cards": [{cards}], ',
        count='"number": [{numbers}], ',
        answer='"formula": "{formula}"}}',
        answer_alone='{{"formula": "{formula}"}}',
        earlier="\n{response}\n{verdict}",
        solved="right",
        value="wrong value",
        numbers="wrong numbers",
        illegal="no formula of the cards",
    ),
    "verbose": GeneralPointsWording(
        prompt_text="You play a card game. These are your cards:\n{text}\n",
        prompt_image="You play a card game. The picture shows your cards. ",
        reply=_VERBOSE_GAME + '{{\n  "cards": [<the name on each card, as "A", "7" or "Q">],\n'
        '  "number": [<what each card counts by the rule>],\n  "formula": "<the formula>={target}"\n}}',
        reply_formula=_VERBOSE_GAME + '{{"formula": "<the formula>={target}"}}',
        convert="Convert the picture to text, the name of each card in order:",
        name='{{\n  "cards": [{cards}],\n',
        count='  "number": [{numbers}],\n  ',
        answer='"formula": "{formula}={target}"\n}}',
        answer_alone='{{"formula": "{formula}={target}"}}',
        earlier="\n\nYour attempt {turn}:\n{response}\nThe verifier: {verdict}",
        solved="The formula is right.",
        value="The attempt fails, because the formula is not worth {target}. Try again.",
        numbers="The attempt fails, because it has numbers that none of the cards counts. Try again.",
        illegal="The attempt fails, because there is no legal formula that uses every card exactly once. Try again.",
    ),
}


class GeneralPoints(Env[GeneralPointsState]):
    """`max_attempts`: turns of an episode. It is won with the first right formula; the expert gives one at once.

    `image`: the cards are seen as a picture, so that wrong names cost `recognition` (0 or more). `mistakes`: the
    chance that the expert errs before it solves a sampled problem, again and again but for the last attempt: problems
    for training then have errors and the verifier's words in their prompts (appendix D.3). Episodes are not changed.
    Without chain of thought only the formula is asked for and judged. `penalty`: the formula's reward of an unreadable
    response; None: that of an illegal formula.
    """

    name = "general_points"
    version = 2
    levels = ("standard", "rule_ood", "visual_ood")
    answer_key = "formula"
    state_type = GeneralPointsState
    sizes_type = GeneralPointsSizes

    def __init__(
        self,
        sizes: GeneralPointsSizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        cot: bool = True,
        penalty: float | None = None,
        image: bool = True,
        recognition: float = RECOGNITION,
        max_attempts: int = 5,
        mistakes: float = 0.0,
    ) -> None:
        self.sizes = sizes
        self.wording: GeneralPointsWording = choose_wording(WORDINGS, trace, wording or {})
        self.cot = cot
        self.penalty = penalty
        if missing := [level for level in self.levels if level not in sizes.levels]:
            raise ValueError(f"levels of {self.name}: how {missing[0]} deals is missing")
        if unknown := [level for level in sizes.levels if level not in self.levels]:
            raise ValueError(f"levels.{unknown[0]}: no such level; there are {', '.join(self.levels)}")
        if recognition < 0:
            raise ValueError(f"recognition={recognition}: 0 or more is expected, it is taken away")
        if recognition != RECOGNITION and not (cot and image):
            why = "image=false, the cards are given in words" if cot else "cot=false, no cards are asked for"
            raise ValueError(f"recognition={recognition}: has no effect with {why}")
        if max_attempts < 1:
            raise ValueError(f"max_attempts={max_attempts}: 1 or more is expected")
        if not 0 <= mistakes <= 1:
            raise ValueError(f"mistakes={mistakes}: a share from 0 to 1 is expected")
        self.image, self.recognition = image, recognition
        self.max_attempts, self.mistakes = max_attempts, mistakes
        self._rules = RULES[trace]
        self._check_wording()

    def _check_wording(self) -> None:
        cards: tuple[Card, ...] = ((12, "spades"), (2, "clubs"))
        state = GeneralPointsState(cards, 12, "ten", ("{}",) * 4, ("value", "numbers", "illegal", "solved"), 4)
        try:
            asked, expert = self.prompt(state, "text") + self.prompt(state, "image"), self.expert(state)
            if self.text(state) not in asked or self._judge(state, expert)[:2] != ("solved", self.cot):
                raise ValueError("a JSON object of cards, number and formula, and {text} in the prompt: expected")
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(f"wording of {self.name}: a template cannot be filled in: {error}") from None

    @property
    def max_turns(self) -> int:
        return self.max_attempts

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> GeneralPointsState:
        deal = self.sizes.levels[level]
        cards = deck(deal.suits)
        for _ in range(MAX_ATTEMPTS):
            state = GeneralPointsState(tuple(rng.sample(cards, deal.num_cards)), deal.target, deal.face_cards)
            if (
                sum(rank > 10 for rank, _ in state.cards) >= deal.faces
                and belongs(self.key(state))
                and solvable(self.values(state), deal.target)
            ):
                return state
        raise self.unreachable(level, f"no deal of {deal.num_cards} cards that makes {deal.target} was found")

    def expert_start(self, level: str, split: str, index: int) -> GeneralPointsState:
        """Return the deal after the expert's mistakes, where it is to make some."""
        state = self.start(level, split, index)
        rng = stream(self.name, self.version, level, split, index, "mistakes")
        while state.turn < self.max_attempts - 1 and rng.random() < self.mistakes:
            state = self.turn(state, self.mistake(state, rng), rng).state
        return state

    def key(self, state: GeneralPointsState) -> object:
        return substance(state.cards)

    def values(self, state: GeneralPointsState) -> list[int]:
        """Return what the cards count, in their order."""
        return [value(card, state.face_cards) for card in state.cards]

    @property
    def rewards(self) -> tuple[Reward, ...]:
        seen = (given("recognition", "-1.5 where the cards are named wrongly"),) if self.cot and self.image else ()
        return (
            given("formula", "5 where the formula is right, -1, -2, -3 by what is wrong with it"),
            given("limit", "-1 at a last attempt that fails"),
            *seen,
        )

    def turn(self, state: GeneralPointsState, response: str, rng: random.Random) -> Outcome[GeneralPointsState]:
        verdict, recognized, parsed = self._judge(state, response)
        solved = verdict == "solved"
        after = replace(
            state,
            responses=(*state.responses, kept(response, self.sizes.kept_chars)),
            verdicts=(*state.verdicts, verdict),
            turn=state.turn + 1,
        )
        over = after.turn >= self.max_attempts
        unread = self.penalty if not parsed else None
        rewards = {
            "formula": REWARDS[verdict] if unread is None else unread,
            "limit": LIMIT if over and not solved else 0.0,
        }
        parts = {"step_accuracy": float(solved)}
        if self.cot:
            parts["recognition"] = float(recognized)
            if self.image:
                rewards["recognition"] = 0.0 if recognized else -self.recognition
        return Outcome(after, rewards, done=solved or over, success=solved, parsed=parsed, parts=parts)

    def score(self, state: GeneralPointsState, response: str) -> Score:
        """Tell whether the attempt solves the deal."""
        verdict, recognized, parsed = self._judge(state, response)
        return Score(verdict == "solved", parsed, {"recognition": float(recognized)} if self.cot else {})

    def _judge(self, state: GeneralPointsState, response: str) -> tuple[Verdict, bool, bool]:
        """The verdict, whether the cards were recognized, and whether there was a formula to read."""
        found = read_object(response, self.answer_key)
        text = None if found is None else found.get(self.answer_key)
        if found is None or not isinstance(text, str):
            return "illegal", found is not None and _names(found.get("cards")) == self._names(state), False
        recognized = _names(found.get("cards")) == self._names(state)
        values = sorted(self.values(state))
        numbers = found.get("number") if self.cot else values
        try:
            formula = evaluate(text, equation=True)
        except FormulaError:
            return "illegal", recognized, True
        if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
            return "illegal", recognized, True
        if not {*formula.numbers, *numbers} <= set(values):
            return "numbers", recognized, True
        if sorted(formula.numbers) != values or sorted(numbers) != values:
            return "illegal", recognized, True
        right = formula.value == state.target and formula.right in (None, state.target)
        return "solved" if right else "value", recognized, True

    def _names(self, state: GeneralPointsState) -> list[str]:
        return sorted(rank_name(card) for card in state.cards)

    def text(self, state: GeneralPointsState) -> str:
        return "Cards: " + " ".join(rank_name(card) for card in state.cards)

    def draw(self, state: GeneralPointsState) -> Picture:
        width, height = self.sizes.picture
        picture = blank(height, width, WHITE)
        boxes = card_boxes(len(state.cards), self.sizes.card, self.sizes.picture)
        paste_cards(picture, state.cards, self.sizes.card, boxes)
        return picture

    def prompt(self, state: GeneralPointsState, modality: Modality) -> str:
        shown = self.wording.prompt_text if modality == "text" else self.wording.prompt_image
        asked = self.wording.reply if self.cot else self.wording.reply_formula
        known = {"target": state.target, "rule": self._rules[state.face_cards]}
        first = (shown + asked).format(text=self.text(state) if modality == "text" else "", **known)
        tries = enumerate(zip(state.responses, state.verdicts, strict=True), start=1)
        return first + "".join(
            self.wording.earlier.format(
                turn=number, response=response, verdict=getattr(self.wording, verdict).format(**known)
            )
            for number, (response, verdict) in tries
        )

    def convert(self, state: GeneralPointsState) -> str:
        return self.wording.convert

    def thought(self, state: GeneralPointsState) -> list[str]:
        return self._thought(state, self.values(state)) if self.cot else []

    def answer(self, state: GeneralPointsState) -> str:
        formula = solve(self.values(state), state.target)
        assert formula is not None  # deals that cannot be solved are no states
        return self._answer(state, formula)

    def _thought(self, state: GeneralPointsState, numbers: Sequence[int]) -> list[str]:
        cards = ", ".join(f'"{rank_name(card)}"' for card in state.cards)
        listed = ", ".join(map(str, numbers))
        known = {"cards": cards, "numbers": listed, "target": state.target, "rule": self._rules[state.face_cards]}
        return [part.format(**known) for part in (self.wording.name, self.wording.count)]

    def _answer(self, state: GeneralPointsState, formula: str) -> str:
        template = self.wording.answer if self.cot else self.wording.answer_alone
        return template.format(formula=formula, target=state.target, rule=self._rules[state.face_cards])

    def mistake(self, state: GeneralPointsState, rng: random.Random) -> str:
        """Return a plausible response that fails: a formula of the right cards with another value, or the other
        rule's."""
        numbers, formula = self.values(state), None
        if any(rank > 10 for rank, _ in state.cards) and rng.random() < 0.5:
            numbers = [value(card, "ranks" if state.face_cards == "ten" else "ten") for card in state.cards]
            formula = solve(numbers, state.target)
        thought = self._thought(state, numbers) if self.cot else []
        return "".join([*thought, self._answer(state, formula or wrong_formula(numbers, state.target, rng))])

    def state_from_json(self, data: object) -> GeneralPointsState:
        state = super().state_from_json(data)
        where = f"problem of {self.name}"
        for card in state.cards:
            check_card(card)
        check_choice(f"{where}: face_cards", state.face_cards, FACE_RULES)
        card_boxes(max(1, len(state.cards)), self.sizes.card, self.sizes.picture)
        if not 2 <= len(state.cards) < MAX_CARDS or not solvable(self.values(state), state.target):
            raise ValueError(f"{where}: cards that make {state.target} are expected, not {self.text(state)}")
        if not len(state.responses) == len(state.verdicts) == state.turn <= self.max_attempts:
            raise ValueError(f"{where}: a response and a verdict for each of {state.turn} turns are expected")
        return state


def _names(cards: Any) -> list[str] | None:
    """The names of a response's cards, sorted; numbers may be bare. None where they are not a list of such."""
    if not isinstance(cards, list) or not all(type(card) in (int, str) for card in cards):
        return None
    return sorted(str(card) for card in cards)


def wrong_formula(numbers: Sequence[int], target: int, rng: random.Random) -> str:
    """Return a formula of the numbers (two or more, positive), each used once, with another value than the target."""
    for _ in range(20):
        shuffled = [str(number) for number in rng.sample(list(numbers), len(numbers))]
        if len(shuffled) > 2 and rng.random() < 0.5:
            shuffled[:2] = [f"({shuffled[0]}{rng.choice('+-')}{shuffled[1]})"]
        text = shuffled[0] + "".join(rng.choice(OPERATORS) + number for number in shuffled[1:])
        try:
            if evaluate(text).value != target:
                return text
        except FormulaError:
            continue
    total = Fraction(sum(numbers))
    return "+".join(map(str, numbers[:-1])) + ("-" if total == target else "+") + str(numbers[-1])


_MARKER = re.compile(r"\[(/?[A-Z_]{2,})\]")


def kept(response: str, most: int) -> str:
    """Return what stays of a response in the prompts to come: at most that many characters of its end, where the
    formula is.

    Nothing of it can be taken for a special token of a model, as <image>, <|im_end|> or [INST].
    """
    plain = "".join(sign if " " <= sign <= "~" or sign == "\n" else " " for sign in response[-most:])
    return _MARKER.sub(r"(\1)", re.sub(r"[<>|]", "", plain))
