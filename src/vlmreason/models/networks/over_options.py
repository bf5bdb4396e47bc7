"""What networks share that see a picture and answer by one of a task's options, the classes that they know."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from vlmreason.dialogue.build import Dialogue
from vlmreason.models.contract import AdapterSettings, Choice, Example, Generation, Prompt
from vlmreason.models.networks.one_answer import OneAnswer, refuse_beginnings
from vlmreason.segments import ANSWER


def check_shows_a_picture(name: str, example: Example) -> None:
    """Raise ValueError where a network `model=name` is made for problems without a picture."""
    if example.prompt.image is None:
        raise ValueError(f"model={name}: it sees pictures alone; evaluation.views=[image]")


@dataclass(frozen=True)
class Shown(OneAnswer):
    """A picture as the network sees it, (3, side, side) or so for each of its options, and the number of its class."""

    pixels: Tensor
    number: int


class Pictures(ABC):
    """What a Processor is for dialogues."""

    def __init__(self, options: Sequence[str]) -> None:
        self._numbers = {option: number for number, option in enumerate(options)}

    def number(self, option: str) -> int:
        """Return the class of an option. Raises ValueError for one that the network does not have."""
        if option not in self._numbers:
            raise ValueError(f"{option[:60]!r}: this network knows {len(self._numbers)} options, and not this one")
        return self._numbers[option]

    def pixels(self, picture: Any) -> Tensor:
        """Return a picture as the network sees it. Raises ValueError where there is none."""
        if picture is None:
            raise ValueError("evaluation.views: this network sees pictures alone; [image]")
        return self._shown(picture)

    @abstractmethod
    def _shown(self, picture: Any) -> Tensor:
        """A picture as the network sees it."""

    def encode(self, dialogue: Dialogue) -> Shown:
        """Return a dialogue whose answer is an option. Raises ValueError."""
        answer = next(one.text for one in reversed(dialogue.response.segments) if one.kind == ANSWER)
        return Shown(self.pixels(dialogue.image), self.number(answer))

    def collate(self, examples: Sequence[Shown], multiple: int = 1) -> dict[str, Tensor]:
        return {
            "pixels": torch.stack([example.pixels for example in examples]),
            "numbers_B": torch.tensor([example.number for example in examples]),
            "segments": torch.tensor([example.segments for example in examples]),
        }


class OptionLearner(ABC):
    """A network as a model that trains, answers and chooses; `kept`: what a run keeps of it, with its options."""

    num_positions: int | None = None
    packable = False
    kept: Any
    processor: Pictures

    @abstractmethod
    def _logits(self, pixels: Tensor) -> Tensor:
        """Logits (B, K) of the options that it knows, of pictures in a batch."""

    def adapt(self, settings: AdapterSettings, seed: int, trained: Path | None = None) -> None:
        """Refuse what cannot be done here: nothing can be adapted. Raises ValueError."""
        if settings.name != "none" or settings.frozen:
            raise ValueError("adapter: has no effect on a network; adapter=none, and train=[projector] for its head")

    def token_losses(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return cross entropy (B) and segment number (B) of the answer of each dialogue of a batch."""
        logits_BK = self._logits(batch["pixels"])
        losses_B = F.cross_entropy(logits_BK, batch["numbers_B"].to(logits_BK.device), reduction="none")
        return losses_B, batch["segments"][:, 0]

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Prompt], max_new_tokens: int = 1, forbidden_starts: Sequence[str] = ()
    ) -> list[Generation]:
        """Return the likeliest of its options for each prompt. Raises ValueError where a beginning is given."""
        refuse_beginnings(prompts, forbidden_starts)
        numbers = self._logits(self._pixels(prompts)).argmax(dim=1).tolist() if prompts else []
        return [Generation(self.kept.options[number], 1, True) for number in numbers]

    @torch.no_grad()
    def choose(self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]) -> list[list[Choice]]:
        """Say how likely options are among all classes. Raises ValueError for one that is none."""
        if not prompts:
            return []
        logs = F.log_softmax(self._logits(self._pixels(prompts)), dim=1).tolist()
        number = self.processor.number
        return [[Choice(row[number(text)], 1) for text in some] for row, some in zip(logs, options, strict=True)]

    def count_tokens(self, text: str) -> int:
        """Return 1: an answer is one token."""
        return int(bool(text))

    def _pixels(self, prompts: Sequence[Prompt]) -> Tensor:
        return torch.stack([self.processor.pixels(prompt.image) for prompt in prompts])
