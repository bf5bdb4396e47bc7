"""Regions of an analogy: the panels that decide, the others, the options."""

from __future__ import annotations

from collections.abc import Iterable

from vlmreason.tasks.analogies.panels import LETTERS, AnalogyState
from vlmreason.tasks.analogies.visual_analogy import VisualAnalogy
from vlmreason.tasks.regions import Mask, Regions, Stretch, _boxes


def regions(task: VisualAnalogy, state: AnalogyState) -> Regions:
    side, (one, two, query, options) = task.sizes.panel, task.panel_places()
    places = {"1": one, "2": two, "relation": (*one, *two), "query": query[:2]}
    places |= {letter: (place,) for letter, place in zip(LETTERS, options, strict=True)}

    def mask(corners: Iterable[tuple[int, int]]) -> Mask:
        return _boxes(task.sizes.picture, ((y, x, side, side) for x, y in corners))

    names = {"1": "example 1", "2": "example 2"} | {letter: f"option {letter}" for letter in LETTERS}
    rows = task.thought_rows(state).items()
    stretches = [Stretch(names.get(name, name), "".join(steps), mask(places[name])) for name, steps in rows]
    return Regions(tuple(stretches), {"panels": mask((*one, *two, *query[:2], *options))})
