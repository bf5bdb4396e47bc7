"""Responses judged and added up: overall and per (level, view). Needs no model.

Every problem counts: one without a prediction is incorrect (and `missing`), a response that is not text or
longer than MAX_RESPONSE_CHARS is `unparsed`. A response can be both unparsed and cut off.
"""

from __future__ import annotations

import statistics
from array import array
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmreason.dialogue.parse import conversion_exact
from vlmreason.evaluation.predictions import Prediction, read_predictions, shorten
from vlmreason.evaluation.problems import ProblemFile, SampledProblems
from vlmreason.files import write_json
from vlmreason.intervals import wilson_interval
from vlmreason.tasks.base import MAX_RESPONSE_CHARS, Problem, Score, Task


@dataclass(frozen=True)
class Cell:
    """What came out for the problems of one level in one view (None: of all levels, all views).

    `accuracy` is correct / num with its 95 % Wilson interval. `mean_tokens`, `median_tokens` and
    `segment_tokens` (means per segment kind) are about generated tokens, over the responses whose counts are
    known (None: none is). `conversion_exact` is the share of exact ones among the `converted` responses, those
    that begin with the conversion sentence. `parts` are the means of the task's own measures.
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
    parts: Mapping[str, float]

    def to_json(self) -> dict[str, Any]:
        """A flat object (one row of a data frame): segment kinds as `tokens_<kind>`, parts under their names."""
        row = dict(vars(self))
        segment_tokens, parts = row.pop("segment_tokens"), row.pop("parts")
        row |= {f"tokens_{kind}": mean for kind, mean in segment_tokens.items()}
        if clash := row.keys() & parts.keys():
            raise ValueError(f"a task's part must not be called {min(clash)!r}: the summary has that already")
        return row | dict(parts)


@dataclass(frozen=True)
class Summary:
    """`total` over everything, and one cell per (level, view)."""

    task: str
    total: Cell
    cells: tuple[Cell, ...]

    def to_json(self) -> dict[str, Any]:
        """summary.json: the total's measures, then `cells`, a list of the same objects with level and view."""
        total = self.total.to_json()
        del total["level"], total["view"]
        return {"task": self.task, **total, "cells": [cell.to_json() for cell in self.cells]}


def score_predictions(
    task: Task[Any], problems: ProblemFile | SampledProblems, predictions: Iterable[Prediction]
) -> Summary:
    """Score one response per problem (and view, where the predictions name views).

    Raises ValueError for an unknown or repeated id, and when only some predictions name a view.
    """
    if not len(problems):
        raise ValueError("there is no problem to score")
    tallies: dict[tuple[str, str | None], _Tally] = {}
    seen: dict[str | None, set[str]] = {}
    for prediction in predictions:
        id, view = prediction.id, prediction.view
        if id not in problems:
            raise ValueError(f"prediction {shorten(id)}: there is no such problem of {task.name}")
        ids = seen.setdefault(view, set())
        if id in ids:
            raise ValueError(f"prediction {shorten(id)}: given twice{f' for view {shorten(view)}' if view else ''}")
        if len(seen) > 1 and None in seen:
            raise ValueError(f"prediction {shorten(id)}: some predictions name a view and others do not")
        ids.add(id)
        problem = problems[id]
        tallies.setdefault((problem.level, view), _Tally()).add(task, problem, prediction)
    for view in seen or {None: set()}:
        for id in problems:
            if id not in seen.get(view, ()):
                tallies.setdefault((problems.level(id), view), _Tally()).miss(task, problems, id)
    views = list(seen) or [None]
    order = sorted(tallies, key=lambda place: (task.levels.index(place[0]), views.index(place[1])))
    total = _Tally()
    for place in order:
        total.merge(tallies[place])
    return Summary(task.name, total.cell(None, None), tuple(tallies[place].cell(*place) for place in order))


def score_file(task: Task[Any], problems: Path, predictions: Path) -> tuple[Summary, Path]:
    """Score a predictions file against a metadata.jsonl and write `<predictions>.summary.json` beside it.

    Returns the summary and where it was written. Raises ValueError with one sentence for unusable files.
    """
    summary = score_predictions(task, ProblemFile(problems, task), read_predictions(predictions))
    path = predictions.with_name(predictions.stem + ".summary.json")
    if path in (problems, predictions):
        raise ValueError(f"{path}: the summary would replace a file that was read")
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
    num_tokens: array[int] = field(default_factory=lambda: array("q"))
    num_with_segments: int = 0
    segment_tokens: dict[str, int] = field(default_factory=dict)
    parts: dict[str, float] = field(default_factory=dict)
    num_scored: dict[str, int] = field(default_factory=dict)

    def add(self, task: Task[Any], problem: Problem[Any], prediction: Prediction) -> None:
        response = prediction.response
        readable = response is not None and len(response) <= MAX_RESPONSE_CHARS
        score = task.score(problem.state, response if readable and response else "")
        parsed = readable and score.parsed
        self.num += 1
        self.correct += score.correct and parsed
        self.unparsed += not parsed
        self.cut_off += prediction.finished is False
        self._add_parts(score)
        if readable and response:
            exact = conversion_exact(task, problem.state, response)
            self.converted += exact is not None
            self.exact += exact is True
        if prediction.num_tokens is not None:
            self.num_tokens.append(prediction.num_tokens)
        if prediction.tokens:
            self.num_with_segments += 1
            for kind, count in prediction.tokens.items():
                self.segment_tokens[kind] = self.segment_tokens.get(kind, 0) + count

    def miss(self, task: Task[Any], problems: Mapping[str, Problem[Any]], id: str) -> None:
        self.num += 1
        self.missing += 1
        self._add_parts(task.score(problems[id].state, ""))

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
            parts={name: total / self.num_scored[name] for name, total in self.parts.items()},
        )

    def _add_parts(self, score: Score) -> None:
        for name, value in score.parts.items():
            self.parts[name] = self.parts.get(name, 0.0) + value
            self.num_scored[name] = self.num_scored.get(name, 0) + 1
