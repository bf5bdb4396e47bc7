"""A network that sees the options alone, never what they are to complete: does an answer set give its answer away?

After the context-blind baselines of I-RAVEN (arXiv 2002.06838). Each option is seen by the same small residual network
and compared with the mean of the others; the order of options changes nothing but the order of the answers. What it
gets right beyond chance it knows from the set of options. It needs a task that shows options at places of their own
(`Task.option_boxes`), and is cut off from the rest of the picture and from the text.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreason.models.contract import Example
from vlmreason.models.networks.one_answer import NoLanguageModel
from vlmreason.models.networks.over_options import check_shows_a_picture
from vlmreason.models.networks.picture_net import Block, Kept, PictureLearner, PictureNet, SmallPictures, opened
from vlmreason.pictures import Box


@dataclass(frozen=True)
class ContextBlind(PictureNet):
    """conf/model/context_blind.yaml. As PictureNet; side: to which each option is brought (px)."""

    def untrained(self, example: Example) -> PictureLearner:
        """Return a new network over the options of a task. Raises ValueError where its pictures do not show them."""
        check_shows_a_picture(self.name, example)
        if not example.boxes:
            raise ValueError(f"model={self.name}: the task shows no options at places of their own; raven does")
        sizes = (self.width, self.stages, self.side)
        return _learner(KeptOptions(*sizes, tuple(example.options), tuple(example.boxes)), example.seed)

    def load(self, trained: Path | None = None) -> PictureLearner:
        """Return a network that a run has kept. Raises ValueError."""
        return opened(KeptOptions, _learner, trained, self.name)


@dataclass(frozen=True)
class KeptOptions(Kept):
    """What a run keeps of the network beside its weights; boxes: of the options in a picture."""

    boxes: tuple[Box, ...]

    def __post_init__(self) -> None:
        if len(self.boxes) != len(self.options) or len(self.boxes) < 2:
            raise ValueError(f"boxes: one for each of 2 or more options is expected, got {len(self.boxes)}")


class Comparison(nn.Module):
    """What is seen of each option (B, K, C), and how likely it is beside the others (B, K)."""

    def __init__(self, num_states: int, width: int) -> None:
        super().__init__()
        self.seen = nn.Linear(num_states, width)
        self.inner = nn.Linear(2 * width, width)
        self.score = nn.Linear(width, 1)

    def forward(self, states_BKS: Tensor) -> tuple[Tensor, Tensor]:
        seen_BKC: Tensor = self.seen(states_BKS)
        others_BKC = (seen_BKC.sum(dim=1, keepdim=True) - seen_BKC) / (seen_BKC.shape[1] - 1)
        compared = torch.cat([seen_BKC, (seen_BKC - others_BKC).abs()], dim=2)
        return seen_BKC, self.score(F.relu(self.inner(compared)))[:, :, 0]


class OptionNetwork(nn.Module):
    """A convolution and blocks over each option, whose places stay apart, then the comparison."""

    lm_head = None

    def __init__(self, kept: KeptOptions) -> None:
        super().__init__()
        width = kept.widths[-1]
        self.config = NoLanguageModel(width)
        self.stem = nn.Conv2d(3, kept.width, 3, padding=1)
        self.blocks = nn.Sequential(*(Block(*pair) for pair in itertools.pairwise(kept.widths)))
        left = -(-kept.side // 2**kept.stages)  # places along a side behind the last stage
        self.head = Comparison(width * left**2, width)

    @property
    def device(self) -> torch.device:
        return self.stem.weight.device

    def forward(self, pixels_BKCHW: Tensor) -> tuple[Tensor, Tensor]:
        """Return features (B, D), the mean over options, and a logit of each option (B, K), in float32."""
        with torch.autocast(self.device.type, enabled=False):
            pixels = pixels_BKCHW.to(self.device)
            states = self.blocks(F.relu(self.stem(pixels.flatten(0, 1))))
            seen_BKC, logits_BK = self.head(states.flatten(1).unflatten(0, pixels.shape[:2]))
        return seen_BKC.mean(dim=1), logits_BK


class Options(SmallPictures):
    """As SmallPictures, of which the options alone are seen."""

    def __init__(self, kept: KeptOptions) -> None:
        super().__init__(kept)
        self.boxes = kept.boxes

    def _shown(self, picture: Any) -> Tensor:
        """The options of a picture, (K, 3, side, side). Raises ValueError where they do not lie within it."""
        crops = [picture[top : top + high, left : left + wide] for top, left, high, wide in self.boxes]
        if any(crop.shape[:2] != box[2:] for crop, box in zip(crops, self.boxes, strict=True)):
            height, width = picture.shape[:2]
            raise ValueError(f"model: options lie beyond a picture of {width} x {height} px, not of its task")
        return torch.stack([super(Options, self)._shown(crop) for crop in crops])


def _learner(kept: KeptOptions, seed: int) -> PictureLearner:
    return PictureLearner(kept, lambda: OptionNetwork(kept), Options(kept), seed)
