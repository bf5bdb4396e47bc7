"""A small residual network over the classes of labelled pictures, trained from nothing (section 2.3).

After chapter 2 of Zhai's dissertation. It has one head over all options of the task, so that classes which a phase does
not show stay in the softmax and are pushed down. Norms are over groups of channels, not over a batch, which may be cut
into micro-batches. Pictures are brought to `side` pixels and not mirrored, which would make digits ambiguous.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreason.dialogue.build import Dialogue
from vlmreason.files import write_json_atomic
from vlmreason.models.contract import AdapterSettings, Choice, Example, Generation, Prompt
from vlmreason.models.networks.one_answer import NoLanguageModel, OneAnswer, kept_weights, save_weights
from vlmreason.models.vlm.saved import read_config
from vlmreason.segments import ANSWER
from vlmreason.streams import stream
from vlmreason.structure import check_positive, structure

FILE, WEIGHTS = "network.json", "network.safetensors"
K = TypeVar("K", bound="Kept")


@dataclass(frozen=True)
class PictureNet:
    """conf/model/picture_net.yaml. width: channels of the first stage, doubled in each of `stages`; side: of pictures
    (px)."""

    name: str
    width: int
    stages: int
    side: int

    def __post_init__(self) -> None:
        check_positive(self, "width", "stages", "side", where="model.")
        if self.width % 4:
            raise ValueError(f"model.width={self.width}: a multiple of 4 is expected")

    def untrained(self, example: Example) -> PictureLearner:
        """Return a new network over the options of a task. Raises ValueError where there is no picture."""
        if example.prompt.image is None:
            raise ValueError(f"model={self.name}: it sees pictures alone; evaluation.views=[image]")
        return _learner(Kept(self.width, self.stages, self.side, tuple(example.options)), example.seed)

    def load(self, trained: Path | None = None) -> PictureLearner:
        """Return a network that a run has kept. Raises ValueError."""
        return opened(Kept, _learner, trained, self.name)


@dataclass(frozen=True)
class Kept:
    """What a run keeps of the network beside its weights."""

    width: int
    stages: int
    side: int
    options: tuple[str, ...]

    @property
    def widths(self) -> list[int]:
        """Return the channels before the first stage and behind each of them."""
        return [self.width * 2**number for number in range(self.stages + 1)]


@dataclass(frozen=True)
class Shown(OneAnswer):
    """A picture as the network sees it, from -1 to 1, (3, side, side) or so for each of its options, and the number of
    its class."""

    pixels: Tensor
    number: int


class Block(nn.Module):
    """Two convolutions with a way around them; the first one halves the sides."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
        self.second = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.around = nn.Conv2d(before, after, 1, stride=2, bias=False)
        self.norms = nn.ModuleList(nn.GroupNorm(4, after) for _ in range(2))

    def forward(self, x_BCHW: Tensor) -> Tensor:
        inner = self.norms[1](self.second(F.relu(self.norms[0](self.first(x_BCHW)))))
        found: Tensor = F.relu(inner + self.around(x_BCHW))
        return found


class ResidualNetwork(nn.Module):
    """A convolution, blocks, the mean over places, one linear layer onto the classes."""

    lm_head = None

    def __init__(self, kept: Kept) -> None:
        super().__init__()
        self.config = NoLanguageModel(kept.widths[-1])
        self.stem = nn.Conv2d(3, kept.width, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(*pair) for pair in itertools.pairwise(kept.widths)))
        self.head = nn.Linear(kept.widths[-1], len(kept.options))

    @property
    def device(self) -> torch.device:
        return self.head.weight.device

    def forward(self, pixels_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return last features (B, D) and logits of the classes (B, K), in float32 whatever surrounds them."""
        with torch.autocast(self.device.type, enabled=False):
            features_BD: Tensor = self.blocks(F.relu(self.stem(pixels_BCHW.to(self.device)))).mean(dim=(2, 3))
            logits_BK: Tensor = self.head(features_BD)
        return features_BD, logits_BK


class PictureLearner:
    """A network over pictures as a model that trains, answers and chooses. make: draws its weights from `seed`."""

    prefixes: Mapping[str, tuple[str, ...]] = {
        "vision_tower": ("stem.", "blocks."), "projector": ("head.",), "language_model": (),
    }  # fmt: skip
    num_positions: int | None = None
    packable = False
    source = None

    def __init__(self, kept: Kept, make: Callable[[], nn.Module], pictures: Pictures, seed: int) -> None:
        self.kept = kept
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(stream(seed, "picture_net").getrandbits(63))
            self.model = make()
        self.processor = pictures

    def adapt(self, settings: AdapterSettings, seed: int, trained: Path | None = None) -> None:
        """Refuse what cannot be done here: nothing can be adapted. Raises ValueError."""
        if settings.name != "none" or settings.frozen:
            raise ValueError("adapter: has no effect on a network; adapter=none, and train=[projector] for its head")

    def trained_parameters(self, train: Any = "all") -> list[tuple[str, nn.Parameter]]:
        """List what a phase trains: all, or the features (vision_tower) or the head (projector) alone."""
        parts = self.prefixes if train == "all" else train
        begins = tuple(begin for part in parts for begin in self.prefixes[part])
        found = [(name, value) for name, value in self.model.named_parameters() if name.startswith(begins)]
        if not found:
            raise ValueError(f"train={list(train)}: this network has vision_tower and projector, its head")
        return found

    def token_losses(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return cross entropy (B) and segment number (B) of the answer of each dialogue of a batch."""
        _, logits_BK = self.model(batch["pixels"])
        losses_B = F.cross_entropy(logits_BK, batch["numbers_B"].to(logits_BK.device), reduction="none")
        return losses_B, batch["segments"][:, 0]

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Prompt], max_new_tokens: int = 1, forbidden_starts: Sequence[str] = ()
    ) -> list[Generation]:
        """Return the likeliest answer to each prompt. Raises ValueError where a beginning is given."""
        if forbidden_starts or any(prompt.prefill or prompt.pattern for prompt in prompts):
            raise ValueError(
                "evaluation.conversion, evaluation.prefill and evaluation.length: a network writes no text; "
                "evaluation.conversion=free evaluation.prefill='' evaluation.length=free"
            )
        numbers = self._see(prompts)[1].argmax(dim=1).tolist() if prompts else []
        return [Generation(self.kept.options[number], 1, True) for number in numbers]

    @torch.no_grad()
    def choose(self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]) -> list[list[Choice]]:
        """Say how likely options are among all classes. Raises ValueError for one that is none."""
        if not prompts:
            return []
        logs = F.log_softmax(self._see(prompts)[1], dim=1).tolist()
        number = self.processor.number
        return [[Choice(row[number(text)], 1) for text in some] for row, some in zip(logs, options, strict=True)]

    @torch.no_grad()
    def embed(self, prompts: Sequence[Prompt]) -> Tensor:
        """Return last features (B, D) of pictures."""
        return self._see(prompts)[0]

    def count_tokens(self, text: str) -> int:
        """Return 1: an answer is one token."""
        return int(bool(text))

    def save(self, directory: Path) -> None:
        """Write the network."""
        directory.mkdir(parents=True, exist_ok=True)
        write_json_atomic(directory / FILE, asdict(self.kept))
        save_weights(self.model, directory / WEIGHTS)

    def _see(self, prompts: Sequence[Prompt]) -> tuple[Tensor, Tensor]:
        seen: tuple[Tensor, Tensor] = self.model(torch.stack([self.processor.pixels(p.image) for p in prompts]))
        return seen


class Pictures:
    """What a Processor is for dialogues."""

    def __init__(self, kept: Kept) -> None:
        self.side = kept.side
        self._numbers = {option: number for number, option in enumerate(kept.options)}

    def number(self, option: str) -> int:
        """Return the class of an option. Raises ValueError for one that the network does not have."""
        if option not in self._numbers:
            raise ValueError(f"{option[:60]!r}: this network knows {len(self._numbers)} options, and not this one")
        return self._numbers[option]

    def pixels(self, picture: Any) -> Tensor:
        """Return a picture as the network sees it. Raises ValueError where there is none."""
        if picture is None:
            raise ValueError("evaluation.views: this network sees pictures alone; [image]")
        small = Image.fromarray(picture).resize((self.side, self.side), Image.Resampling.BOX)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 127.5 - 1

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


def _learner(kept: Kept, seed: int) -> PictureLearner:
    return PictureLearner(kept, lambda: ResidualNetwork(kept), Pictures(kept), seed)


def opened(kind: type[K], make: Callable[[K, int], PictureLearner], trained: Path | None, name: str) -> PictureLearner:
    """Return the network of `model=name` that a run has kept, made by what it keeps of it. Raises ValueError."""
    if trained is None:
        raise ValueError(f"model={name}: a new one is made for the options of a task, and there is none here")
    path = trained / FILE
    made = make(structure(kind, read_config(path), str(path)), 0)
    with kept_weights(trained / WEIGHTS, FILE) as tensors:
        made.model.load_state_dict(tensors)
    return made
