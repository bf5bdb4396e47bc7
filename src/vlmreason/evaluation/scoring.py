"""Verdicts added up: overall, per (level, view), and by the groups that problems belong to. Needs no model.

Every problem counts: one without a prediction is incorrect (and `missing`), a response that is not text or
longer than MAX_RESPONSE_CHARS is `unparsed`. A response can be both unparsed and cut off.
"""

from __future__ import annotations

import statistics
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmreason.evaluation.groups import Grouped, by_group
from vlmreason.evaluation.kits import read_responses
from vlmreason.evaluation.predictions import Prediction, shorten
from vlmreason.evaluation.problems import ProblemFile, SampledProblems
from vlmreason.evaluation.scores import Verdict, judge
from vlmreason.evaluation.scores import write as write_scores
from vlmreason.files import write_json
from vlmreason.intervals import wilson_interval
from vlmreason.tasks.base import Task


@dataclass(frozen=True)
class Cell:
    """What came out for the problems of one level in one view (None: of all levels, all views).

    `accuracy` is correct / num with its 95 % Wilson interval. `mean_tokens`, `median_tokens` and
    `segment_tokens` (means per segment kind) are about generated tokens, over the responses whose counts are
    known (None: none is). `conversion_exact` is the share of exact ones among the `converted` responses, those
    that begin with the conversion sentence. Of tasks that teach a chain of thought, `prefix_right` is the mean share of
    its steps that are right before the first wrong one, and `stopped_early` counts responses that the model ended
    behind such a beginning: nothing is wrong in their thoughts but that they end too soon. `parts` are the means of the
    task's own measures.
    """

    level: str | None
    view: str | None
    num: int
    correct: int
    accuracy: float
    ci_low: float
    ci_high: float
    unparsed: int
    cut_off: int
    missing: int
    mean_tokens: float | None
    median_tokens: float | None
    segment_tokens: Mapping[str, float]
    converted: int
    conversion_exact: float | None
    stopped_early: int | None
    prefix_right: float | None
    parts: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """Return a flat object (one row of a data frame): segment kinds as `tokens_<kind>`, parts under their names."""
        row = dict(vars(self))
        segment_tokens, parts = row.pop("segment_tokens"), row.pop("parts")
        row |= {f"tokens_{kind}": mean for kind, mean in segment_tokens.items()}
        if clash := row.keys() & parts.keys():
            raise ValueError(f"a task's part must not be called {min(clash)!r}: the summary has that already")
        return row | dict(parts)


Judged = tuple[Prediction, Verdict]


@dataclass(frozen=True)
class Summary:
    """`total` over everything, one cell per (level, view), and what comes out by group, of tasks that have groups."""

    task: str
    total: Cell
    cells: tuple[Cell, ...]
    groups: tuple[Grouped, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Write summary.json: the total's measures, then `cells`, a list of the same objects with level and view.

        `groups` is there where the task has groups: an object per level, view and group, with `values` in it.
        """
        total = self.total.to_json()
        del total["level"], total["view"]
        groups = {"groups": [group.to_json() for group in self.groups]} if self.groups else {}
        return {"task": self.task, **total, "cells": [cell.to_json() for cell in self.cells], **groups}


def score_predictions(
    task: Task[Any], problems: ProblemFile | SampledProblems, predictions: Iterable[Prediction]
) -> Summary:
    """Judge one response per problem (and view, where the predictions name views), and add up as `summarize`."""
    return summarize(task, problems, judge_all(task, problems, predictions))


def judge_all(
    task: Task[Any], problems: ProblemFile | SampledProblems, predictions: Iterable[Prediction]
) -> Iterator[Judged]:
    """Judge predictions one by one. Raises ValueError for one to no problem."""
    for prediction in predictions:
        if prediction.id not in problems:
            raise ValueError(f"prediction {shorten(prediction.id)}: there is no such problem of {task.name}")
        yield prediction, judge(task, problems[prediction.id].state, prediction.response)


def summarize(task: Task[Any], problems: ProblemFile | SampledProblems, judged: Iterable[Judged]) -> Summary:
    """Add up verdicts on responses to `problems`; what has no response counts as incorrect.

    Raises ValueError for a repeated id, and when only some predictions name a view.
    """
    if not len(problems):
        raise ValueError("there is no problem to score")
    tallies: dict[tuple[str, str | None], _Tally] = {}
    seen: dict[str | None, set[str]] = {}
    for prediction, verdict in judged:
        id, view = prediction.id, prediction.view
        ids = seen.setdefault(view, set())
        if id in ids:
            raise ValueError(f"prediction {shorten(id)}: given twice{f' for view {shorten(view)}' if view else ''}")
        if len(seen) > 1 and None in seen:
            raise ValueError(f"prediction {shorten(id)}: some predictions name a view and others do not")
        ids.add(id)
        tallies.setdefault((problems.level(id), view), _Tally()).add(prediction, verdict)
    for view in seen or {None: set()}:
        for id in problems:
            if id not in seen.get(view, ()):
                tallies.setdefault((problems.level(id), view), _Tally()).miss(judge(task, problems[id].state, None))
    views = list(seen) or [None]
    order = sorted(tallies, key=lambda place: (task.levels.index(place[0]), views.index(place[1])))
    total = _Tally()
    for place in order:
        total.merge(tallies[place])
    cells = tuple(tallies[place].cell(*place) for place in order)
    groups = tuple(group for place in order for group in by_group(*place, tallies[place].marks, tallies[place].scored))
    return Summary(task.name, total.cell(None, None), cells, groups)


def score_file(task: Task[Any], problems: Path, predictions: Path) -> tuple[Summary, Path]:
    """Score a predictions file against a metadata.jsonl and write `<predictions>.summary.json` beside it.

    The verdict on each response goes to `<predictions>.scores.jsonl`. Returns the summary and where it was written.
    Raises ValueError with one sentence for unusable files.
    """
    path, scores = (predictions.with_name(predictions.stem + end) for end in (".summary.json", ".scores.jsonl"))
    if {path, scores} & {problems, predictions}:
        raise ValueError(f"{predictions}: {path.name} or {scores.name} would replace a file that was read")
    source = ProblemFile(problems, task)
    rows: list[tuple[dict[str, Any], Verdict]] = []

    def noted(judged: Iterable[Judged]) -> Iterator[Judged]:
        for prediction, verdict in judged:
            view = {} if prediction.view is None else {"view": prediction.view}
            rows.append(({"id": prediction.id, **view}, verdict))
            yield prediction, verdict

    summary = summarize(task, source, noted(judge_all(task, source, read_responses(predictions, source))))
    try:
        write_scores(scores, task, rows)
    except OSError as error:
        raise ValueError(f"{scores}: cannot be written: {error.strerror}") from None
    write_json(path, summary.to_json())
    return summary, path


@dataclass
class _Tally:
    num: int = 0
    correct: int = 0
    unparsed: int = 0
    cut_off: int = 0
    missing: int = 0
    converted: int = 0
    exact: int = 0
    traced: int = 0  # problems whose task teaches a chain of thought
    stopped: int = 0
    prefixes: float = 0.0
    num_tokens: array[int] = field(default_factory=lambda: array("q"))
    num_with_segments: int = 0
    segment_tokens: dict[str, int] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)
    num_scored: dict[str, int] = field(default_factory=dict)
    marks: list[tuple[Mapping[str, str], bool]] = field(default_factory=list)  # groups of a problem, whether right
    scored: list[Mapping[str, float]] = field(default_factory=list)  # parts of its score

    def add(self, prediction: Prediction, verdict: Verdict) -> None:
        self._count(verdict)
        self.correct += verdict.correct
        self.unparsed += not verdict.parsed
        self.cut_off += prediction.finished is False
        self.converted += verdict.conversion_exact is not None
        self.exact += verdict.conversion_exact is True
        self.stopped += verdict.trace is not None and verdict.trace.stopped and prediction.finished is not False
        if prediction.num_tokens is not None:
            self.num_tokens.append(prediction.num_tokens)
        if prediction.tokens:
            self.num_with_segments += 1
            for kind, count in prediction.tokens.items():
                self.segment_tokens[kind] = self.segment_tokens.get(kind, 0) + count

    def miss(self, verdict: Verdict) -> None:
        """Count a problem without a response; the verdict is that on none."""
        self._count(verdict)
        self.missing += 1

    def merge(self, other: _Tally) -> None:
        for name, value in vars(other).items():
            mine = getattr(self, name)
            if isinstance(value, dict):
                for key, count in value.items():
                    mine[key] = mine.get(key, 0) + count
            else:
                setattr(self, name, mine + value)

    def cell(self, level: str | None, view: str | None) -> Cell:
        low, high = wilson_interval(self.correct, self.num)
        return Cell(
            level=level,
            view=view,
            num=self.num,
            correct=self.correct,
            accuracy=self.correct / self.num,
            ci_low=low,
            ci_high=high,
            unparsed=self.unparsed,
            cut_off=self.cut_off,
            missing=self.missing,
            mean_tokens=statistics.fmean(self.num_tokens) if self.num_tokens else None,
            median_tokens=float(statistics.median(self.num_tokens)) if self.num_tokens else None,
            segment_tokens={kind: count / self.num_with_segments for kind, count in self.segment_tokens.items()},
            converted=self.converted,
            conversion_exact=self.exact / self.converted if self.converted else None,
            stopped_early=self.stopped if self.traced else None,
            prefix_right=self.prefixes / self.traced if self.traced else None,
            parts={name: total / self.num_scored[name] for name, total in self.parts.items()},
        )

    def _count(self, verdict: Verdict) -> None:
        self.num += 1
        self.marks.append((verdict.groups, verdict.correct))
        self.scored.append(verdict.parts)
        if verdict.trace is not None:
            self.traced += 1
            self.prefixes += verdict.trace.right / verdict.trace.wanted
        for name, value in verdict.parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + value
            self.num_scored[name] = self.num_scored.get(name, 0) + 1
