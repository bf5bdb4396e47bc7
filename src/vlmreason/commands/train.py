"""Train a model on a task under a supervision strategy, then evaluate it.

The run gets a directory named after its configuration below `out`; the same command continues a run that
was stopped, and does nothing more to one that is finished.

Examples:
  vlmreason train
  vlmreason train task=grid_navigation supervision=mix_plus seed=1
  vlmreason train -m supervision=image,align_mix_plus seed=0,1,2
  vlmreason train algorithm=ppo env=number_line
  vlmreason train scale.num_examples=24000 supervision.phases.main.parts.hard.views=[image]
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "train"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/train.yaml."""

    seed: int
    out: str
    smoke: bool = False


def run(cfg: dict[str, Any]) -> Path | None:
    """Train a run, evaluate it, print the table; returns its directory, None in all but the first of several
    processes."""
    from vlmreason import runs
    from vlmreason.assembly import algorithms, beginnings, build, compose, errors

    own = build.settings(Settings, cfg)
    task, supervision = build.build_task(cfg), build.build_supervision(cfg)
    tasks = build.build_tasks(cfg)
    optimizer, trainer, evaluation = build.build_optimizer(cfg), build.build_trainer(cfg), build.build_evaluation(cfg)
    from vlmreason.evaluation.evaluate import Share, check_problems, evaluate, measure
    from vlmreason.evaluation.table import format_course, format_table
    from vlmreason.files import read_jsonl
    from vlmreason.runs import checkpoint_digest
    from vlmreason.training.engine import strategies, throughput
    from vlmreason.training.engine.console import Lost, Stopped
    from vlmreason.training.engine.optimizers import phase_optimizers
    from vlmreason.training.engine.runner import train

    build.check_place(trainer.accelerator, "trainer.accelerator")
    asked = build.evaluated(task)
    curves = dataclasses.replace(evaluation, num=trainer.evaluate_num)
    check_problems(asked, evaluation, evaluation.split)
    algorithms.check_apart(cfg)
    if trainer.evaluate_every or cfg.get("algorithm", {}).get("evaluate_every"):
        check_problems(asked, curves, "validation")
    learner = build.build_learner(cfg)
    if supervision.phases or "algorithm" in cfg:
        learner.trained_parameters("all")  # raises where nothing can train, before there is a directory
        phase_optimizers(optimizer, supervision, learner)  # and for rates that have no effect
    stages = algorithms.build_stages(cfg, learner, runs.run_directory(cfg))
    logger = build.build_logger(cfg, runs.run_directory(cfg))  # raises before there is a directory
    folder = runs.open_run(cfg, learner.source, runs.base_digest(cfg["model"]))
    if trainer.progress and strategies.is_first() and sys.argv[1:2] == ["train"]:  # a job of a sweep says it itself
        print(f"vlmreason: {compose.differences(sys.argv[2:])}", file=sys.stderr)
    while_training = functools.partial(measure, task=asked, settings=curves)
    try:
        with beginnings.build_beginnings(cfg, learner.source, folder) as shared:
            final = train(
                learner, tasks, supervision, task.name, own.seed, optimizer, trainer, folder, logger, while_training,
                stages, shared, functools.partial(build.build_learner, cfg),
            )  # fmt: skip
    except Stopped as stopped:
        if not strategies.is_first() and not isinstance(stopped, Lost):
            return None  # the first process says it
        if isinstance(stopped, Lost):
            strategies.end_abruptly(errors.INTERRUPTED)
        raise KeyboardInterrupt(f"{stopped}; the same command goes on in {folder}") from None
    rank = strategies.group_rank()
    if strategies.group_size() == 1 and not strategies.is_first():
        return None  # nothing was left to train, so the processes never met: the first one does the rest
    try:
        learner = build.build_learner(cfg, final)
        build.place(learner, trainer.accelerator)
        what = {"checkpoint": checkpoint_digest(final), **build.task_identity(cfg)}
        share = Share(rank, strategies.group_size(), strategies.wait)
        summary = evaluate(learner, asked, evaluation, folder, what, trainer.progress, share)
    except RuntimeError as error:
        if not strategies.lost(error):
            raise
        strategies.end_abruptly(errors.INTERRUPTED)
        raise KeyboardInterrupt(f"{strategies.LOST}; the same command goes on in {folder}") from error
    strategies.leave()
    if rank:
        return None
    if (speed := throughput.read(folder)) and speed["seconds"]:
        print(throughput.sentence(speed))
    if "algorithm" in cfg:
        lines = (line.data for line in read_jsonl(folder / "metrics.jsonl"))
        if course := format_course(lines, cfg["algorithm"]["name"], trainer.evaluate_num):
            print(course + "\n")
    print(format_table(summary))
    return folder
