"""Results as JSON types: dataclasses become objects, tuples lists, keys text."""

from __future__ import annotations

import dataclasses
import json
from typing import Any


def plain(value: Any) -> Any:
    """`value` as it is read back from a JSON file."""
    return json.loads(json.dumps(value, default=_fields))


def _fields(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} is no JSON")
