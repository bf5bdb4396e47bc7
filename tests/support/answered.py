"""Runs that were evaluated without a model: the responses are given."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from support.composing import compose_plain
from vlmreason import runs
from vlmreason.assembly import build
from vlmreason.evaluation.evaluate import full_identity
from vlmreason.evaluation.predictions import Prediction, PredictionFile, prediction_path
from vlmreason.evaluation.problems import SampledProblems
from vlmreason.evaluation.scoring import score_predictions
from vlmreason.tasks.base import Problem, Task

Reply = Callable[[Task[Any], Problem[Any], str], str]
"""The response to a problem in a view."""


def gold(task: Task[Any], problem: Problem[Any], view: str = "text") -> str:
    return "".join(task.thought(problem.state)) + task.answer(problem.state)


def answered_run(out: Path, reply: Reply = gold, *words: str, num: int = 4) -> Path:
    """A run directory with its own evaluation of `num` problems per level and view; `words`: settings of `train`."""
    cfg = compose_plain("train", *words)
    run = out / runs.run_name(cfg)
    run.mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump(cfg))
    task, settings = build.evaluated(build.build_task(cfg)), build.build_evaluation(cfg)
    what = full_identity(task, settings, {"checkpoint": "none", **build.task_identity(cfg)})
    (run / "evaluation.json").write_text(json.dumps(what))
    found = []
    for level in task.levels:
        problems = SampledProblems(task, (level,), "test", num)
        for view in settings.views:
            made = [_answer(problem, view, reply(task, problem, view)) for problem in problems.values()]
            with PredictionFile(prediction_path(run, level, view), problems) as file:
                file.append(made)
            found += made
    summary = score_predictions(task, SampledProblems(task, task.levels, "test", num), found)
    (run / "summary.json").write_text(json.dumps(summary.to_json()))
    return run


def _answer(problem: Problem[Any], view: str, text: str) -> Prediction:
    return Prediction(
        id=problem.id, task=problem.task, level=problem.level, split="test", index=problem.index, view=view,
        response=text, num_tokens=len(text.split()), finished=len(text) < 1000,
    )  # fmt: skip
