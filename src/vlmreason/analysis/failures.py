"""Failure analysis (appendix K) of the responses of an evaluation: no model is needed.

Every response is judged by its task (`Task.finding`, in the folder of its family) and added up per level and view:
counts and shares with Wilson's interval, means with Student's, ratios of sums.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from vlmreason.analysis.subjects import Over, Responses
from vlmreason.analysis.text_tables import Data, _align, _mean, _percent
from vlmreason.dialogue.parse import split_response
from vlmreason.intervals import Mean, Ratio, Share, mean, ratio, share
from vlmreason.segments import THOUGHT
from vlmreason.tasks.base import Task
from vlmreason.tasks.findings import Answered, Finding

T = TypeVar("T")
OVER: Over = "responses"


MEANING = {
    "incorrect": "responses that are not right in everything, in %, with the 95 % interval",
    "of these": "what went wrong first, in % of the incorrect responses",
    "first error after": "right items (cells, steps) before the first wrong one, mean over incorrect responses",
    "early": "incorrect responses that err within the mean length of the simplest level, in %",
    "precision": "listed cells that are on the path",
    "recall": "cells of the path that are listed",
    "misread cells": "listed cells whose number is another one",
    "shortcut": "responses that leave the path and join it again further on, in %",
    "skipped per shortcut": "cells of the path in between",
    "direct": "shortcuts on which no move leads away from the end",
    "one level off": "wrong answers of one level that are next to the right one",
    "adds up": "three numbers of panels of which the last is the sum of the others, right or not, in %",
}
"""What the rows of the table are, by how they begin."""


@dataclass(frozen=True)
class Settings:
    """num_worst: ids of the worst responses that are listed, per level and view."""

    num_worst: int = 5

    def __post_init__(self) -> None:
        if self.num_worst < 0:
            raise ValueError(f"num_worst={self.num_worst}: 0 or more is expected")


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


def run(subject: Responses, settings: Settings) -> list[Failures]:
    """Say what went wrong in the responses of an evaluation: an entry per level and view, in the task's order.

    Raises ValueError for a task without findings.
    """
    task = subject.task
    check_task(task)
    found: dict[tuple[str, str | None], list[tuple[Answered, Finding]]] = {}
    for one in subject.answered:
        found.setdefault((one.level, one.view), []).append((one, judge(task, one.state, one.response)))
    order = sorted(found, key=lambda place: (task.levels.index(place[0]), place[1] != "text"))
    return [summarize(*place, found[place], settings.num_worst) for place in order]


def check_task(task: Task[Any]) -> None:
    """Raise ValueError for a task that does not know what goes wrong in its responses."""
    task.family("failures")


def judge(task: Task[Any], state: Any, response: str) -> Finding:
    """Find out what went wrong in a response, whose trace is what the task's markers leave of it."""
    return task.finding(state, response, split_response(task, state, response).text_of(THOUGHT))


def summarize(level: str, view: str | None, found: Sequence[tuple[Answered, Finding]], num_worst: int = 5) -> Failures:
    """Add up the findings of one level and view (one or more)."""
    findings = [finding for _, finding in found]
    num_wrong = sum(not finding.correct for finding in findings)
    kinds = Counter(finding.failure for finding in findings if finding.failure is not None)
    first = [finding.first_error for finding in findings if finding.first_error is not None]
    shares = {name: _known(finding.shares[name] for finding in findings) for name in findings[0].shares}
    means = {name: _known(finding.means[name] for finding in findings) for name in findings[0].means}
    ratio_names = dict.fromkeys(name for finding in findings for name in finding.ratios)
    ratios = {name: [finding.ratios[name] for finding in findings if name in finding.ratios] for name in ratio_names}
    wrong = [(one.id, finding) for one, finding in found if not finding.correct]
    return Failures(
        level=level,
        view=view,
        num=len(findings),
        incorrect=share(num_wrong, len(findings)),
        cut_off=sum(one.finished is False for one, _ in found),
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


def table(results: Sequence[Data]) -> str:
    """Return one row per measure, one column per level and view: shares and failures in %, with the 95 % interval."""
    rows = [["", *(f"{cell['level']} {cell['view'] or ''}".strip() for cell in results)]]
    rows.append(["responses", *(str(cell["num"]) for cell in results)])
    rows.append(["incorrect", *(_percent(cell["incorrect"]) for cell in results)])
    for section, title, write in (
        ("failures", "of these: {}", _percent),
        ("shares", "{}", _percent),
        ("means", "{}", _mean),
        ("ratios", "{}", _ratio),
    ):
        names = dict.fromkeys(name for cell in results for name in cell[section])
        for name in names:
            cells = (write(cell[section][name]) if name in cell[section] else "-" for cell in results)
            rows.append([title.format(name.replace("_", " ")), *cells])
        if section == "failures":
            rows.append(["first error after", *(_mean(cell["first_error"]) for cell in results)])
    return _align(rows)


def _ratio(one: Data) -> str:
    if one["ratio"] is None:
        return "-"
    if one["ci_low"] is None:
        return f"{one['ratio']:.3f}"
    return f"{one['ratio']:.3f} ({one['ci_low']:.3f} to {one['ci_high']:.3f})"
