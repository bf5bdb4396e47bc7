"""Choosing what a step trains on: the examples whose gradients agree most with that of the examples aimed at.

With h the gradient of the mean loss over the response tokens of the parts `toward` in this step and g_x that of one
example, its score is <g_x, h> / <h, h>: equation 3 for each example, with the weights as they are at this step. So what
is chosen moves from step to step as the model learns, and nothing of it has to be kept: a resumed run chooses the same.

No gradient of an example is computed. <g_x, h> is the slope of the loss of x along h, and its central difference
between the weights a little above and a little below gives it for all examples of a batch in two forward passes. The
distance is that at which the loss of the parts `toward` itself changes by FALL, so that it suits any model and loss.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.processor import IGNORED

FALL = 0.01
"""How much the loss of what is aimed at changes to either side, to first order (nats a token)."""

Micro = Mapping[str, Tensor]


def alignments(
    learner: Learner, parameters: Sequence[nn.Parameter], micros: Sequence[Micro], toward: Sequence[Tensor]
) -> list[Tensor]:
    """Return the score of each row (B) of each micro-batch; `toward`: which rows are aimed at, one at least.

    Parameters must be kept in float32, and are after it what they were.
    """
    was_training = learner.model.training
    learner.model.eval()
    with torch.autocast(parameters[0].device.type, enabled=False):
        gradient = _gradient(learner, parameters, micros, toward)
        square = sum(float(part.double().pow(2).sum()) for part in gradient)
        found = [torch.zeros(len(rows), device=rows.device) for rows in toward]
        if square:
            above, below = (_losses_at(learner, parameters, gradient, sign * FALL / square, micros) for sign in (1, -1))
            found = [(high - low) / (2 * FALL) for high, low in zip(above, below, strict=True)]
    learner.model.train(was_training)
    return found


def best(scores: Sequence[Tensor], toward: Sequence[Tensor], share: float) -> list[Tensor]:
    """Return which rows (B) are trained on: those aimed at, and the `share` of all others with the highest scores.

    One at least; of equal ones the earlier.
    """
    score_E, aimed_E = torch.cat(list(scores)), torch.cat(list(toward))
    offered = (~aimed_E).nonzero()[:, 0]
    order = score_E[offered].argsort(descending=True, stable=True)
    kept_E = aimed_E.clone()
    kept_E[offered[order[: max(1, round(share * len(offered)))]]] = True
    return list(torch.split(kept_E, [len(rows) for rows in toward]))


def without_rows(micro: Micro, kept_B: Tensor) -> dict[str, Tensor]:
    """Return a micro-batch in which the rows that are not kept have no response tokens: they count for nothing."""
    return {
        **micro,
        "labels": torch.where(kept_B[:, None], micro["labels"], IGNORED),
        "segments": torch.where(kept_B[:, None], micro["segments"], 0),
    }


def _gradient(
    learner: Learner, parameters: Sequence[nn.Parameter], micros: Sequence[Micro], toward: Sequence[Tensor]
) -> list[Tensor]:
    """Of the mean loss over the response tokens of the rows aimed at, by parameter."""
    found = [torch.zeros_like(parameter) for parameter in parameters]
    num = 0
    for micro, rows_B in zip(micros, toward, strict=True):
        if not rows_B.any():
            continue
        losses_N, _ = learner.token_losses(without_rows(micro, rows_B))
        num += len(losses_N)
        parts = torch.autograd.grad(losses_N.sum(), list(parameters), allow_unused=True)
        for total, part in zip(found, parts, strict=True):
            if part is not None:
                total += part
    return [total / max(1, num) for total in found]


@torch.no_grad()
def _losses_at(
    learner: Learner,
    parameters: Sequence[nn.Parameter],
    gradient: Sequence[Tensor],
    distance: float,
    micros: Sequence[Micro],
) -> list[Tensor]:
    """Mean loss of each row (B) of each micro-batch, with the weights this far along a gradient."""
    before = [parameter.clone() for parameter in parameters]
    for parameter, part in zip(parameters, gradient, strict=True):
        parameter.add_(part, alpha=distance)
    found = []
    for micro in micros:
        losses_N, _ = learner.token_losses(micro)
        wanted_BL = micro["labels"][:, 1:] != IGNORED
        of_row_BN = torch.arange(len(wanted_BL), device=losses_N.device)[:, None] == wanted_BL.nonzero()[:, 0]
        found.append((of_row_BN.double() @ losses_N.double() / of_row_BN.sum(dim=1)).float())
    for parameter, kept in zip(parameters, before, strict=True):
        parameter.copy_(kept)
    return found
