"""The words of GeneralPoints: prompts, what is learned to be written, and what the verifier says."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class GeneralPointsWording:
    """Templates. A prompt is one of the first two, then what is to be replied, with or without chain of thought, then
    `earlier` for each earlier response, which may use {turn}, {response} (`unread` for one that is not kept) and
    {verdict}; that is one of the last four. All others may use {target}, {rule} (of the face cards) and {operators},
    `prompt_text` also {text}. The chain of thought is
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
    unread: str
    solved: str
    value: str
    numbers: str
    illegal: str


OTHER_RULES: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "terse": {
        "ten": ("J is 10, Q 10, K 10", "for J Q K 10", "10 for K, for Q and for J", "K and Q and J are 10"),
        "ranks": ("K is 13, Q 12, J 11", "for J 11, for Q 12, for K 13", "13 for K, 12 for Q and 11 for J",
                  "J and Q and K are 11 and 12 and 13"),
    },
    "verbose": {
        "ten": ("a jack, a queen and a king are worth 10 each, an ace 1", "J = 10, Q = 10, K = 10, A = 1",
                "count 10 for every face card and 1 for an ace", "J, Q and K are as good as a 10; A counts 1"),
        "ranks": ("a jack is worth 11, a queen 12, a king 13, an ace 1", "J = 11, Q = 12, K = 13, A = 1",
                  "count 11 for a jack, 12 for a queen, 13 for a king and 1 for an ace",
                  "face cards count on from the 10: J, Q and K are 11, 12 and 13; A counts 1"),
    },
}  # fmt: skip
"""The rules of the face cards in further words, beside `points.RULES`."""

_VERBOSE_GAME = (
    "Find a formula that is worth {target} and uses the number of every card exactly once, with {operators} and "
    "brackets. The rule of this game: {rule}. Reply with one JSON object of this form:\n"
)
WORDINGS: Mapping[str, GeneralPointsWording] = {
    "terse": GeneralPointsWording(
        prompt_text="{text}\nMake {target} by {operators}, {rule}: ",
        prompt_image="Make {target} by {operators}, {rule}: ",
        reply="cards, number, formula",
        reply_formula="only the formula",
        convert="Convert the picture to text:",
        name='{{"cards": [{cards}], ',
        count='"number": [{numbers}], ',
        answer='"formula": "{formula}"}}',
        answer_alone='{{"formula": "{formula}"}}',
        earlier="\n{response}\n{verdict}",
        unread="no answer",
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
        unread="(no JSON object of this form)",
        solved="The formula is right.",
        value="The attempt fails, because the formula is not worth {target}. Try again.",
        numbers="The attempt fails, because it has numbers that none of the cards counts. Try again.",
        illegal="The attempt fails, because there is no legal formula that uses every card exactly once. Try again.",
    ),
}
