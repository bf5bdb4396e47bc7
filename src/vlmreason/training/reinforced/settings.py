"""The settings of conf/algorithm/ that PPO and GRPO share."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from vlmreason.structure import check_positive, speed


@dataclass(frozen=True)
class VllmSettings:
    """algorithm.vllm: how much of the GPU vLLM takes, and how it runs.

    gpu_memory_utilization: share of the GPU's memory, 0 to 1, beside the learner's; max_model_len: tokens of a prompt
    with its response, null: as many as fit; enforce_eager: without CUDA graphs; sleep: give the memory back between
    rollouts.
    """

    gpu_memory_utilization: float = 0.3
    max_model_len: int | None = None
    enforce_eager: bool = False
    sleep: bool = True

    def __post_init__(self) -> None:
        share, length = self.gpu_memory_utilization, self.max_model_len
        if not 0 < share <= 1:
            raise ValueError(f"algorithm.vllm.gpu_memory_utilization={share}: more than 0, at most 1 is expected")
        if length is not None and length < 1:
            raise ValueError(f"algorithm.vllm.max_model_len={length}: 1 or more, or null, is expected")


@dataclass(frozen=True)
class AlarmSettings:
    """When a policy counts as collapsing: a warning, once, and `alarm_...` in the metrics. null: never.

    entropy: least mean entropy of a response token (nats); response_tokens: least mean length of a response; cut_off,
    unparsed: largest share of responses that reach the length limit, that cannot be read; kl: largest mean divergence
    from the policy before the update (nats per token, whatever tokens weigh); clipped: largest share of probability
    ratios beyond their bounds.
    """

    entropy: float | None = 0.001
    response_tokens: float | None = 2.0
    cut_off: float | None = 0.5
    unparsed: float | None = 0.5
    kl: float | None = 0.05
    clipped: float | None = 0.5

    def beyond(self, figures: Mapping[str, float]) -> list[str]:
        """Return names of the limits that figures of an update are beyond."""
        limits = {name: limit for name, limit in vars(self).items() if limit is not None and name in figures}
        least = ("entropy", "response_tokens")
        return [name for name, at in limits.items() if (figures[name] < at if name in least else figures[name] > at)]


@dataclass(frozen=True, kw_only=True)
class ReinforcementSettings:
    """What all algorithms of conf/algorithm/ have.

    updates: rollouts with the optimizer steps on them; these are the steps of the phase.
    epochs: passes over a rollout; minibatches: optimizer steps of one pass; kl_limit: a step that finds the mean
    divergence from the policy before the update beyond it (nats per token) is the update's last; null: none is.
    max_new_tokens: length limit of a response (tokens); temperature: of sampling, and of the policy's probabilities.
    thought_weight: lambda of equation 4.3, weight of the tokens before the answer.
    rewards: weights of rewards by name; those not named have their entry's own (Env.rewards, envs/rewards.py).
    optimizer: what differs from the run's optimizer. evaluate_every, checkpoint_every: in updates; 0: off.
    engine: what generates the rollouts; vllm: its settings (training/reinforced/vllm_engine.py).
    """

    name: str
    updates: int
    epochs: int
    minibatches: int
    max_new_tokens: int
    temperature: float
    thought_weight: float
    kl_limit: float | None = None
    rewards: dict[str, float] = field(default_factory=dict)
    optimizer: dict[str, Any] = field(default_factory=dict)
    evaluate_every: int = 1
    checkpoint_every: int = speed(5)
    alarms: AlarmSettings = speed(AlarmSettings())
    engine: Literal["learner", "vllm"] = "learner"
    vllm: VllmSettings = speed(VllmSettings())

    def __post_init__(self) -> None:
        names = ("updates", "epochs", "minibatches", "max_new_tokens", "checkpoint_every")
        check_positive(self, *names, where="algorithm.")
        if self.temperature <= 0:
            raise ValueError(f"algorithm.temperature={self.temperature}: more than 0 is expected")
        if not 0 <= self.thought_weight <= 1:
            raise ValueError(f"algorithm.thought_weight={self.thought_weight}: allowed is 0 to 1")
        if self.kl_limit is not None and self.kl_limit <= 0:
            raise ValueError(f"algorithm.kl_limit={self.kl_limit}: more than 0, or null, is expected")
        for name, weight in self.rewards.items():
            if not math.isfinite(weight):
                raise ValueError(f"algorithm.rewards.{name}={weight}: a finite number is expected")
        if self.evaluate_every < 0:
            raise ValueError(f"algorithm.evaluate_every={self.evaluate_every}: 0 or more is expected")
