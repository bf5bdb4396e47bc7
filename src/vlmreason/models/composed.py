"""conf/model of composed models: loads parts from the hub or directories, joins them, opens what was saved.

Only safetensors are read and nothing of a repository is executed. The projector begins anew, the same in every run;
`supervision=prepare` trains it first, then all.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from safetensors import SafetensorError
from torch import Tensor

from vlmreason.models.fusion import Fusion
from vlmreason.models.learner import Learner
from vlmreason.models.nano import BASE, load_nano
from vlmreason.models.processor import Pictures, Processor, Template
from vlmreason.models.towers import Tower, vision_config
from vlmreason.tasks.base import Picture

Fit = Literal["pad", "stretch"]
PROBE = 4  # tokens on which the parts of a language model are compared with the whole


@dataclass(frozen=True)
class LanguageModel:
    """Hub id or directory of a causal language model."""

    id: str
    revision: str | None = None


@dataclass(frozen=True)
class Composed:
    """conf/model: `towers` by name, in the order of their features; `checkpoint`: a saved composed model, whose parts
    are then not loaded apart; `template`: None: the chat template of the language model."""

    name: str
    towers: dict[str, Tower]
    language_model: LanguageModel
    fusion: Fusion = field(default_factory=Fusion)
    fit: Fit = "pad"
    image_token: str = "<image>"
    template: Template | None = None
    checkpoint: str | None = None
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    attention: Literal["eager", "sdpa", "flash_attention_2"] = "sdpa"

    def __post_init__(self) -> None:
        if not self.towers:
            raise ValueError("model.towers={}: one tower or more is expected")

    def load(self, trained: Path | None = None) -> Learner:
        """The model, with the weights of a run where `trained` is given. Raises ValueError."""
        directory = trained or (Path(self.checkpoint) if self.checkpoint else None)
        if directory is not None:
            return open_composed(directory, self.template, self.dtype, self.attention)
        return self._compose()

    def _compose(self) -> Learner:
        from transformers import AutoTokenizer

        from vlmreason.models.composed_model import ComposedForConditionalGeneration, compose_config

        towers = {name: self._tower(f"model.towers.{name}", tower) for name, tower in self.towers.items()}
        where = "model.language_model"
        language = self.language_model
        loaded = _load(where, language.id, language.revision, "AutoModelForCausalLM", self._options())
        tokenizer: Any = _call(where, language.id, AutoTokenizer.from_pretrained, language.revision)
        placeholder_id = _add_token(tokenizer, loaded, self.image_token)
        decoder, head = _split(where, loaded)
        configs = [tower.config.to_dict() for tower in towers.values()]
        config = compose_config(self.towers, configs, self.fusion, loaded.config, placeholder_id, self.fit)
        config.head_bias = head.bias is not None
        config._attn_implementation = self.attention
        with torch.device("meta"):
            model = ComposedForConditionalGeneration(config)
        model.assemble(list(towers.values()), decoder, head)
        model.generation_config.eos_token_id = loaded.generation_config.eos_token_id
        return Learner(model, _processor(tokenizer, config, self.template))

    def _tower(self, where: str, tower: Tower) -> Any:
        from transformers import AutoConfig

        config = vision_config(_call(where, tower.id, AutoConfig.from_pretrained, tower.revision))
        options = {"config": config, "dtype": getattr(torch, self.dtype)}
        if self.attention == "eager":
            options["attn_implementation"] = "eager"
        return _load(where, tower.id, tower.revision, "AutoModel", options)

    def _options(self) -> dict[str, Any]:
        return {"dtype": getattr(torch, self.dtype), "attn_implementation": self.attention}


@dataclass(frozen=True)
class NanoComposed:
    """conf/model/nano_composed.yaml: the shipped nano model, put together from its tower, projector and decoder."""

    name: str = "nano_composed"

    def load(self, trained: Path | None = None) -> Learner:
        """The model, with the weights of a run where `trained` is given. Raises ValueError."""
        from vlmreason.models.composed_model import ComposedForConditionalGeneration, compose_config

        nano, processor = load_nano(BASE)
        if trained is not None:
            return open_composed(trained, processor.template, "float32", "eager")
        old: Any = processor.pictures
        tower = Tower(
            "nano_base", old.side, (old.pixel_mean,) * 3, (old.pixel_std,) * 3, layer=nano.config.vision_feature_layer
        )
        config = compose_config(
            {"siglip": tower}, [nano.config.vision_config.to_dict()], Fusion(), nano.config.text_config,
            old.placeholder_id, "stretch",
        )  # fmt: skip
        config._attn_implementation = "eager"
        model = ComposedForConditionalGeneration(config)
        renamed = {
            name.replace("vision_tower.", "vision_tower.0.").replace("projector.", "projector.adapters.0."): tensor
            for name, tensor in nano.state_dict().items()
        }
        model.load_state_dict(renamed)
        return Learner(model, _processor(processor.tokenizer, config, processor.template))


class ComposedPictures(Pictures):
    """Pictures of any size, resized for each tower; `pixel_values` (P, sum of 3 side side) holds all in a row.

    fit: pad (to a square, in the towers' mean colour, so that nothing is lost or distorted) or stretch.
    """

    def __init__(self, placeholder_id: int, num_tokens: int, towers: Sequence[Mapping[str, Any]], fit: Fit) -> None:
        self.placeholder_id, self.num_tokens, self.towers, self.fit = placeholder_id, num_tokens, towers, fit

    def expand(self, height: int, width: int) -> list[int]:
        return [self.placeholder_id] * self.num_tokens

    def inputs(self, input_ids_BL: Tensor, images: Sequence[Sequence[Picture]]) -> dict[str, Tensor]:
        flat = [image for row in images for image in row]
        if not flat:
            return {}
        return {"pixel_values": torch.cat([self._pixels(flat, tower) for tower in self.towers], dim=1)}

    def _pixels(self, images: Sequence[Picture], tower: Mapping[str, Any]) -> Tensor:
        """Pixels (P, 3 side side) for one tower."""
        mean, std = (torch.tensor(tower[key]).view(3, 1, 1) for key in ("mean", "std"))
        colour = [round(255 * value) for value in tower["mean"]]
        squares = np.stack([square(image, tower["side"], self.fit, colour) for image in images])
        pixels_PCHW = torch.from_numpy(squares).permute(0, 3, 1, 2)
        return ((pixels_PCHW.float() / 255 - mean) / std).flatten(1)


def square(picture: Picture, side: int, fit: Fit, colour: Sequence[int]) -> Picture:
    """The picture at side x side px."""
    height, width = picture.shape[:2]
    if (height, width) == (side, side):
        return picture
    scale = side / max(height, width)
    size = (side, side) if fit == "stretch" else (max(1, round(width * scale)), max(1, round(height * scale)))
    resized = np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC))
    whole = np.empty((side, side, 3), np.uint8)
    whole[:] = colour
    top, left = (side - size[1]) // 2, (side - size[0]) // 2
    whole[top : top + size[1], left : left + size[0]] = resized
    return whole


def open_composed(directory: Path, template: Template | None, dtype: str, attention: str) -> Learner:
    """A composed model saved by this package. Raises ValueError where a file is missing or damaged."""
    from transformers import AutoTokenizer

    from vlmreason.models.composed_model import ComposedConfig, ComposedForConditionalGeneration

    try:
        model_type = json.loads((directory / "config.json").read_text(encoding="utf-8")).get("model_type")
    except FileNotFoundError:
        raise ValueError(f"{directory}: no model there, config.json is missing") from None
    except (ValueError, AttributeError):
        raise ValueError(f"{directory / 'config.json'}: damaged, not a JSON object") from None
    if model_type != ComposedConfig.model_type:
        raise ValueError(f"{directory}: model_type={model_type!r}: {ComposedConfig.model_type} is expected")
    options = {"dtype": getattr(torch, dtype), "attn_implementation": attention}
    model = _checked(str(directory), str(directory), ComposedForConditionalGeneration, None, options)
    tokenizer = _call(str(directory), str(directory), AutoTokenizer.from_pretrained, None)
    return Learner(model, _processor(tokenizer, model.config, template))


def chat_template(tokenizer: Any) -> Template:
    """The `Template` of a language model's chat template; a picture stands on a line before the prompt."""
    prompt, response = "promptgoeshere", "responsegoeshere"
    if tokenizer.chat_template is None:
        raise ValueError("model.template: the language model has no chat template; text, image and end must be given")
    turn = [{"role": "user", "content": prompt}]
    asked = tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True)
    answered = tokenizer.apply_chat_template(
        [*turn, {"role": "assistant", "content": response}], tokenize=False, add_generation_prompt=False
    )
    before, _, after = asked.partition(prompt)
    lead, _, tail = answered.removeprefix(asked).partition(response)
    specials = [str(token) for token in tokenizer.added_tokens_decoder.values()]
    ends = [(tail.index(token) + len(token)) for token in specials if token in tail]
    if not answered.startswith(asked) or lead.strip() or response not in answered or not ends:
        raise ValueError(
            "model.template: the turn cannot be read off the chat template; text, image and end must be given"
        )
    return Template(text=(before, after), image=(before, "\n", after), end=tail[: min(ends)], lead=lead)


def _processor(tokenizer: Any, config: Any, template: Template | None) -> Processor:
    pictures = ComposedPictures(config.image_token_id, config.num_image_tokens, config.towers, config.fit)
    return Processor(tokenizer, template or chat_template(tokenizer), pictures)


def _add_token(tokenizer: Any, model: Any, token: str) -> int:
    """Id of the placeholder, added with a row of the embedding where it is missing (the mean of the others)."""
    tokenizer.add_special_tokens({"additional_special_tokens": [token]}, replace_extra_special_tokens=False)
    number = int(tokenizer.convert_tokens_to_ids(token))
    old = model.get_input_embeddings().weight.shape[0]
    if number >= old:
        model.resize_token_embeddings(math.ceil((number + 1) / 64) * 64, mean_resizing=False)
        with torch.no_grad():
            for weight in {model.get_input_embeddings().weight, model.get_output_embeddings().weight}:
                weight[old:] = weight[:old].float().mean(0).to(weight.dtype)
    return number


@torch.no_grad()
def _split(where: str, model: Any) -> tuple[Any, Any]:
    """Decoder and vocabulary projection of a causal language model. Raises ValueError if there is more to it."""
    decoder, head = model.base_model, model.get_output_embeddings()
    ids = torch.arange(1, 1 + PROBE)[None]
    same = isinstance(head, torch.nn.Linear) and torch.equal(head(decoder(ids)[0]), model(ids).logits)
    if not same:
        raise ValueError(f"{where}.id: {type(model).__name__} does more than a linear layer behind its decoder")
    return decoder, head


def _load(where: str, id: str, revision: str | None, kind: str, options: dict[str, Any]) -> Any:
    import transformers

    return _checked(where, id, getattr(transformers, kind), revision, options)


def _checked(where: str, id: str, kind: Any, revision: str | None, options: dict[str, Any]) -> Any:
    """A model with all of its weights."""
    options = {**options, "use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
    model, found = _call(where, id, kind.from_pretrained, revision, **options)
    mismatched = [name for name, *_ in found["mismatched_keys"]]
    if wrong := sorted([*found["missing_keys"], *mismatched]):
        raise ValueError(f"{where}: the weights in {id} are not those of its config.json ({wrong[0]})")
    return model


def _call(where: str, id: str, function: Any, revision: str | None, **options: Any) -> Any:
    """`from_pretrained` of a library class; what it raises in one sentence."""
    try:
        return function(id, revision=revision or "main", trust_remote_code=False, **options)
    except (OSError, SafetensorError, RuntimeError, ImportError, KeyError, TypeError, ValueError) as error:
        line = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise ValueError(f"{where}: {id} cannot be loaded ({line})") from error
