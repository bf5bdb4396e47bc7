"""Settings of the SmarterVLM reasoner: which frozen encoders, which parts, how large (conf/model/smarter_vlm.yaml)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlmreason.structure import check_choice, check_positive, speed

COMPOSITE = ("image", "text", "qf")
RESIDUALS = ("qf", "attention", "fusion", "decoder")


@dataclass(frozen=True)
class Eye:
    """A frozen vision tower: `nano` or `nano_first` (the shipped ones), a hub's id or a directory.

    side (px): pictures are resized to side x side; mean, std: of pixels in [0, 1]; the shipped ones have their own.
    """

    id: str
    revision: str | None = None
    side: int = 224
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)


@dataclass(frozen=True)
class Reader:
    """A frozen text encoder: `nano`, `nano_first` (the decoders of the shipped models), a hub's id or a directory.

    tokens: of a question that are read, its first ones; padded: whether shorter ones are filled up, as SigLIP is used.
    """

    id: str
    revision: str | None = None
    tokens: int = 64
    padded: bool = False


@dataclass(frozen=True)
class Sizes:
    """The trained part.

    repr, hidden: widths of what a picture and the fusion become, and of MLPs; qf_width: of the QF layer, null: the
    text's. qf: what it sees: the states of the question's tokens and of the picture's places (`tokens`), one vector of
    each (`pooled`, as it was published: it never sees a word), or `none`. composite: what is fused. image_heads,
    decoders: one for each kind of puzzle, or one for all. sequence: `gru` and `lstm` write an answer element by
    element; `published` runs over the examples of a batch, not over time. residuals: where there are any.
    """

    repr: int = 128
    hidden: int = 256
    qf: Literal["tokens", "pooled", "none"] = "tokens"
    qf_width: int | None = None
    heads: int = 2
    dropout: float = 0.2
    norm_eps: float = 1e-6
    activation: Literal["gelu", "relu"] = "gelu"
    composite: tuple[str, ...] = COMPOSITE
    residuals: tuple[str, ...] = ("qf",)
    image_heads: Literal["puzzle", "shared"] = "puzzle"
    decoders: Literal["puzzle", "shared"] = "puzzle"
    decoder_activations: int = 2
    sequence: Literal["gru", "lstm", "published"] = "gru"
    question: Literal["mlp", "gru"] = "mlp"

    def __post_init__(self) -> None:
        check_positive(self, "repr", "hidden", "heads", where="model.sizes.")
        for key, allowed in (("composite", COMPOSITE), ("residuals", RESIDUALS)):
            for name in getattr(self, key):
                check_choice(f"model.sizes.{key}", name, allowed)
        if not self.composite or (self.qf == "none" and self.composite != COMPOSITE):
            raise ValueError(
                f"model.sizes.composite={list(self.composite)}: one or more of {', '.join(COMPOSITE)} are expected, "
                "and all with qf=none, which fuses the picture and the question alone"
            )
        if not 0 <= self.dropout < 1:
            raise ValueError(f"model.sizes.dropout={self.dropout}: 0 or more and less than 1")
        if self.decoder_activations not in (1, 2):
            raise ValueError(f"model.sizes.decoder_activations={self.decoder_activations}: 1 or 2 is expected")
        if self.question == "gru" and self.qf != "none":
            raise ValueError("model.sizes.question=gru: has no effect unless model.sizes.qf=none")


@dataclass(frozen=True)
class SmarterSettings:
    """conf/model/smarter_vlm.yaml. vision: the frozen towers, fused where there are several; text: the frozen encoder
    of questions; grid: places along a side to which a picture's states are pooled; features: the folder in which what
    they see is kept, by content; None: for this run only."""

    name: str
    vision: dict[str, Eye | None]
    text: Reader
    sizes: Sizes
    grid: int = 6
    features: str | None = speed(None)

    def __post_init__(self) -> None:
        check_positive(self, "grid", where="model.")
        if not self.towers:
            raise ValueError("model.vision: one tower or more is expected, and all are null")

    @property
    def towers(self) -> dict[str, Eye]:
        """Return the towers that are used: one that is null in a file is that of a file below it, left out."""
        return {name: eye for name, eye in self.vision.items() if eye is not None}
