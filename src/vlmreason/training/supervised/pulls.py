"""What may stand beside the cross entropy of a phase: how far its tokens are from where they should be."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import ClassVar

from torch import Tensor

from vlmreason.models.vlm.learner import Learner


class Pull(ABC):
    """A term of the loss; `counted`: the number of a step, over all processes, that its mean is over."""

    counted: ClassVar[str]

    def __init__(self, weight: float) -> None:
        self.weight = weight

    def begin(self, hold: Callable[[Callable[[], Learner]], Learner]) -> None:  # noqa: B027 (not all need it)
        """Get what is needed while training, from where the phase begins; `hold`: `PhaseModule.hold_start`."""

    @abstractmethod
    def losses(self, learner: Learner, micro: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Return losses (N) and segment numbers (N) as `Learner.token_losses`, and divergences (M), in nats."""


class Staying(Pull):
    """`kl_weight` of a phase: every response token stays near what the model that `start` makes gives it."""

    counted = "num_targets"

    def __init__(self, weight: float, start: Callable[[], Learner]) -> None:
        super().__init__(weight)
        self._make = start
        self._start: Learner | None = None

    def begin(self, hold: Callable[[Callable[[], Learner]], Learner]) -> None:
        self._start = hold(self._make)

    def losses(self, learner: Learner, micro: Mapping[str, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        assert self._start is not None, "begin comes first"
        losses_N, apart_N, segments_N = learner.losses_and_divergences(micro, self._start)
        return losses_N, segments_N, apart_N
