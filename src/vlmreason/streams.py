"""Random streams and splits: hashes of what they are for, so that nothing needs to be stored."""

from __future__ import annotations

import hashlib
import json
import random

SPLITS = ("train", "validation", "test")
_written = json.JSONEncoder(separators=(",", ":")).encode
_SPLIT_ENDS = (128, 192, 256)  # of one hash byte: half of all problems are train, a quarter each the others


def stream(*parts: object) -> random.Random:
    """Return an independent random stream for a tuple of strings and integers."""
    return random.Random(int.from_bytes(_digest(parts), "big"))


def split_of(task: str, key: object) -> str:
    """Return the one split a problem's key belongs to."""
    byte = _digest((task, key))[0]
    return SPLITS[next(i for i, end in enumerate(_SPLIT_ENDS) if byte < end)]


def _digest(parts: object) -> bytes:
    return hashlib.blake2b(_written(parts).encode(), digest_size=16).digest()
