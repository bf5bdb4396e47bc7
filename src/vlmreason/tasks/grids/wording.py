"""How grid navigation is written: templates, the grid as LaTeX, names of cells."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from vlmreason.tasks.grids.search import GridState


@dataclass(frozen=True)
class GridWording:
    """Templates. Each `tried_*` is a neighbour with its reason. Thought steps are head, step..., done.

    `step` may also show {target_cell}. The answer's moves are `begin`, where {start} may
    stand, and one `made` for each, which may show {cell}, to which the move leads.
    """

    prompt_text: str
    prompt_image: str
    convert: str
    head: str
    listed: str
    list_joint: str
    goal_name: str
    step: str
    tried_joint: str
    tried_outside: str
    tried_visited: str
    tried_obstacle: str
    tried_later: str
    tried_free: str
    tried_object: str
    tried_goal: str
    back: str
    done: str
    begin: str
    made: str
    answer: str


WORDINGS: Mapping[str, GridWording] = {
    "terse": GridWording(
        prompt_text="{text}\nCollect all objects from S to D.",
        prompt_image="Collect all objects from S to D.",
        convert="Convert the picture to LaTeX:",
        head="D {destination} {objects} S {start} ",
        listed="{name} {cell}",
        list_joint=" ",
        goal_name="D",
        step="{cell} {target} {target_cell} {tried} ",
        tried_joint=" ",
        tried_outside="{move} outside",
        tried_visited="{move} {cell} visited",
        tried_obstacle="{move} {cell} {name}",
        tried_later="{move} {cell} later",
        tried_free="{move} {cell} free",
        tried_object="{move} {cell} {name}",
        tried_goal="{move} {cell} D",
        back="back",
        done="{cell} done ",
        begin="{start} ",
        made="{move} {cell}",
        answer="Answer: {moves}",
    ),
    "verbose": GridWording(
        prompt_text="Below is a grid as LaTeX code; its first row and first column number the columns and rows. "
        "S is the start cell and D is the destination.\n{text}\n"
        "Cells with {obstacles} are obstacles, any other name is an object. Moving left, right, up or down by one "
        "cell, find a path from the start to the destination that collects every object and enters no obstacle. "
        "A cell is (row, column). Search depth first: at each cell say which neighbours you try and what is there, "
        "and go back when no neighbour is left. Finish with a line that begins with Answer: and gives only the "
        "moves of the path, without the ones you took back.",
        prompt_image="The picture shows a grid with numbered rows and columns. The light blue cell is the start and "
        "the dark green cell is the destination. "
        "Cells with {obstacles} are obstacles, any other symbol is an object. Moving left, right, up or down by one "
        "cell, find a path from the start to the destination that collects every object and enters no obstacle. "
        "A cell is (row, column). Search depth first: at each cell say which neighbours you try and what is there, "
        "and go back when no neighbour is left. Finish with a line that begins with Answer: and gives only the "
        "moves of the path, without the ones you took back.",
        convert="Convert the grid in the picture to LaTeX code.",
        head="The start is {start} and the destination is {destination}. To collect: {objects}.\n",
        listed="{name} at {cell}",
        list_joint=", ",
        goal_name="destination",
        step="At {cell}, heading for {target}: {tried}.\n",
        tried_joint="; ",
        tried_outside="{move} outside",
        tried_visited="{move} {cell} visited",
        tried_obstacle="{move} {cell} is blocked by {name}",
        tried_later="{move} {cell} is the destination, too early",
        tried_free="{move} {cell} is free",
        tried_object="{move} {cell} is free and has {name}",
        tried_goal="{move} {cell} is the destination",
        back="go back",
        done="At {cell}, all collected and arrived.\n",
        begin="",
        made="{move}",
        answer="Answer: {moves}",
    ),
}


def latex_grid(state: GridState) -> str:
    """Return a LaTeX tabular whose first row and column number the columns and rows; S, D, names, or nothing in a
    cell."""
    written = {cell: f" & {name}" for name, cell in state.objects + state.obstacles}
    written[state.start], written[state.destination] = " & S", " & D"
    columns = range(1, state.cols + 1)
    lines = [f"\\begin{{tabular}}{{{'c' * (state.cols + 1)}}}", "".join(f" & {c}" for c in columns) + " \\\\"]
    get = written.get
    for r in range(1, state.rows + 1):
        lines.append(f"{r}{''.join([get((r, c), ' &') for c in columns])} \\\\")
    lines.append("\\end{tabular}")
    return "\n".join(lines)
