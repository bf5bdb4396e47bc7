"""What a model scores of given options is what it scores of the same texts as responses, in any batch and order."""

import functools
import random
import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch
from support.families import TINY, learn_by_heart, memorable, picture, write_tiny
from support.parts import composed
from support.tiny import tiny_learner

from vlmreason.dialogue.build import Dialogue
from vlmreason.models.api import Api
from vlmreason.models.contract import Choice, Prompt
from vlmreason.models.vlm.hugging_face import HuggingFace
from vlmreason.models.vlm.learner import Learner
from vlmreason.segments import ANSWER, THOUGHT, Response, Segment
from vlmreason.structure import structure

COMPOSED: dict[str, Any] = {
    "eagle": functools.partial(composed, "clip", "convnext", fusion={"kind": "channel"}, language="llama"),
    "i_mof": functools.partial(composed, "clip", "dinov2", fusion={"kind": "interleaved"}),
    "a_mof": functools.partial(
        composed, "clip", "dinov2", fusion={"kind": "additive", "alpha": 0.3}, language="vicuna"
    ),
}
NAMES = ("nano", *TINY, *COMPOSED)
OPTIONS = ("A", "AB", "A B", "option A", "Answer: option A", "", "no", "north west " * 12, "7", "77", "777")
"""Some begin as others do, one is empty, one is long."""


def untouched(name: str) -> Learner:
    if name == "nano":
        return tiny_learner(seed=3)
    if name in COMPOSED:
        learner: Learner = COMPOSED[name]().load()
        return learner
    files = write_tiny(name, Path(tempfile.mkdtemp(prefix=f"{name}_")))
    data = {"name": name, "checkpoint": str(files), "dtype": "float32"} | dict(TINY[name].settings)
    return structure(HuggingFace, data, "model").load()


@functools.cache
def learner_of(name: str) -> Learner:
    """One for all tests that leave it as it is."""
    made = untouched(name)
    torch.manual_seed(0)
    with torch.no_grad():  # untrained weights give all tokens nearly the same probability
        made.model.lm_head.weight.mul_(8)
    return made


@functools.cache
def taught() -> Learner:
    """After it has learned eight dialogues by heart."""
    return learn_by_heart(untouched("qwen2_5_vl"), num_steps=300)


def asked(name: str) -> list[Prompt]:
    """Texts and pictures, of several lengths and sizes."""
    made = [Prompt(d.prompt, d.image) for d in memorable(4)]
    if name == "nano":
        made = [Prompt(p.text, None if p.image is None else picture_of(40)) for p in made]
    return [*made, Prompt("Which one? " * 7, made[1].image), Prompt("", None)]


def picture_of(number: int) -> Any:
    return picture(number)[:1, :1].repeat(144, 0).repeat(144, 1)


def as_response(learner: Learner, prompt: Prompt, text: str) -> Choice:
    """The same text with the prompt in front, by the method that training uses."""
    half = len(text) // 2
    response = Response((Segment(THOUGHT, text[:half]), Segment(ANSWER, text[half:])))
    encoded = learner.processor.encode(Dialogue("x", "text", prompt.text, prompt.image, response))
    learner.model.eval()
    with torch.no_grad():
        scores = learner.token_scores(learner.processor.collate([encoded]))
    return Choice(float(scores.logprobs_N.double().sum()), len(scores.logprobs_N))


def assert_same(found: list[Choice], expected: list[Choice]) -> None:
    assert [one.num_tokens for one in found] == [one.num_tokens for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.per_token == pytest.approx(other.per_token, abs=1e-4)
        assert one.logprob == pytest.approx(other.logprob, abs=1e-4 * max(1, one.num_tokens))


each_model = pytest.mark.parametrize("name", NAMES)


@each_model
def test_options_are_scored_as_responses_are(name: str) -> None:
    learner, prompts = learner_of(name), asked(name)
    for prompt, found in zip(prompts, learner.choose(prompts, [OPTIONS] * len(prompts)), strict=True):
        assert_same(found, [as_response(learner, prompt, option) for option in OPTIONS])
        assert len({round(one.logprob, 3) for one in found}) > len(OPTIONS) // 2
        assert found[0].per_token == found[0].logprob / found[0].num_tokens


@each_model
def test_no_score_depends_on_what_else_is_asked(name: str) -> None:
    learner, prompts = learner_of(name), asked(name)
    together = learner.choose(prompts, [OPTIONS] * len(prompts))
    rng = random.Random(0)
    for prompt, expected in zip(prompts, together, strict=True):
        order = rng.sample(range(len(OPTIONS)), 4)
        [found] = learner.choose([prompt], [[OPTIONS[i] for i in order]])
        assert_same(found, [expected[i] for i in order])


def test_prompts_may_have_different_numbers_of_options_and_training_goes_on() -> None:
    learner, prompts = learner_of("nano"), asked("nano")[:3]
    learner.model.train()
    found = learner.choose(prompts, [["A"], ["A", "B", "C"], ["B", "A"]])
    assert [len(row) for row in found] == [1, 3, 2]
    assert learner.model.training


def test_what_is_written_and_ended_is_likelier_than_what_goes_another_way() -> None:
    """A response that a model learned by heart against its beginning, its double and another word."""
    learner, [made] = taught(), memorable(1)
    right = made.response.text
    options = (right[:-1], right + right, right, "Step 0. south")
    [found] = learner.choose([Prompt(made.prompt, made.image)], [options])
    assert max(found, key=lambda one: one.logprob) == found[2]
    assert max(found, key=lambda one: one.per_token) == found[2]


def test_embeddings_are_the_same_in_any_batch() -> None:
    for name in ("nano", "llava"):
        learner, prompts = learner_of(name), asked(name)[1:]
        found_BD = learner.embed(prompts)
        alone_BD = torch.cat([learner.embed([prompt]) for prompt in prompts])
        torch.testing.assert_close(found_BD, alone_BD, rtol=1e-4, atol=1e-4)
        assert found_BD.dtype == torch.float32
        assert (found_BD[0] - found_BD[1]).norm() > 1e-3


def test_what_cannot_be_chosen_is_said_in_one_sentence() -> None:
    learner = learner_of("nano")
    with pytest.raises(ValueError, match=r"evaluation\.prefill: an option is a whole response"):
        learner.choose([Prompt("x", None, "Answer:")], [["A"]])
    with pytest.raises(ValueError, match=r"a prompt and its longest option have \d+ tokens, the model takes"):
        learner.choose([Prompt("x", None)], [["7 " * 2000]])
    endpoint = Api(url="http://127.0.0.1:1/v1", model="m").load()
    with pytest.raises(ValueError, match=r"evaluation\.how=choose: a model behind an endpoint only writes text"):
        endpoint.choose([Prompt("x", None)], [["A"]])
    with pytest.raises(ValueError, match="embedding needs weights"):
        endpoint.embed([Prompt("x", None)])
