"""Models composed from parts: vision towers, a fusion with its projector, any causal language model.

The layout is LLaVA's: `model.vision_tower.<i>`, `model.multi_modal_projector`, `model.language_model`, `lm_head`.
Saved models are one directory in the Hugging Face layout (safetensors); `import vlmreason.models.composed.model` lets
AutoModelForImageTextToText open them.
"""

# mypy: disable-error-code="no-untyped-call"

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForImageTextToText,
    GenerationMixin,
    PreTrainedConfig,
    PreTrainedModel,
)
from transformers.configuration_utils import SubConfigSpec
from transformers.modeling_outputs import BaseModelOutputWithPast, CausalLMOutputWithPast

from vlmreason.models.composed.fusion import Fusion, FusionProjector
from vlmreason.models.composed.towers import build_tower, features
from vlmreason.structure import structure


class ComposedConfig(PreTrainedConfig):
    """Configurations of the parts. `towers`: of each, `config` (a mapping), `grid`, `channels` and how it sees pictures
    (`side`, `mean`, `std`, `layer`); `fusion`: the fields of `Fusion`, with the grid of the joined features."""

    model_type = "vlmreason_composed"
    sub_configs_defaults: ClassVar = {"text_config": SubConfigSpec(AutoConfig, model_type="llama")}

    text_config: Any = None  # a mapping or the configuration of a decoder
    towers: list[dict[str, Any]] | None = None
    fusion: dict[str, Any] | None = None
    fit: str = "pad"
    image_token_id: int = -1
    head_bias: bool = False
    tie_word_embeddings: bool = False

    @property
    def num_image_tokens(self) -> int:
        return fusion_of(self).num_tokens(len(self.towers or []))


def fusion_of(config: ComposedConfig) -> Fusion:
    return structure(Fusion, config.fusion, "fusion")


def compose_config(
    towers: Sequence[Mapping[str, Any]], fusion: Fusion, text_config: Any, image_token_id: int, fit: str = "pad"
) -> ComposedConfig:
    """Return the configuration of a model of towers (`describe`), a fusion on their grids and a decoder."""
    return ComposedConfig(
        text_config=text_config,
        towers=[dict(tower) for tower in towers],
        fusion=dataclasses.asdict(fusion),
        fit=fit,
        image_token_id=image_token_id,
        tie_word_embeddings=bool(getattr(text_config, "tie_word_embeddings", False)),
    )


class ComposedPreTrainedModel(PreTrainedModel):
    config_class = ComposedConfig
    base_model_prefix = "model"
    supports_gradient_checkpointing = True
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True


class ComposedModel(ComposedPreTrainedModel):
    """Towers, fusion and decoder; its output begins with the last hidden states (B, L, D)."""

    def __init__(self, config: ComposedConfig) -> None:
        super().__init__(config)
        towers, fusion = config.towers or [], fusion_of(config)
        assert fusion.grid is not None
        width = config.text_config.hidden_size
        attention = config._attn_implementation
        self.vision_tower = nn.ModuleList(build_tower(one["config"], attention) for one in towers)
        self.multi_modal_projector = FusionProjector(fusion, [one["channels"] for one in towers], fusion.grid, width)
        self.language_model = AutoModel.from_config(config.text_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        found: nn.Module = self.language_model.get_input_embeddings()
        return found

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.language_model.set_input_embeddings(value)

    def image_features(self, pixel_values: Tensor) -> Tensor:
        """Return tokens (P, N, D) of P pictures; pixel_values (P, sum of 3 side side): those of each tower in a row."""
        towers = self.config.towers
        parts = pixel_values.flatten(1).split([3 * one["side"] ** 2 for one in towers], dim=1)
        grids = [
            features(tower, part.unflatten(1, (3, one["side"], one["side"])).to(tower.dtype), one["layer"])
            for tower, part, one in zip(self.vision_tower, parts, towers, strict=True)
        ]
        tokens: Tensor = self.multi_modal_projector(grids)
        return tokens

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("one of input_ids and inputs_embeds is expected")
        if inputs_embeds is None:
            inputs_embeds = self.get_input_embeddings()(input_ids)
        if pixel_values is not None:
            if input_ids is None:
                raise ValueError("pixel_values: need input_ids, which say where the pictures are")
            image_NPD = self.image_features(pixel_values).to(inputs_embeds)
            mask_BL = input_ids == self.config.image_token_id
            if int(mask_BL.sum()) != image_NPD.shape[0] * image_NPD.shape[1]:
                raise ValueError(f"{int(mask_BL.sum())} image tokens for pictures of {tuple(image_NPD.shape[:2])}")
            inputs_embeds = inputs_embeds.masked_scatter(mask_BL[..., None], image_NPD)
        elif self.training:  # text only
            inputs_embeds = inputs_embeds + self.multi_modal_projector.nothing().to(inputs_embeds)
        out = self.language_model(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            **kwargs | {"return_dict": True},
        )
        return BaseModelOutputWithPast(
            last_hidden_state=out[0],
            past_key_values=out.get("past_key_values"),
            hidden_states=out.get("hidden_states"),
            attentions=out.get("attentions"),
        )


class ComposedForConditionalGeneration(ComposedPreTrainedModel, GenerationMixin):
    """With the vocabulary projection; this is what is saved."""

    def __init__(self, config: ComposedConfig) -> None:
        super().__init__(config)
        text = config.text_config
        self.model = ComposedModel(config)
        self.lm_head: nn.Module = nn.Linear(text.hidden_size, text.vocab_size, bias=config.head_bias)
        self._name_tied_weights()
        self.post_init()

    def assemble(self, towers: Sequence[nn.Module], language_model: nn.Module, head: nn.Module, seed: int = 0) -> None:
        """Put loaded parts in place of the own ones; the projector begins anew, the same for every run."""
        model = self.model
        model.vision_tower = nn.ModuleList(towers)
        model.language_model, self.lm_head = language_model, head
        old = model.multi_modal_projector
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(seed)
            projector = FusionProjector(old.settings, old.channels, old.grid, self.config.text_config.hidden_size)
        model.multi_modal_projector = projector.to(next(language_model.parameters()).dtype)
        self._name_tied_weights()
        self.tie_weights()

    def _name_tied_weights(self) -> None:
        """Language models call their embedding by various names."""
        embedding = self.model.get_input_embeddings()
        name = next(name for name, module in self.named_modules() if module is embedding)
        self._tied_weights_keys = {"lm_head.weight": f"{name}.weight"}
        tied = self._tied_weights_keys if self.config.tie_word_embeddings else {}
        self.all_tied_weights_keys = dict(tied)

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.lm_head = value

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        labels: Tensor | None = None,
        logits_to_keep: int = 0,
        **kwargs: Any,
    ) -> Any:
        out = self.model(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            pixel_values=pixel_values,
            **kwargs,
        )
        logits = self.lm_head(out[0][:, -logits_to_keep:])
        loss = None
        if labels is not None:
            loss = self.loss_function(logits=logits, labels=labels, vocab_size=logits.shape[-1])
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=out.past_key_values,
            hidden_states=out.hidden_states,
            attentions=out.attentions,
        )


AutoConfig.register(ComposedConfig.model_type, ComposedConfig, exist_ok=True)
AutoModelForImageTextToText.register(ComposedConfig, ComposedForConditionalGeneration, exist_ok=True)
