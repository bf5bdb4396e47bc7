"""The small residual network: it learns classes, is kept whole, and says what it cannot do."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from support.shipped import shipped

from vlmreason.dialogue.build import build_dialogue
from vlmreason.models.contract import AdapterSettings, Example, Prompt
from vlmreason.models.networks.picture_net import FILE, WEIGHTS, PictureNet

SETTINGS = PictureNet("picture_net", width=4, stages=2, side=16)
TASK = shipped("digits")
PROBLEMS = [TASK.sample("all", "train", index) for index in range(40)]
DIALOGUES = [build_dialogue(TASK, problem, "image") for problem in PROBLEMS]
PROMPTS = [Prompt(one.prompt, one.image) for one in DIALOGUES]
OPTIONS = TASK.options(PROBLEMS[0].state)


def network(seed=0):
    return SETTINGS.untrained(Example(PROMPTS[0], OPTIONS, seed))


@pytest.fixture(scope="module")
def trained():
    """Learns forty digits by heart."""
    learner = network()
    batch = learner.processor.collate([learner.processor.encode(one) for one in DIALOGUES])
    optimizer = torch.optim.Adam([value for _, value in learner.trained_parameters()], lr=2e-2)
    for _ in range(60):
        optimizer.zero_grad()
        learner.token_losses(batch)[0].mean().backward()
        optimizer.step()
    return learner


def test_it_learns_what_it_is_shown(trained):
    answers = [one.text for one in trained.generate(PROMPTS)]
    assert sum(TASK.score(p.state, a).correct for p, a in zip(PROBLEMS, answers, strict=True)) >= 38
    choices = trained.choose(PROMPTS, [OPTIONS] * 40)
    best = [OPTIONS[int(np.argmax([one.logprob for one in some]))] for some in choices]
    assert best == answers
    assert sum(np.exp(one.logprob) for one in choices[0]) == pytest.approx(1, abs=1e-5)
    assert trained.embed(PROMPTS[:3]).shape == (3, 16)


def test_losses_are_those_of_single_pictures(trained):
    encoded = [trained.processor.encode(one) for one in DIALOGUES[:5]]
    together, segments = trained.token_losses(trained.processor.collate(encoded))
    alone = torch.cat([trained.token_losses(trained.processor.collate([one]))[0] for one in encoded])
    assert torch.allclose(together, alone, atol=1e-5) and len(segments) == 5


def test_it_is_kept_whole(trained, tmp_path):
    trained.save(tmp_path)
    again = SETTINGS.load(tmp_path)
    assert [one.text for one in again.generate(PROMPTS)] == [one.text for one in trained.generate(PROMPTS)]
    assert json.loads((tmp_path / FILE).read_text())["options"] == list(OPTIONS)
    (tmp_path / WEIGHTS).write_bytes(b"x")
    with pytest.raises(ValueError, match=r"network\.safetensors: not the weights of network\.json"):
        SETTINGS.load(tmp_path)
    with pytest.raises(ValueError, match="a new one is made for the options"):
        SETTINGS.load()


def test_seeds_decide_the_weights():
    one, same, other = (network(seed).model.head.weight for seed in (0, 0, 1))
    assert torch.equal(one, same) and not torch.equal(one, other)


def test_parts_train_alone():
    learner = network()
    names = {part: [name for name, _ in learner.trained_parameters([part])] for part in ("vision_tower", "projector")}
    assert names["projector"] == ["head.weight", "head.bias"]
    assert not set(names["vision_tower"]) & set(names["projector"])
    assert sum(map(len, names.values())) == len(learner.trained_parameters("all"))
    with pytest.raises(ValueError, match=r"train=\['language_model'\]: this network has vision_tower and projector"):
        learner.trained_parameters(["language_model"])


def test_what_it_cannot_do_is_named():
    learner = network()
    with pytest.raises(ValueError, match="a network writes no text"):
        learner.generate([replace(PROMPTS[0], prefill="Answer")])
    with pytest.raises(ValueError, match="sees pictures alone"):
        learner.generate([Prompt("Which number?", None)])
    with pytest.raises(ValueError, match="sees pictures alone"):
        SETTINGS.untrained(Example(Prompt("Which number?", None), OPTIONS, 0))
    with pytest.raises(ValueError, match="'Answer: x': this network knows 10 options"):
        learner.choose(PROMPTS[:1], [("Answer: x",)])
    with pytest.raises(ValueError, match="adapter: has no effect"):
        learner.adapt(AdapterSettings("lora", parts=("language_model",), r=4, alpha=8), 0)
    with pytest.raises(ValueError, match=r"model\.width=6: a multiple of 4"):
        replace(SETTINGS, width=6)
    assert learner.choose([], []) == learner.generate([]) == []
