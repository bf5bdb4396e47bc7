"""Dialogues in tokens, numbered by the pieces of their response: losses and gradients of any stretch of a response.

The numbers take the place of the segment numbers, so `Learner.token_losses` gives each loss with its piece.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from vlmreason.dialogue.build import Dialogue
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.processor import IGNORED, Encoded, Processor
from vlmreason.segments import KINDS, SEGMENT_IDS, Response, Segment

_COLORS = tuple(kind.name for kind in KINDS)


@dataclass(frozen=True)
class Piece:
    """A stretch of a response; tokens of number 0 are read and have no loss."""

    text: str
    number: int


def encode_pieces(processor: Processor, dialogue: Dialogue, pieces: Sequence[Piece]) -> Encoded:
    """Return the dialogue in tokens, each numbered by the piece that holds its last character, 0 in the prompt.

    `pieces` are the response, cut anywhere; the end token belongs to the last. The processor numbers tokens by kinds
    of segments, so the pieces are given it as segments of all kinds in turn: where the kind changes the next begins.
    """
    assert "".join(piece.text for piece in pieces) == dialogue.response.text, "the pieces are the response"
    kept = [piece for piece in pieces if piece.text]
    segments = tuple(Segment(_COLORS[number % len(_COLORS)], piece.text) for number, piece in enumerate(kept))
    encoded = processor.encode(replace(dialogue, response=Response(segments)))
    numbers, at = [], 0
    for color in encoded.segments:
        while color and color != SEGMENT_IDS[segments[at].kind]:
            at += 1
        numbers.append(kept[at].number if color else 0)
    return replace(encoded, segments=numbers)


def to_device(learner: Learner, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    device = next(learner.model.parameters()).device
    return {name: tensor.to(device) for name, tensor in batch.items()}


def piece_losses(learner: Learner, batch: Mapping[str, Tensor], num_pieces: int) -> Tensor:
    """Return mean loss (B, K) over the tokens of each of the pieces 1 to K of each row; NaN where a row has none of
    it."""
    losses_N, numbers_N = learner.token_losses(batch)
    labels_BL = batch["labels"][:, 1:]
    rows_N = torch.nonzero(labels_BL != IGNORED)[:, 0]
    places_N = rows_N * num_pieces + numbers_N - 1
    sums = losses_N.new_zeros(len(labels_BL) * num_pieces).index_add(0, places_N, losses_N)
    counts = torch.zeros_like(sums).index_add(0, places_N, torch.ones_like(losses_N))
    return (sums / counts).view(len(labels_BL), num_pieces)
