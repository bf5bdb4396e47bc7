"""A problem as a model sees and answers it: prompt, picture, response in segments.

A response is an ordered list of segments, each of a kind. Segments are found in the tokens by character
offsets, never by token ids; losses, rewards and measures are defined on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vlmreason.dialogue.segments import ANSWER, CONVERT, THOUGHT, VIEWS, Response, Segment
from vlmreason.pictures import Picture
from vlmreason.structure import check_choice
from vlmreason.tasks.base import Problem, Task


@dataclass(frozen=True)
class Dialogue:
    """One question and its gold response. `image` is None for a text-only prompt: no placeholder then."""

    id: str
    view: str
    prompt: str
    image: Picture | None
    response: Response


def build_dialogue(task: Task[Any], problem: Problem[Any], view: str, thought_kept: float = 1.0) -> Dialogue:
    """The dialogue of a problem under a view.

    `thought_kept` in [0, 1] is the share of the chain of thought's steps that stays; steps are dropped
    from the front, as in progressive internalisation (appendix I.7).
    """
    check_choice("view", view, VIEWS)
    if not 0.0 <= thought_kept <= 1.0:
        raise ValueError(f"thought_kept={thought_kept}: allowed is 0 to 1")
    state = problem.state
    segments = []
    if view == "image_via_text":
        segments.append(Segment(CONVERT, task.convert(state) + "\n" + task.text(state) + "\n"))
    steps = task.thought(state)
    num_kept = round(len(steps) * thought_kept)
    if num_kept:
        segments.append(Segment(THOUGHT, "".join(steps[len(steps) - num_kept :])))
    segments.append(Segment(ANSWER, task.answer(state)))
    return Dialogue(
        id=problem.id,
        view=view,
        prompt=task.prompt(state, "text" if view == "text" else "image"),
        image=None if view == "text" else task.draw(state),
        response=Response(tuple(segments)),
    )
