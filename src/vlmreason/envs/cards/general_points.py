"""GeneralPoints (section 5.4, appendix D.1): a formula that uses every card once and is worth the target.

A turn is an attempt: a JSON object with the cards' names ("cards"), what they count ("number") and the formula, which
"= number" may follow. The formula alone decides. Earlier responses, whole, and what the verifier said of them stay in
the prompt (sequential revision). The rewards, by name:

formula      5 where the formula is right: it uses what each card counts exactly once and is worth the target; -1 where
             only its value is wrong (or the number behind "="); -2 where it has numbers that no card counts; -3 for all
             else: what cannot be read or computed, has other operators, or uses a card twice or not at all
limit        -1 at a last attempt that fails, which comes on top of what its formula gave; else 0
recognition  -1.5 where "cards" are not the cards' names, in any order; only where the cards are seen as a picture
cards        1 where "cards" are the cards' names: counts where it has a weight
numbers      1 where "number" is what the cards count, in any order: counts where it has a weight

Levels: the face cards count 10 and the suits are black (standard); they count 11, 12 and 13 and each deal has one
(rule_ood); the suits are red (visual_ood); or they count 10 and the prompt says 11, 12 and 13 (rule_false), which is
solved by who does not read the rule, and `as_told` says who does. The sets of values are divided among the splits, on
all levels alike, so that no set of a test deal comes in training under either rule (`deck.substance`).

Problems there are, sets of values with a target, and in how many sets of values:
  4 cards, + - * /, target 24      standard 514 (514)   rule_ood 758 (758)
  3 cards, + -, targets 1 to 30    standard 727 (211)   rule_ood 807 (232)
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from vlmreason.envs.base import Env, Outcome, Reward, given
from vlmreason.envs.cards.attempts import cut_off, kept, mistake
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
from vlmreason.envs.cards.general_points_wording import OTHER_RULES, WORDINGS, GeneralPointsWording
from vlmreason.envs.cards.points import RULES
from vlmreason.envs.replies import read_object
from vlmreason.pictures import Picture, blank
from vlmreason.streams import stream
from vlmreason.structure import check_choice, check_positive
from vlmreason.tasks.base import MAX_ATTEMPTS, AskedByPurpose, Belongs, Modality, Score, choose_wording

WHITE = (255, 255, 255)
Verdict = Literal["solved", "value", "numbers", "illegal"]
REWARDS: Mapping[Verdict, float] = {"solved": 5.0, "value": -1.0, "numbers": -2.0, "illegal": -3.0}
LIMIT = -1.0
RECOGNITION = 1.5


@dataclass(frozen=True)
class Deal:
    """How a level deals: `num_cards` of the suits (all, black or red), with `faces` or more of jack, queen and king.

    `targets`: the least and the largest, of which each is as likely as the others where it can be made by `operators`,
    signs of + - * / (brackets are always allowed). `face_cards`: those count 10 ("ten") or 11, 12 and 13 ("ranks").
    told: the rule that the prompt states, by which the deal can be solved too, where it is not the one that counts.
    """

    num_cards: int
    targets: tuple[int, int]
    operators: str
    face_cards: str
    faces: int
    suits: str
    told: str | None = None

    def __post_init__(self) -> None:
        if not 2 <= self.num_cards < MAX_CARDS:
            raise ValueError(f"num_cards={self.num_cards}: allowed is 2 to {MAX_CARDS - 1}")
        if not 1 <= self.targets[0] <= self.targets[1]:
            raise ValueError(f"targets={list(self.targets)}: the least and the largest are expected, 1 or more")
        check_operators(self.operators)
        if not 0 <= self.faces <= self.num_cards:
            raise ValueError(f"faces={self.faces}: allowed is 0 to num_cards={self.num_cards}")
        check_choice("suits", self.suits, SUITS)
        check_choice("face_cards", self.face_cards, FACE_RULES)
        check_choice("told", self.told or self.face_cards, FACE_RULES)


def check_operators(operators: str) -> None:
    """Raise ValueError for signs that are none, come twice, or stand without those that brackets turn them into."""
    known = set(operators) <= set(OPERATORS) and len(set(operators)) == len(operators) > 0
    if not known or ("-" in operators and "+" not in operators) or ("/" in operators and "*" not in operators):
        raise ValueError(f"operators={operators!r}: signs of {OPERATORS} are expected, - with + and / with * alone")


@dataclass(frozen=True)
class GeneralPointsSizes:
    """`picture` and `card` are width and height (px). `kept_chars`: the longest response that stays in the prompt."""

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
    """`face_cards` is the rule of the deal, `told` the one of its prompt ("": the same); `responses` (as they are kept,
    "": not) and `verdicts` have one entry a turn."""

    cards: tuple[Card, ...]
    target: int
    face_cards: str
    operators: str = OPERATORS
    responses: tuple[str, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    turn: int = 0
    told: str = ""


@dataclass(frozen=True)
class Judgement:
    """What the verifier says of a response; `cards`, `numbers`: whether these lists are right; `parsed`: whether there
    is a formula to read; `as_told`: whether it is right by the rule of the prompt."""

    verdict: Verdict
    cards: bool
    numbers: bool
    parsed: bool
    as_told: bool = False


class GeneralPoints(AskedByPurpose, Env[GeneralPointsState]):
    """`max_attempts`: turns of an episode. It is won with the first right formula; the expert gives one at once.

    `image`: the cards are seen as a picture, so that wrong names cost `recognition` (0 or more). `mistakes`: the
    chance that the expert errs before it solves a sampled problem, again and again but for the last attempt: problems
    for training then have errors and the verifier's words in their prompts (appendix D.3): those of `attempts.mistake`,
    and one in ten cannot be read. Episodes are not changed.
    `rule_words`: many: in SFT each deal has its rule in one of several wordings; elsewhere it is the first.
    Without chain of thought only the formula is asked for and judged. `penalty`: the formula's reward of an unreadable
    response; None: that of an illegal formula.
    """

    name = "general_points"
    version = 2
    levels = ("standard", "rule_ood", "visual_ood", "rule_false")
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
        rule_words: Literal["one", "many"] = "one",
    ) -> None:
        check_choice("rule_words", rule_words, ("one", "many"))
        self.rule_words = rule_words
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
        self._otherwise = OTHER_RULES[trace]
        self._check_wording()

    def _check_wording(self) -> None:
        cards: tuple[Card, ...] = ((12, "spades"), (2, "clubs"))
        verdicts: tuple[Verdict, ...] = ("value", "numbers", "illegal", "solved")
        state = GeneralPointsState(cards, 12, "ten", OPERATORS, ("{}",) * 4, verdicts, 4)
        try:
            asked, expert = self.prompt(state, "text") + self.prompt(state, "image"), self.expert(state)
            found = self._judge(state, expert)
            if self.text(state) not in asked or found != Judgement("solved", self.cot, self.cot, parsed=True):
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
            drawn = tuple(rng.sample(cards, deal.num_cards))
            target = rng.randint(*deal.targets)
            state = GeneralPointsState(drawn, target, deal.face_cards, deal.operators, told=deal.told or "")
            if (
                sum(rank > 10 for rank, _ in state.cards) >= deal.faces
                and belongs(self.key(state))
                and solvable(self.values(state), state.target, deal.operators)
                and solvable(self.values(state, state.told), state.target, deal.operators)
            ):
                return state
        low, high = deal.targets
        raise self.unreachable(level, f"no deal of {deal.num_cards} cards that makes {low} to {high} was found")

    def expert_start(self, level: str, split: str, index: int) -> GeneralPointsState:
        """Return the deal after the expert's mistakes, where it is to make some."""
        state = self.start(level, split, index)
        rng = stream(self.name, self.version, level, split, index, "mistakes")
        while state.turn < self.max_attempts - 1 and rng.random() < self.mistakes:
            state = self.turn(state, self.mistake(state, rng), rng).state
        return state

    def key(self, state: GeneralPointsState) -> object:
        return substance(state.cards)

    def values(self, state: GeneralPointsState, rule: str = "") -> list[int]:
        """Return what the cards count, in their order; by another rule than the deal's where one is given."""
        return [value(card, rule or state.face_cards) for card in state.cards]

    @property
    def rewards(self) -> tuple[Reward, ...]:
        seen = (given("recognition", "-1.5 where the cards are named wrongly"),) if self.cot and self.image else ()
        read = (
            Reward("cards", "1 where the cards are named rightly", 0.0, lambda e, s, r, o: o.parts["recognition"]),
            Reward("numbers", "1 where what they count is listed rightly", 0.0, lambda e, s, r, o: o.parts["numbers"]),
        )
        return (
            given("formula", "5 where the formula is right, -1, -2, -3 by what is wrong with it"),
            given("limit", "-1 at a last attempt that fails"),
            *seen,
            *(read if self.cot else ()),
        )

    def turn(self, state: GeneralPointsState, response: str, rng: random.Random) -> Outcome[GeneralPointsState]:
        found = self._judge(state, response)
        solved = found.verdict == "solved"
        after = replace(
            state,
            responses=(*state.responses, kept(response, self.answer_key, self.sizes.kept_chars)),
            verdicts=(*state.verdicts, found.verdict),
            turn=state.turn + 1,
        )
        over = after.turn >= self.max_attempts
        unread = self.penalty if not found.parsed else None
        rewards = {
            "formula": REWARDS[found.verdict] if unread is None else unread,
            "limit": LIMIT if over and not solved else 0.0,
        }
        if self.cot and self.image:
            rewards["recognition"] = 0.0 if found.cards else -self.recognition
        parts = {"step_accuracy": float(solved), **self._read(state, found)}
        return Outcome(after, rewards, done=solved or over, success=solved, parsed=found.parsed, parts=parts)

    def score(self, state: GeneralPointsState, response: str) -> Score:
        """Tell whether the attempt solves the deal."""
        found = self._judge(state, response)
        return Score(found.verdict == "solved", found.parsed, self._read(state, found))

    def _read(self, state: GeneralPointsState, found: Judgement) -> dict[str, float]:
        """The lists; `valid`: a formula of each number once, whatever its value; `as_told`, where a false rule is."""
        read = {"recognition": float(found.cards), "numbers": float(found.numbers)} if self.cot else {}
        read |= {"valid": float(found.verdict in ("solved", "value"))}
        return read | ({"as_told": float(found.as_told)} if state.told else {})

    def _judge(self, state: GeneralPointsState, response: str) -> Judgement:
        found = read_object(response, self.answer_key) or {}
        cards, numbers, text = (found.get(key) for key in ("cards", "number", self.answer_key))
        values = sorted(self.values(state))
        read = _names(cards) == sorted(map(rank_name, state.cards)), _numbers(numbers) == values
        if not isinstance(text, str):
            return Judgement("illegal", *read, parsed=False)
        as_told = bool(state.told) and self._verdict(state, text, sorted(self.values(state, state.told))) == "solved"
        return Judgement(self._verdict(state, text, values), *read, parsed=True, as_told=as_told)

    def _verdict(self, state: GeneralPointsState, text: str, values: Sequence[int]) -> Verdict:
        """What the formula is worth, whatever else the response says; `values`: sorted."""
        try:
            formula = evaluate(text, equation=True)
        except FormulaError:
            return "illegal"
        if not set(formula.numbers) <= set(values):
            return "numbers"
        if sorted(formula.numbers) != values or set(OPERATORS).difference(state.operators) & set(text):
            return "illegal"
        right = formula.value == state.target and formula.right in (None, state.target)
        return "solved" if right else "value"

    def text(self, state: GeneralPointsState) -> str:
        """Return the names of the cards as a response writes them."""
        return f"Cards: [{_quoted(state.cards)}]"

    def draw(self, state: GeneralPointsState) -> Picture:
        width, height = self.sizes.picture
        picture = blank(height, width, WHITE)
        boxes = card_boxes(len(state.cards), self.sizes.card, self.sizes.picture)
        paste_cards(picture, state.cards, self.sizes.card, boxes)
        return picture

    def prompt(self, state: GeneralPointsState, modality: Modality) -> str:
        shown = self.wording.prompt_text if modality == "text" else self.wording.prompt_image
        asked = self.wording.reply if self.cot else self.wording.reply_formula
        known = self._known(state)
        first = (shown + asked).format(text=self.text(state) if modality == "text" else "", **known)
        tries = enumerate(zip(state.responses, state.verdicts, strict=True), start=1)
        return first + "".join(
            self.wording.earlier.format(
                turn=number,
                response=response or self.wording.unread,
                verdict=getattr(self.wording, verdict).format(**known),
            )
            for number, (response, verdict) in tries
        )

    def convert(self, state: GeneralPointsState) -> str:
        return self.wording.convert

    def _known(self, state: GeneralPointsState) -> dict[str, Any]:
        """What every template may use."""
        stated, operators = state.told or state.face_cards, " ".join(state.operators)
        rule = self._rules[stated]
        if self.rule_words == "many" and self.purpose == "supervised":
            drawn = stream("words of the rule", [list(card) for card in state.cards], state.target)
            rule = drawn.choice((rule, *self._otherwise[stated]))
        return {"target": state.target, "rule": rule, "operators": operators}

    def thought(self, state: GeneralPointsState) -> list[str]:
        return self._thought(state, state.cards, self.values(state)) if self.cot else []

    def answer(self, state: GeneralPointsState) -> str:
        formula = solve(self.values(state), state.target, state.operators)
        assert formula is not None  # deals that cannot be solved are no states
        return self._answer(state, formula)

    def _thought(self, state: GeneralPointsState, cards: Sequence[Card], numbers: Sequence[int]) -> list[str]:
        known = {"cards": _quoted(cards), "numbers": ", ".join(map(str, numbers)), **self._known(state)}
        return [part.format(**known) for part in (self.wording.name, self.wording.count)]

    def _answer(self, state: GeneralPointsState, formula: str) -> str:
        template = self.wording.answer if self.cot else self.wording.answer_alone
        return template.format(formula=formula, **self._known(state))

    def mistake(self, state: GeneralPointsState, rng: random.Random) -> str:
        """Return a response that fails, as models fail; one in ten cannot be read."""
        cards, numbers, formula = mistake(state.cards, state.face_cards, state.target, state.operators, rng)
        thought = self._thought(state, cards, numbers) if self.cot else []
        whole = "".join([*thought, self._answer(state, formula)])
        return cut_off(whole, rng) if rng.random() < 0.1 else whole

    def state_from_json(self, data: object) -> GeneralPointsState:
        state = super().state_from_json(data)
        where = f"problem of {self.name}"
        for card in state.cards:
            check_card(card)
        for name in ("face_cards", "told"):
            check_choice(f"{where}: {name}", getattr(state, name) or state.face_cards, FACE_RULES)
        card_boxes(max(1, len(state.cards)), self.sizes.card, self.sizes.picture)
        check_operators(state.operators)
        if not 2 <= len(state.cards) < MAX_CARDS or not solvable(self.values(state), state.target, state.operators):
            raise ValueError(f"{where}: cards that make {state.target} are expected, not {self.text(state)}")
        if not len(state.responses) == len(state.verdicts) == state.turn <= self.max_attempts:
            raise ValueError(f"{where}: a response and a verdict for each of {state.turn} turns are expected")
        return state


def _numbers(numbers: Any) -> list[int] | None:
    """The numbers of a response's list, sorted. None where they are not a list of whole numbers."""
    if not isinstance(numbers, list) or not all(type(number) is int for number in numbers):
        return None
    return sorted(numbers)


def _quoted(cards: Sequence[Card]) -> str:
    """The names of cards as JSON lists them."""
    return ", ".join(f'"{rank_name(card)}"' for card in cards)


def _names(cards: Any) -> list[str] | None:
    """The names of a response's cards, sorted; numbers may be bare. None where they are not a list of such."""
    if not isinstance(cards, list) or not all(type(card) in (int, str) for card in cards):
        return None
    return sorted(str(card) for card in cards)
