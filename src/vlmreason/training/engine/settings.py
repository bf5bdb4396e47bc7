"""How a run is computed: the settings of the group `trainer`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from vlmreason.structure import check_positive, speed

PrecisionName = Literal["32-true", "bf16-mixed", "bf16-true"]


StrategyName = Literal["auto", "ddp", "fsdp", "zero2"]


@dataclass(frozen=True)
class TrainerSettings:
    """How a run is computed; what it computes is in the supervision and the optimizer.

    Counts of steps are optimizer steps; 0 switches evaluation while training off; `evaluate_num` is its number of
    problems per level and view. `micro_tokens` bounds the padded tokens of one forward pass. `num_threads`: of the
    CPU; null: all. `compile`: whether TorchInductor compiles the layers of the language model. `devices`: processes per
    machine. `timeout_minutes`: how long one waits for the others.
    `peak_tflops`: of one device; null: known from its name, else there is no utilisation. `reuse`: whether first phases
    are shared with other runs (training/engine/beginnings.py). `progress`: whether the run says where it stands.
    `cut`: how steps become micro-batches, in few shapes, for which a processor keeps its kernels, or with the least
    padding. `marks`: what becomes of a phase that ends without its marks, a refusal to go on or a warning.
    """

    batch_size: int
    micro_tokens: int
    max_length: int
    precision: PrecisionName = "bf16-mixed"
    accelerator: Literal["auto", "cpu", "gpu"] = speed("auto")
    devices: int | str = speed("auto")
    num_nodes: int | str = speed("auto")
    strategy: StrategyName = speed("auto", rounds=True)
    num_workers: int | str = speed(1)
    num_threads: int | None = speed(None)
    gradient_checkpointing: bool = speed(False, rounds=True)
    compile: bool = speed(False, rounds=True)
    peak_tflops: float | None = speed(None)
    log_every: int = 10
    checkpoint_every: int = speed(50)
    keep_checkpoints: int = speed(2)
    snapshots: int = speed(0)
    packing: Literal["auto", "off", "rows", "row"] = speed("off", rounds=True)
    cut: Literal["shapes", "cost"] = speed("cost", rounds=True)
    timeout_minutes: float = speed(30)
    evaluate_every: int = 0
    evaluate_num: int = 50
    progress: bool = speed(True)
    reuse: bool = speed(True)
    marks: Literal["refuse", "warn"] = speed("refuse")

    def __post_init__(self) -> None:
        names = ("batch_size", "micro_tokens", "max_length", "log_every", "checkpoint_every", "keep_checkpoints")
        check_positive(self, *names, "evaluate_num", where="trainer.")
        if self.snapshots < 0:
            raise ValueError(f"trainer.snapshots={self.snapshots}: 0 or more is expected")
        for name in ("devices", "num_nodes"):
            value = getattr(self, name)
            if value != "auto" and (not isinstance(value, int) or value < 1):
                raise ValueError(f"trainer.{name}={value}: auto, or 1 or more is expected")
        if self.num_workers != "auto" and (not isinstance(self.num_workers, int) or self.num_workers < 0):
            raise ValueError(f"trainer.num_workers={self.num_workers}: auto, or 0 or more is expected")
        if self.peak_tflops is not None and self.peak_tflops <= 0:
            raise ValueError(f"trainer.peak_tflops={self.peak_tflops}: more than 0 is expected")
        if self.timeout_minutes <= 0:
            raise ValueError(f"trainer.timeout_minutes={self.timeout_minutes}: more than 0 is expected")
