"""Failures of a model as a classifier: which kind each wrong answer is, and which set it speaks of."""

from __future__ import annotations

from typing import Any

from vlmreason.tasks.findings import Finding
from vlmreason.tasks.images.base import PictureTask


def find(task: PictureTask[Any], state: Any, response: str, thought: str) -> Finding:
    """Return `failure` of an answer that is not the right label alone: correct_verbose, incorrect, intrinsic, extrinsic
    or unparsed (judge.py).

    Of what was said: `speaks_of_other_set` where a label of another set is among it, `right_label_named` where the
    right one is, `nearest_right` where its text is nearest to the right one; `labels_named` counts different labels.
    """
    found = task.verdict(state, response)
    correct = found.category == "correct"
    return Finding(
        correct=correct,
        failure=None if correct else found.category,
        first_error=None,
        severity=0.0 if correct else 0.5 if found.category == "correct_verbose" else 1.0,
        shares={
            "speaks_of_other_set": any(label not in task.labels for label in found.named),
            "right_label_named": found.right_named,
            "nearest_right": found.nearest == state.label,
        },
        means={"labels_named": float(len(found.named))},
    )
