"""How tasks on scenes are written: templates of questions, traces and answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class CompositionWording:
    """Templates. `text` and `image` hold the {question} of the level, `text` the {text} form too. With `prompts: paper`
    `before` stands before them, or `behind` or `caption_behind` behind them.

    Questions may show the name of the {target}. A trace is made of steps: `target`, `nearest_is` and `farthest_is` may
    show {name} and {cell}, `area` {place} (`place`, where cells are shown), {name}, {sides}, {formula} and {area},
    `distance` {name}, {cell} and {distance}; `sum_so_far`, `largest_so_far` and `larger` show {value}.
    """

    text: str
    image: str
    before: str
    behind: str
    caption_behind: str
    total: str
    largest: str
    area_of: str
    nearest: str
    farthest: str
    cell_of: str
    nearest_sum: str
    farthest_larger: str
    convert: str
    target: str
    place: str
    area: str
    sum_so_far: str
    largest_so_far: str
    distance: str
    nearest_is: str
    farthest_is: str
    larger: str
    answer: str


_VERBOSE_FORM = (
    "Squares have a side, rectangles a width and a height, triangles with a right angle a base and a height, "
    "trapezoids an upper and a lower side and a height. A cell is (row, column), counted from (1,1) at the upper left; "
    "a distance is the rows plus the columns between two cells. An area that is no integer is rounded half up. Finish "
    "with a line that begins with Answer: and holds nothing else but"
)

WORDINGS: Mapping[str, CompositionWording] = {
    "terse": CompositionWording(
        text="{text}\n{question}",
        image="{question}",
        before="Give each step then the answer\n",
        behind="\nWrite each step then the answer",
        caption_behind="\nDescribe the picture then give each step then the answer",
        total="Area of all shapes",
        largest="Area of the largest shape",
        area_of="Area of the {target}",
        nearest="Find the shape nearest to the {target}",
        farthest="Find the shape farthest from the {target}",
        cell_of="Find the {target}",
        nearest_sum="Area of the {target} and the shape nearest to it",
        farthest_larger="Area of the larger of the {target} and the shape farthest from it",
        convert="Caption:",
        target="{name} {cell} ",
        place="{cell} ",
        area="{place}{name} {sides} area {area} ",
        sum_so_far="sum {value} ",
        largest_so_far="largest {value} ",
        distance="{name} {cell} distance {distance} ",
        nearest_is="nearest {cell} {name} ",
        farthest_is="farthest {cell} {name} ",
        larger="larger {value} ",
        answer="Answer: {answer}",
    ),
    "verbose": CompositionWording(
        text="Below are shapes, one in a line, with what is known of them: its cell, colour and kind, its sides.\n"
        "{text}\n{question}",
        image="The picture shows shapes. {question}",
        before="A user asks and you reply. You think in steps before you give the answer, which the last line holds "
        "behind Answer: and nothing else does.\n\n",
        behind="\nThink in steps first. Then give the answer in a last line, behind Answer:.",
        caption_behind="\nDescribe first what is to be seen, behind Caption:. Then think in steps. Then give the "
        "answer in a last line, behind Answer:.",
        total=f"What is the total area of all shapes? {_VERBOSE_FORM} the total area.",
        largest=f"What is the area of the largest shape? {_VERBOSE_FORM} that area.",
        area_of=f"What is the area of the {{target}}? {_VERBOSE_FORM} that area.",
        nearest=f"In which cell is the shape that is nearest to the {{target}}? {_VERBOSE_FORM} that cell.",
        farthest=f"In which cell is the shape that is farthest from the {{target}}? {_VERBOSE_FORM} that cell.",
        cell_of=f"In which cell is the {{target}}? {_VERBOSE_FORM} that cell.",
        nearest_sum="Find the shape that is nearest to the {target}. What is the total area of these two shapes? "
        f"{_VERBOSE_FORM} the total area.",
        farthest_larger="Find the shape that is farthest from the {target}. What is the larger of the areas of these "
        f"two shapes? {_VERBOSE_FORM} that area.",
        convert="Caption:",
        target="The {name} is in cell {cell}.\n",
        place=" in cell {cell}",
        area="The {name}{place} has the sides {sides}, so its area is {formula} = {area}.\n",
        sum_so_far="The sum so far is {value}.\n",
        largest_so_far="The largest so far is {value}.\n",
        distance="The {name} in cell {cell} is at a distance of {distance}.\n",
        nearest_is="The nearest is the {name} in cell {cell}.\n",
        farthest_is="The farthest is the {name} in cell {cell}.\n",
        larger="The larger area is {value}.\n",
        answer="Answer: {answer}",
    ),
}
