"""A model answers the problems of a task, greedily or by choosing among their options: in batches, resumable.

    <out_dir>/evaluation.json                    what was evaluated, so that nothing else is mixed in
    <out_dir>/predictions/<level>-<view>.jsonl   the responses, appended as they come
    <out_dir>/scores/<level>-<view>.jsonl        the verdict on each, written at the end
    <out_dir>/summary.json                       what they add up to

The same call after an interruption goes on where the files end. Several processes (`Share`) answer every n-th
problem each, into files of their own, which the first one then appends to the files above.
"""

from __future__ import annotations

import glob
import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vlmreason.answering.responses import Answer, Model, answers
from vlmreason.answering.settings import EvaluationSettings
from vlmreason.evaluation.predictions import (
    Prediction,
    PredictionFile,
    check_claimed,
    claim,
    prediction_path,
    read_predictions,
)
from vlmreason.evaluation.problems import SampledProblems
from vlmreason.evaluation.scores import Verdict, judge, judged_cell
from vlmreason.evaluation.scoring import Summary, summarize
from vlmreason.files import write_json
from vlmreason.segments import Shown
from vlmreason.structure import nearest
from vlmreason.tasks.base import Problem, Task


@dataclass(frozen=True)
class Share:
    """Which of several processes this is; `wait` returns when all have called it."""

    rank: int = 0
    num: int = 1
    wait: Callable[[], None] = lambda: None


ALONE = Share()


def evaluate(
    model: Model,
    task: Task[Any],
    settings: EvaluationSettings,
    out_dir: Path,
    identity: Mapping[str, object],
    progress: bool = True,
    share: Share = ALONE,
) -> Summary:
    """Generate what is missing, judge what is not judged, write `summary.json` and return it.

    `identity` (JSON) says what else decides the responses: the task's configuration and the checkpoint.
    With the settings it must be the same whenever `out_dir` is used again; `num` may grow or shrink, and
    levels and views may be added. Raises ValueError naming what is wrong.
    """
    levels = asked_levels(task, settings)
    wanted = SampledProblems(task, levels, settings.split, settings.num)
    cells = {(level, view): prediction_path(out_dir, level, view) for level in levels for view in settings.views}
    if share.rank == 0:
        claim(out_dir, full_identity(task, settings, identity), list(cells.values()))
        for (level, _), path in cells.items():
            _merge(path, SampledProblems(task, (level,), settings.split))
    share.wait()
    known = {
        path: _fill(path, model, task, level, view, settings, progress, share) for (level, view), path in cells.items()
    }
    share.wait()
    if share.rank == 0:
        for (level, _), path in cells.items():
            problems = SampledProblems(task, (level,), settings.split)
            _merge(path, problems)
            with PredictionFile(path, problems) as file:
                file.sort()
    share.wait()
    judged = itertools.chain.from_iterable(
        judged_cell(out_dir, task, level, view, settings.split, known[path], share.rank == 0)
        for (level, view), path in cells.items()
    )
    summary = summarize(task, wanted, (pair for pair in judged if pair[0].id in wanted))
    if share.rank == 0:
        write_json(out_dir / "summary.json", summary.to_json())
    return summary


def asked_levels(task: Task[Any], settings: EvaluationSettings) -> tuple[str, ...]:
    """Name the levels that are evaluated. Raises ValueError for one that the task does not have."""
    levels = task.levels if settings.levels is None else settings.levels
    for level in levels:
        if level not in task.levels:
            hint = nearest(level, task.levels)
            raise ValueError(f"levels: {level!r}: {task.name} has {', '.join(task.levels)}{hint}")
    return levels


def check_problems(task: Task[Any], settings: EvaluationSettings, split: str) -> None:
    """Raise ValueError where a level that is evaluated does not exist, or has no problem in the split."""
    for level in asked_levels(task, settings):
        task.first(level, split, settings.num)


def measure(model: Model, task: Task[Any], settings: EvaluationSettings) -> dict[str, float]:
    """Return accuracy per level and view in memory, nothing is written; for curves while training.

    Keys are `accuracy/<level>/<view>` and the task's parts in the same form; where there are fewer problems than
    asked for, `problems/<level>/<view>` counts them. Of groups that the task wants `followed`, `<kind>:<value>` stands
    in place of `accuracy`, and `problems:<kind>:<value>` says how many they are. On the validation split, whatever
    `settings.split` says, so that nothing chosen by these curves has seen a test problem.
    """
    found: dict[str, float] = {}
    for level in task.levels if settings.levels is None else settings.levels:
        for view in settings.views:
            numbers = task.first(level, "validation", settings.num)
            problems = [task.sample(level, "validation", index) for index in numbers]
            num_correct, sums, rights = 0, dict[str, list[float]](), dict[str, list[bool]]()
            for start in range(0, len(problems), settings.batch_size):
                batch = problems[start : start + settings.batch_size]
                states = [problem.state for problem in batch]
                for state, answer in zip(states, answers(model, task, states, view, settings), strict=True):
                    score = task.score(state, answer.text)
                    num_correct += score.correct
                    for kind, group in task.groups(state).items() if task.followed else ():
                        if kind in task.followed:
                            rights.setdefault(f"{kind}:{group}", []).append(score.correct)
                    for name, value in score.parts.items():
                        sums.setdefault(name, []).append(value)
            found[f"accuracy/{level}/{view}"] = num_correct / len(problems)
            if len(problems) < settings.num:
                found[f"problems/{level}/{view}"] = len(problems)
            found |= {f"{name}/{level}/{view}": sum(values) / len(values) for name, values in sums.items()}
            for name, marks in sorted(rights.items()):
                found[f"{name}/{level}/{view}"] = sum(marks) / len(marks)
                found[f"problems:{name}/{level}/{view}"] = len(marks)
    return found


def full_identity(task: Task[Any], settings: EvaluationSettings, identity: Mapping[str, object]) -> dict[str, object]:
    """List all that decides the responses: the content of evaluation.json."""
    return {"task": task.name, "task_version": task.version, **identity, **settings.decisive}


def _fill(
    path: Path,
    model: Model,
    task: Task[Any],
    level: str,
    view: Shown,
    settings: EvaluationSettings,
    progress: bool,
    share: Share,
) -> dict[str, Verdict]:
    """Append the missing responses of one level and view to their file, or those of a process to its own.

    Returns the verdicts on them by id.
    """
    found: dict[str, Verdict] = {}
    any_index = SampledProblems(task, (level,), settings.split)
    check_claimed(path.parents[1])
    done = {prediction.id for prediction in read_predictions(path)} if share.num > 1 and path.exists() else set()
    own = path if share.num == 1 else path.with_name(f"{path.stem}.{share.rank}-of-{share.num}.part")
    with PredictionFile(own, any_index) as file:
        mine = list(SampledProblems(task, (level,), settings.split, settings.num))[share.rank :: share.num]
        todo = [id for id in mine if id not in file.done and id not in done]
        bar = tqdm(
            desc=f"{level} {view}",
            total=len(mine),
            initial=len(mine) - len(todo),
            unit="examples",
            disable=not progress or share.rank > 0 or None,  # None: no bar but on a terminal
            dynamic_ncols=True,
        )
        with bar:
            for ids in _batches(todo, settings.batch_size):
                problems = [any_index[id] for id in ids]
                made = answers(model, task, [problem.state for problem in problems], view, settings)
                pairs = list(zip(problems, made, strict=True))
                file.append(_prediction(problem, view, answer) for problem, answer in pairs)
                found |= {problem.id: judge(task, problem.state, answer.text) for problem, answer in pairs}
                bar.update(len(ids))
    return found


def _merge(path: Path, any_index: SampledProblems) -> None:
    """Append what several processes answered to their common file, in the order of the problems."""
    parts = sorted(path.parent.glob(f"{glob.escape(path.stem)}.*.part"))
    if not parts:
        return
    found = {prediction.id: prediction for part in parts for prediction in read_predictions(part)}
    with PredictionFile(path, any_index) as file:
        new = [prediction for id, prediction in found.items() if id not in file.done]
        file.append(sorted(new, key=lambda prediction: prediction.index or 0))
    for part in parts:
        part.unlink()


def _prediction(problem: Problem[Any], view: str, answer: Answer) -> Prediction:
    return Prediction(
        id=problem.id,
        task=problem.task,
        level=problem.level,
        split=problem.split,
        index=problem.index,
        view=view,
        response=answer.text,
        num_tokens=answer.num_tokens,
        finished=answer.finished,
        tokens=answer.tokens,
        options=answer.options,
    )


def _batches(ids: list[str], size: int) -> Iterator[list[str]]:
    return (ids[start : start + size] for start in range(0, len(ids), size))
