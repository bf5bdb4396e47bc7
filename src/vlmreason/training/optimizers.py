"""Optimizers and the learning-rate schedule of a phase."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer

_EMBEDDING = ("embed", "lm_head", "position")


@dataclass(frozen=True)
class OptimizerSettings:
    """`adamw` as in appendix D; `muon` orthogonalises the updates of hidden matrices, AdamW takes the rest.

    `lr` is AdamW's peak learning rate; `muon_lr` Muon's, and null with adamw. `warmup` is the share of a
    phase with a linear rise, after which a cosine falls to `end` times the peak. `clip` bounds the gradient's
    norm; 0: off.
    """

    name: Literal["adamw", "muon"]
    lr: float
    muon_lr: float | None = None
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: float = 0.03
    end: float = 0.0
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.lr <= 0 or (self.muon_lr is not None and self.muon_lr <= 0):
            raise ValueError(f"optimizer.lr={self.lr} optimizer.muon_lr={self.muon_lr}: a rate is more than 0")
        if (self.name == "muon") != (self.muon_lr is not None):
            raise ValueError(f"optimizer.muon_lr={self.muon_lr}: set with optimizer.name=muon and only then")
        if not 0 <= self.end <= 1:
            raise ValueError(f"optimizer.end={self.end}: a share of the peak rate, 0 to 1")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"optimizer.warmup={self.warmup}: a share of the phase, 0 or more and less than 1")


def build_optimizers(settings: OptimizerSettings, named: Iterable[tuple[str, nn.Parameter]]) -> list[Optimizer]:
    """The optimizers of the given parameters; each group keeps its peak rate in `peak_lr`."""
    hidden: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for name, parameter in named:
        is_hidden = parameter.ndim == 2 and not any(word in name for word in _EMBEDDING)
        (hidden if settings.name == "muon" and is_hidden else rest).append(parameter)
    optimizers: list[Optimizer] = []
    if rest:
        adamw = torch.optim.AdamW(
            rest, lr=settings.lr, betas=settings.betas, eps=settings.eps, weight_decay=settings.weight_decay
        )
        optimizers.append(adamw)
    if hidden:
        assert settings.muon_lr is not None
        optimizers.append(torch.optim.Muon(hidden, lr=settings.muon_lr, weight_decay=settings.weight_decay))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def schedule(step: int, num_steps: int, warmup: float, end: float = 0.0) -> float:
    """Factor on the peak rate at a step (from 0) of a phase: linear rise, then a cosine to `end`."""
    num_warmup = math.ceil(warmup * num_steps)
    if step < num_warmup:
        return (step + 1) / num_warmup
    fall = 0.5 * (1 + math.cos(math.pi * (step - num_warmup) / max(1, num_steps - num_warmup)))
    return end + (1 - end) * fall
