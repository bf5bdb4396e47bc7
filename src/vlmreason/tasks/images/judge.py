"""Judge what a model says of a picture by the labels that it names: no model, the same verdict every time.

Chapter 2 of Zhai's dissertation asks a language model for yes or no, and names failures by example: a wrong label, an
intrinsic hallucination (the output contradicts the demand for one label), an extrinsic one (it cannot be verified from
the picture, or speaks in the labels of another set). Here whole phrases are looked for, longest first, without overlap,
among the labels of the set and those of other sets.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from vlmreason.structure import nearest as nearest_name
from vlmreason.tasks.images.labels import NUMBER_WORDS, SYNONYMS

Category = Literal["correct", "correct_verbose", "incorrect", "intrinsic", "extrinsic", "unparsed"]
CATEGORIES: tuple[Category, ...] = ("correct", "correct_verbose", "incorrect", "intrinsic", "extrinsic", "unparsed")

_WORD = re.compile(r"[^\W_]+")
_ARTICLES = frozenset(("a", "an", "the"))
_MOST_COMPARED = 2000  # characters of a response that `nearest` looks at

Phrase = tuple[str, ...]


@dataclass(frozen=True)
class Verdict:
    """What a response is: its category, the labels that it names in their order (of other sets too), whether the right
    one is among them, and the label of the set that its text is nearest to."""

    category: Category
    named: tuple[str, ...]
    right_named: bool
    nearest: str


class Judge:
    """Judges responses by the labels of a set and of others.

    labels: of the set; foreign: of other sets. A label that both have is the set's. Raises ValueError for labels that
    differ in nothing that is looked at, as case or plural.
    """

    def __init__(self, labels: Sequence[str], foreign: Iterable[str] = ()) -> None:
        self.labels = tuple(labels)
        self._own: dict[Phrase, str] = {}
        for label in self.labels:
            phrase = words(label)
            if not phrase:
                raise ValueError(f"label {label!r}: letters or digits are expected")
            if phrase in self._own:
                raise ValueError(f"labels {self._own[phrase]!r} and {label!r}: they differ in case or form alone")
            self._own[phrase] = label
        self._others = {words(label): label for label in foreign}
        self._others = {phrase: label for phrase, label in self._others.items() if phrase and phrase not in self._own}
        for table in (self._own, self._others):
            by_label = {label: phrase for phrase, label in table.items()}
            for other, label in ({**SYNONYMS, **NUMBER_WORDS} if table is self._own else SYNONYMS).items():
                phrase = words(other)
                if label in by_label and phrase not in self._own and phrase not in self._others:
                    table[phrase] = label
        known = [*self._own, *self._others]
        self._lengths = sorted({len(phrase) for phrase in known}, reverse=True)
        self._trigrams = {label: _trigrams(" ".join(words(label))) for label in self.labels}

    def __call__(self, response: str, gold: str) -> Verdict:
        """Judge a response, any text. Raises ValueError for a right label that the set does not have."""
        if gold not in self._trigrams:
            raise ValueError(f"label {gold!r}: not one of the set{nearest_name(gold, self.labels)}")
        said = words(response)
        found, rest = self._find(said)
        own = [label for label, is_own in found if is_own]
        return Verdict(
            self._category(said, rest, own, len(own) < len(found), gold),
            tuple(dict.fromkeys(label for label, _ in found)),
            gold in own,
            self.nearest(response),
        )

    def nearest(self, response: str) -> str:
        """Return the label whose trigrams of letters point in the direction nearest to the response's; it always names
        one, of equal ones the first."""
        given = _trigrams(" ".join(words(response[:_MOST_COMPARED])))
        return max(self.labels, key=lambda label: _cosine(given, self._trigrams[label]))

    def _category(self, said: Phrase, rest: Phrase, own: Sequence[str], others: bool, gold: str) -> Category:
        if len(set(own)) > 1:
            return "intrinsic"
        if others or not own:
            return "extrinsic" if said else "unparsed"
        if own[0] != gold:
            return "incorrect"
        return "correct" if PLAIN.issuperset(rest) else "correct_verbose"

    def _find(self, said: Phrase) -> tuple[list[tuple[str, bool]], Phrase]:
        """The labels in their order, each with whether it is the set's own, and the words that are of none."""
        taken: dict[int, tuple[str, bool]] = {}
        free = [True] * len(said)
        for length in self._lengths:
            for at in range(len(said) - length + 1):
                phrase = said[at : at + length]
                label = self._own.get(phrase) or self._others.get(phrase)
                if label is not None and all(free[at : at + length]):
                    taken[at] = (label, phrase in self._own)
                    free[at : at + length] = [False] * length
        left = (word for word, is_free in zip(said, free, strict=True) if is_free)
        return [taken[at] for at in sorted(taken)], tuple(left)


def words(text: str) -> Phrase:
    """Return the words of a text as they are compared: lower case, without punctuation, articles and plural."""
    found = (_singular(word) for word in _WORD.findall(text.lower()))
    return tuple(word for word in found if word not in _ARTICLES)


def _singular(word: str) -> str:
    """A word in the one form that it and its plural come to, as "hors" of horse and horses."""
    if len(word) > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if len(word) > 4 and word.endswith(("xes", "ches", "shes")):
        return word[:-2]
    if len(word) > 3 and word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]
    return word[:-1] if len(word) > 3 and word.endswith("se") else word


def _trigrams(text: str) -> Mapping[str, float]:
    padded = f"  {text} "
    counts = Counter(padded[i : i + 3] for i in range(len(padded) - 2)) if text else Counter[str]()
    norm = sum(count * count for count in counts.values()) ** 0.5
    return {gram: count / norm for gram, count in counts.items()}


def _cosine(one: Mapping[str, float], other: Mapping[str, float]) -> float:
    return sum(value * one.get(gram, 0.0) for gram, value in other.items())


PLAIN = frozenset(
    words(
        "answer object image picture photo drawing number digit label is it its this that there in of shown shows see "
        "depicts written i s"
    )
)
"""Words that say nothing beside a label."""
