"""Measure minority collapse in the layer-peeled model, for the file of numbers that an artifact reads.

A row of the file is a measure at one seed, a column a ratio of majority to minority samples. It takes seconds, and no
run is needed: the model is last-layer rows and free features.

Examples:
  vlmreason collapse
  vlmreason collapse to=experiments/emt/collapse.csv seeds=[0,1,2,3,4]
  vlmreason collapse classes=100 majority=50 width=120 ratios=[1,10,100]
"""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "collapse"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/collapse.yaml."""

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


def run(cfg: dict[str, Any]) -> Path:
    """Write the file of numbers; returns its path."""
    from vlmreason.analysis.layer_peeled import MEASURES, Peeled, solve
    from vlmreason.assembly import build
    from vlmreason.files import write_text_atomic

    own = build.settings(Settings, cfg)
    model = Peeled(own.classes, own.majority, own.width, own.row_bound, own.feature_bound, own.steps, own.lr)
    found = {seed: solve(model, own.ratios, seed) for seed in own.seeds}
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["measure", "seed", *(f"{ratio:g}" for ratio in own.ratios)])
    for name in MEASURES:
        for seed, values in found.items():
            writer.writerow([name, seed, *(f"{one[name]:.4f}" for one in values)])
    write_text_atomic(Path(own.to), text.getvalue())
    return Path(own.to)
