"""A summary as a table for the terminal: levels x views."""

from __future__ import annotations

from vlmreason.evaluation.scoring import Cell, Summary

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
