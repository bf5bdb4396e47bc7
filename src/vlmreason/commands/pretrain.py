"""Pretrain the nano model on generic skills: how the base that ships with the package was made.

Examples:
  vlmreason pretrain
  vlmreason pretrain seed=1 out=bases
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "pretrain"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/pretrain.yaml."""

    seed: int
    out: str


def run(cfg: dict[str, Any]) -> Path:
    """Pretrain; returns the run directory."""
    from vlmreason.commands import build, identity

    own, scale = build.settings(Settings, cfg), build.build_scale(cfg)
    from vlmreason.training.pretrain import pretrain

    folder = identity.open_run(cfg)
    pretrain(
        folder,
        scale=scale,
        model=cfg["model"],
        optimizer=cfg["optimizer"],
        trainer=cfg["trainer"],
        logger=cfg["logger"],
        seed=own.seed,
        identity=identity.config_hash(cfg),
    )
    return folder
