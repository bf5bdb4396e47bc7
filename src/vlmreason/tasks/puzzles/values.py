"""The answers of puzzles as numbers: what is compared, and what a classifier has classes for.

A value is a tuple of one number, or of the elements of a sequence. Letters are counted from A = 0.
"""

from __future__ import annotations

import functools
import re
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vlmreason.answers import AnswerSpace

Value = tuple[int, ...]

LETTERS = string.ascii_uppercase
OPTIONS = "ABCDE"
MAX_VALUE = 100_000
"""A larger number is no answer: a classifier would have as many classes."""
WORD = "Impossible"
OPERATORS = "+-x/"
_SIGNS = {"+": 1, "-": 2, "x": 3, "X": 3, "*": 3, "/": 4, ":": 4}
_UNITS = {"hours": "hours?|hrs?|h", "h": "h|hours?", "cm": "cm", "km": "km"}
_NUMBERS = re.compile(r"[0-9]{1,6}(?:[ ,;-]+(?:and +)?[0-9]{1,6})*")
_LETTER_LIST = re.compile(r"[A-Za-z](?:[ ,;-]*(?:\band +)?[A-Za-z])*")
_CLOCK = re.compile(r"([0-9]{1,2})(?::00)? ?([AP])\.?M\.?", re.IGNORECASE)
MAX_CHARS = 200

Type = Literal["integer", "letter", "unit", "clock", "word", "operator", "icon", "numbers", "digits", "letters"]


@dataclass(frozen=True)
class Form:
    """How the answers of a puzzle are written.

    unit: behind the number. names: of icons, by their numbers. Of an afternoon 12 is added to the hour, so that noon is
    24. word: a number, or "Impossible", which is 0. An operator with its number is 10 * (1 + 2 - 3 x 4 /) + number.
    digits: numbers below 10, between which there may be nothing.
    """

    type: Type
    unit: str = ""
    names: tuple[str, ...] = ()

    @property
    def is_sequence(self) -> bool:
        return self.type in ("numbers", "digits", "letters")

    def read(self, text: str) -> Value:
        """Return the value of a written answer. Raises ValueError for one that is written otherwise."""
        text = " ".join(text[: MAX_CHARS + 1].split())
        found = _READERS[self.type](self, text) if len(text) <= MAX_CHARS else None
        if found is None or max(found, default=0) > MAX_VALUE:
            raise ValueError(f"{text[:40]!r} is no answer of type {self.type}{f' ({self.unit})' if self.unit else ''}")
        return found

    def write(self, value: Value) -> str:
        """Return a value as it is written."""
        if self.type in ("numbers", "digits"):
            return " ".join(map(str, value))
        if self.type == "letters":
            return "".join(LETTERS[number] for number in value)
        [number] = value
        match self.type:
            case "letter":
                return LETTERS[number]
            case "unit":
                return f"{number} {self.unit}"
            case "clock":
                return f"{number - 12} PM" if number > 12 else f"{number} AM"
            case "word":
                return str(number) if number else WORD
            case "operator":
                return f"{OPERATORS[number // 10 - 1]}{number % 10}" if 10 <= number < 50 else str(number)
            case "icon":
                return self.names[number]
        return str(number)

    def space(self, values: Sequence[Value], steps: int) -> AnswerSpace:
        """Return the classes for these right answers, from 0 to the largest number among them; sequences have at most
        `steps` elements."""
        largest = max((number for value in values for number in value), default=0)
        one = self if not self.is_sequence else Form("letter" if self.type == "letters" else "integer")
        num = len(LETTERS) if self.type == "letters" else largest + 1
        elements = tuple(one.write((number,)) for number in range(num))
        return AnswerSpace(elements, steps if self.is_sequence else 1, "" if self.type == "letters" else " ")


def nearest_option(options: Sequence[Value], value: Value) -> int:
    """Return the number of the option that is nearest to a predicted value, the first one on ties; -1 where there is
    none. A sequence has no neighbours: it must be the same."""
    if any(len(option) != 1 for option in (*options, value)):
        return options.index(value) if value in options else -1
    return min(range(len(options)), key=lambda i: abs(options[i][0] - value[0]))


def error(answer: Value, value: Value, num_classes: int) -> float:
    """Return how far a prediction is from the answer, as a share of the classes; of a sequence the share of its wrong
    elements."""
    if len(answer) == len(value) == 1:
        return min(1.0, abs(answer[0] - value[0]) / num_classes)
    longest = max(len(answer), len(value), 1)
    right = sum(one == other for one, other in zip(answer, value, strict=False))
    return 1 - right / longest


def _integer(form: Form, text: str) -> Value | None:
    return (int(text),) if re.fullmatch(r"[0-9]{1,6}", text) else None


def _letter(form: Form, text: str) -> Value | None:
    return (LETTERS.index(text.upper()),) if re.fullmatch(r"[A-Za-z]", text) else None


def _unit(form: Form, text: str) -> Value | None:
    found = re.fullmatch(rf"([0-9]{{1,6}}) ?(?:{_UNITS[form.unit]})?\.?", text, re.IGNORECASE)
    return (int(found.group(1)),) if found else None


def _clock(form: Form, text: str) -> Value | None:
    found = _CLOCK.fullmatch(text)
    if not found or not 1 <= int(found.group(1)) <= 12:
        return None
    return (int(found.group(1)) + 12 * (found.group(2).upper() == "P"),)


def _word(form: Form, text: str) -> Value | None:
    return (0,) if text.lower().removesuffix(".") == WORD.lower() else _integer(form, text)


def _operator(form: Form, text: str) -> Value | None:
    found = re.fullmatch(r"([-+xX*/:]) ?([0-9])", text)
    return (10 * _SIGNS[found.group(1)] + int(found.group(2)),) if found else None


def _icon(form: Form, text: str) -> Value | None:
    names = _icon_numbers(form.names)
    return (names[text.lower()],) if text.lower() in names else None


def _numbers(form: Form, text: str) -> Value | None:
    return tuple(map(int, re.findall(r"[0-9]+", text))) if _NUMBERS.fullmatch(text) else None


def _digits(form: Form, text: str) -> Value | None:
    if re.fullmatch(r"[0-9]+", text):
        return tuple(map(int, text))
    found = _numbers(form, text)
    return found if found and max(found) < 10 else None


def _letters(form: Form, text: str) -> Value | None:
    if not text.isalpha():  # a word of letters may hold "and"
        if not _LETTER_LIST.fullmatch(text):
            return None
        text = re.sub(r"\band\b|[ ,;-]", "", text)
    return tuple(LETTERS.index(letter) for letter in text.upper()) if text.isascii() else None


@functools.cache
def _icon_numbers(names: tuple[str, ...]) -> Mapping[str, int]:
    return {name.lower(): number for number, name in enumerate(names)}


_READERS = {
    "integer": _integer,
    "letter": _letter,
    "unit": _unit,
    "clock": _clock,
    "word": _word,
    "operator": _operator,
    "icon": _icon,
    "numbers": _numbers,
    "digits": _digits,
    "letters": _letters,
}
