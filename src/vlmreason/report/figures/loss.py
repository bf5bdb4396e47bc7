"""The loss of a run over its steps, phase by phase."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping
from typing import Any

from matplotlib.figure import Figure

from vlmreason.report.figures.draw import plain_settings
from vlmreason.report.figures.style import FAINT, SMALL, SOFT

_COLOUR = "#1b6ca8"


def loss_curve(metrics: Iterable[Mapping[str, Any]]) -> bytes | None:
    """Draw the lines of a metrics.jsonl as SVG; None where none has a loss. The same lines give the same bytes."""
    phases: dict[str, list[tuple[int, float]]] = {}
    for line in metrics:
        if isinstance(line.get("loss"), (int, float)) and isinstance(line.get("step"), int):
            phases.setdefault(str(line.get("phase")), []).append((line["step"], float(line["loss"])))
    if not phases:
        return None
    with plain_settings():
        figure = Figure(figsize=(6.4, 2.4), facecolor="white", layout="constrained")
        axes = figure.subplots()
        begins = 0
        for name, points in phases.items():
            axes.plot([begins + step for step, _ in points], [loss for _, loss in points], color=_COLOUR, linewidth=1.2)
            axes.annotate(
                name, (begins, 1), (3, -2), xycoords=("data", "axes fraction"), textcoords="offset points",
                va="top", fontsize=SMALL, color=SOFT,
            )  # fmt: skip
            if begins:
                axes.axvline(begins, color=FAINT, linewidth=0.8)
            begins += points[-1][0]
        axes.set_xlabel("step")
        axes.set_ylabel("loss")
        axes.spines[["top", "right"]].set_visible(False)
        held = io.BytesIO()
        figure.savefig(held, format="svg", metadata={"Date": None, "Creator": None})
    return held.getvalue()
