"""What training, answering and analysis may ask of a model, and what it answers with."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, runtime_checkable

from vlmreason.answers import AnswerSpace
from vlmreason.pictures import Box, Picture
from vlmreason.segments import Response

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
        """Tell whether a parameter of a part trains in a phase that trains the part."""
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
    """What a model is asked.

    `prefill` is the beginning of its response that is given to it. `pattern`: a response at whose place, in tokens, the
    answer of this one begins, no earlier and no later; None: where the model begins it. `kind`: the kind of problem
    where a task has kinds, of which models that write know nothing.
    """

    text: str
    image: Picture | None
    prefill: str = ""
    pattern: Response | None = None
    kind: str = ""


@dataclass(frozen=True)
class Choice:
    """How likely a given response is: its log-probability as a whole (nats), and the tokens that this is the sum of.

    The tokens that end a response count as its own, so that "A" and "AB" are two responses and neither is a part of the
    other. What knows its options by number, not by text, has one token for each.
    """

    logprob: float
    num_tokens: int

    @property
    def per_token(self) -> float:
        """Return mean log-probability of a token: it does not favour short options as the whole does."""
        return self.logprob / self.num_tokens


class Generator(Protocol):
    """A model that writes."""

    def generate(
        self, prompts: Sequence[Prompt], max_new_tokens: int, forbidden_starts: Sequence[str] = ()
    ) -> list[Generation]:
        """Write the likeliest response to each prompt. Raises ValueError where it cannot be begun as is asked."""

    def count_tokens(self, text: str) -> int:
        """Count the tokens of a text as the model writes it."""


class Chooser(Protocol):
    """A model that says how likely given responses are."""

    def choose(self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]) -> list[list[Choice]]:
        """Score the options of each prompt, in their order; no score depends on the other options and prompts.

        Raises ValueError where the model can only write, or does not know an option.
        """


class Embedder(Protocol):
    """A model that gives vectors of what it sees: of a picture (a prompt without text), of a text, or of both."""

    def embed(self, prompts: Sequence[Prompt]) -> Tensor:
        """Give one vector for each prompt, (B, D) in float32. Raises ValueError where the model has none."""


class Trainable(Protocol):
    """A model that examples with their responses are trained into, by the stage of supervised training.

    model: the torch module; prefixes: of the names of its parameters, by part; processor: what makes a batch of
    dialogues (`encode` one, `collate` several, as vlmreason.models.vlm.processor.Processor does); packable: whether
    several of them may share a row.
    """

    model: Any
    prefixes: Prefixes
    processor: Any
    packable: bool

    def trained_parameters(self, train: Literal["all"] | Sequence[str]) -> list[tuple[str, Any]]:
        """List what trains in a phase of these parts, with names. Raises ValueError where nothing would."""

    def token_losses(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Give losses (N) and segment numbers (N) of a batch: one for each response token.

        A network over classes has one for each dialogue, whose answer is one token to it.
        """

    def save(self, directory: Path) -> None:
        """Write what `load` of its settings opens again."""


@runtime_checkable
class Preparing(Protocol):
    """A model with a frozen part, which sees every example once before training; what it has seen is kept."""

    def prepare(
        self, num: int, problem: Callable[[int], Hashable], dialogue: Callable[[int], Any], progress: bool
    ) -> Callable[[int], Any]:
        """Look at examples 0 to num - 1, and return what gives each of them as `processor.encode` would.

        problem: what tells examples apart without making them; dialogue: an example. Raises ValueError.
        """


class Settings(Protocol):
    """A file of conf/model/: a frozen dataclass named by `_target_`, whose fields are the keys beside it."""

    name: str

    def load(self, trained: Path | None = None) -> Any:
        """Make the model, with the weights of a run's directory where it is given. Raises ValueError."""


@dataclass(frozen=True)
class Example:
    """What a network is made for: a prompt of its problems and the options of their answers; `seed`: of its weights;
    `kinds`: the kinds of problems with their answers, where the task has kinds; `boxes`: where every picture shows the
    options, where it does."""

    prompt: Prompt
    options: tuple[str, ...]
    seed: int
    kinds: Mapping[str, AnswerSpace] = field(default_factory=dict)
    boxes: Sequence[Box] = ()


@runtime_checkable
class NetworkSettings(Settings, Protocol):
    """As Settings, of a network over the options of a task: it begins untrained, and is then as large as they ask."""

    def untrained(self, example: Example) -> Any:
        """Make the network. Raises ValueError where it cannot see such prompts."""
