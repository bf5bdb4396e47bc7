"""Points24 (appendix C.1): a formula of four cards that is worth 24.

Of the deals of four cards 74.6 % can be solved where face cards count 10 (1,236 of the 1,820 sets of ranks), 80.5 %
where they count 11 to 13 (1,362 sets). The sets of values are divided among the splits (`deck.substance`).
"""

from __future__ import annotations

from vlmreason.envs.cards.points import Points


class Points24(Points):
    """`solvable`: deal only what can be solved; false: four cards at random, as the paper does.

    `face_cards`: jack, queen and king count 10 ("ten") or 11, 12 and 13 ("ranks"); the numbers that can be appended go
    up to that. An episode has 20 turns at most; a formula without brackets that are not needed takes 12 or fewer.
    """

    name = "points24"
    version = 2
    num_cards = 4
    target = 24
    turns = 20
    operators = "+-*/"
    brackets = True
