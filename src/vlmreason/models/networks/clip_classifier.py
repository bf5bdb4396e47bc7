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

from vlmreason.dialogue.build import Dialogue
from vlmreason.files import write_json_atomic
from vlmreason.models.contract import AdapterSettings, Choice, Example, Generation, Prompt
from vlmreason.models.embedders import HubEncoder, Sight, vectors_in
from vlmreason.models.networks.one_answer import NoLanguageModel, OneAnswer, kept_weights, save_weights
from vlmreason.models.vlm.saved import read_config
from vlmreason.segments import ANSWER
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
        if example.prompt.image is None:
            raise ValueError(f"model={self.name}: it sees pictures alone; evaluation.views=[image]")
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


@dataclass(frozen=True)
class Shown(OneAnswer):
    """A picture as the tower sees it, (3, side, side), and the number of its class."""

    pixels_CHW: Tensor
    number: int


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


class ClipLearner:
    """The network as a model that trains, answers, chooses and embeds."""

    prefixes: Mapping[str, tuple[str, ...]] = {
        "vision_tower": ("encoder.vision_model.", "encoder.visual_projection."),
        "projector": ("head.", "encoder.logit_"),
        "language_model": ("encoder.text_model.", "encoder.text_projection."),
    }
    num_positions: int | None = None
    packable = False

    def __init__(self, kept: Kept, encoder: HubEncoder) -> None:
        """Raises ValueError for an encoder that has no side for texts."""
        if not encoder.both:
            raise ValueError(
                f"model.id: {type(encoder.model).__name__} sees pictures alone; one of texts too is expected"
            )
        self.kept, self.encoder, self.source = kept, encoder, encoder.source
        self.model = ComparingNetwork(kept, encoder)
        self.processor = Pictures(kept, encoder.sight)

    def adapt(self, settings: AdapterSettings, seed: int, trained: Path | None = None) -> None:
        """Refuse what cannot be done here: nothing can be adapted. Raises ValueError."""
        if settings.name != "none" or settings.frozen:
            raise ValueError("adapter: has no effect on a network; adapter=none, and train=[projector] for its head")

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

    def token_losses(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return cross entropy (B) and segment number (B) of the answer of each dialogue of a batch."""
        logits_BK = self.model(batch["pixels_BCHW"], self._tokens(self.kept.options))
        losses_B = F.cross_entropy(logits_BK, batch["numbers_B"].to(logits_BK.device), reduction="none")
        return losses_B, batch["segments"][:, 0]

    @torch.no_grad()
    def generate(
        self, prompts: Sequence[Prompt], max_new_tokens: int = 1, forbidden_starts: Sequence[str] = ()
    ) -> list[Generation]:
        """Return the likeliest of its own options. Raises ValueError where a beginning is given."""
        if forbidden_starts or any(prompt.prefill or prompt.pattern for prompt in prompts):
            raise ValueError(
                "evaluation.conversion, evaluation.prefill and evaluation.length: a network writes no text; "
                "evaluation.conversion=free evaluation.prefill='' evaluation.length=free"
            )
        if not prompts:
            return []
        numbers = self.model(self._pixels(prompts), self._tokens(self.kept.options)).argmax(dim=1).tolist()
        return [Generation(self.kept.options[number], 1, True) for number in numbers]

    @torch.no_grad()
    def choose(self, prompts: Sequence[Prompt], options: Sequence[Sequence[str]]) -> list[list[Choice]]:
        """Say how likely options are: among each other by their texts, with a head among all of its classes.

        Raises ValueError for an option that a head does not have.
        """
        if not prompts:
            return []
        if self.model.head is not None:
            logs = F.log_softmax(self.model(self._pixels(prompts), None), dim=1).tolist()
            number = self.processor.number
            return [[Choice(row[number(text)], 1) for text in some] for row, some in zip(logs, options, strict=True)]
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

    def count_tokens(self, text: str) -> int:
        """Return 1: an answer is one token."""
        return int(bool(text))

    def save(self, directory: Path) -> None:
        """Write the encoder as the hub has it, and beside it what makes it a classifier."""
        directory.mkdir(parents=True, exist_ok=True)
        self.encoder.save(directory)
        write_json_atomic(directory / FILE, asdict(self.kept))
        if self.model.head is not None:
            save_weights(self.model.head, directory / HEAD)

    def _pixels(self, prompts: Sequence[Prompt]) -> Tensor:
        return torch.stack([self.processor.pixels(prompt.image) for prompt in prompts])

    def _tokens(self, options: Sequence[str]) -> Mapping[str, Tensor] | None:
        if self.model.head is not None:
            return None
        found: Mapping[str, Tensor] = self.encoder.tokens(self.kept.texts(options))
        return found


class Pictures:
    """What a Processor is for dialogues."""

    def __init__(self, kept: Kept, sight: Sight) -> None:
        self.sight = sight
        self._numbers = {option: number for number, option in enumerate(kept.options)}

    def number(self, option: str) -> int:
        """Return the class of an option. Raises ValueError for one that the network does not have."""
        if option not in self._numbers:
            raise ValueError(f"{option[:60]!r}: this network knows {len(self._numbers)} options, and not this one")
        return self._numbers[option]

    def pixels(self, picture: Any) -> Tensor:
        """Return a picture as the tower sees it. Raises ValueError where there is none."""
        if picture is None:
            raise ValueError("evaluation.views: this network sees pictures alone; [image]")
        return self.sight.pixels([picture])[0]

    def encode(self, dialogue: Dialogue) -> Shown:
        """Return a dialogue whose answer is an option. Raises ValueError."""
        answer = next(one.text for one in reversed(dialogue.response.segments) if one.kind == ANSWER)
        return Shown(self.pixels(dialogue.image), self.number(answer))

    def collate(self, examples: Sequence[Shown], multiple: int = 1) -> dict[str, Tensor]:
        return {
            "pixels_BCHW": torch.stack([example.pixels_CHW for example in examples]),
            "numbers_B": torch.tensor([example.number for example in examples]),
            "segments": torch.tensor([example.segments for example in examples]),
        }
