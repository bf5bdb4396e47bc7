"""The evaluations of a run: its own in the run's directory, every further one in a folder of its own.

    <run>/summary.json                                          its own: the problems that its configuration asks for
    <run>/evaluations/<task>-<phase>-<how>-n<num>-<hash>/       others; how: choose, or the conversion

Other levels, views or numbers of problems make another evaluation, too; it begins with the responses that are there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlmreason.answering.settings import EvaluationSettings
from vlmreason.evaluation.evaluate import asked_levels, full_identity
from vlmreason.evaluation.predictions import (
    PredictionFile,
    claim,
    holds,
    prediction_path,
    read_predictions,
)
from vlmreason.evaluation.problems import SampledProblems
from vlmreason.evaluation.table import is_of_episodes, unparsed_turns
from vlmreason.files import read_json
from vlmreason.tasks.base import Task
from vlmreason.terminal import columns


def evaluation_dir(
    run_dir: Path,
    task: Task[Any],
    settings: EvaluationSettings,
    identity: Mapping[str, object],
    phase: str = "final",
    own: EvaluationSettings | None = None,
) -> Path:
    """Say where an evaluation of a run is kept: in the run's directory if it is the run's own, else in `evaluations/`.

    `phase`: of the weights, for the name. `own`: what the run's configuration asks for.
    """
    full, wanted = full_identity(task, settings, identity), _extent(task, settings)
    if own is not None and holds(run_dir, full) and wanted == _extent(task, own):
        return run_dir
    for folder in _further(run_dir):
        if holds(folder, full) and _extent_of(folder) == wanted:
            return folder
    text = json.dumps([full, wanted], sort_keys=True)
    name = _name({**full, "split": settings.split}, phase, settings.num)
    return run_dir / "evaluations" / f"{name}-{hashlib.blake2b(text.encode(), digest_size=4).hexdigest()}"


def take_over(
    folder: Path, run_dir: Path, task: Task[Any], settings: EvaluationSettings, identity: Mapping[str, object]
) -> None:
    """Begin a folder with the responses that other evaluations of the run have of the same weights, asked the same."""
    full = full_identity(task, settings, identity)
    sources = [place for place in (run_dir, *_further(run_dir)) if place != folder and holds(place, full)]
    claim(folder, full, [])
    for level in asked_levels(task, settings):
        wanted = SampledProblems(task, (level,), settings.split, settings.num)
        for view in settings.views:
            for path in (prediction_path(source, level, view) for source in sources):
                try:
                    there = list(read_predictions(path)) if path.exists() else []
                except ValueError:
                    continue  # damaged: its own evaluation says it
                with PredictionFile(prediction_path(folder, level, view), wanted) as file:
                    for one in there:
                        if one.id in wanted and one.id not in file.done and one.response is not None:
                            file.append([one])


def format_evaluations(run_dir: Path) -> str:
    """Return one row per evaluation of a run, its own first; "" where there is none."""
    rows = []
    for folder in (run_dir, *_further(run_dir)):
        try:
            rows.append(_row(folder, folder == run_dir))
        except (ValueError, KeyError, TypeError, AttributeError):
            if folder != run_dir:
                rows.append((folder.name, "not finished, or damaged", *[""] * 6))
    if not rows:
        return ""
    header = ("evaluation", "levels", "views", "problems", "accuracy", "95 % interval", "unparsed", "cut off")
    return columns(header, rows, left=3)


def _row(folder: Path, own: bool) -> tuple[str, ...]:
    summary = read_json(folder / "summary.json")
    cells = summary["cells"]
    num = max(cell["num"] for cell in cells)
    name = f"{_name(read_json(folder / 'evaluation.json'), 'final', num)} (its own)" if own else folder.name
    return (
        name,
        ",".join(dict.fromkeys(str(cell["level"]) for cell in cells)),
        ",".join(dict.fromkeys(str(cell["view"]) for cell in cells)),
        str(summary["num"]),
        f"{100 * summary['accuracy']:.1f} %",
        f"{100 * summary['ci_low']:.1f} to {100 * summary['ci_high']:.1f}",
        f"{unparsed_turns(summary)} of turns" if is_of_episodes(summary) else str(summary["unparsed"]),
        str(summary["cut_off"]),
    )


def _name(full: Mapping[str, Any], phase: str, num: int) -> str:
    """The words by which an evaluation is told apart."""
    how = full["how"] if "how" in full else full["conversion"]
    split = [] if full["split"] == "test" else [str(full["split"])]
    prefill = ["prefill"] if full.get("prefill") else []
    given = ["length_given"] if full.get("length") == "given" else []
    condition = [f"condition_{full['condition']}"] if "condition" in full else []
    return "-".join([str(full["task"]), phase, str(how), *prefill, *given, *condition, *split, f"n{num}"])


def _further(run_dir: Path) -> Iterator[Path]:
    return (path.parent for path in sorted(run_dir.glob("evaluations/*/evaluation.json")))


def _extent(task: Task[Any], settings: EvaluationSettings) -> list[list[Any]]:
    """Level, view and number of problems, in the order of summary.json."""
    nums = {
        level: len(SampledProblems(task, (level,), settings.split, settings.num))
        for level in asked_levels(task, settings)
    }
    return [[level, view, num] for level, num in nums.items() for view in settings.views]


def _extent_of(folder: Path) -> list[list[Any]] | None:
    """Of a finished evaluation; None of another."""
    try:
        return [[cell["level"], cell["view"], cell["num"]] for cell in read_json(folder / "summary.json")["cells"]]
    except (ValueError, KeyError, TypeError):
        return None
