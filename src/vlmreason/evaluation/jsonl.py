"""JSON lines and JSON from untrusted files: every fault of a file is a ValueError that names it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmreason.files import write_json_atomic

MAX_LINE_BYTES = 64 * 2**20  # a longer line is no record of ours: memory stays bounded


@dataclass(frozen=True)
class Line:
    """One JSON object of a file. `where` is "path:number"; `utf8` is False where bytes had to be replaced."""

    where: str
    start: int  # offset in bytes
    end: int  # offset behind the line, newline included
    data: dict[str, Any]
    utf8: bool
    terminated: bool


def read_jsonl(path: Path, start: int = 0) -> Iterator[Line]:
    """The objects of a JSON-lines file, one at a time; blank lines and a cut-off last line are left out.

    A cut-off line is an unreadable last one without a newline: what a killed writer leaves. Anything else
    that is not a JSON object, or longer than MAX_LINE_BYTES, raises ValueError naming file and line.
    """
    try:
        handle = path.open("rb")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    with handle:
        handle.seek(start)
        number, end = 0, start
        while raw := handle.readline(MAX_LINE_BYTES + 1):
            number, begin, end = number + 1, end, end + len(raw)
            where = f"{path}:{number}" if start == 0 else f"{path} at byte {begin}"
            terminated = raw.endswith(b"\n")
            if len(raw) > MAX_LINE_BYTES:
                raise ValueError(f"{where}: the line is longer than {MAX_LINE_BYTES // 2**20} MiB")
            if not raw.strip():
                continue
            text = raw.decode("utf-8-sig" if begin == 0 else "utf-8", errors="replace")
            try:
                data = json.loads(text)
            except (ValueError, RecursionError):
                if not terminated:
                    return
                raise ValueError(f"{where}: the line is damaged: it is not JSON") from None
            if not isinstance(data, dict):
                raise ValueError(f"{where}: a JSON object is expected, got {type(data).__name__}")
            yield Line(where, begin, end, data, _is_utf8(raw), terminated)


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def write_json(path: Path, data: object) -> None:
    """Write a JSON file atomically. Raises ValueError naming the file."""
    try:
        write_json_atomic(path, data)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from None


def read_json(path: Path) -> Any:
    """The content of a JSON file. Raises ValueError naming the file."""
    try:
        return json.loads(path.read_bytes())
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: the file is damaged: it is not JSON") from None
