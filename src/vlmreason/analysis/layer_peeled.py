"""Minority collapse in the layer-peeled model: what becomes of classes that have few samples, or none any more.

Fang et al. (PNAS 2021), in chapter 2 of Zhai's dissertation the explanation of forgetting: last-layer rows W (K x p)
and free features H minimise the mean cross entropy under bounds on their mean squared norms. Features of one class are
equal at the optimum, so there is one for each, which counts as often as the class has samples. Balanced, rows become an
equiangular tight frame; as the ratio of majority to minority grows, rows of the minority come together. Fine-tuning on
some classes is the ratio without bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from vlmreason.structure import check_positive

MEASURES = ("minority cosine", "majority cosine", "minority told apart", "distance to a tight frame")
TIE = 1e-6  # a class is told apart where its own logit is above all others by this at least


@dataclass(frozen=True)
class Peeled:
    """classes: K; majority: of them with many samples; width: p; row_bound, feature_bound: of mean squared norms; steps
    of Adam at rate lr, which falls to 0. Raises ValueError."""

    classes: int = 10
    majority: int = 5
    width: int = 20
    row_bound: float = 1.0
    feature_bound: float = 5.0
    steps: int = 3000
    lr: float = 0.02

    def __post_init__(self) -> None:
        check_positive(self, "width", "steps")
        if not 0 < self.majority <= self.classes - 2:
            raise ValueError(f"majority={self.majority}: 1 to classes - 2 = {self.classes - 2} are allowed")
        for key in ("row_bound", "feature_bound", "lr"):
            if not getattr(self, key) > 0:
                raise ValueError(f"{key}={getattr(self, key)}: more than 0 is expected")


def solve(settings: Peeled, ratios: Sequence[float], seed: int) -> list[Mapping[str, float]]:
    """Minimise the model at each ratio of majority to minority samples, all from one start; return the measures."""
    if not ratios or min(ratios) < 1:
        raise ValueError(f"ratios={list(ratios)}: numbers from 1 are expected")
    s = settings
    generator = torch.Generator().manual_seed(seed)
    start = torch.randn((2, s.classes, s.width), generator=generator, dtype=torch.float64) / s.width**0.5
    rows_RKP, features_RKP = (one.repeat(len(ratios), 1, 1).requires_grad_() for one in start)
    counts_RK = torch.ones((len(ratios), s.classes), dtype=torch.float64)
    counts_RK[:, : s.majority] = torch.tensor(ratios, dtype=torch.float64)[:, None]
    weights_RK = counts_RK / counts_RK.sum(dim=1, keepdim=True)
    targets = torch.arange(s.classes).repeat(len(ratios))
    optimizer = torch.optim.Adam([rows_RKP, features_RKP], lr=s.lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, s.steps)
    for _ in range(s.steps):
        optimizer.zero_grad()
        logits = at_bound(features_RKP, s.feature_bound) @ at_bound(rows_RKP, s.row_bound).transpose(1, 2)
        losses = F.cross_entropy(logits.flatten(0, 1), targets, reduction="none")
        (losses.view_as(weights_RK) * weights_RK).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        schedule.step()
    found = zip(at_bound(rows_RKP.detach(), 1.0), at_bound(features_RKP.detach(), 1.0), strict=True)
    return [measures(rows_KP, features_KP, s.majority) for rows_KP, features_KP in found]


def at_bound(rows_RKP: Tensor, bound: float) -> Tensor:
    """Return each set of rows with the mean squared norm of its bound, which is where the minimum lies: once classes
    are told apart the loss falls with the norm."""
    return rows_RKP * (bound / rows_RKP.pow(2).sum(dim=2).mean(dim=1)).sqrt()[:, None, None]


def measures(rows_KP: Tensor, features_KP: Tensor, majority: int) -> Mapping[str, float]:
    """Return what is measured of last-layer rows and one feature per class; the first `majority` are the majority."""
    logits_KK = features_KP @ rows_KP.T
    others_K = logits_KK.masked_fill(torch.eye(len(rows_KP), dtype=torch.bool), -torch.inf).amax(dim=1)
    right = (logits_KK.diagonal() > others_K + TIE).double()
    values = (
        mean_cosine(rows_KP[majority:]),
        mean_cosine(rows_KP[:majority]) if majority > 1 else float("nan"),
        float(right[majority:].mean()),
        frame_distance(rows_KP),
    )
    return dict(zip(MEASURES, values, strict=True))


def mean_cosine(rows_KP: Tensor) -> float:
    """Return the mean cosine between every two different rows."""
    unit = F.normalize(rows_KP, dim=1)
    num = len(unit)
    return float(((unit @ unit.T).sum() - num) / (num * (num - 1)))


def frame_distance(rows_KP: Tensor) -> float:
    """Return how far the Gram matrix of the rows is from that of an equiangular tight frame, both at norm 1."""
    num = len(rows_KP)
    frame = torch.eye(num, dtype=rows_KP.dtype) - 1 / num
    gram = rows_KP @ rows_KP.T
    return float((gram / gram.norm() - frame / frame.norm()).norm())
