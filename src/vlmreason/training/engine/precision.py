"""The types in which a phase keeps its weights and computes.

    32-true      float32 throughout
    bf16-mixed   trained weights in float32, as steps of an optimizer vanish in bfloat16. A model that was loaded in
                 half precision is computed in bfloat16, through casts of these weights that are made once per
                 step; one that was loaded in float32 under autocast, which leaves norms and sums in float32
    bf16-true    bfloat16 throughout

Only parameters are cast: the wave lengths of rotary positions are buffers, and in bfloat16 late positions fall
together.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from vlmreason.training.engine.settings import PrecisionName


def is_half(model: nn.Module) -> bool:
    """Tell whether (frozen or not yet trained) weights are in half precision."""
    return any(parameter.dtype.itemsize == 2 for parameter in model.parameters())


def prepare(model: nn.Module, trained: Collection[nn.Parameter], precision: PrecisionName, sharded: bool) -> None:
    """Give the parameters of a phase their types, in place. Sharded models hold weights of one type only."""
    float32 = {id(parameter) for parameter in trained}
    for parameter in model.parameters():
        wide = precision == "32-true" or (precision == "bf16-mixed" and (sharded or id(parameter) in float32))
        dtype = torch.float32 if wide else torch.bfloat16
        if parameter.dtype != dtype and (wide or parameter.dtype.itemsize == 2 or precision == "bf16-true"):
            parameter.data = parameter.data.to(dtype)


def lightning_name(precision: PrecisionName, half: bool) -> Any:
    """Return Lightning's `precision`: autocast only where it is wanted; its own bf16-true would cast buffers too."""
    return precision if precision == "bf16-mixed" and not half else "32-true"


def computed(precision: PrecisionName, half: bool) -> torch.dtype:
    """Return the type of the pictures that a model takes."""
    return torch.bfloat16 if precision == "bf16-true" or (precision == "bf16-mixed" and half) else torch.float32


@contextmanager
def narrowed(model: nn.Module) -> Iterator[None]:
    """Make the float32 parameters of a model bfloat16 casts, through which their gradients flow, for the block."""
    casts: dict[int, Tensor] = {}
    kept: list[tuple[dict[str, Any], str, nn.Parameter]] = []
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None and parameter.dtype == torch.float32:
                kept.append((module._parameters, name, parameter))
                if id(parameter) not in casts:
                    casts[id(parameter)] = parameter.to(torch.bfloat16)
    try:
        for held, name, parameter in kept:
            held[name] = casts[id(parameter)]
        yield
    finally:
        for held, name, parameter in kept:
            held[name] = parameter
