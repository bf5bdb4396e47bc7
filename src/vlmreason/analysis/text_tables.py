"""Results of analyses as tables for the terminal, from their JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Data = Mapping[str, Any]


def _percent(share: Data) -> str:
    if share["share"] is None:
        return "-"
    return f"{share['count']}/{share['num']} {_percents(share['share'], share['ci_low'], share['ci_high'])}"


def _percents(value: float, low: float | None, high: float | None) -> str:
    return f"{100 * value:.1f}" + ("" if low is None or high is None else f" ({100 * low:.1f} to {100 * high:.1f})")


def _mean(one: Data) -> str:
    if one["mean"] is None:
        return "-"
    if one["ci_low"] is None:
        return f"{one['mean']:.2f}"
    return f"{one['mean']:.2f} ({one['ci_low']:.2f} to {one['ci_high']:.2f})"


def _align(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
