"""Small towers of the hub's own classes, to be trained from nothing: CLIP, or its side for pictures alone.

A tower is a folder as the hub has it (configuration, safetensors, how pictures are seen, the words of its texts), so
that whatever takes an encoder of the hub takes it by its folder: `match`, `mine`, `model=clip_classifier`, mixtures.
`tower.json` beside it says how it was trained, and which layer's states are its features (LLaVA takes CLIP's last but
one, as the places of the last one are trained by nothing).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vlmreason.files import read_json
from vlmreason.models.composed.loading import find_part, load_part, load_whole
from vlmreason.models.composed.towers import Tower, features, vision_config
from vlmreason.models.embedders import HubEncoder, Sight
from vlmreason.pictures import Picture
from vlmreason.streams import stream
from vlmreason.structure import check_positive

FACTS = "tower.json"
LAYER = -2
"""Hidden state of a tower that says none: the last but one, as LLaVA takes it."""
PAD, UNKNOWN, END = "[PAD]", "[UNK]", "[END]"
_MEAN, _STD, _BICUBIC = 0.94, 0.3, 3  # as the nano bases see: a light ground becomes zero


@dataclass(frozen=True)
class TowerSizes:
    """side, patch: of pictures and places (px); width, layers, heads: of both transformers, but for `text_layers`;
    tokens: most of a text; shared: width of the vectors in which pictures and texts are compared."""

    side: int
    patch: int
    width: int
    layers: int
    heads: int
    text_layers: int
    tokens: int
    shared: int

    def __post_init__(self) -> None:
        check_positive(self, *vars(self), where="sizes.")
        if self.side % self.patch or self.width % self.heads:
            raise ValueError(
                f"sizes.side={self.side} patch={self.patch} width={self.width} heads={self.heads}: whole patches and "
                "whole heads are expected"
            )


def begin(folder: Path, sizes: TowerSizes, texts: Iterable[str], seed: int) -> HubEncoder:
    """Write an untrained tower to a folder and open it; with `texts`, whose words it knows, it is a CLIP, without any
    its side for pictures alone, which has as many parameters in both."""
    from transformers import CLIPConfig, CLIPModel, CLIPVisionConfig, CLIPVisionModel

    words = sorted({word for text in texts for word in re.findall(r"\w+|[^\w\s]+", text.lower())})
    each = {"hidden_size": sizes.width, "intermediate_size": 2 * sizes.width, "num_attention_heads": sizes.heads}
    vision: dict[str, Any] = {
        **each,
        "num_hidden_layers": sizes.layers,
        "image_size": sizes.side,
        "patch_size": sizes.patch,
    }
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(stream("tower", seed).getrandbits(63))
        if words:
            ids = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2 + len(words)}
            text = {**each, **ids, "num_hidden_layers": sizes.text_layers, "max_position_embeddings": sizes.tokens}
            made: Any = CLIPModel(
                CLIPConfig(
                    text_config={**text, "vocab_size": 3 + len(words)},
                    vision_config=vision,
                    projection_dim=sizes.shared,
                )
            )
        else:
            made = CLIPVisionModel(CLIPVisionConfig(**vision))
    made.save_pretrained(folder, safe_serialization=True)
    if words:
        _tokenizer([PAD, UNKNOWN, *words, END]).save_pretrained(folder)
    Sight(sizes.side, sizes.side, False, _BICUBIC, (_MEAN,) * 3, (_STD,) * 3).save(folder)
    return HubEncoder("tower", str(folder))


def _tokenizer(pieces: Sequence[str]) -> Any:
    """A tokenizer of whole words in lower case that ends a text by END, from which the text's vector is taken."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    ids = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single=f"$A {END}", special_tokens=[(END, ids[END])])
    kind: Any = PreTrainedTokenizerFast
    return kind(tokenizer_object=made, unk_token=UNKNOWN, pad_token=PAD, eos_token=END)


def is_of_the_hub(folder: Path) -> bool:
    """Tell whether a folder holds a tower as the hub has it, and no model in the nano layout."""
    path = folder / "config.json"
    return path.is_file() and read_json(path).get("model_type") not in ("llava", None)


def open_tower(folder: Path, where: str) -> tuple[Any, Tower]:
    """Return the vision side of a tower in a folder, and how it sees. Raises ValueError; `where`: the setting."""
    from transformers import AutoConfig, AutoModel

    place = find_part(where, str(folder), None)
    config = vision_config(load_part(place, AutoConfig.from_pretrained))
    sight = HubEncoder(where, str(folder)).sight
    path = folder / FACTS
    layer = read_json(path).get("layer") if path.is_file() else LAYER
    if not isinstance(layer, int) or not -config.num_hidden_layers <= layer < 0:
        raise ValueError(f"{path}: layer={layer!r}: -1 to -{config.num_hidden_layers} is expected")
    module = load_whole(place, AutoModel, {"config": config, "dtype": torch.float32})
    mean, std = ((one[0], one[1], one[2]) for one in (sight.mean, sight.std))
    return module, Tower(str(folder), sight.side, mean, std, layer=layer)


@torch.no_grad()
def place_states(module: Any, tower: Tower, images: Sequence[Picture]) -> Tensor:
    """Return what a projector would get of pictures, all places in a row (B, places * D)."""
    sight = Sight(tower.side, tower.side, False, _BICUBIC, tower.mean, tower.std)
    found: Tensor = features(module.eval(), sight.pixels(images), tower.layer).flatten(1).float()
    return found
