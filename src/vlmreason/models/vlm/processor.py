"""Dialogues into tensors and tokens back into text: one processor for training, rollout and evaluation."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlmreason.dialogue.build import Dialogue
from vlmreason.models.contract import Prompt
from vlmreason.models.vlm.text import TextCoder, Written
from vlmreason.pictures import Picture
from vlmreason.segments import ANSWER, SEGMENT_IDS, Response

IGNORED = -100


@dataclass(frozen=True)
class Encoded:
    """A dialogue in tokens; `segments` has the segment number of each token, 0 for the prompt's; `begins_at`: the
    position of the first one; `beside`: the same problem as text with the same response, where it is to be matched;
    `toward`: whether other examples are held against it where they are chosen from."""

    input_ids: list[int]
    segments: list[int]
    image: Picture | None
    begins_at: int = 0
    beside: Encoded | None = None
    toward: bool = False

    def __len__(self) -> int:
        return len(self.input_ids)


@dataclass(frozen=True)
class Template:
    """How a family of models writes a turn. Special tokens are spelled out.

    text: before and after the prompt of a turn without a picture; image: before the picture's tokens, between
    them and the prompt, after the prompt; end: after the response, its last token ends generation; lead: what a
    model writes before its response proper (the space after "ASSISTANT:"), trained with it and not shown.
    """

    text: tuple[str, str]
    image: tuple[str, str, str]
    end: str
    lead: str = ""


class Pictures(ABC):
    """How a family of models takes pictures: the tokens that stand for one, and its tensors."""

    placeholder_id: int
    """Token that features replace, or from which on the picture is attended to; never generated."""
    packable: bool = True
    """Whether several dialogues may share a row; each then has `positions` of its own."""
    sequential: bool = True
    """Whether tokens have positions 0 to L - 1 and see a picture in the tokens before them alone, so that the keys and
    values of a prompt serve every response to it."""

    @abstractmethod
    def expand(self, height: int, width: int) -> list[int]:
        """Return tokens that stand for a picture of this size (px). Raises ValueError for a size the model refuses."""

    @abstractmethod
    def inputs(self, input_ids_BL: Tensor, images: Sequence[Sequence[Picture]]) -> dict[str, Tensor]:
        """Return further inputs of the model for a batch; `images`: those of each row, in the order of their tokens."""

    def prepare(self, picture: Picture) -> Picture:
        """Return a picture as the library's own processor of the model is to be given it."""
        return picture

    def positions(self, input_ids: Sequence[int], images: Sequence[Picture]) -> Tensor | None:
        """Return position ids (..., L) of one dialogue where they are not 0 to L - 1; for packed rows."""
        return None

    def plain(self) -> Mapping[str, Mapping[str, Any]] | None:
        """Return SigLIP's pictures, in LLaVA's processor; other sizes are stretched there."""
        return None

    def save(self, directory: Path) -> None:  # noqa: B027 (most have settings of their own, some have not)
        """Write what is needed to prepare pictures again beside a saved model."""


class FixedPictures(Pictures):
    """Square pictures of one size, each a fixed number of equal placeholders."""

    def __init__(self, placeholder_id: int, num_tokens: int, side: int, pixel_mean: float, pixel_std: float) -> None:
        """`pixel_mean`, `pixel_std`: of pixels in [0, 1]."""
        self.placeholder_id, self.num_tokens, self.side = placeholder_id, num_tokens, side
        self.pixel_mean, self.pixel_std = pixel_mean, pixel_std

    def expand(self, height: int, width: int) -> list[int]:
        if (height, width) != (self.side, self.side):
            raise ValueError(
                f"a picture of {height} x {width} px: this model takes {self.side} x {self.side} (choose scale=nano)"
            )
        return [self.placeholder_id] * self.num_tokens

    def inputs(self, input_ids_BL: Tensor, images: Sequence[Sequence[Picture]]) -> dict[str, Tensor]:
        flat = [image for row in images for image in row]
        if not flat:
            return {}
        stacked = torch.from_numpy(np.stack(flat)).permute(0, 3, 1, 2)
        return {"pixel_values": (stacked.float() / 255 - self.pixel_mean) / self.pixel_std}

    def plain(self) -> Mapping[str, Mapping[str, Any]]:
        """Return SigLIP's pictures, in LLaVA's processor; other sizes are stretched there."""
        size = {"height": self.side, "width": self.side}
        pixels = {"image_mean": [self.pixel_mean] * 3, "image_std": [self.pixel_std] * 3}
        patch_size = self.side // math.isqrt(self.num_tokens)
        return {
            "preprocessor_config.json": {"image_processor_type": "SiglipImageProcessor", "size": size, **pixels},
            "processor_config.json": {"patch_size": patch_size, "vision_feature_select_strategy": "full"},
        }


class Processor:
    """Tokenizer, chat template and pictures of one model.

    Special tokens come from the template alone: in prompts, responses and prefills they are plain text.
    """

    def __init__(self, tokenizer: Any, template: Template, pictures: Pictures, eos_ids: Sequence[int] = ()) -> None:
        """`eos_ids`: further tokens with which the model may end a response."""
        self.tokenizer, self.template, self.pictures = tokenizer, template, pictures
        self.coder = TextCoder(tokenizer)
        self.end_ids = self.coder.sequence(Written(template.end))
        self.eos_id: int = self.end_ids[-1]
        self.eos_ids = sorted({self.eos_id, *eos_ids})
        self.pad_id: int = self.eos_id if tokenizer.pad_token_id is None else tokenizer.pad_token_id
        self._shown_lead = self.coder.decode(self._follow("a")[0])[: -len("a")]

    def prompt_ids(self, text: str, image: Picture | None) -> list[int]:
        """Return tokens of the turn up to the response. Text-only prompts hold no image placeholder."""
        return self._turn(text, None if image is None else self.pictures.expand(*image.shape[:2]))

    def unexpanded_ids(self, text: str, image: Picture | None) -> list[int]:
        """Return `prompt_ids` with one placeholder for the picture: for an engine that expands it itself."""
        return self._turn(text, None if image is None else [self.pictures.placeholder_id])

    def _turn(self, text: str, placeholders: list[int] | None) -> list[int]:
        if placeholders is None:
            before, after = self.template.text
            return self.coder.turn(Written(before), text, Written(after))
        first, before, after = self.template.image
        return self.coder.turn(Written(first), placeholders, Written(before), text, Written(after))

    def encode(self, dialogue: Dialogue) -> Encoded:
        prompt_ids = self.prompt_ids(dialogue.prompt, dialogue.image)
        response_ids, segments = self._response(dialogue.response)
        return Encoded(prompt_ids + response_ids, [0] * len(prompt_ids) + segments, dialogue.image)

    def _response(self, response: Response) -> tuple[list[int], list[int]]:
        """Tokens of a response and its end, each with the segment that holds its last character."""
        ids, offsets = self._follow(response.text)
        spans = response.spans()
        segments = _segments_of(spans, (end - len(self.template.lead) for _, end in offsets))
        return ids + self.end_ids, segments + [SEGMENT_IDS[spans[-1][0]]] * len(self.end_ids)

    def response_ids(self, text: str) -> list[int]:
        """Return tokens of a response and its end."""
        return self._follow(text)[0] + self.end_ids

    def encode_generated(self, prompt: Prompt, ids: Sequence[int], split: Callable[[str], Response]) -> Encoded:
        """Return a prompt (without prefill) with the very tokens that a model answered, its end included where it
        ended.

        `split` cuts the text of the response into segments; a token belongs to the one that holds its last character.
        """
        assert not prompt.prefill
        prompt_ids = self.prompt_ids(prompt.text, prompt.image)
        text = self.decode(ids)
        spans = split(text).spans() or [(ANSWER, 0, 0)]
        lead = len(self.coder.decode(ids)) - len(text)
        segments = _segments_of(spans, (length - lead for length in self.coder.lengths(ids)))
        return Encoded([*prompt_ids, *ids], [0] * len(prompt_ids) + segments, prompt.image)

    def _follow(self, text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Tokens of the beginning of a response, and the characters of each in lead and text."""
        before, after = self.template.text
        return self.coder.follow([Written(before), "a", Written(after)], self.template.lead + text)

    def collate(self, examples: Sequence[Encoded], multiple: int = 1) -> dict[str, Tensor]:
        """Return right-padded training tensors: input_ids, attention_mask, labels, segments (B, L); those of the
        pictures.

        L is the longest example's length, rounded up to a multiple of `multiple`; position_ids (..., B, L) are there
        where an example begins later than at 0.
        """
        rows = [[example] for example in examples]
        batch = self._rows(rows, multiple)
        if any(example.begins_at for example in examples):
            batch["position_ids"] = self._position_ids(rows, batch["input_ids"].shape[1], onward=True)
        lengths_B = torch.tensor([len(example) for example in examples])
        batch["attention_mask"] = (torch.arange(batch["input_ids"].shape[1]) < lengths_B[:, None]).long()
        return batch

    def collate_packed(self, rows: Sequence[Sequence[Encoded]], multiple: int = 1) -> dict[str, Tensor]:
        """Collate as `collate`, with several examples in a row and position_ids (..., B, L) in place of attention_mask.

        Positions begin anew with each example; without a mask the models attend within an example only.
        """
        batch = self._rows(rows, multiple)
        return batch | {"position_ids": self._position_ids(rows, batch["input_ids"].shape[1], onward=False)}

    def _position_ids(self, rows: Sequence[Sequence[Encoded]], length: int, onward: bool) -> Tensor:
        """Positions (..., B, L); those of the padding go on, where rows are to count as one example, or begin anew."""
        positions = []
        for row in rows:
            parts = [self._positions(example) for example in row]
            padding = torch.arange(length - sum(map(len, row))).expand(*parts[0].shape[:-1], -1)
            padding = padding + (parts[-1].max() + 1 if onward else 0)
            positions.append(torch.cat([*parts, padding], dim=-1))
        return torch.stack(positions, dim=-2)

    def _positions(self, example: Encoded) -> Tensor:
        found = self.pictures.positions(example.input_ids, [] if example.image is None else [example.image])
        return (torch.arange(len(example)) if found is None else found) + example.begins_at

    def _rows(self, rows: Sequence[Sequence[Encoded]], multiple: int) -> dict[str, Tensor]:
        """input_ids, labels, segments (B, L) of rows of examples, and the tensors of their pictures."""
        length = -(-max(sum(map(len, row)) for row in rows) // multiple) * multiple
        input_ids_BL = torch.full((len(rows), length), self.pad_id)
        segments_BL = torch.zeros_like(input_ids_BL)
        for i, row in enumerate(rows):
            ids = [token for example in row for token in example.input_ids]
            input_ids_BL[i, : len(ids)] = torch.tensor(ids)
            segments_BL[i, : len(ids)] = torch.tensor([number for example in row for number in example.segments])
        images = [[example.image for example in row if example.image is not None] for row in rows]
        return {
            "input_ids": input_ids_BL,
            "labels": torch.where(segments_BL > 0, input_ids_BL, IGNORED),
            "segments": segments_BL,
        } | self.pictures.inputs(input_ids_BL, images)

    def collate_prompts(self, prompts: Sequence[Prompt]) -> dict[str, Tensor]:
        """Return left-padded generation tensors: input_ids, attention_mask (B, L); pixel_values."""
        rows = [self.prompt_ids(p.text, p.image) + self._prefill(p.prefill) for p in prompts]
        return self._left_padded(rows, [p.image for p in prompts])

    def collate_following(
        self, examples: Sequence[Encoded], prompts: Sequence[int], multiple: int
    ) -> dict[str, Tensor]:
        """Return training tensors in which a prompt that several examples have is there once.

        `prompts`: the number of each example's prompt. The prompts are as in `collate_prompts`; following_rows (R) says
        which of them a response follows, following_ids and following_segments (R, M) are the right-padded responses.
        """
        firsts = dict(zip(prompts, examples, strict=True))
        numbers = list(dict.fromkeys(prompts))
        starts = [example.segments.count(0) for example in examples]
        before = [firsts[number].input_ids[: firsts[number].segments.count(0)] for number in numbers]
        longest = max(len(example) - start for example, start in zip(examples, starts, strict=True))
        ids_RM = torch.full((len(examples), -(-longest // multiple) * multiple), self.pad_id)
        segments_RM = torch.zeros_like(ids_RM)
        for i, (example, start) in enumerate(zip(examples, starts, strict=True)):
            ids_RM[i, : len(example) - start] = torch.tensor(example.input_ids[start:])
            segments_RM[i, : len(example) - start] = torch.tensor(example.segments[start:])
        place = {number: row for row, number in enumerate(numbers)}
        return self._left_padded(before, [firsts[number].image for number in numbers]) | {
            "following_rows": torch.tensor([place[number] for number in prompts]),
            "following_ids": ids_RM,
            "following_segments": segments_RM,
        }

    def _left_padded(self, rows: Sequence[list[int]], images: Sequence[Picture | None]) -> dict[str, Tensor]:
        length = max(map(len, rows))
        input_ids_BL = torch.full((len(rows), length), self.pad_id)
        mask_BL = torch.zeros_like(input_ids_BL)
        for i, row in enumerate(rows):
            input_ids_BL[i, length - len(row) :] = torch.tensor(row)
            mask_BL[i, length - len(row) :] = 1
        batch = {"input_ids": input_ids_BL, "attention_mask": mask_BL}
        return batch | self.pictures.inputs(input_ids_BL, [[] if image is None else [image] for image in images])

    def decode(self, ids: Sequence[int], prefill: str = "") -> str:
        """Return the response whose tokens `ids` are, or the whole of it where `prefill` came before them."""
        text = self.coder.decode(ids)
        return prefill + text if prefill else text.removeprefix(self._shown_lead)

    def count_tokens(self, text: str) -> int:
        return len(self._prefill(text))

    def first_token(self, text: str) -> int:
        """Return the token with which a response begins that begins with this text."""
        return self._prefill(text)[0]

    def answer_place(self, response: Response, prefill: str = "") -> tuple[int, int]:
        """Return how many tokens behind `prefill` the answer of a response begins, and with which token.

        Raises ValueError where it has no answer, or one whose first token stands before it too.
        """
        ids, segments = self._response(response)
        at = next((at for at, number in enumerate(segments) if number == SEGMENT_IDS[ANSWER]), None)
        if at is None or ids[at] in ids[:at]:
            why = "has no answer" if at is None else "begins its answer with a token that its thought has too"
            raise ValueError(f"evaluation.length=given: the expected response {why}")
        return at - self.count_tokens(prefill), ids[at]

    def save(self, directory: Path) -> None:
        self.tokenizer.save_pretrained(directory)
        self.pictures.save(directory)

    def _prefill(self, text: str) -> list[int]:
        return self._follow(text)[0] if text else []


def _segments_of(spans: Sequence[tuple[str, int, int]], ends: Iterable[int]) -> list[int]:
    """The segment number of each token by the character that it ends before; `spans`: (kind, start, end) in order."""
    at, segments = 0, []
    for end in ends:
        while at + 1 < len(spans) and end > spans[at][2]:
            at += 1
        segments.append(SEGMENT_IDS[spans[at][0]])
    return segments
