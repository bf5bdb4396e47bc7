"""Tiny parts of composed models, written to directories as the hub's are: real classes, random weights."""

from __future__ import annotations

import copy
import functools
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from support.families import CHATML, llama2_tokenizer, llama3_tokenizer, qwen_tokenizer
from vlmreason.models.composed.loading import Composed
from vlmreason.structure import structure

LLAMA3 = (
    "{% for message in messages %}{% set content = '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n'"
    "+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}{% set content = bos_token + content %}"
    "{% endif %}{{ content }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
"""As Llama-3-8B-Instruct has it: the content is a string."""
SIZES = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SIDE = 32  # px; a grid of 4 x 4 for every tower but those that say so
MAPS = {"hidden_sizes": [16, 32], "depths": [1, 1], "num_stages": 2, "patch_size": 4}


def _text() -> dict[str, int]:
    return {**SIZES, "num_hidden_layers": 1, "vocab_size": 16, "max_position_embeddings": 4}


def _tower(kind: str) -> Any:
    """The model as its repository has it: of CLIP and SigLIP with the text side."""
    import transformers as hf

    match kind:
        case "clip":
            vision = {**SIZES, "image_size": SIDE, "patch_size": 8}
            return hf.CLIPModel(hf.CLIPConfig(vision_config=vision, text_config=_text(), projection_dim=8))
        case "siglip":
            vision = {**SIZES, "image_size": SIDE, "patch_size": 8}
            return hf.SiglipModel(hf.SiglipConfig(vision_config=vision, text_config=_text()))
        case "dinov2":
            config = hf.Dinov2Config(
                hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=48, patch_size=8
            )
            return hf.Dinov2Model(config)
        case "registers":
            config = hf.Dinov2WithRegistersConfig(
                hidden_size=32, num_hidden_layers=2, num_attention_heads=2, mlp_ratio=2, image_size=48, patch_size=8
            )
            return hf.Dinov2WithRegistersModel(config)
        case "convnext":
            return hf.ConvNextModel(hf.ConvNextConfig(**MAPS, layer_scale_init_value=0.5))
        case "convnextv2":
            return hf.ConvNextV2Model(hf.ConvNextV2Config(**MAPS))
        case "patches":  # no attention: a feature sees its own patch alone
            return hf.CLIPVisionModel(
                hf.CLIPVisionConfig(**{**SIZES, "num_hidden_layers": 0}, image_size=SIDE, patch_size=8)
            )
        case "narrow":  # other channels
            return hf.ViTModel(hf.ViTConfig(**{**SIZES, "hidden_size": 16}, image_size=SIDE, patch_size=8))
        case "fine":  # a grid of 8 x 8
            return hf.ViTModel(hf.ViTConfig(**SIZES, image_size=SIDE, patch_size=4))
        case "gridless":  # no picture but a text
            return hf.BertModel(hf.BertConfig(**SIZES, vocab_size=16))
    raise AssertionError(kind)


TOWERS = ("clip", "siglip", "dinov2", "registers", "convnext", "convnextv2")


@functools.cache
def tower(kind: str) -> Path:
    directory = Path(tempfile.mkdtemp(prefix=f"{kind}_"))
    torch.manual_seed(sum(map(ord, kind)))
    _tower(kind).save_pretrained(directory)
    return directory


@functools.cache
def language_model(kind: str) -> Path:
    """llama: Llama-3-8B-Instruct's layout; qwen2: tied embeddings; vicuna: no chat template; gemma2: capped logits."""
    import transformers as hf

    makers = {"llama": llama3_tokenizer, "qwen2": qwen_tokenizer, "gemma2": qwen_tokenizer}
    tokenizer = copy.deepcopy(makers[kind]() if kind in makers else llama2_tokenizer(False))
    tokenizer.chat_template = {"llama": LLAMA3, "qwen2": CHATML}.get(kind)
    sizes = {**SIZES, "hidden_size": 64, "intermediate_size": 128, "num_attention_heads": 4, "num_key_value_heads": 2}
    ids = {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("bos", "eos", "pad")}
    sizes |= {"vocab_size": len(tokenizer), "max_position_embeddings": 1024, **ids}
    match kind:
        case "qwen2":
            model: Any = hf.Qwen2ForCausalLM(hf.Qwen2Config(**sizes, tie_word_embeddings=True))
        case "gemma2":
            model = hf.Gemma2ForCausalLM(hf.Gemma2Config(**sizes, head_dim=16, final_logit_softcapping=0.5))
        case _:
            model = hf.LlamaForCausalLM(hf.LlamaConfig(**sizes))
    directory = Path(tempfile.mkdtemp(prefix=f"{kind}_"))
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


def part(kind: str, **changes: Any) -> dict[str, Any]:
    """A tower of conf/model."""
    half = {"mean": [0.5, 0.4, 0.3], "std": [0.5, 0.4, 0.3]}
    return {"id": str(tower(kind)), "side": SIDE, **half, "layer": -2 if kind == "clip" else None, **changes}


def composed(*kinds: str, fusion: Mapping[str, Any] | None = None, language: str = "qwen2", **changes: Any) -> Composed:
    """Settings of a model of these towers."""
    data = {
        "name": "tiny",
        "towers": {f"{kind}_{i}": part(kind) for i, kind in enumerate(kinds)},
        "language_model": {"id": str(language_model(language))},
        "fusion": dict(fusion or {}),
        "dtype": "float32",
    }
    if language == "vicuna":
        data["template"] = VICUNA
    return structure(Composed, data | changes, "model")


VICUNA = {
    "text": ["<s>USER: ", " ASSISTANT:"],
    "image": ["<s>USER: ", "\n", " ASSISTANT:"],
    "end": "</s>",
    "lead": " ",
}
