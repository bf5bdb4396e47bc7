"""A gradient as a short vector of which inner products can be read: a count sketch, made block by block.

Every coordinate is added to one of `size` places with a random sign; place and sign depend on the seed, the number of
the parameter and the coordinate alone, so sketches of different checkpoints and machines are comparable. Nothing but
the sketch and one block of numbers is held.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

_BLOCK = 2**22


@dataclass(frozen=True)
class Projection:
    """`size`: length of the sketches."""

    size: int
    seed: int = 0

    def __post_init__(self) -> None:
        if not 16 <= self.size <= 2**30:
            raise ValueError(f"projection={self.size}: allowed is 16 to {2**30}")

    def __call__(self, gradient: Sequence[Tensor]) -> Tensor:
        """The sketch of a gradient given parameter by parameter."""
        sketch = torch.zeros(self.size, device=gradient[0].device)
        for number, tensor in enumerate(gradient):
            whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
            key = hashlib.blake2b(f"{self.seed} {number}".encode(), digest_size=7).digest()
            random = torch.Generator().manual_seed(int.from_bytes(key, "big"))
            for block in torch.split(whole.reshape(-1), _BLOCK):
                drawn = torch.randint(2 * self.size, (len(block),), generator=random).to(block.device)
                sketch.index_add_(0, drawn >> 1, block.float() * (2 * (drawn & 1) - 1))
        return sketch

    def error_of_alignment(self, alignment: float, simple_norm: float, hard_norm: float) -> float:
        """Return standard deviation of <s, h> / <h, h> over seeds, to first order in 1 / sqrt(size).

        Split s = a h + r with r orthogonal to h: the score errs by <Sr, Sh> / <Sh, Sh>, and the inner product of two
        sketches has a variance of at most (|r|^2 |h|^2 + <r, h>^2) / size.
        """
        orthogonal = max(0.0, (simple_norm / hard_norm) ** 2 - alignment**2)
        return math.sqrt(orthogonal / self.size)

    def error_of_cosine(self, cosine: float) -> float:
        """Return standard deviation of the cosine over seeds, to first order: at most (1 - cosine^2) / sqrt(size)."""
        return (1 - min(1.0, cosine**2)) / math.sqrt(self.size)

    def error_of_norm(self) -> float:
        """Return standard deviation of a norm relative to it, to first order."""
        return 1 / math.sqrt(2 * self.size)
