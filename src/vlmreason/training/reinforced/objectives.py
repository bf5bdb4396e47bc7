"""What reinforcement learning optimises, as pure functions of tensors: token weights, advantages, clipped losses."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import Literal

import torch
from torch import Tensor

from vlmreason.segments import ACTING

Normalisation = Literal["token_mean", "sequence_mean", "dr_grpo"]


def token_weights(segments_N: Tensor, thought_weight: float) -> Tensor:
    """Return weight of each response token in log pi(action): 1 in a segment that acts, `thought_weight` in all others
    (equation 4.3)."""
    acts_N = torch.stack([segments_N == number for number in ACTING]).any(dim=0)
    return torch.where(acts_N, 1.0, thought_weight)


def sum_rows(values_N: Tensor, rows_N: Tensor, num_rows: int) -> Tensor:
    """Return sums (B) of the values of each row."""
    return values_N.new_zeros(num_rows).index_add(0, rows_N, values_N)


def generalised_advantages(
    rewards_ST: Tensor, values_ST: Tensor, done_ST: Tensor, last_value_S: Tensor, gamma: float, decay: float
) -> Tensor:
    """Return Generalised advantage estimates (S, T) of S environments over T turns (Schulman et al., 2016).

    done_ST: whether an episode ended with the turn; last_value_S: of the state behind the last turn.
    """
    advantages_ST = torch.zeros_like(rewards_ST)
    next_value_S, next_advantage_S = last_value_S, torch.zeros_like(last_value_S)
    for t in reversed(range(rewards_ST.shape[1])):
        going_on_S = 1.0 - done_ST[:, t].to(rewards_ST.dtype)
        delta_S = rewards_ST[:, t] + gamma * next_value_S * going_on_S - values_ST[:, t]
        next_advantage_S = delta_S + gamma * decay * going_on_S * next_advantage_S
        advantages_ST[:, t] = next_advantage_S
        next_value_S = values_ST[:, t]
    return advantages_ST


def group_advantages(returns_GN: Tensor, normalisation: Normalisation) -> Tensor:
    """Return returns less the mean of their group; but for dr_grpo in units of the group's standard deviation.

    Groups of equal returns get zeros: they carry no signal.
    """
    centred_GN = returns_GN - returns_GN.mean(dim=1, keepdim=True)
    if normalisation == "dr_grpo":
        return centred_GN
    spread_GN = returns_GN.std(dim=1, keepdim=True, correction=0)
    return torch.where(spread_GN > 1e-8, centred_GN / spread_GN.clamp(min=1e-8), 0.0)


def turn_advantages(
    returns: Sequence[float], states: Sequence[Hashable], normalisation: Normalisation
) -> tuple[list[float], int]:
    """Return what each turn brought against the other turns in its state, as `group_advantages`, and how many have any.

    returns: of the rewards from each turn on. A turn in a state of its own gets 0 (GiGPO, arXiv 2505.10978).
    """
    places: dict[Hashable, list[int]] = {}
    for place, state in enumerate(states):
        places.setdefault(state, []).append(place)
    advantages, num_shared = [0.0] * len(returns), 0
    for together in places.values():
        of_state_1N = torch.tensor([[returns[place] for place in together]], dtype=torch.float64)
        for place, advantage in zip(together, group_advantages(of_state_1N, normalisation)[0].tolist(), strict=True):
            advantages[place] = advantage
        num_shared += len(together) if len(together) > 1 else 0
    return advantages, num_shared


def returns_from(rewards: Sequence[float], gamma: float) -> list[float]:
    """Return the discounted sum of the rewards from each turn of an episode to its end."""
    found, after = [], 0.0
    for reward in reversed(rewards):
        after = reward + gamma * after
        found.append(after)
    return found[::-1]


def clipped_loss(logratios: Tensor, advantages: Tensor, clip_low: float, clip_high: float) -> Tensor:
    """Return PPO's pessimistic loss, element by element: - min(r A, clip(r, 1 - clip_low, 1 + clip_high) A)."""
    ratios = logratios.exp()
    return -torch.minimum(ratios * advantages, ratios.clamp(1 - clip_low, 1 + clip_high) * advantages)


def kl_to_reference(logprobs_N: Tensor, reference_N: Tensor) -> Tensor:
    """Estimate per token of KL(policy || reference) from the policy's own tokens: never negative, unbiased."""
    difference_N = reference_N - logprobs_N
    return difference_N.exp() - difference_N - 1


def token_scales(
    rows_N: Tensor, num_rows: int, normalisation: Normalisation, total_tokens: float, total_rows: float, most: float
) -> Tensor:
    """Return what each token's loss is multiplied by, so that the sum over a batch is its normalised loss.

    token_mean: one over the tokens of the batch; sequence_mean: over those of its response and the responses of the
    batch (it shortens right answers and lengthens wrong ones); dr_grpo: over `most`, a constant, whatever the batch
    is: how many tokens it would have with the longest responses and no group left out (arXiv 2503.20783).
    """
    if normalisation == "token_mean":
        return torch.full(rows_N.shape, 1.0 / total_tokens, device=rows_N.device)
    if normalisation == "dr_grpo":
        return torch.full(rows_N.shape, 1.0 / most, device=rows_N.device)
    lengths_B = torch.bincount(rows_N, minlength=num_rows).clamp(min=1)
    return 1.0 / (total_rows * lengths_B[rows_N].float())
