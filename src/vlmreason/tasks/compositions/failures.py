"""Failures on scenes: what a trace reads, computes and chooses wrongly before its answer is wrong.

Areas and distances that the trace states are held against the scene's; slots that it leaves out are no errors of
reading. The first error is the trace's first step that is not the task's.
"""

from __future__ import annotations

from collections.abc import Mapping

from vlmreason.tasks.compositions.base import Composition, CompositionState
from vlmreason.tasks.findings import Finding, right_steps


def find(task: Composition, state: CompositionState, response: str, thought: str) -> Finding:
    """Return `failure` of an incorrect response: unparsed; area, distance (one that is stated is wrong, or of a shape
    that is not there); left_out (nothing is wrong, but something is missing); conclusion (all is right but the answer).

    `areas_right` and `distances_right` are the shares of what is stated that are right, `facts_stated` that of all.
    """
    score, steps = task.score(state, response), right_steps(task.thought(state), thought)
    gold = task.facts(state, "thought", "".join(task.thought(state))) or {}
    stated = task.facts(state, "thought", thought) or {}
    wrong = [slot for slot, value in stated.items() if gold.get(slot) != value]
    right = len(stated) - len(wrong)
    failure = None if score.correct else "conclusion"
    if not score.parsed:
        failure = "unparsed"
    elif failure and wrong:
        failure = kind_of(wrong[0])
    elif failure and len(stated) < len(gold):
        failure = "left_out"
    return Finding(
        correct=score.correct,
        failure=failure,
        first_error=steps[0] if steps and steps[0] < steps[1] and not score.correct else None,
        severity=1.0 if not score.parsed else 1 - right / max(1, len(gold), len(stated)),
        shares={"trace_right": steps[0] == steps[1] if steps else None},
        ratios={
            **{f"{kind}s_right": _share(stated, gold, kind) for kind in ("area", "distance") if _of(stated, kind)},
            "facts_stated": (float(sum(slot in stated for slot in gold)), float(len(gold))),
        },
    )


def kind_of(slot: object) -> str:
    """Say whether a slot is of an area or of a distance."""
    assert isinstance(slot, tuple)
    return str(slot[0])


def _of(stated: Mapping[object, object], kind: str) -> list[object]:
    return [slot for slot in stated if kind_of(slot) == kind]


def _share(stated: Mapping[object, object], gold: Mapping[object, object], kind: str) -> tuple[float, float]:
    slots = _of(stated, kind)
    return float(sum(gold.get(slot) == stated[slot] for slot in slots)), float(len(slots))
