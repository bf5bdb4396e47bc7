"""Tokens that a Hugging Face model writes: batches that shrink as responses end, draws by seeds, given lengths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import LogitsProcessor

STRETCH = 16
"""Tokens written between two looks at which responses have ended."""


class Steering(LogitsProcessor):
    """Decides in part which tokens are taken, row by row; told which rows of the batch go on."""

    def keep(self, rows_R: Tensor) -> None:
        """Go on with these rows alone."""


def write(
    model: Any, batch: Mapping[str, Tensor], max_new_tokens: int, end_ids: Sequence[int], pad_id: int,
    steering: Sequence[Steering] = (), shrinks: bool = True, first: Mapping[str, Any] | None = None, **options: Any,
) -> Tensor:  # fmt: skip
    """Return tokens (B, L) written after left-padded prompts, padded behind their ends.

    `shrinks`: responses that have ended leave the batch, at the latest STRETCH tokens later, so that a few long ones do
    not make all wait; for models whose keys and values are all that they keep of a row. `first`: settings of the
    library's generation for the first token alone, `options` for all.
    """
    num_rows, start = batch["input_ids"].shape
    written_BL = batch["input_ids"].new_full((num_rows, max_new_tokens), pad_id)
    rows_R, ends = torch.arange(num_rows, device=written_BL.device), written_BL.new_tensor(end_ids)
    given, length = dict(batch), 0
    while length < max_new_tokens and len(rows_R):
        out = model.generate(
            **given,
            max_new_tokens=min(STRETCH, max_new_tokens - length) if shrinks else max_new_tokens,
            do_sample=False,
            pad_token_id=pad_id,
            eos_token_id=list(end_ids),
            logits_processor=list(steering),
            return_dict_in_generate=True,
            **options,
            **((first or {}) if length == 0 else {}),
        )
        new_RL = out.sequences[:, start + length :]
        written_BL[rows_R, length : length + new_RL.shape[1]] = new_RL
        length += new_RL.shape[1]
        going_R = (~torch.isin(new_RL, ends).any(dim=1)).nonzero()[:, 0]
        mask_RL = torch.cat([given["attention_mask"], torch.ones_like(new_RL)], dim=1)
        given = {"input_ids": out.sequences[going_R], "attention_mask": mask_RL[going_R]}
        if len(going_R) and length < max_new_tokens:
            given["past_key_values"] = out.past_key_values
            if len(going_R) < len(rows_R):
                out.past_key_values.batch_select_indices(going_R)
                for one in steering:
                    one.keep(going_R)
        rows_R = rows_R[going_R]
    return written_BL[:, :length]


class AnswersAt(Steering):
    """Lets the answer of a response begin at its place: not before, where it could not end either, and then at once."""

    def __init__(self, places_B2: Tensor, end_ids: Sequence[int]) -> None:
        """`places_B2`: number of tokens before the answer (less than 0: anywhere), and the token that begins it."""
        self.places_B, self.openings_B = places_B2.unbind(1)
        self.end_ids, self.step = list(end_ids), 0

    def keep(self, rows_R: Tensor) -> None:
        self.places_B, self.openings_B = self.places_B[rows_R], self.openings_B[rows_R]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        before_B, now_B = self.places_B > self.step, self.places_B == self.step
        self.step += 1
        never_BV = torch.zeros_like(scores, dtype=torch.bool)
        never_BV[:, self.end_ids] = True
        opening_BV = torch.zeros_like(never_BV).scatter(1, self.openings_B[:, None], True)
        never_BV = (never_BV | opening_BV) & before_B[:, None] | ~opening_BV & now_B[:, None]
        return scores.masked_fill(never_BV, -math.inf)


class Drawer(Steering):
    """Draws the tokens that generation takes, and keeps their log-probabilities."""

    def __init__(self, numbers_BL: Tensor, temperature: float) -> None:
        self.numbers_BL, self.temperature, self.step = numbers_BL, temperature, 0
        self.rows_R = torch.arange(len(numbers_BL), device=numbers_BL.device)
        self._logprobs_BL = torch.zeros(numbers_BL.shape, device=numbers_BL.device)

    def keep(self, rows_R: Tensor) -> None:
        self.rows_R = self.rows_R[rows_R]

    def __call__(self, input_ids: Any, scores: Any) -> Any:
        token_R, logprob_R = draw(scores, self.numbers_BL[self.rows_R, self.step], self.temperature)
        self._logprobs_BL[self.rows_R, self.step] = logprob_R
        self.step += 1
        return torch.full_like(scores, -math.inf).scatter(1, token_R[:, None], 0.0)

    def logprobs(self) -> list[list[float]]:
        """Return by response the log-probabilities of the tokens that were drawn; behind its end they mean nothing."""
        found: list[list[float]] = self._logprobs_BL[:, : self.step].tolist()
        return found


def random_numbers(seeds: Sequence[int], num: int) -> Tensor:
    """Return (B, num) from 0 to 1 (float64), each row by its own seed."""
    return torch.from_numpy(np.stack([np.random.default_rng(seed).random(num) for seed in seeds]))


def draw(logits_BV: Tensor, number_B: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """Return what numbers from 0 to 1 (float64) draw at a temperature: its place and log-probability, (B) each."""
    logs_BV = F.log_softmax(logits_BV.float() / temperature, dim=-1)
    sums_BV = logs_BV.double().exp().cumsum(dim=-1)
    found_B1 = torch.searchsorted(sums_BV, number_B[:, None] * sums_BV[:, -1:], right=True)
    return found_B1[:, 0], logs_BV.gather(1, found_B1)[:, 0]
