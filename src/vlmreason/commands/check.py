"""Send one batch through processor and model before hours are spent on a run.

Takes the settings of `train`. Looks at placeholder and feature counts, whether the loss mask decodes to the
response, and the lengths against their limits.

Examples:
  vlmreason check task=grid_navigation supervision=mix_plus
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CONFIG = "check"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/check.yaml and conf/train.yaml."""

    seed: int
    out: str
    num: int


def run(cfg: dict[str, Any]) -> None:
    """Print what was found, one JSON object per phase; a fault ends with ValueError."""
    import json

    from vlmreason.commands import build

    own = build.settings(Settings, cfg)
    task, supervision, scale = build.build_task(cfg), build.build_supervision(cfg), build.build_scale(cfg)
    tasks = build.build_tasks(cfg)
    for check_section in (build.build_optimizer, build.build_trainer, build.build_evaluation):
        check_section(cfg)
    from vlmreason.data.mixture import mixtures
    from vlmreason.training.check import check_phase

    learner = build.build_learner(cfg)
    for mixture in mixtures(supervision, task.name, own.seed).values():
        print(json.dumps(check_phase(learner, mixture, tasks, own.num, scale.max_length)))
