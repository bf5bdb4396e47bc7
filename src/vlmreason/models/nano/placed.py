"""A Llama that knows absolute places too: rotary positions, and a learned vector per position added to its inputs.

Rotary positions tell tokens how far apart they are, which copying needs; with the learned ones the look-up of a cell in
a table takes a fifth of the examples. No class of transformers has both, so a model of this layout opens only where
this module has been imported. Where a mask is given and no positions, they are counted over it: what is padded on the
left gets the places that it has without padding.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, LlamaConfig, LlamaModel

from vlmreason.files import read_json

MODEL_TYPE = "placed_llama"


class PlacedLlamaConfig(LlamaConfig):  # type: ignore[no-untyped-call]
    model_type = MODEL_TYPE


class PlacedLlamaModel(LlamaModel):  # type: ignore[no-untyped-call]
    config_class = PlacedLlamaConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.embed_positions = nn.Embedding(config.max_position_embeddings, config.hidden_size)
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Any = None,
        position_ids: Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: Tensor | None = None,
        **kwargs: Any,
    ) -> Any:
        if inputs_embeds is None:
            inputs_embeds = self.embed_tokens(input_ids)
        if position_ids is None:
            num_past = 0 if past_key_values is None else past_key_values.get_seq_length()
            position_ids = _positions(inputs_embeds, attention_mask, num_past)
        return super().forward(
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds + self.embed_positions(position_ids),
            **kwargs,
        )


def is_placed(directory: Path) -> bool:
    """Tell whether the decoder of a saved model is of this layout."""
    return bool(read_json(directory / "config.json").get("text_config", {}).get("model_type") == MODEL_TYPE)


def _positions(inputs_BLD: Tensor, mask: Any, num_past: int) -> Tensor:
    """Positions (B, L) or (1, L) of inputs behind `num_past` others; `mask` (B, num_past + L) says which are there."""
    num = inputs_BLD.shape[1]
    if isinstance(mask, Tensor) and mask.ndim == 2:
        return (mask.long().cumsum(dim=-1) - 1).clamp(min=0)[:, -num:]
    return torch.arange(num_past, num_past + num, device=inputs_BLD.device)[None]


AutoConfig.register(MODEL_TYPE, PlacedLlamaConfig)
AutoModel.register(PlacedLlamaConfig, PlacedLlamaModel)
