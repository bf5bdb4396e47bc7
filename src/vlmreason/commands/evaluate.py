"""Let a trained model answer problems, score the answers, print the table.

    vlmreason evaluate run=outputs/<run> evaluation.num=1000 evaluation.conversion=force

An evaluation that was interrupted goes on with the same command; one that is done is only scored again.
Responses of other checkpoints, tasks or settings are kept apart, in directories of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from vlmreason.commands.build import Config, build_scale, build_task, section, settings
from vlmreason.evaluation.checkpoints import checkpoint_digest, find_checkpoint
from vlmreason.evaluation.generate import EvaluationSettings, evaluate, evaluation_dir
from vlmreason.evaluation.table import format_table
from vlmreason.models.learner import Learner
from vlmreason.models.nano import load_nano

CONFIG = "evaluate"


@dataclass(frozen=True)
class EvaluateSettings:
    run: str
    phase: str | None


def run(cfg: Config) -> Path:
    own = settings(EvaluateSettings, cfg)
    how = section(EvaluationSettings, cfg, "evaluation")
    task = build_task(cfg)
    checkpoint = find_checkpoint(Path(own.run), own.phase)
    identity = {
        "checkpoint": checkpoint_digest(checkpoint),
        "config": {**cfg["task"], "trace": cfg["task"]["trace"] or build_scale(cfg).trace},
    }
    out_dir = evaluation_dir(Path(own.run), task, how, identity)
    learner = Learner(*load_nano(checkpoint))
    print(format_table(evaluate(learner, task, how, out_dir, identity)))
    return out_dir / "summary.json"
