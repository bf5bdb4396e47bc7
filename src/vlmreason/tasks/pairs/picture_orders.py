"""Orders about drawn pictures, whose answers need what captions name, in the form that is asked for.

They stand for instruction following beside visual grounding (table 3.2 of Zhai's dissertation, LLaVA-Bench there): a
tower that is blind to details has all that they need, and an answer is right only if it does what was said. Pictures
are those of `visual_pairs`. Levels: five orders, and `mixed`. Parts: `form`, that of the order, whatever is said in it;
`content`, all that was asked is said, in whatever form.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from vlmreason.pictures import Picture
from vlmreason.structure import structure
from vlmreason.tasks.base import MAX_ATTEMPTS, MAX_RESPONSE_CHARS, Belongs, Modality, Score, Task
from vlmreason.tasks.pairs.visual_pairs import (
    DETAILS,
    INKS,
    MIXED,
    Details,
    PairSizes,
    PairState,
    check_place,
    draw,
    draw_details,
    draw_place,
)

NAMED: Mapping[str, tuple[str, ...]] = {
    "ink": tuple(INKS), **{name: DETAILS[name][1] for name in ("structure", "count", "color")},
}  # fmt: skip
"""What orders ask for: what captions name (conf/towers.yaml), with the values."""

ORDERS: Mapping[str, tuple[str, str]] = {
    "name": ("Name the color of the body in one word.", "{ink}"),
    "twice": ("Say the form of the body twice.", "{structure} {structure}"),
    "list": ("List color and form of the body and number of dots, with commas.", "{ink}, {structure}, {count}"),
    "reverse": ("List number of dots and form and color of the body, with commas.", "{count}, {structure}, {ink}"),
    "sentence": ("Describe body and block in a sentence.", "the body is {ink} and {structure}, the block is {color}"),
}
"""Of each order its words, and the form of the answer."""


@dataclass(frozen=True)
class OrderState:
    """A picture of `visual_pairs` and what is asked: order; details of the picture; shift, ground: as in PairState."""

    order: str
    details: Details
    shift: tuple[int, int]
    ground: int


class PictureOrders(Task[OrderState]):
    name = "picture_orders"
    version = 1
    levels: ClassVar[tuple[str, ...]] = (*ORDERS, MIXED)
    state_type = OrderState
    sizes_type: ClassVar[type] = PairSizes

    def __init__(self, sizes: PairSizes, trace: str = "terse", wording: Mapping[str, str] | None = None) -> None:
        if wording:
            raise ValueError(f"task.wording: {self.name} has no templates")
        self.sizes = sizes

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> OrderState:
        for _ in range(MAX_ATTEMPTS):
            order = rng.choice(tuple(ORDERS)) if level == MIXED else level
            state = OrderState(order, draw_details(rng), *draw_place(rng))
            if belongs(self.key(state)):
                return state
        raise self.unreachable(level, "no picture is of the split")

    def key(self, state: OrderState) -> object:
        return [state.order, dict(vars(state.details))]

    def groups(self, state: OrderState) -> Mapping[str, str]:
        return {"order": state.order}

    def text(self, state: OrderState) -> str:
        """Return a line for each detail."""
        return state.details.lines()

    def prompt(self, state: OrderState, modality: Modality) -> str:
        asked = ORDERS[state.order][0]
        return f"{self.text(state)}\n{asked}" if modality == "text" else asked

    def draw(self, state: OrderState) -> Picture:
        details = state.details
        pair = PairState(0, "orientation", details, (details.orientation, ""), state.shift, state.ground)
        return draw(pair, self.sizes.picture[0])

    def convert(self, state: OrderState) -> str:
        return "Convert the picture to text."

    def thought(self, state: OrderState) -> list[str]:
        return []

    def answer(self, state: OrderState) -> str:
        return f"Answer: {ORDERS[state.order][1].format(**vars(state.details))}"

    def score(self, state: OrderState, response: str) -> Score:
        """Judge what is behind the last "Answer:", or all of a response without one, but for case and blanks."""
        behind = self.answer_text(response)
        given = response[:MAX_RESPONSE_CHARS] if behind is None else behind
        given = " ".join(given.lower().split()).removesuffix(".")
        form = ORDERS[state.order][1]
        wanted = form.format(**vars(state.details)).lower()
        asked = dict.fromkeys(re.findall(r"\{(\w+)\}", form))
        said = set(re.findall(r"[a-z]+", given))
        content = all(said.intersection(NAMED[name]) == {getattr(state.details, name)} for name in asked)
        formed = _shape(form).fullmatch(given) is not None
        return Score(given == wanted, formed, {"form": float(formed), "content": float(content)})

    def state_from_json(self, data: object) -> OrderState:
        state: OrderState = structure(OrderState, data, f"problem of {self.name}")
        if state.order not in ORDERS or not state.details.is_known():
            raise ValueError(f"problem of {self.name}: an order, colour or detail that does not exist")
        check_place(self.name, state.shift, state.ground)
        return state


@functools.cache
def _shape(form: str) -> re.Pattern[str]:
    """An answer of this form, whatever values it has."""
    pieces = re.split(r"\{(\w+)\}", form)
    return re.compile(
        "".join(f"(?:{'|'.join(NAMED[one])})" if place % 2 else re.escape(one) for place, one in enumerate(pieces))
    )
