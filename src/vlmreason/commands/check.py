"""Send one batch through processor and model before hours are spent on a run.

Takes the settings of `train`. Looks at placeholder and feature counts, whether the loss mask decodes to the
response, and the lengths against their limits.

Examples:
  vlmreason check task=grid_navigation supervision=mix_plus
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "check"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/check.yaml and conf/train.yaml."""

    seed: int
    out: str
    num: int


def run(cfg: dict[str, Any]) -> Path | None:
    """Print what was found; a fault ends with ValueError."""
    from vlmreason.commands import build

    own = build.settings(Settings, cfg)
    tasks, supervision, scale = build.build_tasks(cfg), build.build_supervision(cfg), build.build_scale(cfg)
    from vlmreason.training.check import check

    check(
        task=cfg["task"]["name"],
        tasks=tasks,
        supervision=supervision,
        scale=scale,
        model=cfg["model"],
        optimizer=cfg["optimizer"],
        trainer=cfg["trainer"],
        seed=own.seed,
        num=own.num,
    )
    return None
