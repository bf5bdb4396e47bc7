"""Failure analysis (appendix K) of an evaluation, from its files alone: no model is needed.

Every response is judged by the findings of its kind of task (table_failures, grid_failures, analogy_failures) and
added up per level and view: counts and shares with Wilson's interval, means with Student's, ratios of sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vlmreason.analysis import analogy_failures, grid_failures, table_failures
from vlmreason.analysis.findings import Finding
from vlmreason.analysis.intervals import Mean, Ratio, Share, mean, ratio, share
from vlmreason.evaluation.predictions import Prediction, read_predictions, shorten
from vlmreason.evaluation.problems import SampledProblems
from vlmreason.tasks.base import MAX_RESPONSE_CHARS, Task
from vlmreason.tasks.grid_navigation import GridNavigation
from vlmreason.tasks.tables import TableTask
from vlmreason.tasks.visual_analogy import VisualAnalogy

T = TypeVar("T")

_KINDS: Sequence[tuple[type, Callable[[Any, Any, str], Finding]]] = (
    (TableTask, table_failures.find),
    (GridNavigation, grid_failures.find),
    (VisualAnalogy, analogy_failures.find),
)


@dataclass(frozen=True)
class Failures:
    """What went wrong with the `num` responses of one level and view.

    failures: of the incorrect ones, by what went wrong first. first_error: right items before the first wrong one,
    over incorrect responses that have such; `first_errors` how often each number came. worst: ids, worst first.
    """

    level: str
    view: str | None
    num: int
    incorrect: Share
    cut_off: int
    failures: Mapping[str, Share]
    first_error: Mean
    first_errors: Mapping[int, int]
    shares: Mapping[str, Share]
    means: Mapping[str, Mean]
    ratios: Mapping[str, Ratio]
    worst: tuple[str, ...]


def analyze_files(task: Task[Any], split: str, paths: Iterable[Path], num_worst: int = 5) -> list[Failures]:
    """The failures in predictions files, one entry per level and view, in the order of the task's levels.

    Raises ValueError for a damaged file, for ids that are no problems of the task's, and for a task without findings.
    """
    find = finder(task)
    problems = SampledProblems(task, task.levels, split, num=10**15)
    found: dict[tuple[str, str | None], list[tuple[Prediction, Finding]]] = {}
    for path in paths:
        seen: set[tuple[str, str | None]] = set()
        for prediction in read_predictions(path):
            if prediction.id not in problems:
                raise ValueError(f"{path}: {shorten(prediction.id)} is no {split} problem of {task.name}")
            if (prediction.id, prediction.view) in seen:
                raise ValueError(f"{path}: {shorten(prediction.id)} stands in the file twice")
            seen.add((prediction.id, prediction.view))
            response = prediction.response
            readable = response is not None and len(response) <= MAX_RESPONSE_CHARS
            state = problems[prediction.id].state
            finding = find(task, state, response if readable and response else "")
            found.setdefault((problems.level(prediction.id), prediction.view), []).append((prediction, finding))
    order = sorted(found, key=lambda place: (task.levels.index(place[0]), place[1] != "text"))
    return [summarize(*place, found[place], num_worst) for place in order]


def finder(task: Task[Any]) -> Callable[[Any, Any, str], Finding]:
    """What judges the responses of a task. Raises ValueError where nothing does."""
    for kind, find in _KINDS:
        if isinstance(task, kind):
            return find
    raise ValueError(f"task={task.name}: what goes wrong is known for tables, grids and analogies only")


def summarize(
    level: str, view: str | None, found: Sequence[tuple[Prediction, Finding]], num_worst: int = 5
) -> Failures:
    """Add up the findings of one level and view (one or more)."""
    findings = [finding for _, finding in found]
    num_wrong = sum(not finding.correct for finding in findings)
    kinds = Counter(finding.failure for finding in findings if finding.failure is not None)
    first = [finding.first_error for finding in findings if finding.first_error is not None]
    shares = {name: _known(finding.shares[name] for finding in findings) for name in findings[0].shares}
    means = {name: _known(finding.means[name] for finding in findings) for name in findings[0].means}
    ratio_names = dict.fromkeys(name for finding in findings for name in finding.ratios)
    ratios = {name: [finding.ratios[name] for finding in findings if name in finding.ratios] for name in ratio_names}
    wrong = [(prediction.id, finding) for prediction, finding in found if not finding.correct]
    return Failures(
        level=level,
        view=view,
        num=len(findings),
        incorrect=share(num_wrong, len(findings)),
        cut_off=sum(prediction.finished is False for prediction, _ in found),
        failures={kind: share(count, num_wrong) for kind, count in kinds.most_common()},
        first_error=mean(first),
        first_errors=dict(sorted(Counter(first).items())),
        shares={name: share(sum(values), len(values)) for name, values in shares.items()},
        means={name: mean(values) for name, values in means.items()},
        ratios={name: ratio(pairs) for name, pairs in ratios.items()},
        worst=tuple(id for id, _ in sorted(wrong, key=lambda item: -item[1].severity)[:num_worst]),
    )


def _known(values: Iterable[T | None]) -> list[T]:
    return [value for value in values if value is not None]
