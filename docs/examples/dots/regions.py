"""Where the dots are that a step counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from vlmreason.tasks.regions import Regions, Stretch

if TYPE_CHECKING:
    from dots.count_dots import CountDots, Row


def regions(task: CountDots, state: Row) -> Regions:
    """Say which cell each step of the trace is about."""
    side, whole = task.sizes.cell, np.zeros(task.draw(state).shape[:2], dtype=np.bool_)
    masks = []
    for place in (place for place, dot in enumerate(state.dots) if dot):
        mask = whole.copy()
        mask[:side, side * place : side * (place + 1)] = True
        masks.append(mask)
    steps = zip(task.thought(state), masks, strict=True)
    stretches = tuple(Stretch(f"dot {number}", text, mask) for number, (text, mask) in enumerate(steps, start=1))
    return Regions(stretches, {"dots": np.logical_or.reduce([whole, *masks])})
