"""A problem as a model sees and answers it: prompt, picture, response in segments.

A response is an ordered list of segments, each of a kind. Segments are found in the tokens by character
offsets, never by token ids; losses, rewards and measures are defined on them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from vlmreason.pictures import Picture
from vlmreason.segments import CONDITION, FADING, VIEWS, WITH_PICTURE, WITH_TEXT, Response, Segment
from vlmreason.structure import check_choice
from vlmreason.tasks.base import Modality, Problem, Task


@dataclass(frozen=True)
class Dialogue:
    """One question and its gold response. `image` is None for a text-only prompt: no placeholder then. `kind`: of its
    problem, where a task has kinds."""

    id: str
    view: str
    prompt: str
    image: Picture | None
    response: Response
    kind: str = ""


def build_dialogue(
    task: Task[Any], problem: Problem[Any], view: str, thought_kept: float = 1.0, condition: bool = False
) -> Dialogue:
    """Make the dialogue of a problem under a view.

    `thought_kept` in [0, 1] is the share of the chain of thought's steps that stays; steps are dropped
    from the front, as in progressive internalisation (appendix I.7). With `condition` the response begins with the line
    that says of which kind the problem is, where its task has one.
    """
    check_choice("view", view, VIEWS)
    if not 0.0 <= thought_kept <= 1.0:
        raise ValueError(f"thought_kept={thought_kept}: allowed is 0 to 1")
    state = problem.state
    prompt, image = ask(task, state, view)
    response = shorten(task.response(state, view), thought_kept)
    if condition and (line := task.condition(state)):
        response = Response((Segment(CONDITION, line), *response.segments))
    return Dialogue(problem.id, view, prompt, image, response, task.kind_of(state))


def ask(task: Task[Any], state: Any, view: str) -> tuple[str, Picture | None]:
    """Return the question about a state under a view, and the picture that goes with it."""
    return task.prompt(state, modality(view)), task.draw(state) if view in WITH_PICTURE else None


def modality(view: str) -> Modality:
    """Say which of a task's prompts a view has: the one that holds the text form, or the one of the picture alone."""
    return "text" if view in WITH_TEXT else "image"


def shorten(response: Response, kept: float) -> Response:
    """Drop the first steps of what fades, so that the share `kept` of them all stays.

    The steps of several thoughts count in the order in which they are written: the first thought is gone before the
    second loses a step, and what stands between them stays. A segment that has no step left is left out.
    """
    num_steps = [len(segment.steps) or 1 if segment.kind in FADING else 0 for segment in response.segments]
    to_drop = sum(num_steps) - round(sum(num_steps) * kept)
    segments = []
    for segment, num in zip(response.segments, num_steps, strict=True):
        dropped = min(to_drop, num)
        to_drop -= dropped
        if rest := segment.without(dropped) if dropped else segment:
            segments.append(rest)
    return Response(tuple(segments))
