"""Group relative policy optimisation: several responses to each problem, judged against each other, no value head.

A group plays the same episode; the advantage of an episode is its return against the group's and holds for all its
tokens. With `turn_weight` a turn has one of its own beside it: what followed against what followed in the same state
elsewhere in the group (GiGPO, arXiv 2505.10978). States are the same where the policy sees the same: prompt and pixels.
The loss is PPO's per token, with its two clipping bounds apart, plus the divergence from a reference model.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from vlmreason.answering.rollout import Episode, Turn
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.processor import Encoded
from vlmreason.structure import check_positive
from vlmreason.training.engine import strategies
from vlmreason.training.reinforced.objectives import (
    Normalisation,
    clipped_loss,
    group_advantages,
    kl_to_reference,
    returns_from,
    token_scales,
    token_weights,
    turn_advantages,
)
from vlmreason.training.reinforced.policy import Policy
from vlmreason.training.reinforced.settings import ReinforcementSettings


@dataclass(frozen=True, kw_only=True)
class GRPOSettings(ReinforcementSettings):
    """conf/algorithm/grpo.yaml.

    groups: problems of an update, over all processes; group_size: episodes of each. clip_low, clip_high: bounds of the
    probability ratio below and above 1. kl_weight: of the divergence from the policy that the phase began with.
    normalisation: of the loss over tokens (training/reinforced/objectives.py). filter: leave out groups whose
    returns are equal. turn_weight: of a turn's own advantage, among the turns of its group in an equal state, beside
    the episode's, None: there is none; gamma: discount per turn of what follows it, with turn_weight alone, None: 1.
    imitate: "right" makes the same responses likelier that are right (`step_accuracy`) in place of all this, as
    supervised training on the model's own right answers does: advantages and bounds then have no effect. None: not.
    """

    groups: int
    group_size: int
    clip_low: float
    clip_high: float
    kl_weight: float
    normalisation: Normalisation
    filter: bool
    turn_weight: float | None = None
    gamma: float | None = None
    imitate: Literal["right"] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "groups", where="algorithm.")
        if self.group_size < 2:
            raise ValueError(f"algorithm.group_size={self.group_size}: 2 or more are expected, one has no others")
        if not 0 < self.clip_low <= 1 or self.clip_high <= 0:
            raise ValueError(f"algorithm.clip_low={self.clip_low} algorithm.clip_high={self.clip_high}: more than 0")
        if self.kl_weight < 0:
            raise ValueError(f"algorithm.kl_weight={self.kl_weight}: 0 or more is expected")
        if self.turn_weight is not None and self.turn_weight <= 0:
            raise ValueError(f"algorithm.turn_weight={self.turn_weight}: more than 0, or null, is expected")
        if self.gamma is not None and self.turn_weight is None:
            raise ValueError(f"algorithm.gamma={self.gamma}: has an effect with algorithm.turn_weight alone")
        if self.gamma is not None and not 0 <= self.gamma <= 1:
            raise ValueError(f"algorithm.gamma={self.gamma}: allowed is 0 to 1, or null")
        if self.imitate and self.turn_weight is not None:
            raise ValueError(f"algorithm.turn_weight={self.turn_weight}: has no effect with algorithm.imitate=right")
        if self.groups * self.group_size < self.minibatches:
            raise ValueError(f"algorithm.minibatches={self.minibatches}: more than the responses of an update")


@dataclass
class _Drawn:
    """What is known of the turns of an update before it."""

    logprobs: list[Tensor]  # (N) of each turn
    references: list[Tensor] | None  # of the reference, where there is one
    advantages: list[float]


class GroupRelativePolicyOptimization(Policy):
    algorithm: GRPOSettings
    figures = ("loss", "kl", "kl_reference", "clipped", "entropy")

    def __init__(self, *args: Any, reference: Callable[[], Learner] | None = None, **options: Any) -> None:
        """`reference`: makes the learner with which the phase began, which is held where the divergence counts."""
        super().__init__(*args, **options)
        self._make_reference = reference
        self._reference: Learner | None = None
        self._groups: dict[int, list[float]] = {}
        self._group_of: list[tuple[int, int]] = []
        self._used: list[int] = []

    def trained_on(self, encoded: Sequence[Encoded]) -> Sequence[Encoded]:
        return [encoded[i] for i in self._used]

    def on_fit_start(self) -> None:
        if self.algorithm.groups < strategies.group_size():
            raise ValueError(f"algorithm.groups={self.algorithm.groups}: one or more for every process is expected")
        if self.algorithm.kl_weight and self._reference is None:
            assert self._make_reference is not None
            self._reference = self.hold_start(self._make_reference)

    def roll_out(self) -> list[Turn]:
        settings, world = self.algorithm, strategies.group_size()
        episodes: dict[int, Episode] = {}
        for group in range(self.global_rank, settings.groups, world):
            for member in range(settings.group_size):
                slot = group * settings.group_size + member
                episodes[slot] = self.rollouts.begin(self.step * settings.groups + group)
        turns: list[Turn] = []
        self._groups, self._group_of = {}, []
        number = 0
        while episodes:
            for slot, turn in self.rollouts.play(self.engine, episodes, self.step, number).items():
                turns.append(turn)
                group, member = divmod(slot, settings.group_size)
                self._group_of.append((group, member))
                if turn.outcome.done:
                    self._groups.setdefault(group, [0.0] * settings.group_size)[member] = turn.gained
                    del episodes[slot]
            number += 1
        return turns

    def improve(self, turns: Sequence[Turn], encoded: Sequence[Encoded]) -> dict[str, float]:
        settings = self.algorithm
        groups = sorted(self._groups)
        returns_GN = torch.tensor([self._groups[group] for group in groups], dtype=torch.float64)
        advantages_GN = group_advantages(returns_GN, settings.normalisation)
        of_group = dict(zip(groups, advantages_GN.tolist(), strict=True))
        advantages = [of_group[group][member] for group, member in self._group_of]
        weight = settings.turn_weight
        figures = {} if weight is None else self._add_turns(turns, advantages, weight)
        if settings.imitate:
            advantages = [float(turn.outcome.parts.get("step_accuracy", 0.0) == 1.0) for turn in turns]
        heard = {group for (group, _), value in zip(self._group_of, advantages, strict=True) if abs(value) > 1e-8}
        silent = set(groups) - heard
        used = [
            i
            for i, (group, _) in enumerate(self._group_of)
            if not (settings.filter and (group in silent or (settings.imitate and not advantages[i])))
        ]
        self._used = used
        [no_signal] = self.mean_over_processes([float(len(silent))], [float(len(groups))])
        rows = strategies.gather_rows([float(len(used))], self.device)
        factor = self.begin_step()
        figures |= {"no_signal": no_signal, "lr": self.settings.lr * factor}
        if not sum(row[0] for row in rows):
            self.sum_over_processes(torch.zeros(1, dtype=torch.float64, device=self.device))  # asks whether to stop
            return figures
        drawn, gap = self._look(turns, encoded, advantages, used)
        totals, norm = self.make_steps(used, lambda chosen: self._step(chosen, encoded, drawn))
        figures |= self.means(totals)
        if self._reference is None:
            del figures["kl_reference"]
        figures["loss"] = float(totals[0, 0]) / (self.num_passes * settings.minibatches)
        return figures | {"rollout_gap": gap, "grad_norm": norm}

    def _add_turns(self, turns: Sequence[Turn], advantages: list[float], weight: float) -> dict[str, float]:
        """Add to the advantages of turns their own, in place; returns the share of turns in a state with others."""
        gamma = self.algorithm.gamma
        episodes: dict[tuple[int, int], list[int]] = {}
        for place, episode in enumerate(self._group_of):
            episodes.setdefault(episode, []).append(place)
        following = [0.0] * len(turns)
        for places in episodes.values():
            found = returns_from([turns[place].reward for place in places], 1.0 if gamma is None else gamma)
            for place, value in zip(places, found, strict=True):
                following[place] = value
        states = [(group, *_seen(turn)) for (group, _), turn in zip(self._group_of, turns, strict=True)]
        own, num_shared = turn_advantages(following, states, self.algorithm.normalisation)
        for place, value in enumerate(own):
            advantages[place] += weight * value
        [shared] = self.mean_over_processes([float(num_shared)], [float(len(turns))])
        return {"shared_states": shared}

    @torch.no_grad()
    def _look(
        self, turns: Sequence[Turn], encoded: Sequence[Encoded], advantages: list[float], used: Sequence[int]
    ) -> tuple[_Drawn, float]:
        """Log-probabilities per token before the update and of the reference, and the gap to those of the rollout."""
        nothing = torch.zeros(0)
        drawn = _Drawn([nothing] * len(turns), [nothing] * len(turns) if self._reference else None, advantages)
        gap, num_tokens = 0.0, 0
        for part, batch in self.micro_batches(encoded, used):
            with self.computing():
                scores = self.scores(batch)
            known = [(drawn.logprobs, scores)]
            if self._reference is not None and drawn.references is not None:
                known.append((drawn.references, self._reference.token_scores(batch, self.algorithm.temperature)))
            for row, i in enumerate(part):
                for logprobs, found in known:
                    logprobs[i] = found.logprobs_N[found.rows_N == row].cpu()
                gap += float((torch.tensor(turns[i].sample.logprobs) - drawn.logprobs[i]).abs().sum())
                num_tokens += len(drawn.logprobs[i])
        [gap] = self.mean_over_processes([gap], [float(num_tokens)])
        return drawn, gap

    def _step(self, chosen: Sequence[int], encoded: Sequence[Encoded], drawn: _Drawn) -> tuple[Tensor, float]:
        """One optimizer step on some turns; its loss, sums over tokens of the other `figures`, and their number."""
        settings = self.algorithm
        mine = [float(sum(len(drawn.logprobs[i]) for i in chosen)), float(len(chosen))]
        total_tokens, total_rows = (sum(c) for c in zip(*strategies.gather_rows(mine, self.device), strict=True))
        most = settings.groups * settings.group_size * settings.max_new_tokens / settings.minibatches
        sums = torch.zeros(2, len(self.figures), dtype=torch.float64, device=self.device)
        if not total_rows:
            return self.optimize(sums)
        with self.computing():
            for part, batch in self.micro_batches(encoded, chosen):
                scores = self.scores(batch)
                if not part:
                    self.manual_backward(scores.logprobs_N.sum() * 0.0)
                    continue
                old_N = torch.cat([drawn.logprobs[i] for i in part]).to(self.device)
                advantage_B = torch.tensor([drawn.advantages[i] for i in part], device=self.device)
                logratio_N = scores.logprobs_N - old_N
                advantage_N = advantage_B[scores.rows_N]
                if settings.imitate:
                    loss_N = -scores.logprobs_N * advantage_N
                else:
                    loss_N = clipped_loss(logratio_N, advantage_N, settings.clip_low, settings.clip_high)
                loss_N = loss_N * token_weights(scores.segments_N, settings.thought_weight)
                to_reference_N = torch.zeros_like(loss_N)
                if drawn.references is not None:
                    reference_N = torch.cat([drawn.references[i] for i in part]).to(self.device)
                    to_reference_N = kl_to_reference(scores.logprobs_N, reference_N)
                    loss_N = loss_N + settings.kl_weight * to_reference_N
                scale_N = token_scales(scores.rows_N, len(part), settings.normalisation, total_tokens, total_rows, most)
                loss = (loss_N * scale_N).sum()
                self.manual_backward(loss * self.gradient_scale())
                with torch.no_grad():
                    ratio_N = logratio_N.exp()
                    beyond_N = (ratio_N < 1 - settings.clip_low) | (ratio_N > 1 + settings.clip_high)
                    kl_N = ratio_N - 1 - logratio_N
                    figures = (kl_N, to_reference_N, beyond_N, scores.entropies_N)
                    sums[0] += torch.stack([loss.double(), *(figure.double().sum() for figure in figures)])
                    sums[1] += len(kl_N)
        return self.optimize(sums)


def _seen(turn: Turn) -> tuple[str, bytes]:
    """What the policy is shown in a turn, as a key."""
    return turn.prompt.text, b"" if turn.prompt.image is None else turn.prompt.image.tobytes()
