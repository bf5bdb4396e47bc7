"""The nano model: a real vision-language model of about 1.5 M parameters, built from Hugging Face parts.

LLaVA's architecture (vision tower, two-layer projector, decoder) with a two-layer SigLIP tower, one patch per
table cell, and a four-layer Llama decoder; `LlavaForConditionalGeneration.from_pretrained` opens it without
this package, or one that is `placed` where `vlmreason.models.nano.placed` has been imported. The pretrained bases
lie inside the package: `nano`, and `nano_first`, which it was continued from.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from vlmreason.files import read_json
from vlmreason.models.contract import Prompt
from vlmreason.models.nano.bases import BASE as BASE
from vlmreason.models.nano.bases import BASES as BASES
from vlmreason.models.vlm import saved
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.processor import FixedPictures, Processor, Template
from vlmreason.models.vlm.tokenization import ASSISTANT, EOS, IMAGE, PAD, USER, build_tokenizer

VOCABULARY, WORDS = (Path(__file__).parent / name for name in ("vocabulary.json", "words.json"))
"""The pieces that the shipped bases know; words of the reading skills, which take reserved entries."""

ATTENTION = "sdpa"
"""How attention is computed in all models that are made of shipped bases: trained, loaded and mixed alike."""


@dataclass(frozen=True)
class Nano:
    """conf/model/nano*.yaml: `checkpoint` is a folder with weights; None: those shipped under `name`."""

    name: str = "nano"
    checkpoint: str | None = None

    def load(self, trained: Path | None = None) -> Learner:
        """Return the model, with the weights of a run where `trained` is given. Raises ValueError."""
        return Learner(*load_nano(self._directory(trained)))

    def processor(self, trained: Path | None = None) -> Processor:
        """Return the processor of the model that `load` gives, without reading its weights. Raises ValueError."""
        from transformers import AutoConfig, PreTrainedTokenizerFast

        from vlmreason.models.nano import placed  # noqa: F401  # transformers knows the layout from then on

        directory = self._directory(trained)
        _check_files(directory)
        with saved.sentences(directory):
            config = AutoConfig.from_pretrained(directory, local_files_only=True)
            return _processor(PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True), config)

    def _directory(self, trained: Path | None) -> Path:
        if trained or self.checkpoint:
            return Path(trained or str(self.checkpoint))
        if self.name not in BASES:
            raise ValueError(f"model.name={self.name!r} without model.checkpoint: shipped are {', '.join(BASES)}")
        return BASES[self.name]


@dataclass(frozen=True)
class NanoSettings:
    """Sizes of the nano model; pixels for the picture's and a patch's side.

    `placed`: the decoder has learned positions beside its rotary ones (models/nano/placed.py). `start`: how an
    untrained one begins, as the library draws it or with composed embeddings (models/nano/start.py).
    """

    picture_size: int = 144
    patch_size: int = 24
    hidden_size: int = 128
    vision_layers: int = 2
    vision_heads: int = 4
    decoder_layers: int = 4
    decoder_heads: int = 4
    decoder_inner: int = 384
    num_tokens: int = 1024
    max_length: int = 1024
    rope_theta: float = 100.0  # short wavelengths: sequences here have 40 to 300 tokens
    placed: bool = False
    start: Literal["library", "composed"] = "library"

    @property
    def num_image_tokens(self) -> int:
        return (self.picture_size // self.patch_size) ** 2


def build_nano(settings: NanoSettings, texts: Iterable[str], seed: int) -> tuple[Any, Processor]:
    """Return an untrained model and its processor; the pieces of `texts` are its vocabulary."""
    from transformers import LlamaConfig, LlavaConfig, LlavaForConditionalGeneration, SiglipVisionConfig

    from vlmreason.models.nano import start
    from vlmreason.models.nano.placed import PlacedLlamaConfig

    tokenizer: Any = build_tokenizer(texts, settings.num_tokens)
    s = settings
    vision = SiglipVisionConfig(
        hidden_size=s.hidden_size,
        intermediate_size=2 * s.hidden_size,
        num_hidden_layers=s.vision_layers,
        num_attention_heads=s.vision_heads,
        image_size=s.picture_size,
        patch_size=s.patch_size,
        vision_use_head=False,
    )
    text = (PlacedLlamaConfig if s.placed else LlamaConfig)(
        vocab_size=s.num_tokens,
        hidden_size=s.hidden_size,
        intermediate_size=s.decoder_inner,
        num_hidden_layers=s.decoder_layers,
        num_attention_heads=s.decoder_heads,
        num_key_value_heads=s.decoder_heads,
        rope_parameters={"rope_type": "default", "rope_theta": s.rope_theta},
        max_position_embeddings=s.max_length,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.convert_tokens_to_ids(PAD),
        bos_token_id=tokenizer.convert_tokens_to_ids(USER),
        eos_token_id=tokenizer.convert_tokens_to_ids(EOS),
    )
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids(IMAGE),
        image_seq_length=s.num_image_tokens,
        vision_feature_layer=-1,
        vision_feature_select_strategy="full",
        tie_word_embeddings=True,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration._from_config(  # type: ignore[no-untyped-call]
        config, attn_implementation=ATTENTION, dtype=torch.float32
    )
    if s.start == "composed":
        start.begin(model, tokenizer.get_vocab())
    return model, _processor(tokenizer, model.config)


def read_vocabulary() -> list[str]:
    """Return the pieces of the shipped vocabulary, in the order of their ids."""
    return [str(piece) for piece in read_json(VOCABULARY)]


def read_words() -> list[str]:
    """Return the words of the reading skills, in the order in which they take reserved entries."""
    return [str(piece) for piece in read_json(WORDS)]


def load_nano(directory: Path = BASE) -> tuple[Any, Processor]:
    """Return a nano model saved by this package (safetensors), by default the shipped base.

    Raises ValueError where a file is missing or damaged, or does not fit the others.
    """
    from transformers import LlavaForConditionalGeneration, PreTrainedTokenizerFast

    from vlmreason.models.nano import placed  # noqa: F401  # transformers knows the layout from then on

    if not (directory / "model.safetensors").is_file():
        raise ValueError(f"no nano model in {directory}: `vlmreason pretrain` makes one")
    _check_files(directory)
    with saved.sentences(directory):
        loaded: Any = LlavaForConditionalGeneration.from_pretrained(
            directory,
            attn_implementation=ATTENTION,
            dtype=torch.float32,
            use_safetensors=True,
            local_files_only=True,
            ignore_mismatched_sizes=True,
            output_loading_info=True,
        )
        tokenizer = PreTrainedTokenizerFast.from_pretrained(directory, local_files_only=True)
    model, found = loaded
    mismatched = [name for name, *_ in found["mismatched_keys"]]
    if wrong := sorted([*found["missing_keys"], *found["unexpected_keys"], *mismatched]):
        raise ValueError(f"{directory}: the weights are not those of config.json ({wrong[0]})")
    saved.answer_greedily(model)
    with saved.sentences(directory):
        processor = _processor(tokenizer, model.config)
        if directory not in BASES.values():
            _try(model, processor)
    return model, processor


def _try(model: Any, processor: Processor) -> None:
    """Answer one prompt with a picture: what cannot work ends here."""
    side = model.config.vision_config.image_size
    grey = np.full((side, side, 3), 128, np.uint8)
    Learner(model, processor).generate([Prompt("1", grey)], 1)


def _check_files(directory: Path) -> None:
    """Raise ValueError unless config.json is a LLaVA's that fits its weights, and the tokenizer is there."""
    from transformers import LlavaConfig, LlavaForConditionalGeneration

    path = directory / "config.json"
    if not path.exists():
        raise ValueError(f"{directory}: the model has no config.json")
    config = saved.read_config(path)
    if config.get("model_type") != "llava":
        raise ValueError(f"{path}: not a nano model, model_type llava is expected")
    saved.check_beside(directory)
    if directory not in BASES.values():
        make: Any = LlavaForConditionalGeneration._from_config
        saved.check_room(directory, config, lambda: make(LlavaConfig.from_pretrained(directory)))


def _processor(tokenizer: Any, config: Any) -> Processor:
    wanted = (config.vision_config.image_size // config.vision_config.patch_size) ** 2
    if config.image_seq_length != wanted:
        raise ValueError(f"config.json: image_seq_length={config.image_seq_length}: {wanted} are expected")
    template = Template(text=(USER, ASSISTANT), image=(USER, "", ASSISTANT), end=EOS)
    pictures = FixedPictures(
        placeholder_id=config.image_token_index,
        num_tokens=config.image_seq_length,
        side=config.vision_config.image_size,
        pixel_mean=0.94,  # the background of a table's cell becomes zero
        pixel_std=0.3,
    )
    return Processor(tokenizer, template, pictures)
