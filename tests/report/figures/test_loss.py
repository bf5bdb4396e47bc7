"""The picture of a run's loss."""

import xml.etree.ElementTree as ElementTree

from vlmreason.report.figures.loss import loss_curve

LINES = [{"phase": "align", "step": 1, "loss": 3.0}, {"phase": "align", "step": 2, "loss": 2.0}]


def test_phases_follow_each_other_and_the_bytes_are_the_same() -> None:
    later = [{"phase": "main", "step": 5, "loss": 1.0}, {"phase": "main", "step": 5, "accuracy/hard/text": 0.5}]
    picture = loss_curve([*LINES, *later])
    assert picture is not None and picture == loss_curve([*LINES, *later]) != loss_curve(LINES)
    ElementTree.fromstring(picture)
    for name in (b"align", b"main", b"loss"):
        assert b"<!-- " + name + b" -->" in picture


def test_a_run_without_a_loss_has_no_picture() -> None:
    assert loss_curve([{"phase": "main", "step": 1}, {"loss": None, "step": 1}]) is None
