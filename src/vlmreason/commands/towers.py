"""Train small vision towers from nothing, by captions or by pictures alone, and say what each of them sees.

Each is a folder NAME-SEED that `match`, `mine`, `model=clip_classifier` and mixtures take by its name, some minutes of
one core each; one that is there is not trained again. Linear probes on its vector and on its places, cosines of pairs
that differ in one detail and, with texts, matched statements are printed, and with `to` written for an artifact.

Examples:
  vlmreason towers
  vlmreason towers make=[captions,captions_all,views] seeds=[0,1,2] to=experiments/mmvp/towers.csv
  vlmreason towers make=[captions] recipes.captions.named=[ink,orientation] out=outputs/other
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmreason.assembly import build
from vlmreason.assembly.made_towers import Settings, make

CONFIG = "towers"


def run(cfg: dict[str, Any]) -> Path:
    """Train, probe, print a table; returns the folder of the towers."""
    return make(build.settings(Settings, cfg), build.build_scale(cfg))
