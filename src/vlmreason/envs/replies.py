"""What an agent's response says: one JSON object, read strictly, because a model wrote it.

Text around the object is allowed (models put it between fences). Two objects, a key that comes twice, the key of the
answer at two places of any depth, values of another type: unreadable, so that no action is ever taken that was not
asked for.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

MAX_CHARS = 20_000
MAX_DEPTH = 8
_BLANKS = re.compile(r"[ \t\n\r]*")


def read_object(response: str, key: str) -> Mapping[str, Any] | None:
    """Return the one JSON object of a response, which may have the key of the answer once.

    None where there is none, more than one, or one beyond the limits.
    """
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
    return found if isinstance(found, dict) and _num_places(found, key) <= 1 else None


def find_key(response: str, key: str) -> int | None:
    """Say where the key stands in a response whose object `read_object` gives with it; None: there is no such."""
    found = read_object(response, key)
    if found is None or key not in found:
        return None
    decoder, at = json.JSONDecoder(), _past_blanks(response, response.index("{") + 1)
    while True:
        name, end = decoder.raw_decode(response, at)
        if name == key:
            return at
        colon = _past_blanks(response, end)
        _, end = decoder.raw_decode(response, _past_blanks(response, colon + 1))
        comma = _past_blanks(response, end)
        at = _past_blanks(response, comma + 1)


def read_action(response: str, legal: Sequence[str], key: str = "action") -> str | None:
    """Return the legal action that a response names, letter by letter; None where it names none."""
    found = read_object(response, key)
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


def _num_places(value: Any, key: str) -> int:
    """How often a key comes in a value and in what it holds."""
    if isinstance(value, dict):
        return (key in value) + sum(_num_places(one, key) for one in value.values())
    return sum(_num_places(one, key) for one in value) if isinstance(value, list) else 0


def _past_blanks(text: str, at: int) -> int:
    blanks = _BLANKS.match(text, at)
    assert blanks is not None
    return blanks.end()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key comes twice")
    return found


def _refuse(constant: str) -> Any:
    raise ValueError(f"{constant} is no number of JSON")
