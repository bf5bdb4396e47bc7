"""EZPoints (appendix C.1): a formula of two cards, with + and *, that is worth 12.

All deals can be solved: 10 of the 91 pairs of ranks. As they are so few, all of them are in every split.
"""

from __future__ import annotations

import random
from collections.abc import Mapping

from vlmreason.envs.cards.points import Points, PointsSizes, PointsState
from vlmreason.tasks.base import Belongs


class EZPoints(Points):
    """Jack, queen and king count 10. An episode has 5 turns at most, a solution needs 4 of them."""

    name = "ez_points"
    undivided = "of the pairs of ranks ten can be solved"
    num_cards = 2
    target = 12
    turns = 5
    operators = "+*"
    brackets = False

    def __init__(
        self,
        sizes: PointsSizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        cot: bool = True,
        penalty: float | None = None,
    ) -> None:
        super().__init__(sizes, trace, wording, cot, penalty)

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> PointsState:
        return super()._sample(level, rng, lambda key: True)
