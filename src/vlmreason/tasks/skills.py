"""Generic skills with a wording that varies: what the skills of all families share.

A skill is bound to a question's form where that form never changes: absolute positions tie it to fixed places, and one
further word in the prompt is enough to lose it. So verbs, filling words, their places, the full stop and the way in
which ends are given are drawn anew for every problem, and a state holds its question as it is worded, with its reply.
"""

from __future__ import annotations

import random
from abc import abstractmethod
from typing import Protocol, TypeVar

from vlmreason.pictures import Picture
from vlmreason.tasks.base import Modality, Score, Task

FILLING = ("the", "in", "order", "now", "please", "each", "of", "this", "here", "given")
MOST_FILLING = 3
ENDS = ("from {} to {}", "{} to {}", "from {} until {}", "starting at {} until {}")


class Asked(Protocol):
    """What the state of every skill has."""

    @property
    def skill(self) -> str: ...
    @property
    def question(self) -> str: ...
    @property
    def reply(self) -> str: ...


State = TypeVar("State", bound=Asked)


class Skills(Task[State]):
    """One skill per level; a reply is right when it is the state's own, as a whole."""

    @abstractmethod
    def picture(self, state: State) -> Picture:
        """Draw what the question is about."""

    def draw(self, state: State) -> Picture:
        """Return the picture. Raises ValueError for a skill of text alone."""
        if state.skill in self.text_only:
            raise ValueError(f"task={self.name} level={state.skill}: a skill of text alone, it has no picture")
        return self.picture(state)

    def prompt(self, state: State, modality: Modality) -> str:
        text = self.text(state) if modality == "text" and state.skill not in self.text_only else ""
        return f"{text}\n{state.question}" if text else state.question

    def convert(self, state: State) -> str:
        return "Transcribe"

    def thought(self, state: State) -> list[str]:
        return []

    def answer(self, state: State) -> str:
        return state.reply

    def score(self, state: State, response: str) -> Score:
        """Return exact match of the whole reply."""
        return Score(correct=response.strip() == state.reply, parsed=bool(response.strip()))


def ask(rng: random.Random, verbs: tuple[str, ...], *parts: str) -> str:
    """Word a question: a verb, filling words before or among the parts, perhaps a full stop."""
    filling, at = rng.sample(FILLING, rng.randint(0, MOST_FILLING)), rng.randint(0, len(parts))
    cut = rng.randint(0, len(filling))
    words = [rng.choice(verbs), *filling[:cut], *parts[:at], *filling[cut:], *parts[at:]]
    return " ".join(words) + ("." if rng.random() < 0.5 else "")


def ends(rng: random.Random, first: str, last: str) -> str:
    """Word the two ends of a list."""
    return rng.choice(ENDS).format(first, last)
