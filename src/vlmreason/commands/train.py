"""Train a model on a task under a supervision strategy, then evaluate it.

The run gets a directory named after its configuration below `out`; the same command continues a run that
was stopped, and does nothing more to one that is finished.

Examples:
  vlmreason train
  vlmreason train task=grid_navigation supervision=mix_plus seed=1
  vlmreason train -m supervision=image,align_mix_plus seed=0,1,2
  vlmreason train scale.num_examples=24000 supervision.phases.main.parts.hard.views=[image]
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "train"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/train.yaml."""

    seed: int
    out: str


def run(cfg: dict[str, Any]) -> Path:
    """Train, evaluate; returns the run directory."""
    from vlmreason.commands import build, identity

    own = build.settings(Settings, cfg)
    tasks, supervision, scale = build.build_tasks(cfg), build.build_supervision(cfg), build.build_scale(cfg)
    evaluation = build.build_evaluation(cfg)
    from vlmreason.training.run import train

    folder = identity.open_run(cfg)
    train(
        folder,
        task=cfg["task"]["name"],
        tasks=tasks,
        supervision=supervision,
        scale=scale,
        model=cfg["model"],
        optimizer=cfg["optimizer"],
        trainer=cfg["trainer"],
        logger=cfg["logger"],
        evaluation=evaluation,
        seed=own.seed,
        identity=identity.config_hash(cfg),
    )
    return folder
