"""What becomes of classes that a network no longer sees: its rows, a restricted head, a probe of its features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from support.shipped import shipped

from vlmreason.analysis import collapse
from vlmreason.analysis.layer_peeled import mean_cosine
from vlmreason.analysis.subjects import Weights
from vlmreason.models.contract import Example, Prompt
from vlmreason.models.networks.picture_net import PictureNet

TASK = shipped("digits")


def network() -> Any:
    state = TASK.sample("all", "train", 0).state
    example = Example(Prompt(TASK.prompt(state, "image"), TASK.draw(state)), TASK.options(state), 0)
    return PictureNet("picture_net", width=4, stages=2, side=16).untrained(example)


def found(learner: Any, task: Any = TASK) -> Any:
    [one] = collapse.run(Weights(task, ("final",), lambda name: learner), collapse.Settings(num=40))
    return one


def test_a_head_without_its_first_half_is_told_from_features_without_it() -> None:
    """Rows of the first half are made one row that nothing likes: own and restricted accuracy go, the probe stays."""
    learner = network()
    whole = found(learner)
    with torch.no_grad():
        learner.model.head.weight[:5] = learner.model.head.weight[0]
        learner.model.head.bias[:5] = -100
    lost = found(learner)
    first, second = (lost.halves[half] for half in collapse.HALVES)
    assert first.cosine == pytest.approx(1, abs=1e-5) and first.own == 0
    assert first.restricted < 0.5, "equal rows tell nothing apart"
    assert first.probe == whole.halves["first_half"].probe > 0.4, (
        "which is of the features alone, untrained as they are"
    )
    assert second.cosine == pytest.approx(mean_cosine(learner.model.head.weight.detach()[5:]), abs=1e-5)
    assert second.restricted == second.own == whole.halves["second_half"].restricted
    assert first.num == 40 and -1 <= lost.between <= 1
    rows = [{"checkpoint": one.checkpoint, "between": one.between, "frame": one.frame,
             "halves": {name: vars(half) for name, half in one.halves.items()}} for one in (whole, lost)]  # fmt: skip
    assert collapse.table(rows).count("first_half") == 2


def test_a_tight_frame_is_one() -> None:
    learner = network()
    frame = torch.eye(10) - 1 / 10
    with torch.no_grad():
        learner.model.head.weight[:, :10] = frame
        learner.model.head.weight[:, 10:] = 0
    one = found(learner)
    assert one.frame == pytest.approx(0, abs=1e-5)
    assert np.allclose([one.between, *(half.cosine for half in one.halves.values())], -1 / 9, atol=1e-5)


def test_what_has_no_halves_or_no_head_is_named() -> None:
    with pytest.raises(ValueError, match="what=collapse: task=visual_pairs has no halves"):
        found(network(), shipped("visual_pairs"))
    learner = network()
    del learner.model.head
    with pytest.raises(ValueError, match="a network with a linear head is expected"):
        found(learner)
