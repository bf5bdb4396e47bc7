"""The sizes that go with each other: conf/scale/."""

from __future__ import annotations

import dataclasses
from typing import Literal

from vlmreason.structure import speed


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scale:
    """Everything whose size goes with the others: conf/scale/. Numbers are examples, problems or tokens."""

    name: Literal["nano", "paper"]
    num_examples: int
    num_align: int
    num_warmup: int
    batch_size: int
    micro_tokens: int = speed()
    optimizer: Literal["adamw", "muon"]
    lr: float
    muon_lr: float | None
    num_problems: int
    max_response_tokens: int
    max_length: int
    trace: Literal["terse", "verbose"]
    precision: Literal["32-true", "bf16-mixed", "bf16-true"] = speed("bf16-mixed")  # a run has it as trainer.precision

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, int) and value < 1:
                raise ValueError(f"scale.{field.name}={value}: 1 or more is expected")
        if self.lr <= 0:
            raise ValueError(f"scale.lr={self.lr}: more than 0 is expected")
