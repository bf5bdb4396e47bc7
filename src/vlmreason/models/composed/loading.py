"""conf/model of composed models: loads parts from the hub or directories, joins them, opens what was saved.

Only safetensors are read and nothing of a repository is executed. The projector begins anew, the same in every run;
`supervision=prepare` trains it first, then all.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from vlmreason.models.composed.fusion import Fusion
from vlmreason.models.composed.towers import ComposedPictures, Fit, Tower, describe, vision_config
from vlmreason.models.nano.model import ATTENTION, BASE, load_nano
from vlmreason.models.vlm import saved
from vlmreason.models.vlm.chat_template import TemplateSettings, read_template
from vlmreason.models.vlm.hugging_face import download
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.norms import fuse_norms
from vlmreason.models.vlm.processor import Processor

PROBE = 4  # tokens on which the parts of a language model are compared with the whole


@dataclass(frozen=True)
class LanguageModel:
    """Hub id or directory of a causal language model."""

    id: str
    revision: str | None = None


@dataclass(frozen=True)
class Composed:
    """conf/model: `towers` by name, in the order of their features; `checkpoint`: a saved composed model, whose parts
    are then not loaded apart; `template`: what is None is the language model's chat template's."""

    name: str
    towers: dict[str, Tower]
    language_model: LanguageModel
    fusion: Fusion = field(default_factory=Fusion)
    fit: Fit = "pad"
    image_token: str = "<image>"
    template: TemplateSettings = field(default_factory=TemplateSettings)
    checkpoint: str | None = None
    dtype: Literal["float32", "bfloat16"] = "bfloat16"
    attention: Literal["eager", "sdpa", "flash_attention_2"] = "sdpa"

    def __post_init__(self) -> None:
        if not self.towers:
            raise ValueError("model.towers={}: one tower or more is expected")

    def load(self, trained: Path | None = None) -> Learner:
        """Return the model, with the weights of a run where `trained` is given. Raises ValueError."""
        directory = trained or (Path(self.checkpoint) if self.checkpoint else None)
        if directory is not None:
            return open_composed(directory, self.template, self.dtype, self.attention)
        return self._compose()

    def _compose(self) -> Learner:
        from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

        from vlmreason.models.composed.model import ComposedForConditionalGeneration, compose_config

        places = {
            name: find_part(f"model.towers.{name}", tower.id, tower.revision) for name, tower in self.towers.items()
        }
        language = find_part("model.language_model", self.language_model.id, self.language_model.revision)
        configs = {name: vision_config(load_part(place, AutoConfig.from_pretrained)) for name, place in places.items()}
        described = describe({name: (tower, configs[name].to_dict()) for name, tower in self.towers.items()})
        fusion = self.fusion.on(described)  # raises before anything large is loaded
        towers = [self._tower(place, configs[name]) for name, place in places.items()]
        loaded = load_whole(language, AutoModelForCausalLM, self._options())
        tokenizer: Any = load_part(language, AutoTokenizer.from_pretrained)
        placeholder_id = _add_token(tokenizer, loaded, self.image_token)
        decoder, head = _split(language.where, loaded)
        config = compose_config(described, fusion, loaded.config, placeholder_id, self.fit)
        config.head_bias = head.bias is not None
        config._attn_implementation = self.attention
        with torch.device("meta"):
            model = ComposedForConditionalGeneration(config)
        model.assemble(towers, decoder, head)
        model.generation_config.eos_token_id = loaded.generation_config.eos_token_id
        source = [place.source() for place in (*places.values(), language) if place.commit is not None]
        return join(model, tokenizer, self.template, source)

    def _tower(self, place: Place, config: Any) -> Any:
        from transformers import AutoModel

        options = {"config": config, "dtype": getattr(torch, self.dtype)}
        if self.attention == "eager":
            options["attn_implementation"] = "eager"
        return load_whole(place, AutoModel, options)

    def _options(self) -> dict[str, Any]:
        return {"dtype": getattr(torch, self.dtype), "attn_implementation": self.attention}


@dataclass(frozen=True)
class NanoComposed:
    """conf/model/nano_composed.yaml: the shipped nano model, put together from its tower, projector and decoder."""

    name: str = "nano_composed"

    def load(self, trained: Path | None = None) -> Learner:
        """Return the model, with the weights of a run where `trained` is given. Raises ValueError."""
        from vlmreason.models.composed.model import ComposedForConditionalGeneration, compose_config

        nano, processor = load_nano(BASE)
        template = TemplateSettings(**vars(processor.template))
        if trained is not None:
            return open_composed(trained, template, "float32", ATTENTION)
        old: Any = processor.pictures
        tower = Tower(
            "nano_base", old.side, (old.pixel_mean,) * 3, (old.pixel_std,) * 3, layer=nano.config.vision_feature_layer
        )
        described = describe({"siglip": (tower, nano.config.vision_config.to_dict())})
        config = compose_config(
            described, Fusion().on(described), nano.config.text_config, old.placeholder_id, "stretch"
        )
        config._attn_implementation = ATTENTION
        model = ComposedForConditionalGeneration(config)
        renamed = {
            name.replace("vision_tower.", "vision_tower.0.").replace("projector.", "projector.adapters.0."): tensor
            for name, tensor in nano.state_dict().items()
        }
        model.load_state_dict(renamed)
        return join(model, processor.tokenizer, template)


def open_composed(directory: Path, template: TemplateSettings, dtype: str, attention: str) -> Learner:
    """Return a composed model saved by this package. Raises ValueError where a file is missing or damaged."""
    from transformers import AutoTokenizer

    from vlmreason.models.composed.model import ComposedConfig, ComposedForConditionalGeneration

    if not (directory / "config.json").exists():
        raise ValueError(f"{directory}: no model there, config.json is missing")
    held = saved.read_config(directory / "config.json")
    if (model_type := held.get("model_type")) != ComposedConfig.model_type:
        raise ValueError(f"{directory}: model_type={model_type!r}: {ComposedConfig.model_type} is expected")
    saved.check_beside(directory)
    make: Any = ComposedForConditionalGeneration
    saved.check_room(directory, held, lambda: make(ComposedConfig.from_pretrained(directory)))
    options = {"dtype": getattr(torch, dtype), "attn_implementation": attention}
    place = Place(str(directory), str(directory))
    model = load_whole(place, ComposedForConditionalGeneration, options)
    tokenizer = load_part(place, AutoTokenizer.from_pretrained)
    with saved.sentences(directory):
        return join(model, tokenizer, template)


def join(model: Any, tokenizer: Any, settings: TemplateSettings, source: Sequence[Mapping[str, str]] = ()) -> Learner:
    """Return a composed model with its tokenizer as a learner, its template read off the tokenizer."""
    fuse_norms(model)
    saved.answer_greedily(model)
    config, listed = model.config, model.generation_config.eos_token_id
    found = [tokenizer.eos_token_id, *(listed if isinstance(listed, list) else [listed])]
    eos_ids = [token for token in dict.fromkeys(found) if token is not None]
    template = read_template(tokenizer, None, tokenizer.convert_ids_to_tokens(eos_ids), settings)
    pictures = ComposedPictures(config.image_token_id, config.num_image_tokens, config.towers, config.fit)
    processor = Processor(tokenizer, template, pictures)
    processor.eos_ids = list(dict.fromkeys((processor.eos_id, *eos_ids)))
    return Learner(model, processor, source=source or None)


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


@dataclass(frozen=True)
class Place:
    """Where a part is: a directory, or a commit of a repository on the hub. `where`: its setting, for messages."""

    where: str
    id: str
    revision: str | None = None
    commit: str | None = None

    def source(self) -> dict[str, str]:
        """Return what `Learner.source` holds."""
        return {"part": self.where, "id": self.id, "revision": self.revision or "main", "commit": str(self.commit)}


def find_part(where: str, id: str, revision: str | None) -> Place:
    """Find a part; the commit is looked up once, and all files of the part are of it. Raises ValueError."""
    if Path(id).is_dir():
        return Place(where, id)
    try:
        return Place(where, id, revision, download(id, revision or "main", "config.json").parent.name)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def load_whole(place: Place, kind: Any, options: dict[str, Any]) -> Any:
    """Load a model with all of its weights. Raises ValueError."""
    options = {**options, "use_safetensors": True, "ignore_mismatched_sizes": True, "output_loading_info": True}
    model, found = load_part(place, kind.from_pretrained, **options)
    mismatched = [name for name, *_ in found["mismatched_keys"]]
    if wrong := sorted([*found["missing_keys"], *mismatched]):
        raise ValueError(f"{place.where}: the weights in {place.id} are not those of its config.json ({wrong[0]})")
    return model


def load_part(place: Place, function: Any, **options: Any) -> Any:
    """Call `from_pretrained` of a library class; what it raises in one sentence."""
    with saved.sentences(f"{place.where}: {place.id} cannot be loaded"):
        return function(place.id, revision=place.commit, trust_remote_code=False, **options)
