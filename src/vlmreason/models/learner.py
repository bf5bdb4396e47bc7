"""What training and evaluation need of a model: logits at the response, generation, parts, saving."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreason.models.processor import IGNORED, Processor, Prompt

PARTS = ("vision_tower", "projector", "language_model")
"""What can be trained alone; every parameter belongs to exactly one."""

LLAVA = {
    "vision_tower": ("model.vision_tower.",),
    "projector": ("model.multi_modal_projector.",),
    "language_model": ("model.language_model.", "lm_head."),
}
"""Parameter-name prefixes of each part in LLaVA's layout."""

_ROWS_STEP = 256  # the projection is computed for a multiple of this many rows: few shapes, kept kernels
_TARGETS = ("labels", "segments")  # what a batch holds beside the model's inputs


@dataclass(frozen=True)
class Generation:
    """A response (prefill included), its number of generated tokens, and whether the model ended it itself."""

    text: str
    num_tokens: int
    finished: bool


class Learner:
    """A Hugging Face image-text-to-text model with its processor; `prefixes`: of the parameter names of each part."""

    def __init__(self, model: Any, processor: Processor, prefixes: Mapping[str, tuple[str, ...]] = LLAVA) -> None:
        self.model: Any = model
        self.processor, self.prefixes = processor, prefixes

    def target_logits(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (N, V), token ids (N) and segment numbers (N) of the N response tokens of a batch.

        The vocabulary projection is computed for the response's positions only.
        """
        hidden_BLD = self.model.model(**{k: v for k, v in batch.items() if k not in _TARGETS}, use_cache=False)[0]
        targets_BL = batch["labels"][:, 1:]
        wanted_BL = targets_BL != IGNORED
        hidden_ND = hidden_BLD[:, :-1][wanted_BL]
        num, missing = len(hidden_ND), -len(hidden_ND) % _ROWS_STEP
        logits_NV = self.model.lm_head(F.pad(hidden_ND, (0, 0, 0, missing)))[:num]
        return logits_NV, targets_BL[wanted_BL], batch["segments"][:, 1:][wanted_BL]

    @torch.inference_mode()
    def generate(
        self, prompts: Sequence[Prompt], max_new_tokens: int, forbidden_start: str | None = None
    ) -> list[Generation]:
        """Greedy responses to a batch of prompts, with a KV cache.

        `forbidden_start`: the first token of this text may not begin a response. Raises ValueError where the
        longest prompt leaves no room for `max_new_tokens` in the model's context.
        """
        processor, model = self.processor, self.model
        batch = {k: v.to(model.device) for k, v in processor.collate_prompts(prompts).items()}
        start = batch["input_ids"].shape[1]
        context = model.config.get_text_config().max_position_embeddings
        if start + max_new_tokens > context:
            raise ValueError(
                f"max_new_tokens={max_new_tokens}: a prompt of {start} tokens leaves {context - start} of the "
                f"model's {context}"
            )
        forbidden = processor.first_token(forbidden_start) if forbidden_start else None
        was_training = model.training
        model.eval()
        ids_BL = model.generate(
            **batch,
            do_sample=False,
            max_new_tokens=max_new_tokens,
            pad_token_id=processor.pad_id,
            eos_token_id=processor.eos_id,
            suppress_tokens=[processor.pictures.placeholder_id],
            begin_suppress_tokens=None if forbidden is None else [forbidden],
        )[:, start:]
        model.train(was_training)
        return [self._generation(prompt, row) for prompt, row in zip(prompts, ids_BL.tolist(), strict=True)]

    def _generation(self, prompt: Prompt, ids: list[int]) -> Generation:
        finished = self.processor.eos_id in ids
        if finished:
            ids = ids[: ids.index(self.processor.eos_id)]
        return Generation(prompt.prefill + self.processor.decode(ids), len(ids) + finished, finished)

    def count_tokens(self, text: str) -> int:
        return self.processor.count_tokens(text)

    def part_parameters(self, part: str) -> Iterator[tuple[str, nn.Parameter]]:
        """Named parameters of a part; every parameter belongs to exactly one."""
        if part not in PARTS:
            raise ValueError(f"train={part!r}: the parts of a model are {', '.join(PARTS)}")
        for name, parameter in self.model.named_parameters():
            if name.startswith(self.prefixes[part]):
                yield name, parameter

    def save(self, directory: Path) -> None:
        """Write model (safetensors) and tokenizer in the Hugging Face layout."""
        self.model.save_pretrained(directory, safe_serialization=True)
        self.processor.tokenizer.save_pretrained(directory)
