"""A summary as a table for the terminal: levels x views."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vlmreason.evaluation.scoring import Cell, Summary
from vlmreason.intervals import wilson_interval

_HEADER = ("level", "view", "accuracy", "95 % interval", "problems", "unparsed", "cut off", "tokens")


def format_table(summary: Summary) -> str:
    """One row per (level, view): accuracy with interval (%), counts, and the mean number of generated tokens."""
    rows = [_HEADER, *(_row(cell) for cell in summary.cells)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(_HEADER))]
    lines = ["  ".join(_align(i, text, widths[i]) for i, text in enumerate(row)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    if summary.total.missing:
        lines.append(f"{summary.total.missing} of {summary.total.num} have no response and count as incorrect")
    return "\n".join(lines)


def format_course(lines: Iterable[Mapping[str, Any]], phase: str, num: int) -> str:
    """Accuracy along a phase from its lines of metrics.jsonl, with 95 % Wilson intervals; "" where none was evaluated.

    `num`: problems per level and view of each evaluation.
    """
    found = [line for line in lines if line["phase"] == phase and any(key.startswith("accuracy/") for key in line)]
    if not found:
        return ""
    keys = [key for key in found[0] if key.startswith("accuracy/")]
    rows = [("step", "env steps", *(" ".join(key.split("/")[1:]) for key in keys))]
    for line in found:
        cells = []
        for key in keys:
            low, high = wilson_interval(round(line[key] * num), num)
            cells.append(f"{100 * line[key]:.0f} % ({100 * low:.0f} to {100 * high:.0f})")
        rows.append((str(line["step"]), f"{line.get('env_steps', 0):.0f}", *cells))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    table = ["  ".join(text.rjust(width) for text, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join([f"{phase}: accuracy on {num} validation problems while training", *table])


def _row(cell: Cell) -> tuple[str, ...]:
    return (
        cell.level or "all",
        cell.view or "-",
        f"{100 * cell.accuracy:.1f} %",
        f"{100 * cell.ci_low:.1f} to {100 * cell.ci_high:.1f}",
        str(cell.num),
        str(cell.unparsed),
        str(cell.cut_off),
        "-" if cell.mean_tokens is None else f"{cell.mean_tokens:.1f}",
    )


def _align(column: int, text: str, width: int) -> str:
    return text.ljust(width) if column < 2 else text.rjust(width)
