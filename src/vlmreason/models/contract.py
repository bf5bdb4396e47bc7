"""What training, answering and analysis may ask of a model, and what it answers with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from vlmreason.pictures import Picture

if TYPE_CHECKING:
    from torch import Tensor

PARTS = ("vision_tower", "projector", "language_model")
"""What can be trained alone; every parameter belongs to exactly one."""

Prefixes = Mapping[str, tuple[str, ...]]


@dataclass(frozen=True)
class AdapterSettings:
    """conf/adapter/. Parts in `frozen` never train, parts in `parts` by LoRA, all others in full.

    `r` is the rank; the product of the two matrices is scaled by `alpha / r`; `dropout` is of their input.
    """

    name: Literal["none", "lora"] = "none"
    frozen: tuple[str, ...] = ()
    parts: tuple[str, ...] = ()
    r: int | None = None
    alpha: float | None = None
    dropout: float = 0.0

    def __post_init__(self) -> None:
        for key in ("frozen", "parts"):
            for part in getattr(self, key):
                if part not in PARTS:
                    raise ValueError(f"adapter.{key}: {part!r} is no part of a model; there are {', '.join(PARTS)}")
        if both := set(self.frozen) & set(self.parts):
            raise ValueError(
                f"adapter.frozen and adapter.parts both name {sorted(both)[0]}: a part is one or the other"
            )
        if set(self.frozen) == set(PARTS):
            raise ValueError("adapter.frozen names all parts: nothing would train")
        if self.name == "none":
            if self.parts or self.r is not None or self.alpha is not None or self.dropout:
                raise ValueError("adapter=none: parts, r, alpha and dropout have no effect; choose adapter=lora")
            return
        if not self.parts:
            raise ValueError(f"adapter.parts=[]: LoRA needs a part; there are {', '.join(PARTS)}")
        if self.r is None or self.r < 1:
            raise ValueError(f"adapter.r={self.r}: 1 or more is expected")
        if self.alpha is None or self.alpha <= 0:
            raise ValueError(f"adapter.alpha={self.alpha}: more than 0 is expected")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"adapter.dropout={self.dropout}: 0 or more and less than 1")

    def trains(self, part: str, name: str) -> bool:
        """Whether a parameter of a part trains in a phase that trains the part."""
        return part not in self.frozen and (part not in self.parts or ".lora_" in name)


Source = Mapping[str, str] | Sequence[Mapping[str, str]]
"""id, revision and commit of a model of a hub; of each part of a composed one, with its setting as `part`."""


@dataclass(frozen=True)
class Generation:
    """A response (prefill included), its number of generated tokens, and whether the model ended it itself."""

    text: str
    num_tokens: int
    finished: bool


@dataclass(frozen=True)
class Sample(Generation):
    """A sampled response with its tokens (the end included where the model ended it) and the log-probability of each
    at the temperature of sampling."""

    ids: list[int]
    logprobs: list[float]


@dataclass(frozen=True)
class TokenScores:
    """Of the N response tokens of a batch of B rows, row by row.

    logprobs_N, entropies_N: of and around each token, float32; rows_N, segments_N: its row and segment number;
    context_BD: last hidden state of the prompt's last token, from which the response begins.
    """

    logprobs_N: Tensor
    entropies_N: Tensor
    rows_N: Tensor
    segments_N: Tensor
    context_BD: Tensor


@dataclass(frozen=True)
class Prompt:
    """What a model is asked. `prefill` is the beginning of its response that is given to it."""

    text: str
    image: Picture | None
    prefill: str = ""
