"""What a person reads at a terminal: tables in columns, texts in one line. Programs and pipes get JSON."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence


def prints_json(asked: bool | None) -> bool:
    """Say whether a result is printed as JSON: as it is asked for; where it is not (None), off a terminal."""
    return not sys.stdout.isatty() if asked is None else asked


def columns(header: Sequence[str], rows: Sequence[Sequence[str]], left: int) -> str:
    """Set rows in columns under a ruled header; the first `left` ones are aligned to the left, the others right."""
    all_rows = [header, *rows]
    widths = [max(len(row[i]) for row in all_rows) for i in range(len(header))]
    lines = [
        "  ".join(
            text.ljust(width) if i < left else text.rjust(width)
            for i, (text, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in all_rows
    ]
    return "\n".join([lines[0], "  ".join("-" * width for width in widths), *lines[1:]])


def in_line(text: str, used: int = 0) -> str:
    """Fit text into what is left of a line of the terminal beside `used` characters, line ends and spaces as one."""
    room = max(shutil.get_terminal_size((120, 24)).columns - used, 30)
    words = " ".join(text.split())
    return words if len(words) <= room else words[: room - 3] + "..."


_CODES = {"bold": "1", "soft": "2", "right": "32", "wrong": "31", "mark": "7"}
"""Kinds of emphasis, and how a terminal is asked for them."""


def styled(text: str, kind: str) -> str:
    """Emphasise a text on a terminal; elsewhere, and where NO_COLOR is set, return it as it is."""
    wanted = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    return f"\x1b[{_CODES[kind]}m{text}\x1b[0m" if wanted and text else text


def printable(text: str) -> str:
    """Return a text from elsewhere with its control characters written out; line ends and tabs stay."""
    return "".join(char if char.isprintable() or char in "\n\t" else ascii(char)[1:-1] for char in text)
