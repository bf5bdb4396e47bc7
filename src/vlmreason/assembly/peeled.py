"""Measure minority collapse in the layer-peeled model, and write the file of numbers (`vlmreason collapse`)."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlmreason.analysis.layer_peeled import MEASURES, Peeled, solve
from vlmreason.files import write_csv_atomic


@dataclass(frozen=True)
class Settings:
    """The keys of `vlmreason collapse`; see conf/collapse.yaml."""

    ratios: tuple[float, ...]
    seeds: tuple[int, ...]
    classes: int
    majority: int
    width: int
    row_bound: float
    feature_bound: float
    steps: int
    lr: float
    to: str


def measure(own: Settings) -> Path:
    """Solve the model at every ratio and seed, write a row for each measure and seed; returns the file."""
    model = Peeled(own.classes, own.majority, own.width, own.row_bound, own.feature_bound, own.steps, own.lr)
    found = {seed: solve(model, own.ratios, seed) for seed in own.seeds}
    rows = [["measure", "seed", *(f"{ratio:g}" for ratio in own.ratios)]]
    for name in MEASURES:
        rows += [[name, str(seed), *(f"{one[name]:.4f}" for one in values)] for seed, values in found.items()]
    write_csv_atomic(Path(own.to), rows)
    return Path(own.to)
