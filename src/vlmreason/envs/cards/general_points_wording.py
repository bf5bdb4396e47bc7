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
