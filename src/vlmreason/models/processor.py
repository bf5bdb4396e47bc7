"""Dialogues into tensors and tokens back into text: one processor for training, rollout and evaluation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlmreason.dialogue import ANSWER, CONVERT, THOUGHT, Dialogue, Response
from vlmreason.tasks.base import Picture

IGNORED = -100
SEGMENT_IDS = {None: 0, CONVERT: 1, THOUGHT: 2, ANSWER: 3}
"""Number of each segment kind in `segments_BL`; 0 is prompt and padding."""


@dataclass(frozen=True)
class Prompt:
    """What a model is asked. `prefill` is the beginning of its response that is given to it."""

    text: str
    image: Picture | None
    prefill: str = ""


@dataclass(frozen=True)
class Encoded:
    """A dialogue in tokens; `segments` has the segment number of each token, 0 for the prompt's."""

    input_ids: list[int]
    segments: list[int]
    image: Picture | None

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class Template:
    """How a family of models writes a turn, around prompt and response."""

    before: str
    between: str
    after: str
    image_token: str
    num_image_tokens: int
    picture_size: int
    pixel_mean: float = 0.94  # of pixels in [0, 1]: the background of a table's cell becomes zero
    pixel_std: float = 0.3


class Processor:
    """Tokenizer, chat template and picture scaling of one model.

    Special tokens come from the template alone: in prompts, responses and prefills they are plain text.
    """

    def __init__(self, tokenizer: Any, template: Template) -> None:
        self.tokenizer = tokenizer
        self.template = template
        self.image_token_id: int = tokenizer.convert_tokens_to_ids(template.image_token)
        self.pad_id: int = tokenizer.pad_token_id
        self.eos_id: int = tokenizer.eos_token_id
        self._before, self._between, self._after = (
            self._template_ids(part) for part in (template.before, template.between, template.after)
        )

    def prompt_ids(self, text: str, has_image: bool) -> list[int]:
        """Tokens of the turn up to the response. Text-only prompts hold no image placeholder."""
        placeholders = [self.image_token_id] * (self.template.num_image_tokens * has_image)
        return self._before + placeholders + self._ids(text) + self._between

    def encode(self, dialogue: Dialogue) -> Encoded:
        prompt_ids = self.prompt_ids(dialogue.prompt, dialogue.image is not None)
        response_ids, segments = self._response(dialogue.response)
        return Encoded(prompt_ids + response_ids, [0] * len(prompt_ids) + segments, dialogue.image)

    def _response(self, response: Response) -> tuple[list[int], list[int]]:
        """Tokens of a response and its end, each with the segment that holds its last character."""
        coded = self.tokenizer(
            response.text, add_special_tokens=False, split_special_tokens=True, return_offsets_mapping=True
        )
        spans, at, segments = response.spans(), 0, []
        for _, end in coded["offset_mapping"]:
            while at + 1 < len(spans) and end > spans[at][2]:
                at += 1
            segments.append(SEGMENT_IDS[spans[at][0]])
        return coded["input_ids"] + self._after, segments + [SEGMENT_IDS[spans[-1][0]]] * len(self._after)

    def collate(self, examples: Sequence[Encoded], multiple: int = 1) -> dict[str, Tensor]:
        """Right-padded training tensors: input_ids, attention_mask, labels, segments (B, L); pixel_values.

        L is the longest example's length, rounded up to a multiple of `multiple`.
        """
        length = -(-max(map(len, examples)) // multiple) * multiple
        input_ids_BL = torch.full((len(examples), length), self.pad_id)
        mask_BL, segments_BL = torch.zeros_like(input_ids_BL), torch.zeros_like(input_ids_BL)
        for i, example in enumerate(examples):
            input_ids_BL[i, : len(example)] = torch.tensor(example.input_ids)
            segments_BL[i, : len(example)] = torch.tensor(example.segments)
            mask_BL[i, : len(example)] = 1
        batch = {
            "input_ids": input_ids_BL,
            "attention_mask": mask_BL,
            "labels": torch.where(segments_BL > 0, input_ids_BL, IGNORED),
            "segments": segments_BL,
        }
        return batch | self._pixels([e.image for e in examples if e.image is not None])

    def collate_prompts(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """Left-padded generation tensors: input_ids, attention_mask (B, L); pixel_values."""
        rows = [self.prompt_ids(p.text, p.image is not None) + self._ids(p.prefill) for p in prompts]
        length = max(map(len, rows))
        input_ids_BL = torch.full((len(rows), length), self.pad_id)
        mask_BL = torch.zeros_like(input_ids_BL)
        for i, row in enumerate(rows):
            input_ids_BL[i, length - len(row) :] = torch.tensor(row)
            mask_BL[i, length - len(row) :] = 1
        batch = {"input_ids": input_ids_BL, "attention_mask": mask_BL}
        return batch | self._pixels([p.image for p in prompts if p.image is not None])

    def decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True))

    def count_tokens(self, text: str) -> int:
        return len(self._ids(text))

    def first_token(self, text: str) -> int:
        return self._ids(text)[0]

    def _ids(self, text: str) -> list[int]:
        """Tokens of text from outside: what is spelled like a special token is not one."""
        coded = self.tokenizer(text, add_special_tokens=False, split_special_tokens=True)
        return list(coded["input_ids"])

    def _template_ids(self, text: str) -> list[int]:
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def _pixels(self, images: list[Picture]) -> dict[str, Tensor]:
        if not images:
            return {}
        size = self.template.picture_size
        for image in images:
            if image.shape != (size, size, 3):
                shape = " x ".join(map(str, image.shape[:2]))
                raise ValueError(f"a picture of {shape} px: this model takes {size} x {size} (choose scale=nano)")
        stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)
        t = self.template
        return {"pixel_values": (stacked.float() / 255 - t.pixel_mean) / t.pixel_std}
