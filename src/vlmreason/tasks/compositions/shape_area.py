"""Areas of shapes: of all together, of the largest, of a named one; the first skill of the composition.

Levels: `total` is trained; `largest` has another objective on the same pictures, and `named` asks a single fact.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vlmreason.tasks.compositions.base import AreaTask, CompositionState, target_of
from vlmreason.tasks.compositions.scenes import Shape, halves, rounded


class ShapeArea(AreaTask):
    name = "shape_area"
    version = 1
    levels = ("total", "largest", "named")
    shows = "areas"
    questions: ClassVar[Mapping[str, str]] = {"total": "total", "largest": "largest", "named": "area_of"}

    def value_of(self, state: CompositionState, shape: Shape | None) -> str:
        return str(rounded(sum(one.twice_area for one in ((shape,) if shape else state.scene.shapes))))

    def thought(self, state: CompositionState) -> list[str]:
        """Return the area of each shape with the sum, or the largest, so far; of a named shape its area alone."""
        wording = self.wording
        if state.asked == "named":
            return [f"{target_of(state).name} ", self.area_step(target_of(state))]
        steps, areas = [], list[int]()
        for shape in state.scene.shapes:
            areas.append(shape.twice_area)
            total = state.asked == "total"
            template = wording.sum_so_far if total else wording.largest_so_far
            so_far = template.format(value=halves(sum(areas) if total else max(areas)))
            steps += [self.area_step(shape), so_far]
        return steps
