"""Failures on grids (appendix K.2): what is read of the grid, where the moves lead, what they collect and cross."""

from __future__ import annotations

from vlmreason.tasks.findings import Finding, right_steps
from vlmreason.tasks.grids.grid_navigation import GridNavigation
from vlmreason.tasks.grids.search import GridState, Walk, simulate


def find(task: GridNavigation, state: GridState, response: str, thought: str) -> Finding:
    """Return source, destination and objects are those that the trace begins with; the rest is about the answer's
    moves.

    `reaches_destination` ignores objects and obstacles, `objects_collected` is the share of them, `obstacles` how
    often the moves enter one; responses without moves reach and collect nothing and are left out of the obstacles.
    `failure` of an incorrect response: unparsed, outside, obstacle, destination (not reached), objects (left
    behind), the first of these that holds. The first error is the trace's first step that is not the search's.
    """
    score = task.score(state, response)
    moves, head, steps = task.read_answer(response), task.read_head(response), right_steps(task.thought(state), thought)
    walk = simulate(state, moves) if moves else None
    reaches = walk is not None and walk.inside and walk.end == state.destination
    collected = len(walk.collected) / len(state.objects) if walk and state.objects else float(walk is not None)
    has_trace = steps is not None
    return Finding(
        correct=score.correct,
        failure=None if score.correct else _failure(state, walk),
        first_error=steps[0] if steps and steps[0] < steps[1] and not score.correct else None,
        severity=1 - (reaches + collected) / 2 if walk else 1.0,
        shares={
            "source_parsed": head is not None and head.start == state.start if has_trace else None,
            "destination_parsed": head is not None and head.destination == state.destination if has_trace else None,
            "objects_parsed": head is not None and set(head.objects) == set(state.objects) if has_trace else None,
            "reaches_destination": reaches,
            "stays_inside": walk.inside if walk else None,
            "trace_right": steps[0] == steps[1] if steps else None,
        },
        means={"objects_collected": collected, "obstacles": float(walk.num_obstacles) if walk else None},
    )


def _failure(state: GridState, walk: Walk | None) -> str:
    if walk is None:
        return "unparsed"
    if not walk.inside:
        return "outside"
    if walk.num_obstacles:
        return "obstacle"
    return "destination" if walk.end != state.destination else "objects"
