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

from vlmreason.files import write_json_atomic
from vlmreason.models.contract import Example, Prompt
from vlmreason.models.networks.one_answer import NoLanguageModel, kept_weights, save_weights
from vlmreason.models.networks.over_options import OptionLearner, Pictures, check_shows_a_picture
from vlmreason.models.vlm.saved import read_config
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
        check_shows_a_picture(self.name, example)
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


class PictureLearner(OptionLearner):
    """A network over pictures as a model that trains, answers and chooses. make: draws its weights from `seed`."""

    prefixes: Mapping[str, tuple[str, ...]] = {
        "vision_tower": ("stem.", "blocks."), "projector": ("head.",), "language_model": (),
    }  # fmt: skip
    source = None

    def __init__(self, kept: Kept, make: Callable[[], nn.Module], pictures: Pictures, seed: int) -> None:
        self.kept = kept
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(stream(seed, "picture_net").getrandbits(63))
            self.model = make()
        self.processor = pictures

    def trained_parameters(self, train: Any = "all") -> list[tuple[str, nn.Parameter]]:
        """List what a phase trains: all, or the features (vision_tower) or the head (projector) alone."""
        parts = self.prefixes if train == "all" else train
        begins = tuple(begin for part in parts for begin in self.prefixes[part])
        found = [(name, value) for name, value in self.model.named_parameters() if name.startswith(begins)]
        if not found:
            raise ValueError(f"train={list(train)}: this network has vision_tower and projector, its head")
        return found

    @torch.no_grad()
    def embed(self, prompts: Sequence[Prompt]) -> Tensor:
        """Return last features (B, D) of pictures."""
        features_BD: Tensor = self.model(self._pixels(prompts))[0]
        return features_BD

    def save(self, directory: Path) -> None:
        """Write the network."""
        directory.mkdir(parents=True, exist_ok=True)
        write_json_atomic(directory / FILE, asdict(self.kept))
        save_weights(self.model, directory / WEIGHTS)

    def _logits(self, pixels: Tensor) -> Tensor:
        logits_BK: Tensor = self.model(pixels)[1]
        return logits_BK


class SmallPictures(Pictures):
    """Pictures brought to one size, from -1 to 1."""

    def __init__(self, kept: Kept) -> None:
        super().__init__(kept.options)
        self.side = kept.side

    def _shown(self, picture: Any) -> Tensor:
        small = Image.fromarray(picture).resize((self.side, self.side), Image.Resampling.BOX)
        return torch.from_numpy(np.array(small)).permute(2, 0, 1).float() / 127.5 - 1


def _learner(kept: Kept, seed: int) -> PictureLearner:
    return PictureLearner(kept, lambda: ResidualNetwork(kept), SmallPictures(kept), seed)


def opened(kind: type[K], make: Callable[[K, int], PictureLearner], trained: Path | None, name: str) -> PictureLearner:
    """Return the network of `model=name` that a run has kept, made by what it keeps of it. Raises ValueError."""
    if trained is None:
        raise ValueError(f"model={name}: a new one is made for the options of a task, and there is none here")
    path = trained / FILE
    made = make(structure(kind, read_config(path), str(path)), 0)
    with kept_weights(trained / WEIGHTS, FILE) as tensors:
        made.model.load_state_dict(tensors)
    return made
