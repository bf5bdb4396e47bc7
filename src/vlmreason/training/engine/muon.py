"""Muon with the Newton-Schulz iteration in float32, matrices of one shape together.

torch.optim.Muon iterates in bfloat16, which processors without it compute several times slower than float32. Otherwise
the same: Nesterov momentum, the rate scaled by the root of rows over columns where there are more rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

_COEFFICIENTS = (3.4445, -4.7750, 2.0315)
_NUM_ITERATIONS = 5
_SMALLEST = 1e-7


class Float32Muon(torch.optim.Optimizer):
    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.0, momentum: float = 0.95
    ) -> None:
        """Raises ValueError for sharded parameters."""
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        if any(isinstance(parameter, DTensor) for group in self.param_groups for parameter in group["params"]):
            raise ValueError("optimizer.orthogonal=float32: not with sharded models; trainer.strategy=ddp, or bfloat16")

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            shapes: dict[torch.Size, list[nn.Parameter]] = {}
            for parameter in group["params"]:
                if parameter.grad is not None:
                    shapes.setdefault(parameter.shape, []).append(parameter)
            for (rows, columns), parameters in shapes.items():
                updates = orthogonal(torch.stack([self._nesterov(one, group["momentum"]) for one in parameters]))
                rate = group["lr"] * math.sqrt(max(1.0, rows / columns))
                for parameter, update in zip(parameters, updates, strict=True):
                    parameter.mul_(1 - group["lr"] * group["weight_decay"])
                    parameter.add_(update.to(parameter.dtype), alpha=-rate)
        return loss

    def _nesterov(self, parameter: nn.Parameter, momentum: float) -> Tensor:
        assert parameter.grad is not None
        state, gradient = self.state[parameter], parameter.grad.float()
        if not state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        buffer: Tensor = state["momentum_buffer"]
        buffer.lerp_(gradient, 1 - momentum)
        return gradient.lerp(buffer, momentum)


def orthogonal(matrices_NRC: Tensor) -> Tensor:
    """Return matrices of nearly the same singular vectors whose singular values are near 1."""
    rows, columns = matrices_NRC.shape[1:]
    x = matrices_NRC.mT if rows > columns else matrices_NRC
    x = x / x.norm(dim=(1, 2), keepdim=True).clamp(min=_SMALLEST)
    a, b, c = _COEFFICIENTS
    for _ in range(_NUM_ITERATIONS):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    found: Tensor = x.mT if rows > columns else x
    return found
