"""Places of shapes: of the nearest to a named one, of the farthest from it, of the named one; the second skill.

Levels: `nearest` is trained; `farthest` has another objective on the same pictures, and `named` asks a single fact.
Floors: the cell of any other shape, and on `farthest` that of the nearest.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vlmreason.tasks.base import Score
from vlmreason.tasks.cells import cell_name
from vlmreason.tasks.compositions.base import Composition, CompositionState, read_cell, target_of
from vlmreason.tasks.compositions.scenes import Shape


class GridPosition(Composition):
    name = "grid_position"
    version = 1
    levels = ("nearest", "farthest", "named")
    shows = "places"
    questions: ClassVar[Mapping[str, str]] = {"nearest": "nearest", "farthest": "farthest", "named": "cell_of"}

    def value_of(self, state: CompositionState, shape: Shape | None) -> str:
        assert shape is not None
        return cell_name(shape.cell)

    def thought(self, state: CompositionState) -> list[str]:
        """Return the target's cell, the distance of every other shape, and which of them it is."""
        if state.asked == "named":
            shape = target_of(state)
            return [f"{shape.name} ", f"{cell_name(shape.cell)} "]
        return [self.target_step(state), *self.distance_steps(state), self.choice_step(state)]

    def score(self, state: CompositionState, response: str) -> Score:
        """Return whether the cell behind the last `Answer:` is the one; `shape`: whether a shape is there that could
        be it, any other than the target, or the target where its cell is asked for."""
        found = read_cell(self.last_answer(response))
        named = state.asked == "named"
        cells = [s.cell for number, s in enumerate(state.scene.shapes) if (number == state.target) == named]
        right = found is not None and cell_name(found) == self.value(state)
        return Score(right, found is not None, {"shape": float(found in cells)})
