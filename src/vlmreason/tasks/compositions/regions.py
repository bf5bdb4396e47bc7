"""Regions of a scene: the shapes that the steps of a trace are about, the target, the rest."""

from __future__ import annotations

from collections.abc import Iterable

from vlmreason.tasks.compositions import drawing
from vlmreason.tasks.compositions.base import Composition, CompositionState, target_of
from vlmreason.tasks.compositions.scenes import Shape
from vlmreason.tasks.regions import Mask, Regions, Stretch, _boxes


def regions(task: Composition, state: CompositionState) -> Regions:
    """Return a stretch for each step, with the shapes that it names; of a step that names none those before it."""
    found = dict(zip(state.scene.shapes, drawing.boxes(state.scene, task.sizes, task.shows), strict=True))

    def mask(shapes: Iterable[Shape]) -> Mask:
        return _boxes(task.sizes.picture, (found[shape] for shape in shapes))

    stretches, named = [], list[Shape]()
    for number, step in enumerate(task.thought(state), start=1):
        named = [shape for shape in state.scene.shapes if shape.name in step] or named
        stretches.append(Stretch(f"step {number}", step, mask(named)))
    return Regions(tuple(stretches), {"target": mask([target_of(state)]), "shapes": mask(state.scene.shapes)})
