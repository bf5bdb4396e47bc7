"""Supervised fine-tuning of one phase: cross entropy on response tokens only (section 2.4, appendix D)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from vlmreason.data.loader import Step
from vlmreason.models.vlm.learner import Learner
from vlmreason.segments import SEGMENT_IDS
from vlmreason.supervision import Choice
from vlmreason.training.engine import strategies
from vlmreason.training.engine.optimizers import OptimizerSettings
from vlmreason.training.engine.phase import PhaseModule, PhaseSettings
from vlmreason.training.supervised.choosing import alignments, best, without_rows
from vlmreason.training.supervised.pulls import Pull

SEGMENT_NAMES = {number: kind for kind, number in SEGMENT_IDS.items() if kind}


class SupervisedFineTuning(PhaseModule):
    """One supervised phase over one learner.

    A batch is one optimizer step in micro-batches; its loss is the mean over all response tokens of the
    step in all processes, however it is cut. `filler(step, picture)` gives an example of a step with or without a
    picture. `choose`: which examples of a step are trained on. `own`: what the model answers to examples, by their
    numbers, that come without a response. `pull`: what stands in the loss beside the cross entropy.
    """

    def __init__(
        self,
        learner: Learner,
        optimizer: OptimizerSettings,
        num_steps: int,
        phase: PhaseSettings = PhaseSettings(),  # noqa: B008 (frozen)
        filler: Callable[[int, bool], strategies.Micro] | None = None,
        choose: Choice | None = None,
        own: Callable[[Sequence[int]], Step] | None = None,
        pull: Pull | None = None,
    ) -> None:
        super().__init__(learner, optimizer, num_steps, phase)
        self.filler, self.choose, self.own, self.pull = filler, choose, own, pull

    def on_fit_start(self) -> None:
        if self.pull:
            self.pull.begin(self.hold_start)

    def training_step(self, batch: dict[str, Any], _: int) -> None:
        started = time.perf_counter()
        factor = self.begin_step()
        batch, chosen = self._chosen(batch, self.choose) if self.choose else (batch, {})
        if "own" in batch:
            with self.computing():
                batch, kept = self._answered(batch)
            chosen |= kept
        with self.computing():
            found = self._backward(batch)
        sums, (apart, num_apart) = found[:-1], found[-1].tolist()
        norm = self.clip()
        for optimizer in self.all_optimizers():
            optimizer.step()
        self.step += 1
        self.add(tokens_trained=self.counts["num_tokens"])
        self.last = {
            "loss": float(sums[:, 0].sum() / sums[:, 1].sum()),
            **{f"loss_{SEGMENT_NAMES[i]}": float(s / n) for i, (s, n) in enumerate(sums.tolist()) if n},
            **({"divergence": apart / num_apart} if num_apart else {}),
            **chosen,
            "grad_norm": norm,
            "lr": self.settings.lr * factor,
        }
        self.seconds_in_step = time.perf_counter() - started

    def _answered(self, batch: dict[str, Any]) -> tuple[dict[str, Any], dict[str, float]]:
        """The step with those of the model's own responses that are kept, and which share of them that is."""
        assert self.own is not None
        found = self.own(batch["own"])
        micros = [{name: value.to(self.device) for name, value in micro.items()} for micro in found["micro_batches"]]
        whole = {name: batch[name] + found[name] for name in batch if name.startswith("num_")}
        kept = {"own_kept": found["num_examples"] / len(batch["own"])}
        return whole | {"micro_batches": [*batch["micro_batches"], *micros]}, kept

    def _chosen(self, batch: dict[str, Any], choose: Choice) -> tuple[dict[str, Any], dict[str, float]]:
        """The step without what is not chosen of it, and what is: mean score and response tokens of the examples that
        were offered and of those that were chosen."""
        toward = [micro["toward"] for micro in batch["micro_batches"]]
        micros = [{k: v for k, v in micro.items() if k != "toward"} for micro in batch["micro_batches"]]
        aligned = choose.by == "alignment" and bool(torch.cat(toward).any())  # a step without an aim: by chance
        if aligned:
            scores = alignments(self.learner, [parameter for _, parameter in self.trained], micros, toward)
        else:
            scores = [torch.rand(len(rows)).to(rows.device) for rows in toward]
        kept = best(scores, toward, choose.share)
        lengths_E = torch.cat([(micro["segments"] > 0).sum(dim=1) for micro in micros])
        score_E, kept_E, offered_E = torch.cat(scores), torch.cat(kept), ~torch.cat(toward)
        found: dict[str, float] = {}
        for name, rows_E in (("offered", offered_E), ("chosen", offered_E & kept_E)):
            if rows_E.any():
                found[f"tokens_{name}"] = float(lengths_E[rows_E].double().mean())
                if aligned:
                    found[f"alignment_{name}"] = float(score_E[rows_E].double().mean())
        micros = [without_rows(micro, rows_B) for micro, rows_B in zip(micros, kept, strict=True)]
        return {**batch, "micro_batches": micros, "num_targets": int(lengths_E[kept_E].sum())}, found

    def _backward(self, batch: dict[str, Any]) -> Tensor:
        """Gradients of the step's loss over all processes; returns its `segment_sums`, and behind them the sum and
        number of its divergences."""
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
        scale = self.gradient_scale() / self.counts["num_targets"]
        sums = torch.zeros(len(SEGMENT_IDS) + 1, 2, dtype=torch.float64, device=self.device)
        for micro, counts in weighted:
            if self.pull:
                losses_N, segments_N, apart_M = self.pull.losses(self.learner, micro)
                pulled = self.pull.weight * apart_M.sum() / max(1, self.counts[self.pull.counted])
                loss = losses_N.sum() * scale + pulled * self.gradient_scale()
                sums[-1] += torch.stack((apart_M.detach().double().sum(), sums.new_tensor(len(apart_M))))
            else:
                losses_N, segments_N = self.learner.token_losses(micro)
                loss = losses_N.sum() * (scale if counts else 0.0)
            if loss.requires_grad:  # texts alone reach neither tower nor projector
                self.manual_backward(loss)
            if counts:
                sums[:-1] += segment_sums(losses_N.detach(), segments_N)
        return self.sum_over_processes(sums)

    def _filler(self, picture: bool) -> strategies.Micro:
        assert self.filler is not None
        return {name: value.to(self.device) for name, value in self.filler(self.step, picture).items()}


def segment_sums(losses_N: Tensor, segments_N: Tensor) -> Tensor:
    """Return sum of losses and number of tokens per segment number, shape (kinds, 2), where the losses are.

    A product, as it is the same every time on a GPU, and nothing waits for it.
    """
    kinds_K = torch.arange(len(SEGMENT_IDS), device=segments_N.device)
    of_kind_KN = (segments_N == kinds_K[:, None]).double()
    return of_kind_KN @ torch.stack((losses_N.double(), torch.ones_like(losses_N).double()), dim=1)
