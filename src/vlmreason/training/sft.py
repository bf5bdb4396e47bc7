"""Supervised fine-tuning of one phase: cross entropy on response tokens only (section 2.4, appendix D)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from vlmreason.models.learner import Learner
from vlmreason.models.processor import SEGMENT_IDS
from vlmreason.tasks.base import stream
from vlmreason.training import precision, strategies
from vlmreason.training.optimizers import OptimizerSettings, build_optimizers, schedule

SEGMENT_NAMES = {number: kind for kind, number in SEGMENT_IDS.items() if kind}


class SupervisedFineTuning(L.LightningModule):
    """One phase over one learner.

    A batch is one optimizer step in micro-batches; its loss is the mean over all response tokens of the
    step in all processes, however it is cut. `first_step` is where a resumed phase goes on. What a step draws at
    random (dropout) depends on `seed`, `phase`, its number and the process alone. `filler(step, picture)` gives an
    example of a step with or without a picture. `stop` says whether this process was asked to stop. `narrow`: compute
    in bfloat16 with weights that are kept in float32 (training/precision.py).

    Of the latest step: `last` holds its figures, `counts` those of its batch, `stopping` whether any process
    was asked to stop; all are the same in every process.
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
        filler: Callable[[int, bool], strategies.Micro] | None = None,
        stop: Callable[[], bool] = lambda: False,
        narrow: bool = False,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.learner = learner
        self.model: nn.Module = learner.model
        self.settings = optimizer
        self.num_steps, self.step = num_steps, first_step
        self.seed, self.phase, self.filler, self.stop = seed, phase, filler, stop
        self.narrow = narrow
        self.train_parts = train
        self.trained = learner.trained_parameters(train)
        self.last: dict[str, float] = {}
        self.counts: dict[str, float] = {}
        self.stopping = False
        self.seconds_in_step = 0.0

    def setup(self, stage: str) -> None:
        trained = {name for name, _ in self.trained}
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in trained)
            parameter.grad = None
        self.model.train()

    def configure_optimizers(self) -> Any:
        self.trained = self.learner.trained_parameters(self.train_parts)  # sharding has replaced them
        return build_optimizers(self.settings, self.trained, self.learner.prefixes)

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
        with self.computing():
            sums = self._backward(batch)
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

    def computing(self) -> AbstractContextManager[None]:
        """Within it the model is in the type in which it computes; sharded models are gathered in it."""
        return (
            precision.narrowed(self.model) if self.narrow and not isinstance(self.model, FSDPModule) else nullcontext()
        )

    def _backward(self, batch: dict[str, Any]) -> Tensor:
        """Gradients of the step's loss over all processes; returns its `segment_sums`."""
        micros = batch["micro_batches"]
        names = [name for name in batch if name.startswith("num_")]
        num_pictures = sum(map(strategies.has_picture, micros))
        rows = strategies.gather_rows(
            [num_pictures, len(micros) - num_pictures, *(batch[name] for name in names)], self.device
        )
        self.counts = dict(zip(names, (sum(column) for column in list(zip(*rows, strict=True))[2:]), strict=True))
        sharded = isinstance(self.model, FSDPModule)
        weighted: Iterable[tuple[strategies.Micro, bool]] = ((micro, True) for micro in micros)
        if sharded:  # the same sequence of passes everywhere
            num_with, num_without = (int(max(row[kind] for row in rows)) for kind in (0, 1))
            weighted = strategies.align(micros, num_with, num_without, self._filler)
        # FSDP averages the gradients of its processes
        scale = (len(rows) if sharded else 1) / self.counts["num_targets"]
        sums = torch.zeros(len(SEGMENT_IDS), 2, dtype=torch.float64, device=self.device)
        for micro, counts in weighted:
            losses_N, segments_N = self.learner.token_losses(micro)
            self.manual_backward(losses_N.sum() * (scale if counts else 0.0))
            if counts:
                sums += segment_sums(losses_N.detach(), segments_N)
        if len(rows) == 1:
            self.stopping = self.stop()
            return sums.cpu()
        parameters = [parameter for _, parameter in self.trained]
        flags = torch.tensor([self.stop(), *(p.grad is not None for p in parameters)], device=self.device)
        shared = torch.cat((sums.flatten(), flags.double()))
        dist.all_reduce(shared)
        values = shared.tolist()
        sums = shared[: sums.numel()].view(sums.shape).cpu()
        self.stopping = values[sums.numel()] > 0
        if not sharded:
            strategies.sum_gradients(parameters, [value > 0 for value in values[sums.numel() + 1 :]])
        return sums

    def _filler(self, picture: bool) -> strategies.Micro:
        assert self.filler is not None
        return {name: value.to(self.device) for name, value in self.filler(self.step, picture).items()}

    def _clip(self) -> float:
        bound = self.settings.clip or float("inf")
        norm = nn.utils.clip_grad_norm_([parameter for _, parameter in self.trained], bound)
        return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


def segment_sums(losses_N: Tensor, segments_N: Tensor) -> Tensor:
    """Sum of losses and number of tokens per segment number, shape (kinds, 2), where the losses are.

    A product, as it is the same every time on a GPU, and nothing waits for it.
    """
    kinds_K = torch.arange(len(SEGMENT_IDS), device=segments_N.device)
    of_kind_KN = (segments_N == kinds_K[:, None]).double()
    return of_kind_KN @ torch.stack((losses_N.double(), torch.ones_like(losses_N).double()), dim=1)
