"""The composition: which shape is meant is a question of places, what is asked of it one of areas. It is never trained.

Levels: `nearest_sum` asks for the total area of a named shape and the one nearest to it, `farthest_larger` for the
larger of the areas of a named shape and the one farthest from it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vlmreason.tasks.compositions.base import AreaTask, CompositionState, chosen, target_of
from vlmreason.tasks.compositions.scenes import Shape, halves, rounded


class ShapeGrid(AreaTask):
    name = "shape_grid"
    version = 1
    levels = ("nearest_sum", "farthest_larger")
    shows = "all"
    questions: ClassVar[Mapping[str, str]] = {"nearest_sum": "nearest_sum", "farthest_larger": "farthest_larger"}

    def value_of(self, state: CompositionState, shape: Shape | None) -> str:
        assert shape is not None
        return str(rounded(self._twice(state, shape)))

    def _twice(self, state: CompositionState, shape: Shape) -> int:
        areas = (target_of(state).twice_area, shape.twice_area)
        return sum(areas) if state.asked == "nearest_sum" else max(areas)

    def thought(self, state: CompositionState) -> list[str]:
        """Return the steps of both skills in turn: for inspection and for upper bounds, it is no one's to learn."""
        template = self.wording.sum_so_far if state.asked == "nearest_sum" else self.wording.larger
        return [
            self.target_step(state),
            *self.distance_steps(state),
            self.choice_step(state),
            self.area_step(target_of(state)),
            self.area_step(chosen(state)),
            template.format(value=halves(self._twice(state, chosen(state)))),
        ]
