"""A model of pictures and texts as a classifier: a picture goes to the class whose text is nearest (section 2.4).

After chapter 2 of Zhai's dissertation. Untrained it is zero-shot. With `head=texts` cross entropy over the texts of all
classes trains both towers (contrastive fine-tuning); classes are texts, so that it can choose among those of another
set, too. With `head=linear` a new linear layer is before the classes and the texts are not used: trained alone it is a
linear probe (`train=[projector]`), with the tower full fine-tuning.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreason.files import write_json_atomic
from vlmreason.models.contract import Choice, Example, Prompt
from vlmreason.models.embedders import HubEncoder, Sight, vectors_in
from vlmreason.models.networks.one_answer import NoLanguageModel, kept_weights, save_weights
from vlmreason.models.networks.over_options import OptionLearner, Pictures, check_shows_a_picture
from vlmreason.models.vlm.saved import read_config
from vlmreason.structure import structure

FILE, HEAD = "network.json", "head.safetensors"

Head = Literal["texts", "linear"]
_MARKER = re.compile(r"answer\s*:", re.IGNORECASE)


@dataclass(frozen=True)
class ClipClassifier:
    """conf/model/clip_classifier.yaml. id, revision: of the hub, or a directory; head: before the classes; caption,
    number_caption: the text of a class, of one that is a number."""

    name: str
    id: str
    revision: str | None
    head: Head
    caption: str
    number_caption: str

    def __post_init__(self) -> None:
        for key in ("caption", "number_caption"):
            if getattr(self, key).count("{label}") != 1 or re.sub(r"\{label\}", "", getattr(self, key)).count("{"):
                raise ValueError(f"model.{key}={getattr(self, key)!r}: a text with {{label}} in it is expected")

    def untrained(self, example: Example) -> ClipLearner:
        """Return the classifier over the options of a task. Raises ValueError where there is no picture."""
        check_shows_a_picture(self.name, example)
        kept = Kept(self.head, self.caption, self.number_caption, tuple(example.options))
        return ClipLearner(kept, HubEncoder("model.id", self.id, self.revision))

    def load(self, trained: Path | None = None) -> ClipLearner:
        """Return a classifier that a run has kept. Raises ValueError."""
        if trained is None:
            raise ValueError(f"model={self.name}: it is made for the options of a task, and there is none here")
        path = trained / FILE
        made = ClipLearner(structure(Kept, read_config(path), str(path)), HubEncoder("model.id", str(trained)))
        if made.model.head is not None:
            with kept_weights(trained / HEAD, FILE) as tensors:
                made.model.head.load_state_dict(tensors)
        return made


@dataclass(frozen=True)
class Kept:
    """What a run keeps of the classifier beside its weights."""

    head: Head
    caption: str
    number_caption: str
    options: tuple[str, ...]

    def texts(self, options: Sequence[str]) -> list[str]:
        """Return the texts of options: of their labels, without the word that begins an answer."""
        labels = [_MARKER.sub("", option, count=1).strip().rstrip(".") for option in options]
        return [(self.number_caption if text.isdecimal() else self.caption).format(label=text) for text in labels]


class ComparingNetwork(nn.Module):
    """Both towers, and a linear layer onto the classes where texts are not used."""

    lm_head = None

    def __init__(self, kept: Kept, encoder: HubEncoder) -> None:
        super().__init__()
        self.config = NoLanguageModel(encoder.width)
        self.encoder: Any = encoder.model
        self.head = nn.Linear(encoder.width, len(kept.options)) if kept.head == "linear" else None
        if self.head is not None:
            nn.init.zeros_(self.head.weight)
            nn.init.zeros_(self.head.bias)

    @property
    def device(self) -> torch.device:
        found: torch.device = self.encoder.logit_scale.device
        return found

    def pictures(self, pixels_BCHW: Tensor) -> Tensor:
        """Return vectors (B, D) of pictures, of length 1."""
        return F.normalize(
            vectors_in(self.encoder.get_image_features(pixel_values=pixels_BCHW.to(self.device))).float()
        )

    def texts(self, tokens: Mapping[str, Tensor]) -> Tensor:
        """Return vectors (K, D) of texts, of length 1."""
        held = {name: value.to(self.device) for name, value in tokens.items()}
        return F.normalize(vectors_in(self.encoder.get_text_features(**held)).float())

    def forward(self, pixels_BCHW: Tensor, tokens: Mapping[str, Tensor] | None) -> Tensor:
        """Return logits (B, K): of the texts' tokens, or of the head's classes where there are none."""
        pictures_BD = self.pictures(pixels_BCHW)
        if tokens is None:
            assert self.head is not None
            found: Tensor = self.head(pictures_BD * math.sqrt(pictures_BD.shape[1]))
            return found
        scaled: Tensor = self.encoder.logit_scale.exp() * pictures_BD @ self.texts(tokens).T
        return scaled


class ClipLearner(OptionLearner):
    """The network as a model that trains, answers, chooses and embeds."""

    prefixes: Mapping[str, tuple[str, ...]] = {
        "vision_tower": ("encoder.vision_model.", "encoder.visual_projection."),
        "projector": ("head.", "encoder.logit_"),
        "language_model": ("encoder.text_model.", "encoder.text_projection."),
    }

    def __init__(self, kept: Kept, encoder: HubEncoder) -> None:
        """Raises ValueError for an encoder that has no side for texts."""
        if not encoder.both:
            raise ValueError(
                f"model.id: {type(encoder.model).__name__} sees pictures alone; one of texts too is expected"
            )
        self.kept, self.encoder, self.source = kept, encoder, encoder.source
        self.model = ComparingNetwork(kept, encoder)
        self.processor = SightedPictures(kept, encoder.sight)

    def trained_parameters(self, train: Any = "all") -> list[tuple[str, nn.Parameter]]:
        """List what a phase trains: all, or some of vision_tower, language_model (the texts') and projector (what
        compares: the scale of the cosines, or the head). Raises ValueError where nothing would train."""
        unused: tuple[str, ...] = ("encoder.logit_bias",)  # the same for all classes
        if self.model.head is not None:
            unused += ("encoder.logit_", *self.prefixes["language_model"])
        begins = tuple(begin for part in (self.prefixes if train == "all" else train) for begin in self.prefixes[part])
        named = self.model.named_parameters()
        found = [(name, value) for name, value in named if name.startswith(begins) and not name.startswith(unused)]
        if not found:
            raise ValueError(f"train={list(train)}: with model.head=linear there are vision_tower and projector")
        return found

    @torch.no_grad()
    def choose(self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]) -> list[list[Choice]]:
        """Say how likely options are: among each other by their texts, with a head among all of its classes.

        Raises ValueError for an option that a head does not have.
        """
        if self.model.head is not None or not prompts:
            return super().choose(prompts, options)
        known = list(dict.fromkeys(text for some in options for text in some))
        logits_BK = self.model(self._pixels(prompts), self._tokens(known))
        found = []
        for row_K, some in zip(logits_BK, options, strict=True):
            logs_O = F.log_softmax(row_K[[known.index(text) for text in some]], dim=0)
            found.append([Choice(value, 1) for value in logs_O.tolist()])
        return found

    def embed(self, prompts: Sequence[Prompt]) -> Tensor:
        """Return vectors (B, D) of pictures, or of texts, as both are compared. Raises ValueError for both at once."""
        return self.encoder.embed(prompts)

    def save(self, directory: Path) -> None:
        """Write the encoder as the hub has it, and beside it what makes it a classifier."""
        directory.mkdir(parents=True, exist_ok=True)
        self.encoder.save(directory)
        write_json_atomic(directory / FILE, asdict(self.kept))
        if self.model.head is not None:
            save_weights(self.model.head, directory / HEAD)

    def _logits(self, pixels: Tensor) -> Tensor:
        logits_BK: Tensor = self.model(pixels, self._tokens(self.kept.options))
        return logits_BK

    def _tokens(self, options: Sequence[str]) -> Mapping[str, Tensor] | None:
        if self.model.head is not None:
            return None
        found: Mapping[str, Tensor] = self.encoder.tokens(self.kept.texts(options))
        return found


class SightedPictures(Pictures):
    """Pictures as a tower sees them, (3, side, side)."""

    def __init__(self, kept: Kept, sight: Sight) -> None:
        super().__init__(kept.options)
        self.sight = sight

    def _shown(self, picture: Any) -> Tensor:
        return self.sight.pixels([picture])[0]
