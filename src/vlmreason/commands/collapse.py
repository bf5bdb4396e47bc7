"""Measure minority collapse in the layer-peeled model, for the file of numbers that an artifact reads.

A row of the file is a measure at one seed, a column a ratio of majority to minority samples. It takes seconds, and no
run is needed: the model is last-layer rows and free features.

Examples:
  vlmreason collapse
  vlmreason collapse to=experiments/emt/collapse.csv seeds=[0,1,2,3,4]
  vlmreason collapse classes=100 majority=50 width=120 ratios=[1,10,100]
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmreason.assembly import build
from vlmreason.assembly.peeled import Settings, measure

CONFIG = "collapse"


def run(cfg: dict[str, Any]) -> Path:
    """Write the file of numbers; returns its path."""
    return measure(build.settings(Settings, cfg))
