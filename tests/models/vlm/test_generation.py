"""Responses that have ended leave the batch, and what is written is the same; numbers draw by the probabilities."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from support.tiny import dialogues, lively_learner, prompts

from vlmreason.models.contract import Prompt
from vlmreason.models.vlm import generation
from vlmreason.models.vlm.generation import draw
from vlmreason.models.vlm.learner import Learner

NEW_TOKENS = 60


@pytest.fixture(scope="module")
def learner() -> Learner:
    return lively_learner()


@pytest.fixture
def sizes(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many rows each call of the library's generation gets."""
    found: list[int] = []
    inner = learner.model.generate

    def generate(**kwargs: Any) -> Any:
        found.append(len(kwargs["input_ids"]))
        return inner(**kwargs)

    monkeypatch.setattr(learner.model, "generate", generate)
    return found


def test_responses_that_have_ended_leave_the_batch(
    learner: Learner, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = prompts(12, ("text", "image"))
    monkeypatch.setattr(generation, "STRETCH", NEW_TOKENS)
    whole = learner.generate(asked, NEW_TOKENS)
    assert sizes == [12]
    monkeypatch.setattr(generation, "STRETCH", 7)
    assert learner.generate(asked, NEW_TOKENS) == whole
    going = [12] + [sum(one.num_tokens > end for one in whole) for end in range(7, NEW_TOKENS, 7)]
    assert sizes[1:] == [num for num in going if num]
    assert 12 > going[2] > going[-1] > 0, "some end early, some late, some not at all"


def test_what_begins_a_response_is_forbidden_at_its_beginning_alone(
    learner: Learner, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = prompts(8)
    later = learner._generate(asked, NEW_TOKENS, [])[0, 7]  # the first token of a second stretch
    first = {"begin_suppress_tokens": [int(later)]}
    whole_BL = learner._generate(asked, NEW_TOKENS, [], first)
    monkeypatch.setattr(generation, "STRETCH", 7)
    assert torch.equal(learner._generate(asked, NEW_TOKENS, [], first), whole_BL)
    assert whole_BL[0, 7] == later, "it may be written there"


def test_given_lengths_hold_over_stretches(learner: Learner, monkeypatch: pytest.MonkeyPatch) -> None:
    some = dialogues(6, ("text",))
    placed = [Prompt(one.prompt, one.image, pattern=one.response) for one in some]
    mixed = [*placed[:3], *(replace(prompt, pattern=None) for prompt in placed[3:])]
    long = max(learner.processor.answer_place(one.response)[0] for one in some) + 2
    whole = learner.generate(mixed, long)
    monkeypatch.setattr(generation, "STRETCH", 5)
    assert learner.generate(mixed, long) == whole


def test_samples_are_drawn_by_their_own_seeds(
    learner: Learner, sizes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, seeds = prompts(12, ("text", "image")), range(12)
    monkeypatch.setattr(generation, "STRETCH", NEW_TOKENS)
    whole = learner.sample(asked, seeds, NEW_TOKENS, 0.7)
    monkeypatch.setattr(generation, "STRETCH", 7)
    parts = learner.sample(asked, seeds, NEW_TOKENS, 0.7)
    assert sizes[1] == 12 > sizes[-1]
    for one, other in zip(whole, parts, strict=True):
        assert one.ids == other.ids
        torch.testing.assert_close(one.logprobs, other.logprobs, rtol=1e-4, atol=1e-5)
        assert len(one.ids) == len(one.logprobs) == one.num_tokens


def test_numbers_draw_by_the_probabilities() -> None:
    """Numbers that cover 0 to 1 evenly draw each token as often as it is likely, and never one that is not."""
    logits_V = torch.tensor([-torch.inf, 0.3, 1.2, -torch.inf, -2.0, -torch.inf])
    number_B = (torch.arange(10_000, dtype=torch.float64)) / 10_000
    for temperature in (1.0, 0.4):
        token_B, logprob_B = draw(logits_V.expand(10_000, -1), number_B, temperature)
        probability_V = torch.softmax(logits_V / temperature, 0)
        shares_V = torch.bincount(token_B, minlength=6) / 10_000
        torch.testing.assert_close(shares_V, probability_V, rtol=0, atol=2e-4)
        torch.testing.assert_close(logprob_B.exp(), probability_V[token_B])
