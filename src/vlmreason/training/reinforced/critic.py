"""The critic of PPO: the value of a state, read off the prompt, and how it is fitted before the policy moves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from vlmreason.answering.rollout import Turn
from vlmreason.streams import stream
from vlmreason.training.reinforced.objectives import generalised_advantages

FIT_PASSES = 20
"""Passes over a rollout on which the head alone is fitted: it sees hidden states that are there already."""


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


class Judgement:
    """What a critic says of the turns of an update: S episodes side by side, T turns of each, B = S T."""

    def __init__(self, turns: list[Turn], context_BD: Tensor, next_SD: Tensor, gamma: float, decay: float) -> None:
        """context_BD: hidden states of the turns, S by S; next_SD: of the states behind the last turns."""
        shape = (len(next_SD), len(turns) // len(next_SD))
        self.context_BD, self.next_SD, self.gamma, self.decay = context_BD, next_SD, gamma, decay
        self.rewards_ST = torch.tensor([turn.reward for turn in turns], dtype=torch.float64).view(shape)
        self.done_ST = torch.tensor([turn.outcome.done for turn in turns]).view(shape)

    @torch.no_grad()
    def estimate(self, head: ValueHead) -> tuple[Tensor, Tensor]:
        """Return generalised advantages (B), float64, and values (B) by the head as it is; on the CPU."""
        value_B, next_S = head(self.context_BD).cpu(), head(self.next_SD).cpu()
        value_ST = value_B.double().view(self.rewards_ST.shape)
        found_ST = generalised_advantages(
            self.rewards_ST, value_ST, self.done_ST, next_S.double(), self.gamma, self.decay
        )
        return found_ST.flatten(), value_B


def explained(value_B: Tensor, return_B: Tensor) -> float:
    """Return the share of the variance of returns that values explain; 0 where returns are all alike."""
    variance = float(return_B.var(correction=0))
    residual = float((return_B - value_B).var(correction=0))
    return 1 - residual / variance if variance > 0 else 0.0
