"""Verdicts on responses, written once beside them and read by all that comes after.

    predictions/<level>-<view>.jsonl    the responses, appended as they come
    scores/<level>-<view>.jsonl         the verdict on each, in the same order, replaced as a whole

Responses are what a model said and are never touched again; scores are what a task makes of them, and may be deleted:
they are made again. The first line names the task and its version, every other one its response by a hash; a verdict
that is of another version or of another response is made again too, as is a file of another form.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmreason.dialogue.parse import conversion_exact, split_response
from vlmreason.evaluation.predictions import Prediction, prediction_path, read_predictions, shorten
from vlmreason.evaluation.problems import SampledProblems
from vlmreason.files import read_jsonl, write_text_atomic
from vlmreason.segments import THOUGHT
from vlmreason.structure import structure
from vlmreason.tasks.base import MAX_RESPONSE_CHARS, Task
from vlmreason.tasks.findings import Trace

NONE: Mapping[str, Any] = {}
FORM = 2  # of a line


@dataclass(frozen=True)
class Verdict:
    """What a task makes of one response.

    parsed: whether it is text of a readable length that holds an answer; correct: whether that is right. parts: the
    task's own measures. conversion_exact: of a response that begins with the conversion, else None. trace: how far its
    thought is the one that is learned, of tasks that teach one. groups: to which groups its problem belongs.
    """

    correct: bool
    parsed: bool
    parts: Mapping[str, float] = field(default_factory=dict)
    conversion_exact: bool | None = None
    groups: Mapping[str, str] = field(default_factory=dict)
    trace: Trace | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a flat beginning of a line; what does not apply is left out."""
        data = {"correct": self.correct, "parsed": self.parsed, "parts": dict(self.parts)}
        if self.conversion_exact is not None:
            data["conversion_exact"] = self.conversion_exact
        if self.trace is not None:
            data["trace"] = vars(self.trace)
        return data | ({"groups": dict(self.groups)} if self.groups else {})


def judge(task: Task[Any], state: Any, response: str | None) -> Verdict:
    """Judge a response to a problem; None is one that is no text, or none at all."""
    readable = response is not None and len(response) <= MAX_RESPONSE_CHARS
    text = response if readable and response else ""
    score = task.score(state, text)
    parsed = readable and score.parsed
    exact = conversion_exact(task, state, text) if text else None
    trace = task.trace(state, split_response(task, state, text).text_of(THOUGHT))
    return Verdict(score.correct and parsed, parsed, dict(score.parts), exact, dict(task.groups(state)), trace)


def judged_cell(
    out_dir: Path,
    task: Task[Any],
    level: str,
    view: str,
    split: str,
    known: Mapping[str, Verdict] = NONE,
    keep: bool = True,
) -> Iterator[tuple[Prediction, Verdict]]:
    """Read the responses to a level in a view, each with its verdict; verdicts that are not there are made.

    What had to be made is written beside (unless `keep` is false, or the folder cannot be written to). `known`:
    verdicts that were made as the responses came. Raises ValueError for a damaged file, and a response to no problem.
    """
    path, scores = prediction_path(out_dir, level, view), out_dir / "scores" / f"{level}-{view}.jsonl"
    problems = SampledProblems(task, (level,), split)
    held, found = _read(scores, task), dict[str, tuple[str, Verdict]]()
    for prediction in read_predictions(path):
        id, mark = prediction.id, _mark(prediction)
        if id not in problems:
            raise ValueError(f"{path}: {shorten(id)} is no {split} problem of {task.name}")
        if id in held and held[id][0] == mark:
            found[id] = held[id]
        elif id in known:
            found[id] = mark, known[id]
        else:
            found[id] = mark, judge(task, problems[id].state, prediction.response)
    if keep and found != held:
        with contextlib.suppress(OSError):
            write(scores, task, (({"id": id, "of": mark}, verdict) for id, (mark, verdict) in found.items()))
    for prediction in read_predictions(path):
        yield prediction, found[prediction.id][1]


def write(path: Path, task: Task[Any], rows: Iterable[tuple[Mapping[str, Any], Verdict]]) -> None:
    """Write a file of verdicts as a whole; what a row begins with says which response it is about. Raises OSError."""
    lines = [_head(task), *({**about, **v.to_json()} for about, v in rows)]
    write_text_atomic(path, "".join(json.dumps(line) + "\n" for line in lines))


def _read(path: Path, task: Task[Any]) -> dict[str, tuple[str, Verdict]]:
    """Mark of the response and verdict by id; nothing of another task or version, and of a damaged file."""
    if not path.exists():
        return {}
    try:
        head, *lines = (line.data for line in read_jsonl(path))
        if head != _head(task):
            return {}
        return {str(line.pop("id")): (str(line.pop("of")), structure(Verdict, line, "score")) for line in lines}
    except (ValueError, KeyError):
        return {}


def _head(task: Task[Any]) -> dict[str, Any]:
    return {"task": task.name, "task_version": task.version, "form": FORM}


def _mark(prediction: Prediction) -> str:
    text = prediction.response
    content = b"\0" if text is None else b"\1" + text.encode("utf-8", "surrogatepass")
    return hashlib.blake2b(content, digest_size=8).hexdigest()
