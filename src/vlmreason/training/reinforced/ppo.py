"""Proximal policy optimisation of a vision-language model that acts by text (chapter 4, algorithm 1).

A turn is one action: its log-probability is lambda times that of the tokens before the answer plus that of the answer's
(equation 4.3), and its ratio to the policy before the update is clipped, as a whole or token by token (`ratio`). Or
each token is an action, all alike, with its turn's advantage (`credit: token`, VL-DAC, arXiv 2508.04280). A value head
reads the state off the prompt's last token; advantages are generalised estimates over turns.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from vlmreason.answering.rollout import Slots, Turn
from vlmreason.models.contract import TokenScores
from vlmreason.models.vlm.processor import Encoded
from vlmreason.streams import stream
from vlmreason.structure import check_positive
from vlmreason.training.engine import strategies
from vlmreason.training.engine.phase import bound_gradient
from vlmreason.training.reinforced.critic import FIT_PASSES, Judgement, ValueHead, explained
from vlmreason.training.reinforced.objectives import clipped_loss, sum_rows, token_weights
from vlmreason.training.reinforced.policy import Policy
from vlmreason.training.reinforced.settings import ReinforcementSettings


@dataclass(frozen=True, kw_only=True)
class PPOSettings(ReinforcementSettings):
    """conf/algorithm/ppo.yaml.

    parallel: episodes side by side, over all processes; turns: of each, in one update (their product is the number of
    transitions). gamma, decay: of generalised advantage estimation. clip: of the probability ratio, which is that of a
    response's weighted probability or of each token (ratio). credit: what an action is, a response or each token; with
    token the loss is the mean over tokens, whose ratios are clipped apart, and lambda has no place. value_weight: of
    the value's squared error in the loss, which trains the head alone or the model too (value_trains); value_lr: peak
    learning rate of the value head; value_clip: bound of its gradient's norm, 0: none; value_updates: first updates,
    in which it is fitted and the policy stays.
    """

    parallel: int
    turns: int
    gamma: float
    decay: float
    clip: float
    value_weight: float
    value_lr: float
    ratio: Literal["response", "token"] = "response"
    credit: Literal["response", "token"] = "response"
    value_trains: Literal["head", "model"] = "head"
    value_clip: float = 0.5
    value_updates: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "parallel", "turns", where="algorithm.")
        for name in ("gamma", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"algorithm.{name}={getattr(self, name)}: allowed is 0 to 1")
        if self.credit == "token" and (self.ratio != "token" or self.thought_weight != 1):
            raise ValueError(
                f"algorithm.credit=token: every token is an action, all alike, so algorithm.ratio=token and "
                f"algorithm.thought_weight=1 are expected, not {self.ratio} and {self.thought_weight}"
            )
        if self.value_weight < 0 or self.value_lr <= 0 or self.value_clip < 0:
            raise ValueError(
                f"algorithm.value_weight={self.value_weight} algorithm.value_lr={self.value_lr} "
                f"algorithm.value_clip={self.value_clip}: 0 or more is expected, of the rate more than 0"
            )
        if not 0 <= self.value_updates < self.updates:
            raise ValueError(
                f"algorithm.value_updates={self.value_updates}: 0 or more, and fewer than the {self.updates} updates, "
                "are expected"
            )
        if not 0 < self.clip < 1:
            raise ValueError(f"algorithm.clip={self.clip}: more than 0 and less than 1 is expected")
        if self.parallel * self.turns < self.minibatches:
            raise ValueError(
                f"algorithm.minibatches={self.minibatches}: more than the {self.parallel * self.turns} transitions"
            )


@dataclass
class _Played:
    """What is known of the turns of an update before it, one entry per turn."""

    logprobs: list[Tensor]  # (N) of each
    advantage_B: Tensor
    return_B: Tensor


class ProximalPolicyOptimization(Policy):
    algorithm: PPOSettings
    figures = ("loss", "loss_value", "kl", "clipped", "entropy")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.slots = Slots(self.rollouts, self.algorithm.parallel)
        self.value_head = ValueHead(self.model.config.get_text_config().hidden_size, self.phase.seed)  # type: ignore[union-attr, operator]
        self.extra = {"value_head": self.value_head}
        self._value_norms: list[float] = []  # of the latest update

    def setup(self, stage: str) -> None:
        super().setup(stage)
        if self.algorithm.parallel < strategies.group_size():
            raise ValueError(f"algorithm.parallel={self.algorithm.parallel}: one or more for every process is expected")
        most = -(-self.algorithm.parallel // strategies.group_size()) * self.algorithm.turns
        if most < self.algorithm.minibatches:
            raise ValueError(
                f"algorithm.minibatches={self.algorithm.minibatches}: more than the {most} transitions of a process"
            )
        self.slots.place(self.global_rank, strategies.group_size())

    def configure_optimizers(self) -> Any:
        self.value_head.to(self.device)  # with sharded models nothing else moves it
        head = torch.optim.AdamW(self.value_head.parameters(), lr=self.algorithm.value_lr, weight_decay=0.0)
        head.param_groups[0]["peak_lr"] = self.algorithm.value_lr
        return [*super().configure_optimizers(), head]

    def state(self) -> dict[str, Any]:
        return super().state() | {"slots": strategies.gather_dicts(self.slots.state())}

    def restore_state(self, state: Mapping[str, Any]) -> None:
        super().restore_state(state)
        self.slots.restore(state["slots"])

    def roll_out(self) -> list[Turn]:
        found = self.slots.collect(self.engine, self.algorithm.turns, self.step)
        return [turn for slot in self.slots.mine for turn in found[slot]]

    def improve(self, turns: Sequence[Turn], encoded: Sequence[Encoded]) -> dict[str, float]:
        with torch.no_grad(), strategies.usable(self.model), self.computing():
            next_SD = self._context_of_next()
        logprobs, context_BD, gap = self._look(turns, encoded)
        judgement = Judgement(list(turns), context_BD, next_SD, self.algorithm.gamma, self.algorithm.decay)
        advantage_B, value_B = judgement.estimate(self.value_head)
        return_B = (advantage_B + value_B).float()
        [share] = self.mean_over_processes([explained(value_B, return_B)], [1.0])
        figures = {"explained_variance": share, "rollout_gap": gap}
        factor, self._value_norms = self.begin_step(), []
        if self.step < self.algorithm.value_updates:
            return figures | self._fit_value(judgement) | {"lr": 0.0}
        played = _Played(logprobs, self._in_units(advantage_B), return_B)
        totals, norm = self.make_steps(range(len(turns)), lambda chosen: self._step(chosen, encoded, played))
        return figures | {
            **self.means(totals),
            "grad_norm": norm,
            "grad_norm_value": sum(self._value_norms) / len(self._value_norms),
            "lr": self.settings.lr * factor,
        }

    def clip(self) -> float:
        """Bound the gradients of policy and value head, each by its own; returns the policy's norm before."""
        self._value_norms.append(bound_gradient(self.value_head.parameters(), self.algorithm.value_clip))
        return bound_gradient((parameter for _, parameter in self.trained), self.settings.clip)

    def _in_units(self, advantage_B: Tensor) -> Tensor:
        """Advantages less their mean, in units of their standard deviation, both over all processes."""
        num = float(len(advantage_B))
        mean, square = self.mean_over_processes([float(advantage_B.sum()), float((advantage_B**2).sum())], [num, num])
        spread = math.sqrt(max(0.0, square - mean**2))
        return ((advantage_B - mean) / (spread + 1e-8)).float()

    def _context_of_next(self) -> Tensor:
        """Hidden states (S, D) of the states that come next in this process's slots, by the exact prompts of theirs."""
        prompts = [self.rollouts.prompt(episode.state) for episode in self.slots.episodes().values()]
        size = self.rollouts.batch_size
        parts = [self.learner.context(prompts[first : first + size]) for first in range(0, len(prompts), size)]
        return torch.cat(parts).float()

    @torch.no_grad()
    def _look(self, turns: Sequence[Turn], encoded: Sequence[Encoded]) -> tuple[list[Tensor], Tensor, float]:
        """Log-probabilities (N) of each turn and hidden states (B, D) before the update, and how far the rollout's
        own log-probabilities are from them (mean absolute difference per token, nats)."""
        logprobs: list[Tensor] = [torch.zeros(0)] * len(turns)
        contexts: dict[int, Tensor] = {}
        gap, num_tokens = 0.0, 0
        with self.computing():
            for part, batch in self.micro_batches(encoded, range(len(turns))):
                scores = self.scores(batch)
                for row, i in enumerate(part):
                    logprobs[i] = scores.logprobs_N[scores.rows_N == row].cpu()
                    contexts[i] = scores.context_BD[row].float()
                    gap += float((torch.tensor(turns[i].sample.logprobs) - logprobs[i]).abs().sum())
                    num_tokens += len(logprobs[i])
        [gap] = self.mean_over_processes([gap], [float(num_tokens)])
        return logprobs, torch.stack([contexts[i] for i in range(len(turns))]), gap

    def _fit_value(self, judgement: Judgement) -> dict[str, float]:
        """Fit the value head alone to the returns of a rollout, which are made anew for each pass; its figures."""
        rng = stream(self.phase.seed, self.phase.name, self.step, "value", self.global_rank)
        self.all_optimizers()[-1].param_groups[0]["lr"] = self.algorithm.value_lr
        order, num, self.num_passes = list(range(len(judgement.context_BD))), self.algorithm.minibatches, 0.0
        sums = torch.zeros(2, len(self.figures), dtype=torch.float64)
        for _ in range(FIT_PASSES):
            advantage_B, value_B = judgement.estimate(self.value_head)
            return_B = (advantage_B + value_B).float().to(self.device)
            rng.shuffle(order)
            sums = torch.zeros_like(sums)
            for chosen in (order[number::num] for number in range(num)):
                sums += self._fit_step(judgement.context_BD[chosen], return_B[chosen])
        return {
            "loss_value": self.means(sums)["loss_value"],
            "grad_norm_value": sum(self._value_norms) / len(self._value_norms),
        }

    def _fit_step(self, context_BD: Tensor, return_B: Tensor) -> Tensor:
        """One optimizer step of the value head; sums of `figures`, of which there is its error alone."""
        rows = strategies.gather_rows([float(len(return_B))], self.device)
        error_B = F.mse_loss(self.value_head(context_BD), return_B, reduction="none")
        self.manual_backward(error_B.sum() * (self.gradient_scale() / sum(row[0] for row in rows)))
        sums = torch.zeros(2, len(self.figures), dtype=torch.float64, device=self.device)
        at = self.figures.index("loss_value")
        sums[0, at], sums[1, at] = error_B.detach().double().sum(), len(return_B)
        return self.optimize(sums)[0]

    def _action_logprobs(self, scores: TokenScores, logprobs_N: Tensor, num: int) -> Tensor:
        """log pi(action) (B) by equation 4.3; `logprobs_N`: those of `scores`, or differences of them."""
        weights_N = token_weights(scores.segments_N, self.algorithm.thought_weight)
        return sum_rows(weights_N * logprobs_N, scores.rows_N, num)

    def _policy_loss(
        self, scores: TokenScores, logratio_N: Tensor, advantage_B: Tensor, total_rows: float, total_tokens: float
    ) -> tuple[Tensor, Tensor]:
        """Losses of responses or tokens, whose sum over a batch is its loss, and the logarithms of the ratios."""
        settings = self.algorithm
        if settings.ratio == "response":
            logratios = self._action_logprobs(scores, logratio_N, len(advantage_B))
            return clipped_loss(logratios, advantage_B, settings.clip, settings.clip) / total_rows, logratios
        weights_N = token_weights(scores.segments_N, settings.thought_weight)
        losses_N = weights_N * clipped_loss(logratio_N, advantage_B[scores.rows_N], settings.clip, settings.clip)
        return losses_N / (total_tokens if settings.credit == "token" else total_rows), logratio_N[weights_N > 0]

    def _step(self, chosen: Sequence[int], encoded: Sequence[Encoded], played: _Played) -> tuple[Tensor, float]:
        """One optimizer step on some turns; sums of `figures` and the numbers that they are of (2, F)."""
        settings = self.algorithm
        mine = [float(len(chosen)), float(sum(len(played.logprobs[i]) for i in chosen))]
        num_rows, num_tokens = (sum(column) for column in zip(*strategies.gather_rows(mine, self.device), strict=True))
        scale = self.gradient_scale()
        sums = torch.zeros(2, len(self.figures), dtype=torch.float64, device=self.device)
        with self.computing():
            for part, batch in self.micro_batches(encoded, chosen):
                scores = self.scores(batch)
                if not part:
                    self.manual_backward((scores.logprobs_N.sum() + scores.context_BD.sum()) * 0.0)
                    continue
                advantage_B, return_B = (
                    values[part].to(self.device) for values in (played.advantage_B, played.return_B)
                )
                logratio_N = scores.logprobs_N - torch.cat([played.logprobs[i] for i in part]).to(self.device)
                losses, logratios = self._policy_loss(scores, logratio_N, advantage_B, num_rows, num_tokens)
                context_BD = scores.context_BD if settings.value_trains == "model" else scores.context_BD.detach()
                error_B = F.mse_loss(self.value_head(context_BD), return_B, reduction="none")
                self.manual_backward((losses.sum() + settings.value_weight * error_B.sum() / num_rows) * scale)
                with torch.no_grad():
                    beyond = (logratios.exp() - 1).abs() > settings.clip
                    lengths_B = torch.bincount(scores.rows_N, minlength=len(part)).clamp(min=1)
                    entropy_B = sum_rows(scores.entropies_N, scores.rows_N, len(part)) / lengths_B
                    kl_N = logratio_N.exp() - 1 - logratio_N
                    loss_B = losses.sum()[None] * num_rows
                    for at, values in enumerate((loss_B, error_B, kl_N, beyond, entropy_B)):
                        sums[0, at] += values.double().sum()
                        sums[1, at] += len(part) if values is loss_B else len(values)
        return self.optimize(sums)
