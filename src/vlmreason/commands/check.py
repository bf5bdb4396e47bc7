"""Send one batch through processor and model before hours are spent on a run.

Takes the settings of `train`. Looks at placeholder and feature counts, whether the loss mask decodes to the
response, and the lengths against their limits; estimates the memory that each device needs; tells which phases
another run has trained already.

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
    smoke: bool = False


def run(cfg: dict[str, Any]) -> None:
    """Print what was found, one JSON object per phase; a fault ends with ValueError."""
    import json
    import math

    from vlmreason import runs
    from vlmreason.assembly import beginnings, build

    own = build.settings(Settings, cfg)
    task, supervision, scale = build.build_task(cfg), build.build_supervision(cfg), build.build_scale(cfg)
    tasks = build.build_tasks(cfg)
    optimizer, trainer = build.build_optimizer(cfg), build.build_trainer(cfg)
    build.build_evaluation(cfg)
    import torch

    from vlmreason.data.loader import StepData
    from vlmreason.data.mixture import mixtures
    from vlmreason.models.vlm.learner import Learner
    from vlmreason.training.engine import memory, strategies
    from vlmreason.training.engine.optimizers import phase_optimizers
    from vlmreason.training.supervised.check import check_phase

    learner = build.build_learner(cfg)
    build.build_stages(cfg, learner, runs.run_directory(cfg))
    optimizers = phase_optimizers(optimizer, supervision, learner)
    device = torch.device("cuda" if strategies.on_gpu(trainer.accelerator) else "cpu")
    ready = beginnings.find(cfg, learner.source)
    num = math.prod(strategies.processes(trainer.devices, trainer.num_nodes, trainer.accelerator))
    for name, mixture in mixtures(supervision, task.name, own.seed).items():
        found = check_phase(learner, mixture, tasks, own.num, scale.max_length)
        size = supervision.phases[name].batch_size or scale.batch_size
        data = StepData(mixture, tasks, learner.processor, size, scale.micro_tokens, scale.max_length)
        train, kind = supervision.phase(name).train, optimizers[name].name
        if isinstance(learner, Learner):  # a network needs next to nothing
            found |= memory.report(learner, train, trainer, kind, num, data, device)
        print(json.dumps(found | {"taken_from": ready.run if ready and name in ready.phases else None}))
