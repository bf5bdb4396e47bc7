"""Proximal policy optimisation of a vision-language model that acts by text (chapter 4, algorithm 1).

A turn is one action: its log-probability is lambda times that of the tokens before the answer plus that of the answer's
(equation 4.3); a value head reads the state off the prompt's last token; advantages are generalised estimates.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreason.answering.rollout import Slots, Turn
from vlmreason.models.vlm.processor import Encoded
from vlmreason.streams import stream
from vlmreason.structure import check_positive
from vlmreason.training.engine import strategies
from vlmreason.training.reinforced.objectives import clipped_loss, generalised_advantages, sum_rows, token_weights
from vlmreason.training.reinforced.policy import Policy
from vlmreason.training.reinforced.settings import ReinforcementSettings


@dataclass(frozen=True, kw_only=True)
class PPOSettings(ReinforcementSettings):
    """conf/algorithm/ppo.yaml.

    parallel: episodes side by side, over all processes; turns: of each, in one update (their product is the number of
    transitions). gamma, decay: of generalised advantage estimation. clip: of the probability ratio. value_weight: of
    the value's squared error in the loss, which trains the head alone or the model too (value_trains); value_lr: peak
    learning rate of the value head.
    """

    parallel: int
    turns: int
    gamma: float
    decay: float
    clip: float
    value_weight: float
    value_lr: float
    value_trains: Literal["head", "model"] = "head"

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "parallel", "turns", where="algorithm.")
        for name in ("gamma", "decay"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"algorithm.{name}={getattr(self, name)}: allowed is 0 to 1")
        if self.value_weight < 0 or self.value_lr <= 0:
            raise ValueError(
                f"algorithm.value_weight={self.value_weight} algorithm.value_lr={self.value_lr}: 0 or more and more "
                "than 0 are expected"
            )
        if not 0 < self.clip < 1:
            raise ValueError(f"algorithm.clip={self.clip}: more than 0 and less than 1 is expected")
        if self.parallel * self.turns < self.minibatches:
            raise ValueError(
                f"algorithm.minibatches={self.minibatches}: more than the {self.parallel * self.turns} transitions"
            )


class ValueHead(nn.Module):
    """Three layers on a hidden state (appendix C.2); begins at zero."""

    def __init__(self, width: int, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(stream(seed, "value head").getrandbits(63))
        self.layers = nn.Sequential(
            nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 1)
        )
        with torch.no_grad():
            for layer in self.layers:
                if isinstance(layer, nn.Linear):
                    layer.weight.normal_(std=width**-0.5, generator=generator)
                    layer.bias.zero_()
            self.layers[-1].weight.zero_()  # type: ignore[operator]  # a layer, not a function

    def forward(self, hidden_BD: Tensor) -> Tensor:
        """Return values (B), in float32."""
        with torch.autocast(hidden_BD.device.type, enabled=False):
            value_B: Tensor = self.layers(hidden_BD.float())[:, 0]
        return value_B


@dataclass
class _Played:
    """What is known of the turns of an update before it, one entry per turn."""

    logprob_B: Tensor
    value_B: Tensor
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
        self._held: Mapping[str, Any] | None = None

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
            last_S = self._values_of_next()
        played, gap = self._look(turns, encoded, last_S)
        factor = self.begin_step()
        totals, norm = self.make_steps(range(len(turns)), lambda chosen: self._step(chosen, encoded, played))
        variance = float(played.return_B.var(correction=0))
        residual = float((played.return_B - played.value_B).var(correction=0))
        [explained] = self.mean_over_processes([1 - residual / variance if variance > 0 else 0.0], [1.0])
        return {
            **self.means(totals),
            "explained_variance": explained,
            "rollout_gap": gap,
            "grad_norm": norm,
            "lr": self.settings.lr * factor,
        }

    def _values_of_next(self) -> Tensor:
        """Values (S) of the states that come next in this process's slots, by the exact prompts of theirs."""
        prompts = [self.rollouts.prompt(episode.state) for episode in self.slots.episodes().values()]
        size = self.rollouts.batch_size
        parts = [
            self.value_head(self.learner.context(prompts[first : first + size]))
            for first in range(0, len(prompts), size)
        ]
        return torch.cat(parts).cpu()

    @torch.no_grad()
    def _look(self, turns: Sequence[Turn], encoded: Sequence[Encoded], last_S: Tensor) -> tuple[_Played, float]:
        """Log-probabilities, values and advantages before the update, and how far the rollout's own
        log-probabilities are from them (mean absolute difference per token, nats)."""
        logprob_B, value_B = torch.zeros(len(turns)), torch.zeros(len(turns))
        gap, num_tokens = 0.0, 0
        with self.computing():
            for part, batch in self.micro_batches(encoded, range(len(turns))):
                scores = self.scores(batch)
                if not part:
                    continue
                logprob_B[part] = self._action_logprobs(scores, len(part)).cpu()
                value_B[part] = self.value_head(scores.context_BD).cpu()
                drawn_N = torch.tensor([value for i in part for value in turns[i].sample.logprobs])
                gap += float((drawn_N - scores.logprobs_N.cpu()).abs().sum())
                num_tokens += len(drawn_N)
        shape = (len(last_S), self.algorithm.turns)
        rewards_ST = torch.tensor([turn.reward for turn in turns], dtype=torch.float64).view(shape)
        done_ST = torch.tensor([turn.outcome.done for turn in turns]).view(shape)
        advantage_B = generalised_advantages(
            rewards_ST, value_B.double().view(shape), done_ST, last_S.double(), self.algorithm.gamma,
            self.algorithm.decay,
        ).flatten()  # fmt: skip
        mean, square = self.mean_over_processes(
            [float(advantage_B.sum()), float((advantage_B**2).sum())], [len(turns), len(turns)]
        )
        spread = math.sqrt(max(0.0, square - mean**2))
        [gap] = self.mean_over_processes([gap], [num_tokens])
        return_B = (advantage_B + value_B).float()
        return _Played(logprob_B, value_B, ((advantage_B - mean) / (spread + 1e-8)).float(), return_B), gap

    def _action_logprobs(self, scores: Any, num: int) -> Tensor:
        """log pi(action) (B) by equation 4.3."""
        weights_N = token_weights(scores.segments_N, self.algorithm.thought_weight)
        return sum_rows(weights_N * scores.logprobs_N, scores.rows_N, num)

    def _step(self, chosen: Sequence[int], encoded: Sequence[Encoded], played: _Played) -> tuple[Tensor, float]:
        """One optimizer step on some turns; sums of `figures` over them, and their number."""
        settings = self.algorithm
        rows = strategies.gather_rows([float(len(chosen))], self.device)
        scale = self.gradient_scale() / sum(row[0] for row in rows)
        sums = torch.zeros(6, dtype=torch.float64, device=self.device)
        with self.computing():
            for part, batch in self.micro_batches(encoded, chosen):
                scores = self.scores(batch)
                if not part:
                    self.manual_backward((scores.logprobs_N.sum() + scores.context_BD.sum()) * 0.0)
                    continue
                old_B, advantage_B, return_B = (
                    values[part].to(self.device) for values in (played.logprob_B, played.advantage_B, played.return_B)
                )
                logratio_B = self._action_logprobs(scores, len(part)) - old_B
                loss_B = clipped_loss(logratio_B, advantage_B, settings.clip, settings.clip)
                context_BD = scores.context_BD if settings.value_trains == "model" else scores.context_BD.detach()
                value_B = F.mse_loss(self.value_head(context_BD), return_B, reduction="none")
                self.manual_backward((loss_B + settings.value_weight * value_B).sum() * scale)
                with torch.no_grad():
                    beyond_B = (logratio_B.exp() - 1).abs() > settings.clip
                    lengths_B = torch.bincount(scores.rows_N, minlength=len(part)).clamp(min=1)
                    entropy_B = sum_rows(scores.entropies_N, scores.rows_N, len(part)) / lengths_B
                    kl_B = logratio_B.exp() - 1 - logratio_B
                    figures = (loss_B, value_B, kl_B, beyond_B, entropy_B, torch.ones_like(loss_B))
                    sums += torch.stack([figure.double().sum() for figure in figures])
        return self.optimize(sums)
