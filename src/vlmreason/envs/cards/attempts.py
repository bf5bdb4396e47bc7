"""Attempts at a formula of cards that fail: what stays of one in later prompts, and mistakes for an expert to make."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from fractions import Fraction

from vlmreason.envs.cards.deck import RANKS, Card, value
from vlmreason.envs.cards.formula import OPERATORS, FormulaError, evaluate, solve
from vlmreason.envs.replies import read_object

Reading = tuple[Sequence[Card], Sequence[int], str]
"""What an attempt says: the cards, what they count, the formula."""

_MARKER = re.compile(r"\[(/?[A-Z_]{2,})\]")


def kept(response: str, key: str, most: int) -> str:
    """Return what stays of a response in the prompts to come: all of it or, where that is too much, its object.

    "" where it holds no object with the key `key`, or one of more than `most` characters: a part of an answer teaches
    to answer in parts. Nothing of it can be taken for a special token of a model, as <image>, <|im_end|> or [INST].
    """
    if (found := read_object(response, key)) is None or key not in found:
        return ""
    whole = response if len(response) <= most else response[response.index("{") : response.rindex("}") + 1]
    if len(whole) > most:
        return ""
    plain = "".join(sign if " " <= sign <= "~" or sign == "\n" else " " for sign in whole)
    return _MARKER.sub(r"(\1)", re.sub(r"[<>|]", "", plain))


def mistake(cards: Sequence[Card], face_cards: str, target: int, operators: str, rng: random.Random) -> Reading:
    """Return an attempt that fails, of a kind that models make.

    Half of them have another value than the target; the others count face cards by the other rule (where there are
    any), take a card for another one, or leave a number out.
    """
    numbers, kind = [value(card, face_cards) for card in cards], rng.random()
    wrong = wrong_formula(numbers, target, rng, operators)
    if kind < 0.5 and wrong:
        return cards, numbers, wrong
    if kind < 0.7 and any(rank > 10 for rank, _ in cards):
        seen = list(cards)
        counted = [value(card, "ranks" if face_cards == "ten" else "ten") for card in cards]
    elif kind < 0.9:
        seen, counted = _misread(cards, face_cards, rng)
    else:
        left_out = rng.randrange(len(numbers))
        rest = numbers[:left_out] + numbers[left_out + 1 :]
        return cards, numbers, rng.choice(operators).join(map(str, rest))
    formula = solve(counted, target, operators) or wrong_formula(counted, target, rng, operators)
    return seen, counted, formula or operators[0].join(map(str, counted))


def _misread(cards: Sequence[Card], face_cards: str, rng: random.Random) -> tuple[list[Card], list[int]]:
    """The cards with one taken for another that counts something else, and what they would count."""
    seen, at = list(cards), rng.randrange(len(cards))
    others = [(rank, cards[at][1]) for rank in range(1, len(RANKS) + 1)]
    seen[at] = rng.choice([card for card in others if value(card, face_cards) != value(cards[at], face_cards)])
    return seen, [value(card, face_cards) for card in seen]


def cut_off(response: str, rng: random.Random) -> str:
    """Return a response that ends too early to be read."""
    return response[: rng.randrange(1, max(2, response.rindex("}")))]


def wrong_formula(numbers: Sequence[int], target: int, rng: random.Random, operators: str = OPERATORS) -> str | None:
    """Return a formula of the numbers (two or more, positive), each used once, with another value than the target.

    None where the operators make no other value.
    """
    for _ in range(20):
        shuffled = [str(number) for number in rng.sample(list(numbers), len(numbers))]
        if len(shuffled) > 2 and rng.random() < 0.5:
            shuffled[:2] = [f"({shuffled[0]}{rng.choice(operators)}{shuffled[1]})"]
        text = shuffled[0] + "".join(rng.choice(operators) + number for number in shuffled[1:])
        try:
            if evaluate(text).value != target:
                return text
        except FormulaError:
            continue
    signs = [sign for sign in operators if sign in "+-"] or list(operators)
    for sign in signs:
        text = signs[0].join(map(str, numbers[:-1])) + sign + str(numbers[-1])
        if evaluate(text).value != Fraction(target):
            return text
    return None
