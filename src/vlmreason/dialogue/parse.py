"""A model's response cut into segments: conversion, thought, answer, and what else the task marks.

A model marks no borders, so they are found: a line on the kind of the problem by the word with which such lines begin,
at the start, the conversion by the task's conversion sentence behind it or at the start,
the answer where the task reads it; what is between is thought, cut where `Task.markers` begin segments of other
kinds. A missing segment is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from vlmreason.segments import ANSWER, CONDITION, KINDS, THOUGHT, Response, Segment
from vlmreason.tasks.base import Task


def split_response(task: Task[Any], state: Any, response: str) -> Response:
    """Return the response in segments whose texts join to exactly `response`."""
    condition_end = _condition_end(task, response)
    convert_end = max(condition_end, _conversion_end(task, state, response, condition_end))
    answer_start = task.answer_start(response, convert_end)
    convert_end = min(convert_end, answer_start)
    condition_end = min(condition_end, convert_end)
    pieces = (
        Segment(CONDITION, response[:condition_end]),
        Segment(task.converted_as, response[condition_end:convert_end]),
        *_marked(task.markers(), response, convert_end, answer_start),
        Segment(ANSWER, response[answer_start:]),
    )
    return Response(tuple(piece for piece in pieces if piece.text))


def kinds_of(task: Task[Any]) -> list[str]:
    """Name the kinds into which responses of a task are cut, in the table's order."""
    found = {task.converted_as, THOUGHT, ANSWER, *task.markers(), *([CONDITION] if task.conditions() else ())}
    return [kind.name for kind in KINDS if kind.name in found]


def conversion_exact(task: Task[Any], state: Any, response: str) -> bool | None:
    """Tell whether the text a response converts the picture to is the problem's, letter by letter (but for white
    space at its ends); None where the response does not convert."""
    start = _condition_end(task, response)
    end = _conversion_end(task, state, response, start)
    if end == 0:
        return None
    converted = response[start:end].lstrip().removeprefix(task.convert(state))
    return converted.strip() == task.text(state).strip()


def _marked(markers: Mapping[str, re.Pattern[str]], response: str, start: int, end: int) -> Iterator[Segment]:
    """The characters from `start` to `end`, cut where a marker begins; one that begins within another is none."""
    matches = ((match, kind) for kind, marker in markers.items() for match in marker.finditer(response, start, end))
    kind, label, marker_end = THOUGHT, "", start
    for match, next_kind in sorted(matches, key=lambda found: found[0].start()):
        if match.start() >= marker_end:
            yield Segment(kind, response[start : match.start()], label)
            kind, label = next_kind, match.groupdict().get("label") or ""
            start, marker_end = match.span()
    yield Segment(kind, response[start:end], label)


def _condition_end(task: Task[Any], response: str) -> int:
    """Where the line ends that says of which kind the problem is, at the latest before an answer; 0: there is none."""
    lines = task.conditions()
    if not lines or response.split(maxsplit=1)[:1] != lines[0].split(maxsplit=1)[:1]:
        return 0
    start = len(response) - len(response.lstrip())
    newline, marker = response.find("\n", start), task.answer_marker().search(response)
    end = newline + 1 if newline >= 0 else len(response)
    return min(end, marker.start()) if marker else end


def _conversion_end(task: Task[Any], state: Any, response: str, at: int) -> int:
    """Where the conversion ends that begins at `at`; 0: there is none.

    That is where the task says, or behind the gold text, or its last line, or as many lines.
    """
    sentence, text = task.convert(state), task.text(state)
    start = at + len(response[at:]) - len(response[at:].lstrip())
    if not response.startswith(sentence, start):
        return 0
    start += len(sentence)
    body = start + len(response[start:]) - len(response[start:].lstrip())
    if (own := task.conversion_end(response, body)) is not None:
        return own
    if response.startswith(text, body):
        return _line_end(response, body + len(text))
    lines = text.splitlines()
    last = response.find("\n" + lines[-1] + "\n", start)
    if last >= 0:
        return last + len(lines[-1]) + 2
    marker = task.answer_marker().search(response, body)
    limit = marker.start() if marker else len(response)
    end = body
    for _ in lines:
        newline = response.find("\n", end, limit)
        if newline < 0:
            return limit
        end = newline + 1
    return end


def _line_end(response: str, position: int) -> int:
    return position + 1 if response.startswith("\n", position) else position
