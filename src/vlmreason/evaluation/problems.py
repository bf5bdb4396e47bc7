"""The problems that responses are scored against, by id, none of them held in memory."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmreason.evaluation.predictions import read_predictions, shorten
from vlmreason.files import Line, has_rest, read_jsonl
from vlmreason.tasks.base import MAX_RESPONSE_CHARS, Problem, Task
from vlmreason.tasks.findings import Answered

_UNBOUNDED = 10**15


def read_answered(task: Task[Any], split: str, paths: Iterable[Path]) -> Iterator[Answered]:
    """Read the responses of predictions files with their problems.

    Raises ValueError for a damaged file, for ids that are no problems of the task's, and for one that stands twice.
    """
    problems = SampledProblems(task, task.levels, split)
    for path in paths:
        seen: set[tuple[str, str | None]] = set()
        for p in read_predictions(path):
            if p.id not in problems:
                raise ValueError(f"{path}: {shorten(p.id)} is no {split} problem of {task.name}")
            if (p.id, p.view) in seen:
                raise ValueError(f"{path}: {shorten(p.id)} stands in the file twice")
            seen.add((p.id, p.view))
            readable = p.response is not None and len(p.response) <= MAX_RESPONSE_CHARS
            response = p.response if readable and p.response else ""
            yield Answered(p.id, problems.level(p.id), p.view, problems[p.id].state, response, p.finished)


class SampledProblems(Mapping[str, Problem[Any]]):
    """The first `num` problems of each level (all, where it has fewer; None: all), made by the task when asked for.

    Raises ValueError for a level without problems, unless all are wanted.
    """

    def __init__(self, task: Task[Any], levels: Sequence[str], split: str, num: int | None = None) -> None:
        self.task, self.levels, self.split = task, tuple(levels), split
        self._level_of = {f"{task.name}-{level}-{split}": level for level in self.levels}
        self._nums = {level: self._num(level, num) for level in self.levels}

    def _num(self, level: str, num: int | None) -> int:
        if num is not None:
            return len(self.task.first(level, self.split, num))
        there = self.task.num_problems(level, self.split)
        return _UNBOUNDED if there is None else there

    def __getitem__(self, id: str) -> Problem[Any]:
        level, index = self._place(id)
        return self.task.sample(level, self.split, index)

    def __contains__(self, id: object) -> bool:
        try:
            self._place(id)
        except KeyError:
            return False
        return True

    def __iter__(self) -> Iterator[str]:
        return (f"{prefix}-{index}" for prefix, level in self._level_of.items() for index in range(self._nums[level]))

    def __len__(self) -> int:
        return sum(self._nums.values())

    def level(self, id: str) -> str:
        return self._place(id)[0]

    def _place(self, id: object) -> tuple[str, int]:
        prefix, _, digits = str(id).rpartition("-")
        if prefix not in self._level_of or not digits.isascii() or not digits.isdigit() or len(digits) > 15:
            raise KeyError(id)
        index, level = int(digits), self._level_of[prefix]
        if index >= self._nums[level] or str(index) != digits:
            raise KeyError(id)
        return level, index


class ProblemFile(Mapping[str, Problem[Any]]):
    """The problems of a `metadata.jsonl` (`generate format=folder`): `id, task, level, split, index, meta` count.

    `meta` is an object or its JSON text. The file is read once to learn where each problem stands, and again when a
    problem is asked for. Raises ValueError naming file and line.
    """

    def __init__(self, path: Path, task: Task[Any]) -> None:
        self.path, self.task = path, task
        self._starts: dict[str, int] = {}
        self._levels: dict[str, str] = {}
        last = 0
        for line in read_jsonl(path):
            id, level = _text(line, "id"), _text(line, "level")
            if _text(line, "task") != task.name:
                raise ValueError(f"{line.where}: a problem of {shorten(line.data['task'])}, not of {task.name}")
            if level not in task.levels:
                raise ValueError(f"{line.where}: level={shorten(level)}: {task.name} has {', '.join(task.levels)}")
            if id in self._starts:
                raise ValueError(f"{line.where}: {shorten(id)} stands in the file twice")
            self._starts[id], self._levels[id], last = line.start, level, line.end
        if not self._starts:
            raise ValueError(f"{path}: holds no problem")
        if has_rest(path, last):
            raise ValueError(f"{path}: the last line is cut off")

    def __getitem__(self, id: str) -> Problem[Any]:
        line = next(read_jsonl(self.path, self._starts[id]))
        where = f"{self.path}: {shorten(id)}"
        split, index = _text(line, "split"), line.data.get("index")
        if not isinstance(index, int) or isinstance(index, bool):
            raise ValueError(f"{where}: index={shorten(index)}: a number is expected")
        try:
            meta = line.data.get("meta")
            state = self.task.state_from_json(json.loads(meta) if isinstance(meta, str) else meta)
            self.task.answer(state)
        except (ValueError, LookupError, TypeError, ArithmeticError, RecursionError) as error:
            raise ValueError(f"{where}: meta is no problem of {self.task.name}: {error}") from None
        return Problem(self.task.name, self._levels[id], split, index, state)

    def __contains__(self, id: object) -> bool:
        return id in self._starts

    def __iter__(self) -> Iterator[str]:
        return iter(self._starts)

    def __len__(self) -> int:
        return len(self._starts)

    def level(self, id: str) -> str:
        return self._levels[id]


def _text(line: Line, key: str) -> str:
    value = line.data.get(key)
    if not isinstance(value, str) or not line.utf8:
        raise ValueError(f"{line.where}: a problem needs {key} (UTF-8 text)")
    return value
