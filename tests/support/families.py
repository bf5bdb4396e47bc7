"""A tiny model of each family, written to a directory as the hub's models are: real classes, random weights."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

from support.tiny import dialogues
from vlmreason.dialogue.build import Dialogue
from vlmreason.models.vlm.learner import Learner
from vlmreason.segments import ANSWER, THOUGHT, Response, Segment

CHATML = (
    "{% for message in messages %}{% if loop.first and message['role'] != 'system' %}<|im_start|>system\n"
    "You are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}<|im_end|>\n{% else %}"
    "{% for content in message['content'] %}{% if content['type'] == 'image' %}"
    "<|vision_start|><|image_pad|><|vision_end|>{% elif 'text' in content %}{{ content['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
VICUNA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': ' }}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' ' }}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
MISTRAL = (
    "{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' }}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}{% endfor %}"
    "{{ ' [/INST]' }}{% else %}{{ ' ' + message['content'][0]['text'] + '</s> ' }}{% endif %}{% endfor %}"
)
LLAMA = (
    "{{- bos_token }}{% set found = namespace(image=false) %}{% for message in messages %}"
    "{% for content in message['content'] if content['type'] == 'image' %}{% set found.image = true %}{% endfor %}"
    "{% endfor %}{% if not found.image %}{{- '<|start_header_id|>system<|end_header_id|>\n\n' }}"
    "{{- 'Cutting Knowledge Date: December 2023\nToday Date: ' + (date_string or strftime_now('%d %b %Y')) + '\n\n' }}"
    "{{- '<|eot_id|>' }}{% endif %}{% for message in messages %}"
    "{{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' }}{% for content in message['content'] %}"
    "{% if content['type'] == 'image' %}{{- '<|image|>' }}{% else %}{{- content['text'] }}{% endif %}{% endfor %}"
    "{{- '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
)
SMOL = (
    "<|im_start|>{% for message in messages %}{{ message['role'] | capitalize }}"
    "{% if message['content'][0]['type'] == 'image' %}{{ ':' }}{% else %}{{ ': ' }}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{ line['text'] }}{% else %}{{ '<image>' }}"
    "{% endif %}{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)
LLAMA_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
STUDIED = ("table_readout", "grid_navigation", "visual_analogy")
"""Tasks whose texts the tokenizers know."""
BYTES = tuple(f"<0x{byte:02X}>" for byte in range(256))


@functools.cache
def texts() -> tuple[str, ...]:
    """What the tokenizers are trained on."""
    made = [d for name in STUDIED for d in dialogues(6, name=name)]
    return (*(d.prompt for d in made), *(d.response.text for d in made), *(d.prompt for d in memorable(8)))


def _byte_level(pre: list[Any], num: int) -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(pre)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(texts(), trainers.BpeTrainer(vocab_size=num, initial_alphabet=alphabet))
    return _learned(tokenizer)


def _learned(tokenizer: Tokenizer) -> tuple[dict[str, int], list[tuple[str, str]]]:
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [(a, b) for a, b in model["merges"]]


@functools.cache
def qwen_tokenizer() -> Any:
    from transformers import Qwen2Tokenizer
    from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated")
    vocab, merges = _byte_level([split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)], 500)
    made = Qwen2Tokenizer(vocab=vocab, merges=merges, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    made.add_special_tokens(
        {"additional_special_tokens": ["<|im_start|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]}
    )
    return made


def _fast(backend: Tokenizer, specials: list[str], **named: str) -> Any:
    from transformers import PreTrainedTokenizerFast

    backend.add_special_tokens([*named.values(), *specials])
    return PreTrainedTokenizerFast(tokenizer_object=backend, additional_special_tokens=specials, **named)


@functools.cache
def llama3_tokenizer() -> Any:
    split = pre_tokenizers.Split(Regex(LLAMA_PATTERN), behavior="isolated")
    pre = [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    vocab, merges = _byte_level(pre, 500)
    backend = Tokenizer(models.BPE(vocab, merges, ignore_merges=True))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Sequence(pre), decoders.ByteLevel()
    named = {"bos_token": "<|begin_of_text|>", "eos_token": "<|eot_id|>", "pad_token": "<|finetune_right_pad_id|>"}
    made = _fast(backend, ["<|start_header_id|>", "<|end_header_id|>", "<|end_of_text|>", "<|image|>"], **named)
    bos = (named["bos_token"], made.bos_token_id)
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{bos[0]} $A", pair=f"{bos[0]} $A {bos[0]} $B", special_tokens=[bos]
    )
    return made


@functools.cache
def smol_tokenizer() -> Any:
    pre = [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    vocab, merges = _byte_level(pre, 500)
    backend = Tokenizer(models.BPE(vocab, merges))
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Sequence(pre), decoders.ByteLevel()
    places = [f"<row_{row}_col_{column}>" for row in range(1, 5) for column in range(1, 5)]
    specials = ["<fake_token_around_image>", "<global-img>", "<image>", "<|endoftext|>", *places]
    return _fast(backend, specials, bos_token="<|im_start|>", eos_token="<end_of_utterance>", pad_token="<|im_end|>")


@functools.cache
def _metaspace() -> tuple[dict[str, int], list[tuple[str, str]]]:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="always")
    specials = ["<unk>", "<s>", "</s>", *BYTES]
    tokenizer.train_from_iterator(texts(), trainers.BpeTrainer(vocab_size=700, special_tokens=specials))
    return _learned(tokenizer)


@functools.cache
def llama2_tokenizer(legacy: bool) -> Any:
    """`legacy`: a space before every text between special tokens, else before the first only."""
    from transformers import LlamaTokenizer

    vocab, merges = _metaspace()
    made = LlamaTokenizer(vocab=vocab, merges=merges, legacy=legacy, pad_token="<pad>", add_bos_token=True)
    made.add_special_tokens({"additional_special_tokens": ["<image>"]})
    return made


@functools.cache
def prepending_tokenizer() -> Any:
    """The same as older files write it: the space comes from the normalizer."""
    vocab, merges = _metaspace()
    backend = Tokenizer(models.BPE(vocab, merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made = _fast(backend, ["<image>"], bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="<pad>")
    made.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", made.bos_token_id)]
    )
    return made


def _decoder(tokenizer: Any, **more: Any) -> dict[str, Any]:
    """Sizes of a language model."""
    return {
        "vocab_size": len(tokenizer),
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
        **more,
    }


def _tower(**more: Any) -> dict[str, Any]:
    """Sizes of a vision tower of two layers."""
    return {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, **more}


def _qwen(kind: str) -> Callable[[Any], Any]:
    def config(tokenizer: Any) -> Any:
        from transformers import Qwen2_5_VLConfig, Qwen2VLConfig

        own = (
            {"hidden_size": 32, "out_hidden_size": 64, "intermediate_size": 64, "window_size": 56}
            | {"fullatt_block_indexes": [1]}
            if kind == "qwen2_5_vl"
            else {"embed_dim": 32, "hidden_size": 64, "mlp_ratio": 2}
        )
        rope = {"rope_type": "default", "rope_theta": 1000.0, "mrope_section": [2, 3, 3]}
        return (Qwen2_5_VLConfig if kind == "qwen2_5_vl" else Qwen2VLConfig)(
            text_config=_decoder(tokenizer, rope_parameters=rope, tie_word_embeddings=True),
            vision_config={"depth": 2, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2, **own},
            image_token_id=tokenizer.convert_tokens_to_ids("<|image_pad|>"),
            vision_start_token_id=tokenizer.convert_tokens_to_ids("<|vision_start|>"),
            vision_end_token_id=tokenizer.convert_tokens_to_ids("<|vision_end|>"),
            video_token_id=len(tokenizer),
            tie_word_embeddings=True,
        )

    return config


def _qwen_pictures() -> Any:
    from transformers import Qwen2VLImageProcessorPil

    return Qwen2VLImageProcessorPil(min_pixels=28 * 28, max_pixels=28 * 28 * 12)


def _llava(tokenizer: Any) -> Any:
    from transformers import LlavaConfig

    return LlavaConfig(
        text_config=_decoder(tokenizer, model_type="llama"),
        vision_config=_tower(model_type="clip_vision_model", image_size=56, patch_size=14, projection_dim=32),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
    )


def _llava_siglip(tokenizer: Any) -> Any:
    from transformers import LlavaConfig

    return LlavaConfig(
        text_config=_decoder(tokenizer, model_type="qwen2"),
        vision_config=_tower(model_type="siglip_vision_model", image_size=56, patch_size=14, vision_use_head=False),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
    )


def _clip_pictures() -> Any:
    from transformers import CLIPImageProcessorPil

    return CLIPImageProcessorPil(size={"shortest_edge": 56}, crop_size={"height": 56, "width": 56})


def _siglip_pictures() -> Any:
    from transformers import SiglipImageProcessorPil

    return SiglipImageProcessorPil(size={"height": 56, "width": 56})


PINPOINTS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]


def _llava_next(tokenizer: Any) -> Any:
    from transformers import LlavaNextConfig

    return LlavaNextConfig(
        text_config=_decoder(tokenizer, model_type="mistral"),
        vision_config=_tower(model_type="clip_vision_model", image_size=28, patch_size=7, projection_dim=32),
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=PINPOINTS,
    )


def _llava_next_pictures() -> Any:
    from transformers import LlavaNextImageProcessorPil

    return LlavaNextImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}, image_grid_pinpoints=PINPOINTS
    )


def _mllama(tokenizer: Any) -> Any:
    from transformers import MllamaConfig

    own = {"attention_heads": 2, "num_global_layers": 1, "image_size": 28, "patch_size": 7, "max_num_tiles": 4}
    own |= {"intermediate_layers_indices": [0, 1], "vision_output_dim": 96, "num_hidden_layers": 2}
    ratios = [[1, 1], [1, 2], [1, 3], [1, 4], [2, 1], [2, 2], [3, 1], [4, 1]]
    return MllamaConfig(
        text_config=_decoder(tokenizer, num_hidden_layers=3, cross_attention_layers=[1])
        | {"vocab_size": tokenizer.convert_tokens_to_ids("<|image|>")},
        vision_config={"hidden_size": 32, "intermediate_size": 64, "supported_aspect_ratios": ratios, **own},
        image_token_index=tokenizer.convert_tokens_to_ids("<|image|>"),
    )


def _mllama_pictures() -> Any:
    from transformers import MllamaImageProcessorPil

    return MllamaImageProcessorPil(size={"height": 28, "width": 28}, max_image_tiles=4)


def _tiled(kind: str) -> Callable[[Any], Any]:
    def config(tokenizer: Any) -> Any:
        from transformers import Idefics3Config, SmolVLMConfig

        return (SmolVLMConfig if kind == "smolvlm" else Idefics3Config)(
            text_config=_decoder(tokenizer, model_type="llama"),
            vision_config=_tower(image_size=32, patch_size=8),
            image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
            scale_factor=2,
        )

    return config


def _tiled_pictures(kind: str) -> Callable[[], Any]:
    def make() -> Any:
        from transformers import Idefics3ImageProcessorPil, SmolVLMImageProcessorPil

        made = SmolVLMImageProcessorPil if kind == "smolvlm" else Idefics3ImageProcessorPil
        return made(size={"longest_edge": 64}, max_image_size={"longest_edge": 32})

    return make


@dataclass(frozen=True)
class Tiny:
    """template_file: where the chat template lies, chat_template.jinja or the older chat_template.json."""

    config: Callable[[Any], Any]
    pictures: Callable[[], Any]
    tokenizer: Callable[[], Any]
    template: str
    template_file: str = "chat_template.jinja"
    end_tokens: tuple[str, ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()


VICUNA_END = (("template", {"end": "</s>"}),)
TINY = {
    "qwen2_5_vl": Tiny(
        _qwen("qwen2_5_vl"), _qwen_pictures, qwen_tokenizer, CHATML, end_tokens=("<|im_end|>", "<|endoftext|>")
    ),
    "qwen2_vl": Tiny(_qwen("qwen2_vl"), _qwen_pictures, qwen_tokenizer, CHATML, "chat_template.json"),
    "llava": Tiny(_llava, _clip_pictures, lambda: llama2_tokenizer(False), VICUNA, settings=VICUNA_END),
    "llava_siglip": Tiny(_llava_siglip, _siglip_pictures, prepending_tokenizer, VICUNA, settings=VICUNA_END),
    "llava_next": Tiny(_llava_next, _llava_next_pictures, lambda: llama2_tokenizer(True), MISTRAL),
    "mllama": Tiny(
        _mllama, _mllama_pictures, llama3_tokenizer, LLAMA, "chat_template.json", ("<|end_of_text|>", "<|eot_id|>")
    ),
    "smolvlm": Tiny(_tiled("smolvlm"), _tiled_pictures("smolvlm"), smol_tokenizer, SMOL),
    "idefics3": Tiny(_tiled("idefics3"), _tiled_pictures("idefics3"), smol_tokenizer, SMOL),
}


def write_tiny(name: str, directory: Path, seed: int = 0) -> Path:
    """The files of a repository on the hub."""
    from transformers import AutoModelForImageTextToText, GenerationConfig

    tiny = TINY[name]
    tokenizer = tiny.tokenizer()
    torch.manual_seed(seed)
    model = AutoModelForImageTextToText.from_config(tiny.config(tokenizer), dtype=torch.float32)
    for parameter_name, parameter in model.named_parameters():
        if "gate" in parameter_name and parameter.numel() == 1:  # Llama's cross attention begins closed
            torch.nn.init.constant_(parameter, 0.5)
    ends = tokenizer.convert_tokens_to_ids(list(tiny.end_tokens)) or tokenizer.eos_token_id
    model.generation_config = GenerationConfig(  # as hostile to greedy answers as some of the hub's are
        do_sample=True, temperature=2.0, top_k=3, repetition_penalty=1.7, eos_token_id=ends
    )
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    tiny.pictures().save_pretrained(directory)
    source = tiny.template if tiny.template_file.endswith("jinja") else json.dumps({"chat_template": tiny.template})
    (directory / tiny.template_file).write_text(source)
    return directory


SHAPES = ((40, 40), (56, 90), (100, 30), (61, 61))


def picture(number: int) -> Any:
    """Coloured halves, of several sizes."""
    height, width = SHAPES[number % len(SHAPES)]
    made = np.empty((height, width, 3), np.uint8)
    made[:] = [(37 * number) % 256, (91 * number + 80) % 256, (151 * number + 160) % 256]
    made[: height // 2] = 255 - made[: height // 2]
    return made


def memorable(num: int) -> list[Dialogue]:
    """Short questions in text and about pictures, in turn; each has an answer of its own."""
    words = ("north", "seven", "(3,2) blue", "Mar: 40", "tau", "west west", "9", "no path")
    made = []
    for i in range(num):
        shown = i % 2 == 1
        segments = (Segment(THOUGHT, f"Step {i}. "), Segment(ANSWER, words[i % len(words)]))
        prompt = "What does it show?" if shown else f"What is the word number {i}?"
        kind = "image" if shown else "text"
        made.append(Dialogue(str(i), kind, prompt, picture(i) if shown else None, Response(segments)))
    return made


def mixtures() -> Iterator[tuple[str, list[Dialogue]]]:
    made = memorable(8)
    yield "text", made[::2]
    yield "image", made[1::2]
    yield "mixed", made[:4]


def learn_by_heart(learner: Learner, num_steps: int) -> Learner:
    """The learner, after it has learned the eight memorable dialogues in at most so many steps."""
    learner.model.train()
    batch = learner.processor.collate([learner.processor.encode(d) for d in memorable(8)])
    optimizer = torch.optim.Adam(learner.model.parameters(), lr=4e-3)
    for _ in range(num_steps):
        losses = learner.token_losses(batch)[0]
        if losses.max() < 0.3:  # every token is by far the likeliest
            break
        optimizer.zero_grad()
        losses.mean().backward()
        torch.nn.utils.clip_grad_norm_(learner.model.parameters(), 1.0)
        optimizer.step()
    assert losses.max() < 0.3, losses.max()
    learner.model.eval()
    return learner
