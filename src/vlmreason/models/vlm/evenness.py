"""Bringing the matrices of a decoder to one size while it computes the same.

An optimizer without weight decay lets matrices grow as long as they train. What is trained afterwards at a fixed rate
changes them by a smaller share in each step, up to where it learns no more: a base that knows more then learns less.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from transformers import LlamaConfig

_READ = (("input_layernorm", "self_attn", "qkv"), ("post_attention_layernorm", "mlp", ("gate", "up")))
"""A layer's norms, and the matrices of a block that read what each gives."""
_WRITTEN = ("self_attn.o_proj", "mlp.down_proj")
"""What a layer adds to the stream between the layers."""


def check_even(model: Any) -> None:
    """Raise ValueError where the model is no Llama in LLaVA's layout that reads what it writes, by one table."""
    kind, text = model.config.model_type, model.config.get_text_config()
    if kind != "llava" or not isinstance(text, LlamaConfig):
        raise ValueError(f"model_type={kind} with {text.model_type} is no Llama in LLaVA's layout")
    if (
        text.attention_bias
        or text.mlp_bias
        or model.lm_head.weight is not model.model.language_model.embed_tokens.weight
    ):
        raise ValueError("the model's matrices have biases, or its head has weights of its own")


@torch.no_grad()
def even_sizes(model: Any, size: float) -> None:
    """Scale the matrices of a Llama in LLaVA's layout so that their entries have this root mean square.

    Those that read one norm are scaled together, and the norm's gain takes what they lose. The stream between the
    layers is scaled as a whole, which the last norm takes back: what the layers write has the size in the geometric
    mean, and embeddings and the projector keep theirs beside it. Logits change by rounding and the norms' epsilon.

    Raises ValueError as check_even.
    """
    check_even(model)
    decoder, projector = model.model.language_model, model.model.multi_modal_projector
    for layer in decoder.layers:
        for norm, block, names in _READ:
            readers = [getattr(getattr(layer, block), f"{name}_proj").weight for name in names]
            factor = size / _mean_size(readers)
            for weight in readers:
                weight.mul_(factor)
            getattr(layer, norm).weight.div_(factor)
    written = [layer.get_submodule(name).weight for layer in decoder.layers for name in _WRITTEN]
    factor = size / _mean_size(written)
    embeddings = [module.weight for module in decoder.modules() if isinstance(module, nn.Embedding)]
    for weight in (*written, *embeddings, *projector.linear_2.parameters()):
        weight.mul_(factor)
    decoder.norm.weight.div_(factor)


def _mean_size(weights: Iterable[Tensor]) -> float:
    """Return the geometric mean of the root mean squares."""
    return float(torch.stack([weight.float().pow(2).mean().log() / 2 for weight in weights]).mean().exp())
