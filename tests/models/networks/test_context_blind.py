"""The network that sees the choices of a puzzle alone: what an answer set tells, and nothing of the matrix."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from support.shipped import shipped

from vlmreason.dialogue.build import build_dialogue
from vlmreason.models.contract import Example, Prompt
from vlmreason.models.networks.context_blind import ContextBlind, KeptOptions

SETTINGS = ContextBlind("context_blind", width=4, stages=3, side=24)
TASK = shipped("raven")
PROBLEMS = [TASK.sample("center", "train", index) for index in range(24)]
DIALOGUES = [build_dialogue(TASK, problem, "image") for problem in PROBLEMS]
PROMPTS = [Prompt(one.prompt, one.image) for one in DIALOGUES]
OPTIONS = TASK.options(PROBLEMS[0].state)
BOXES = TASK.option_boxes()


def network(seed=0):
    return SETTINGS.untrained(Example(PROMPTS[0], OPTIONS, seed, boxes=BOXES))


def scores(learner, prompts):
    return np.array([[one.logprob for one in some] for some in learner.choose(prompts, [OPTIONS] * len(prompts))])


def test_boxes_are_where_choices_are_drawn() -> None:
    state = PROBLEMS[0].state
    picture = TASK.draw(state)
    for (top, left, height, width), panel in zip(BOXES, state.choices, strict=True):
        shown = picture[top : top + height - 1, left : left + width - 1, 0]  # without the lines between panels
        assert np.array_equal(shown, TASK.artist.panel(panel, state.configuration)[:-1, :-1])


def test_it_never_sees_the_matrix() -> None:
    learner = network()
    blank = np.full_like(PROMPTS[0].image, 7)
    for top, left, height, width in BOXES:
        blank[top : top + height, left : left + width] = PROMPTS[0].image[top : top + height, left : left + width]
    assert np.array_equal(scores(learner, [PROMPTS[0]]), scores(learner, [Prompt("Which?", blank)]))
    blank[BOXES[2][0] + 5, BOXES[2][1] + 5] ^= 255
    assert not np.array_equal(scores(learner, [PROMPTS[0]]), scores(learner, [Prompt("Which?", blank)]))


def test_choices_in_another_order_have_the_same_scores() -> None:
    state, order = PROBLEMS[0].state, [3, 1, 0, 7, 6, 2, 5, 4]
    other = replace(state, choices=tuple(state.choices[i] for i in order), answer=order.index(state.answer))
    learner = network()
    [given], [turned] = scores(learner, [PROMPTS[0]]), scores(learner, [Prompt("", TASK.draw(other))])
    # the frames of the outer panels are drawn alike, so a choice looks the same wherever it stands
    assert np.allclose(turned, given[order], atol=1e-5)


def test_it_learns_and_is_kept_whole(tmp_path) -> None:
    learner = network()
    batch = learner.processor.collate([learner.processor.encode(one) for one in DIALOGUES])
    assert batch["pixels"].shape == (24, 8, 3, 24, 24)
    optimizer = torch.optim.Adam([value for _, value in learner.trained_parameters()], lr=1e-2)
    losses = []
    for _ in range(40):
        optimizer.zero_grad()
        loss = learner.token_losses(batch)[0].mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[0] == pytest.approx(np.log(8), abs=0.2) and losses[-1] < 1
    learner.save(tmp_path)
    again = SETTINGS.load(tmp_path)
    assert np.array_equal(scores(again, PROMPTS[:4]), scores(learner, PROMPTS[:4]))
    assert again.embed(PROMPTS[:3]).shape == (3, 32)
    assert next(name for name, _ in learner.trained_parameters(["projector"])).startswith("head.")


def test_what_it_cannot_see_is_named() -> None:
    with pytest.raises(ValueError, match="shows no options at places of their own"):
        SETTINGS.untrained(Example(PROMPTS[0], OPTIONS, 0))
    with pytest.raises(ValueError, match="sees pictures alone"):
        SETTINGS.untrained(Example(Prompt("Which?", None), OPTIONS, 0, boxes=BOXES))
    with pytest.raises(ValueError, match="options lie beyond a picture of 60 x 60 px"):
        network().choose([Prompt("", np.zeros((60, 60, 3), np.uint8))], [OPTIONS])
    with pytest.raises(ValueError, match="one for each of 2 or more options"):
        KeptOptions(4, 3, 24, OPTIONS, BOXES[:3])
    with pytest.raises(ValueError, match="a new one is made for the options"):
        SETTINGS.load()
