"""What an agent's response says: one JSON object, read strictly, because a model wrote it.

Text around the object is allowed (models put it between fences). Two objects, a key that comes twice, values of
another type: unreadable, so that no action is ever taken that was not asked for.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

MAX_CHARS = 20_000
MAX_DEPTH = 8


def read_object(response: str) -> Mapping[str, Any] | None:
    """The one JSON object of a response; None where there is none, more than one, or one beyond the limits."""
    start, end = response.find("{"), response.rfind("}")
    if start < 0 or end < start or end - start >= MAX_CHARS:
        return None
    text = response[start : end + 1]
    if _depth(text) > MAX_DEPTH:
        return None
    try:
        found = json.loads(text, object_pairs_hook=_once, parse_constant=_refuse)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) else None


def read_action(response: str, legal: Sequence[str], key: str = "action") -> str | None:
    """The legal action that a response names, letter by letter; None where it names none."""
    found = read_object(response)
    action = None if found is None else found.get(key)
    return action if isinstance(action, str) and action in legal else None


def _depth(text: str) -> int:
    """How deep brackets are nested at most; those within strings count too."""
    depth = deepest = 0
    for sign in text:
        if sign in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif sign in "]}":
            depth -= 1
    return deepest


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")
