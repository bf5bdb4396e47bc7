"""Supervised fine-tuning of one phase: cross entropy on response tokens only (section 2.4, appendix D)."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any, Literal

import lightning as L
import torch
from torch import Tensor, nn

from vlmreason.models.learner import Learner
from vlmreason.models.processor import SEGMENT_IDS
from vlmreason.tasks.base import stream
from vlmreason.training.optimizers import OptimizerSettings, build_optimizers, schedule

SEGMENT_NAMES = {number: kind for kind, number in SEGMENT_IDS.items() if kind}


class SupervisedFineTuning(L.LightningModule):
    """One phase over one learner.

    A batch is one optimizer step in micro-batches; its loss is the mean over all response tokens of the
    step, however it is cut. `first_step` is where a resumed phase goes on; `last` holds the figures of the
    latest step. What a step draws at random (dropout) depends on `seed`, `phase` and its number alone.
    """

    def __init__(
        self,
        learner: Learner,
        optimizer: OptimizerSettings,
        train: Literal["all"] | Sequence[str],
        num_steps: int,
        first_step: int = 0,
        seed: int = 0,
        phase: str = "",
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.learner = learner
        self.model: nn.Module = learner.model
        self.settings = optimizer
        self.num_steps, self.step = num_steps, first_step
        self.seed, self.phase = seed, phase
        self.trained = learner.trained_parameters(train)
        self.last: dict[str, float] = {}
        self.seconds_in_step = 0.0

    def configure_optimizers(self) -> Any:
        return build_optimizers(self.settings, self.trained, self.learner.prefixes)

    def on_fit_start(self) -> None:
        trained = {name for name, _ in self.trained}
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in trained)
        self.model.train()

    def training_step(self, batch: dict[str, Any], _: int) -> None:
        started = time.perf_counter()
        torch.manual_seed(stream(self.seed, self.phase, self.step, self.global_rank).getrandbits(63))
        optimizers = self.optimizers(use_pl_optimizer=True)
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        factor = schedule(self.step, self.num_steps, self.settings.warmup, self.settings.end)
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            optimizer.zero_grad()
        num_targets = self._sum(float(batch["num_targets"]))
        world_size = self.trainer.world_size  # distributed gradients are averaged, the loss is a global mean
        sums = torch.zeros(len(SEGMENT_IDS), 2, dtype=torch.float64)
        for micro in batch["micro_batches"]:
            losses_N, segments_N = self.learner.token_losses(micro)
            self.manual_backward(losses_N.sum() * (world_size / num_targets))
            sums += segment_sums(losses_N.detach(), segments_N)
        norm = self._clip()
        for optimizer in optimizers:
            optimizer.step()
        self.step += 1
        self.last = {
            "loss": float(sums[:, 0].sum() / sums[:, 1].sum()),
            **{f"loss_{SEGMENT_NAMES[i]}": float(s / n) for i, (s, n) in enumerate(sums.tolist()) if n},
            "grad_norm": norm,
            "lr": self.settings.lr * factor,
        }
        self.seconds_in_step = time.perf_counter() - started

    def _sum(self, value: float) -> float:
        return float(self.trainer.strategy.reduce(torch.tensor(value, device=self.device), reduce_op="sum"))

    def _clip(self) -> float:
        bound = self.settings.clip or float("inf")
        parameters = [parameter for _, parameter in self.trained]
        return float(nn.utils.clip_grad_norm_(parameters, bound))


def segment_sums(losses_N: Tensor, segments_N: Tensor) -> Tensor:
    """Sum of losses and number of tokens per segment number, shape (kinds, 2)."""
    sums = torch.zeros(len(SEGMENT_IDS), 2, dtype=torch.float64)
    sums[:, 0].index_add_(0, segments_N.cpu(), losses_N.double().cpu())
    sums[:, 1] = torch.bincount(segments_N.cpu(), minlength=len(SEGMENT_IDS))
    return sums
