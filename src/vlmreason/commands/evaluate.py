"""Let a trained model answer problems it has never seen, score the answers, print the table.

Task and scale are the run's own where none are given. The same command goes on with an evaluation that was
interrupted, and only scores again one that is done. What differs from the run's own evaluation in anything (task,
phase, settings, levels, views, number) is kept apart, in a folder that is named after it; no problem is answered
twice. All evaluations of the run are listed at the end, and by list=true alone.

Examples:
  vlmreason evaluate run=outputs/RUN
  vlmreason evaluate run=outputs/RUN evaluation.num=1000 evaluation.conversion=force
  vlmreason evaluate run=outputs/RUN task=consecutive_table_readout phase=align
  vlmreason evaluate run=outputs/RUN list=true
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
    list: bool


def run(cfg: dict[str, Any]) -> Path:
    """Generate what is missing, score, print the table; returns the folder of the results."""
    import sys

    from vlmreason.assembly import build

    own = build.settings(Settings, cfg)
    run_folder = Path(own.run)
    trained = build.read_run(run_folder)
    from vlmreason.evaluation import further

    if own.list:
        print(further.format_evaluations(run_folder) or "no evaluation yet")
        return run_folder
    cfg = build.with_run(cfg, trained, sys.argv[2:])
    task, evaluation = build.evaluated(build.build_task(cfg)), build.build_evaluation(cfg)
    from vlmreason.evaluation.evaluate import evaluate
    from vlmreason.evaluation.table import format_table
    from vlmreason.runs import checkpoint_digest, find_checkpoint

    checkpoint = find_checkpoint(run_folder, own.phase)
    what = {"checkpoint": checkpoint_digest(checkpoint), **build.task_identity(cfg)}
    if own.out:
        folder = Path(own.out)
    else:
        asked = build.build_evaluation(trained) if "evaluation" in trained else None  # None: of pretraining
        folder = further.evaluation_dir(run_folder, task, evaluation, what, own.phase or "final", asked)
    learner = build.build_learner(cfg, checkpoint)
    build.place(learner, own.accelerator)
    if not own.out and folder != run_folder:
        further.take_over(folder, run_folder, task, evaluation, what)
    print(format_table(evaluate(learner, task, evaluation, folder, what)))
    if (run_folder / "evaluations").is_dir():
        print("\n" + further.format_evaluations(run_folder))
    return folder
