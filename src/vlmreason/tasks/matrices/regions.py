"""Regions of a matrix: its eight panels, the right choice, the others."""

from __future__ import annotations

from collections.abc import Iterable

from vlmreason.tasks.matrices.panels import NUM_CHOICES, NUM_CONTEXT, MatrixState
from vlmreason.tasks.matrices.raven import Raven
from vlmreason.tasks.regions import Mask, Regions, Stretch, _boxes


def regions(task: Raven, state: MatrixState) -> Regions:
    """Lines of the trace are about the eight panels, the last one about the choices."""
    side, places = task.sizes.panel, task.artist.places

    def mask(numbers: Iterable[int]) -> Mask:
        return _boxes(task.sizes.picture, ((places[i][1], places[i][0], side, side) for i in numbers))

    first = NUM_CONTEXT + 1  # behind the question mark
    choices, answer = range(first, first + NUM_CHOICES), first + state.answer
    *attributes, out = task.thought(state)
    stretches = [
        Stretch(f"attribute {number}", text, mask(range(NUM_CONTEXT))) for number, text in enumerate(attributes, 1)
    ]
    masks = {"context": mask(range(NUM_CONTEXT)), "answer": mask([answer])}
    masks["other choices"] = mask(i for i in choices if i != answer)
    return Regions((*stretches, Stretch("choices", out, mask(choices))), masks)
