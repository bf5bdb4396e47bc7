"""Root-mean-square norms in one kernel on a GPU.

The library writes them as six operations with float32 results in between, which are read, written and kept for the
backward pass: after attention the largest part of a step that is no matrix product.
"""

from __future__ import annotations

import types
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def fuse_norms(model: Any) -> None:
    """Let norms of Llama's form, x / rms(x) * weight, take torch's kernel where there is one: for CUDA tensors."""
    for module in model.modules():
        if type(module).__name__.endswith("RMSNorm") and hasattr(module, "variance_epsilon"):
            module.in_steps = module.forward
            module.forward = types.MethodType(_forward, module)


def _forward(self: Any, hidden_states: Tensor) -> Tensor:
    if _has_kernel(hidden_states, self.weight):
        return F.rms_norm(hidden_states, self.weight.shape, self.weight, self.variance_epsilon)
    found: Tensor = self.in_steps(hidden_states)
    return found


def _has_kernel(hidden_states: Tensor, weight: Tensor) -> bool:
    return hidden_states.is_cuda and hidden_states.dtype == weight.dtype and not torch.is_autocast_enabled("cuda")
