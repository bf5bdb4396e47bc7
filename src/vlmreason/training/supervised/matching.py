"""Matching of views: what a model answers to a picture is pulled to what it answers to the same problem as text.

Beside the cross entropy of a step stands, with the weight `match` of its phase, the mean over the response tokens of
the pictures of KL(p(. | text form, tokens before) || p(. | picture, tokens before)). Both views see the same tokens of
the gold response. The side of the text is a constant: it is computed without gradients and without dropout, so that
the picture comes to the text and never the text to the picture.

All logits of a micro-batch are held at once, unlike those of the cross entropy alone: `scale.micro_tokens` bounds them.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from vlmreason.data.loader import BESIDE
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.processor import IGNORED
from vlmreason.training.supervised.pulls import Pull


class Matching(Pull):
    """`match` of a phase."""

    counted = "num_matched"

    def losses(self, learner: Learner, micro: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        return matched_losses(learner, micro)


def matched_losses(learner: Learner, micro: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Return losses (N) and segment numbers (N) as `token_losses`, and divergences (M) of the tokens that are matched.

    `micro`: a micro-batch, with the same problems as text beside some of its rows.
    """
    own = {name: value for name, value in micro.items() if not name.startswith(BESIDE)}
    text = {name.removeprefix(BESIDE): value for name, value in micro.items() if name.startswith(BESIDE)}
    logits_NV, targets_N, segments_N = learner.target_logits(own)
    losses_N = F.cross_entropy(logits_NV.float(), targets_N, reduction="none")
    if not text:
        return losses_N, segments_N, losses_N[:0]
    rows_N = (own["labels"][:, 1:] != IGNORED).nonzero()[:, 0]
    logs_MV = F.log_softmax(logits_NV[torch.isin(rows_N, text.pop("rows"))].float(), dim=-1)
    apart_MV = F.kl_div(logs_MV, _taught(learner, text), reduction="none", log_target=True)
    return losses_N, segments_N, apart_MV.sum(dim=-1)


@torch.no_grad()
def _taught(learner: Learner, text: Mapping[str, Tensor]) -> Tensor:
    """Log-probabilities (M, V) around the response tokens of the problems as text."""
    was_training = learner.model.training
    learner.model.eval()
    logits_MV, _, _ = learner.target_logits(text)
    learner.model.train(was_training)
    return F.log_softmax(logits_MV.float(), dim=-1)
