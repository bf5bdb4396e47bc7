"""Let a trained model answer problems it has never seen, score the answers, print the table.

Task and scale are the run's own where none are given. The same command goes on with an evaluation that was
interrupted, and only scores again one that is done. Responses of other checkpoints, tasks or settings are
kept apart.

Examples:
  vlmreason evaluate run=outputs/RUN
  vlmreason evaluate run=outputs/RUN evaluation.num=1000 evaluation.conversion=force
  vlmreason evaluate run=outputs/RUN task=consecutive_table_readout phase=align
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CONFIG = "evaluate"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/evaluate.yaml."""

    run: str
    out: str | None
    phase: str | None
    accelerator: Literal["auto", "cpu", "gpu"]


def run(cfg: dict[str, Any]) -> Path:
    """Generate what is missing, score, print the table; returns the folder of the results."""
    import sys

    from vlmreason.assembly import build

    own = build.settings(Settings, cfg)
    run_folder = Path(own.run)
    cfg = build.with_run(cfg, build.read_run(run_folder), sys.argv[2:])
    task, evaluation = build.evaluated(build.build_task(cfg)), build.build_evaluation(cfg)
    from vlmreason.evaluation.evaluate import evaluate, evaluation_dir
    from vlmreason.evaluation.table import format_table
    from vlmreason.runs import checkpoint_digest, find_checkpoint

    checkpoint = find_checkpoint(run_folder, own.phase)
    what = {"checkpoint": checkpoint_digest(checkpoint), **build.task_identity(cfg)}
    folder = Path(own.out) if own.out else evaluation_dir(run_folder, task, evaluation, what)
    learner = build.build_learner(cfg, checkpoint)
    build.place(learner, own.accelerator)
    print(format_table(evaluate(learner, task, evaluation, folder, what)))
    return folder
