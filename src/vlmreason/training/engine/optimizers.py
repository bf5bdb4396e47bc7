"""Optimizers and the learning-rate schedule of a phase."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn
from torch.optim import Optimizer

from vlmreason.models.contract import PARTS, Prefixes
from vlmreason.models.vlm.adapters import part_of
from vlmreason.models.vlm.learner import Learner
from vlmreason.structure import nearest, structure
from vlmreason.supervision import Supervision
from vlmreason.training.engine.muon import Float32Muon

_EMBEDDING = ("embed", "lm_head", "position")


@dataclass(frozen=True)
class OptimizerSettings:
    """`adamw` as in appendix D; `muon` orthogonalises the updates of hidden matrices, AdamW takes the rest.

    `lr` is AdamW's peak learning rate, `part_lr` that of single parts in its place (None: `lr`); `muon_lr` Muon's,
    and null with adamw. `warmup` is the share of a phase with a linear rise, after which a cosine falls to `end`
    times the peak, or with `fall=linear` a straight line from the peak at the phase's beginning, not below `end`.
    `clip` bounds the gradient's norm; 0: off. `orthogonal` is the type in which Muon iterates; null: float32 where all
    is computed in it, which is faster on processors without bfloat16, else bfloat16.
    """

    name: Literal["adamw", "muon"]
    lr: float
    muon_lr: float | None = None
    part_lr: dict[str, float | None] = field(default_factory=dict)
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 0.0
    warmup: float = 0.03
    end: float = 0.0
    fall: Literal["cosine", "linear"] = "cosine"
    orthogonal: Literal["bfloat16", "float32"] | None = None
    clip: float = 1.0

    def __post_init__(self) -> None:
        if self.lr <= 0 or (self.muon_lr is not None and self.muon_lr <= 0):
            raise ValueError(f"optimizer.lr={self.lr} optimizer.muon_lr={self.muon_lr}: a rate is more than 0")
        if (self.name == "muon") != (self.muon_lr is not None):
            raise ValueError(f"optimizer.muon_lr={self.muon_lr}: set with optimizer.name=muon and only then")
        for part, rate in self.part_lr.items():
            if part not in PARTS:
                raise ValueError(
                    f"optimizer.part_lr.{part}: no such part; there are {', '.join(PARTS)}{nearest(part, PARTS)}"
                )
            if rate is not None and self.name == "muon":
                raise ValueError(f"optimizer.part_lr.{part}={rate}: only with optimizer.name=adamw, Muon has one rate")
            if rate is not None and rate <= 0:
                raise ValueError(f"optimizer.part_lr.{part}={rate}: a rate is more than 0 (adapter.frozen freezes)")
        if self.orthogonal == "float32" and self.name != "muon":
            raise ValueError("optimizer.orthogonal=float32: has no effect with optimizer.name=adamw")
        if self.clip < 0:
            raise ValueError(f"optimizer.clip={self.clip}: 0 (off) or more is expected")
        if not 0 <= self.end <= 1:
            raise ValueError(f"optimizer.end={self.end}: a share of the peak rate, 0 to 1")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"optimizer.warmup={self.warmup}: a share of the phase, 0 or more and less than 1")


def build_optimizers(
    settings: OptimizerSettings,
    named: Iterable[tuple[str, nn.Parameter]],
    prefixes: Prefixes | None = None,
    beside: Iterable[nn.Parameter] = (),
    float32: bool = False,
) -> list[Optimizer]:
    """Return the optimizers of the given parameters; each group keeps its peak rate in `peak_lr`.

    `prefixes`: of the parameter names of each part, where parts have their own rates. `beside`: parameters that are no
    model's, which AdamW takes whatever they are. `float32`: whether all is computed in it.
    """
    hidden: list[nn.Parameter] = []
    rest: dict[float, list[nn.Parameter]] = {}
    if outside := list(beside):
        rest[settings.lr] = outside
    for name, parameter in named:
        is_hidden = parameter.ndim == 2 and not any(word in name for word in _EMBEDDING)
        if settings.name == "muon" and is_hidden:
            hidden.append(parameter)
        else:
            rate = settings.part_lr.get(part_of(name, prefixes)) if prefixes else None
            rest.setdefault(settings.lr if rate is None else rate, []).append(parameter)
    optimizers: list[Optimizer] = []
    if rest:
        adamw = torch.optim.AdamW(
            [{"params": parameters, "lr": rate} for rate, parameters in rest.items()],
            lr=settings.lr,
            betas=settings.betas,
            eps=settings.eps,
            weight_decay=settings.weight_decay,
            fused=True,  # one pass over the memory: a seventh of the time of many parameters on a processor
        )
        optimizers.append(adamw)
    if hidden:
        assert settings.muon_lr is not None
        kind = settings.orthogonal or ("float32" if float32 else "bfloat16")
        muon: type[Optimizer] = Float32Muon if kind == "float32" else torch.optim.Muon
        optimizers.append(muon(hidden, lr=settings.muon_lr, weight_decay=settings.weight_decay))  # type: ignore[call-arg]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def phase_optimizers(
    optimizer: OptimizerSettings, supervision: Supervision, learner: Learner
) -> dict[str, OptimizerSettings]:
    """Return the settings of each phase: the run's, with the phase's own in their place.

    Raises ValueError for a phase in which nothing trains and for a part's rate that has no effect.
    """
    found, trained = {}, {}
    for name, phase in supervision.phases.items():
        data = {**vars(optimizer), **phase.optimizer}
        found[name] = structure(OptimizerSettings, data, f"supervision.phases.{name}.optimizer")
        trained[name] = {part_of(key, learner.prefixes) for key, _ in learner.trained_parameters(phase.train)}
    for part in PARTS:
        used = [part in trained[name] for name, own in found.items() if own.part_lr.get(part) is not None]
        if used and not any(used):
            raise ValueError(f"optimizer.part_lr.{part}: no effect, the {part} is trained in no phase of this rate")
    return found


def schedule(step: int, num_steps: int, warmup: float, end: float = 0.0, fall: str = "cosine") -> float:
    """Return factor on the peak rate at a step (from 0) of a phase: linear rise, then a cosine or a line to `end`."""
    num_warmup = math.ceil(warmup * num_steps)
    if fall == "linear":
        return min(1.0, (step + 1) / max(1, num_warmup)) * max(end, 1 - step / num_steps)
    if step < num_warmup:
        return (step + 1) / num_warmup
    share = 0.5 * (1 + math.cos(math.pi * (step - num_warmup) / max(1, num_steps - num_warmup)))
    return end + (1 - end) * share
