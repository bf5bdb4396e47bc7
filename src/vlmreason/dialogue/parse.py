"""A model's response cut into the segments of `dialogue`: conversion, thought, answer.

A model marks no borders, so they are found: the conversion by the task's conversion sentence at the start,
the answer where the task reads it; what is between is thought. A missing segment is left out.
"""

from __future__ import annotations

from typing import Any

from vlmreason.dialogue.segments import ANSWER, CONVERT, THOUGHT, Response, Segment
from vlmreason.tasks.base import Task


def split_response(task: Task[Any], state: Any, response: str) -> Response:
    """The response in segments whose texts join to exactly `response`."""
    convert_end = _conversion_end(task, state, response)
    answer_start = task.answer_start(response, convert_end)
    convert_end = min(convert_end, answer_start)
    pieces = (
        Segment(CONVERT, response[:convert_end]),
        Segment(THOUGHT, response[convert_end:answer_start]),
        Segment(ANSWER, response[answer_start:]),
    )
    return Response(tuple(piece for piece in pieces if piece.text))


def conversion_exact(task: Task[Any], state: Any, response: str) -> bool | None:
    """Whether the text a response converts the picture to is the problem's, letter by letter (but for white
    space at its ends); None where the response does not convert."""
    end = _conversion_end(task, state, response)
    if end == 0:
        return None
    converted = response[:end].lstrip().removeprefix(task.convert(state))
    return converted.strip() == task.text(state).strip()


def _conversion_end(task: Task[Any], state: Any, response: str) -> int:
    """Where the conversion ends: behind the gold text, else behind its last line, else after as many lines."""
    sentence, text = task.convert(state), task.text(state)
    start = len(response) - len(response.lstrip())
    if not response.startswith(sentence, start):
        return 0
    start += len(sentence)
    body = start + len(response[start:]) - len(response[start:].lstrip())
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
