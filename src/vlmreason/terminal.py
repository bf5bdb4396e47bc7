"""What a person reads at a terminal: tables in columns, texts in one line. Programs and pipes get JSON."""

from __future__ import annotations

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
