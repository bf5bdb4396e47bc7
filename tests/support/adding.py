"""A task of one line and a learner that answers it as told, for the tests of evaluation."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from vlmreason.dialogue.build import build_dialogue
from vlmreason.models.contract import Generation, Prompt
from vlmreason.pictures import Picture
from vlmreason.tasks.base import Belongs, Modality, Score, Task


@dataclass(frozen=True)
class Numbers:
    values: tuple[int, ...]


class Adding(Task[Numbers]):
    """Add the numbers of a column: simple has two, hard five."""

    name = "adding"
    version = 1
    levels = ("simple", "hard")
    state_type = Numbers

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> Numbers:
        while True:
            values = tuple(rng.randrange(100) for _ in range(2 if level == "simple" else 5))
            if belongs(list(values)):
                return Numbers(values)

    def key(self, state: Numbers) -> object:
        return list(state.values)

    def draw(self, state: Numbers) -> Picture:
        return np.repeat(np.array(state.values, np.uint8), 3).reshape(1, -1, 3)

    def text(self, state: Numbers) -> str:
        return "\n".join(["begin", *map(str, state.values), "end"])

    def prompt(self, state: Numbers, modality: Modality) -> str:
        return "Add." + ("\n" + self.text(state)) * (modality == "text")

    def convert(self, state: Numbers) -> str:
        return "Convert the picture:"

    def thought(self, state: Numbers) -> list[str]:
        return [f"then {value} makes {sum(state.values[: i + 1])}\n" for i, value in enumerate(state.values)]

    def answer(self, state: Numbers) -> str:
        return f"Answer: {sum(state.values)}"

    def score(self, state: Numbers, response: str) -> Score:
        found = re.findall(r"answer: (-?\d{1,9})", response, re.IGNORECASE)
        correct = bool(found) and int(found[-1]) == sum(state.values)
        return Score(correct, bool(found), {"off_by_ten": float(bool(found) and not correct), "length": 1.0})


@dataclass
class FakeLearner:
    """Answers with `reply(state, prompt)`; knows the state from the prompt's picture or text."""

    reply: Callable[[Numbers, Prompt], Generation]
    num_asked: int = 0
    batch_sizes: tuple[int, ...] = ()
    forbidden: tuple[tuple[str, ...], ...] = ()
    fail_after: int | None = None

    def generate(
        self, prompts: Sequence[Prompt], max_new_tokens: int, forbidden_starts: Sequence[str] = ()
    ) -> list[Generation]:
        if self.fail_after is not None and len(self.batch_sizes) >= self.fail_after:
            raise KeyboardInterrupt
        self.num_asked += len(prompts)
        self.batch_sizes += (len(prompts),)
        self.forbidden += (tuple(forbidden_starts),)
        return [self.reply(read_state(prompt), prompt) for prompt in prompts]

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def read_state(prompt: Prompt) -> Numbers:
    if prompt.image is not None:
        return Numbers(tuple(int(value) for value in prompt.image[0, :, 0]))
    return Numbers(tuple(map(int, re.findall(r"\d+", prompt.text))))


def gold(state: Numbers, prompt: Prompt) -> Generation:
    text = "".join(Adding().thought(state)) + Adding().answer(state)
    return Generation(text, len(text.split()) + 1, True)


def gold_via_text(state: Numbers, prompt: Prompt) -> Generation:
    task = Adding()
    text = task.convert(state) + "\n" + task.text(state) + "\n" + gold(state, prompt).text
    return Generation(text, len(text.split()) + 1, True)


def spoiled(state: Numbers, prompt: Prompt) -> Generation:
    return Generation(f"Answer: {sum(state.values) + 10}", 3, True)


def cut_off(state: Numbers, prompt: Prompt) -> Generation:
    return Generation("".join(Adding().thought(state)), 7, False)


def by_parity(state: Numbers, prompt: Prompt) -> Generation:
    return (gold if sum(state.values) % 2 else spoiled)(state, prompt)


def gold_dialogue_text(index: int, level: str = "simple") -> str:
    task = Adding()
    return build_dialogue(task, task.sample(level, "test", index), "image_via_text").response.text
