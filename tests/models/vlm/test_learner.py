"""A batch gives what its rows give alone; logits are the full model's; generation is greedy and exact."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import SIZES, dialogues, lively_learner, prompts, shared_learner, tiny_learner

from vlmreason.models.contract import PARTS, Generation, Prompt
from vlmreason.models.vlm import learner as learner_module
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.processor import IGNORED
from vlmreason.segments import VIEWS, Response, Segment

BATCHES = {"text": ("text",), "image": ("image",), "mixed": VIEWS}
NEW_TOKENS = 24


@pytest.fixture(scope="module")
def learner() -> Learner:
    return lively_learner()


@pytest.mark.parametrize("views", BATCHES.values(), ids=list(BATCHES))
def test_logits_of_a_batch_are_those_of_its_rows(learner: Learner, views: tuple[str, ...]) -> None:
    encoded = [learner.processor.encode(d) for d in dialogues(8, views)]
    with torch.no_grad():
        together = learner.target_logits(learner.processor.collate(encoded, 16))
        alone = [learner.target_logits(learner.processor.collate([e])) for e in encoded]
    for i, exactly in ((0, False), (1, True), (2, True)):
        parts = torch.cat([found[i] for found in alone])
        torch.testing.assert_close(together[i], parts, rtol=0 if exactly else 1e-4, atol=0 if exactly else 1e-4)


@pytest.mark.parametrize("view", ["text", "image", "image_via_text"])
def test_answers_begin_where_those_of_patterns_do(learner: Learner, view: str) -> None:
    """At no other token, in a batch as alone; what has no pattern is as free as ever."""
    some, processor = dialogues(6, (view,)), learner.processor
    prefill = "Convert" if view == "image_via_text" else ""
    free = [Prompt(one.prompt, one.image, prefill) for one in some]
    placed = [replace(prompt, pattern=one.response) for prompt, one in zip(free, some, strict=True)]
    long = max(processor.answer_place(one.response)[0] for one in some) + 2
    mixed = [*placed[:3], *free[3:]]
    together = learner.generate(mixed, long)
    assert together == [learner.generate([prompt], long)[0] for prompt in mixed]
    assert together[3:] == learner.generate(free[3:], long)
    ids = learner._generate(placed, long, [learner._answer_places(placed)]).tolist()
    for row, one in zip(ids, some, strict=True):
        at, opening = processor.answer_place(one.response, prefill)
        assert one.response.text_of("answer").startswith(processor.coder.decode([opening]).strip())
        assert row.index(opening) == at and processor.eos_id not in row[:at]


def test_a_pattern_without_an_answer_is_refused(learner: Learner) -> None:
    with pytest.raises(ValueError, match=r"evaluation\.length=given: the expected response has no answer"):
        learner.generate([Prompt("1", None, pattern=Response((Segment("thought", "1"),)))], 2)
    twice = Response((Segment("thought", "4 Answer: 5 "), Segment("answer", "Answer: 1")))
    with pytest.raises(ValueError, match="begins its answer with a token that its thought has too"):
        learner.generate([Prompt("1", None, pattern=twice)], 2)


@pytest.mark.parametrize("views", BATCHES.values(), ids=list(BATCHES))
def test_logits_are_those_of_the_whole_model(learner: Learner, views: tuple[str, ...]) -> None:
    batch = learner.processor.collate([learner.processor.encode(d) for d in dialogues(3, views)])
    with torch.no_grad():
        logits_NV, targets_N, segments_N = learner.target_logits(batch)
        inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "pixel_values") if k in batch}
        full_BLV = learner.model(**inputs).logits
    wanted_BL = batch["labels"] != IGNORED
    before_BL = torch.roll(wanted_BL, -1, dims=1)
    torch.testing.assert_close(logits_NV, full_BLV[before_BL], rtol=1e-5, atol=1e-5)
    assert torch.equal(targets_N, batch["input_ids"][wanted_BL])
    assert torch.equal(segments_N, batch["segments"][wanted_BL])


def greedy_without_cache(learner: Learner, prompt: Prompt, max_new_tokens: int, forbidden: int | None) -> Generation:
    coder = learner.processor
    batch = coder.collate_prompts([prompt])
    new: list[int] = []
    while len(new) < max_new_tokens:
        with torch.no_grad():
            logits_V = learner.model(**batch, use_cache=False).logits[0, -1]
        logits_V[coder.pictures.placeholder_id] = -torch.inf
        if forbidden is not None and not new:
            logits_V[forbidden] = -torch.inf
        new.append(int(logits_V.argmax()))
        if new[-1] == coder.eos_id:
            return Generation(prompt.prefill + coder.decode(new[:-1]), len(new), True)
        batch["input_ids"] = torch.cat([batch["input_ids"], torch.tensor([[new[-1]]])], dim=1)
        batch["attention_mask"] = torch.ones_like(batch["input_ids"])
    return Generation(prompt.prefill + coder.decode(new), len(new), False)


@pytest.mark.parametrize("views", [("text",), ("image",), ("text", "image")], ids=["text", "image", "mixed"])
def test_generation_depends_neither_on_the_batch_nor_on_the_cache(learner: Learner, views: tuple[str, ...]) -> None:
    asked = prompts(8, views)
    together = learner.generate(asked, NEW_TOKENS)
    assert together == [learner.generate([prompt], NEW_TOKENS)[0] for prompt in asked]
    assert together == [greedy_without_cache(learner, prompt, NEW_TOKENS, None) for prompt in asked]
    assert len({found.text for found in together}) > 1, "the model looks at its input"


def test_ended_and_cut_off(learner: Learner) -> None:
    found = learner.generate(prompts(12), 60)
    assert {f.finished for f in found} == {True, False}, "the model of this test does both"
    for generation, again in zip(found, learner.generate(prompts(12), 8), strict=True):
        assert (generation.num_tokens == 60) or generation.finished
        assert again.text == generation.text[: len(again.text)]
        assert again.finished == (generation.finished and generation.num_tokens <= 8)
        assert "<eos>" not in generation.text


def test_prefill_begins_the_response(learner: Learner) -> None:
    for found, prompt in zip(
        learner.generate(prompts(4, prefill="Convert the"), 6), prompts(4, prefill="Convert the"), strict=True
    ):
        assert found.text.startswith("Convert the")
        assert found.num_tokens <= 6
        assert found == greedy_without_cache(learner, prompt, 6, None)


def test_forbidden_start_and_image_token_are_never_generated() -> None:
    """Even by a model that wants nothing else."""
    learner = tiny_learner()
    coder = learner.processor
    convert = coder.first_token("Convert the picture")

    class Biased(torch.nn.Module):
        def __init__(self, head: torch.nn.Module) -> None:
            super().__init__()
            self.head = head

        def forward(self, hidden: torch.Tensor) -> Any:
            logits = self.head(hidden).clone()
            logits[..., coder.pictures.placeholder_id] += 3000
            logits[..., convert] += 2000
            logits[..., coder.first_token(" the")] += 1000
            return logits

    learner.model.lm_head = Biased(learner.model.lm_head)
    free = learner.generate(prompts(3), 3)
    assert [found.text for found in free] == ["ConvertConvertConvert"] * 3
    for found in learner.generate(prompts(3), 3, forbidden_starts=["Convert the picture"]):
        assert found.text == " theConvertConvert", "only the start is forbidden"


def test_generation_leaves_the_mode_of_the_model() -> None:
    learner = shared_learner()
    for training in (True, False):
        learner.model.train(training)
        learner.generate(prompts(1), 1)
        assert learner.model.training == training


def test_no_room_for_the_response() -> None:
    with pytest.raises(ValueError, match=r"max_new_tokens=1000: a prompt of \d+ tokens leaves \d+ of the model's 1024"):
        shared_learner().generate(prompts(1), 1000)


def test_every_parameter_belongs_to_one_part() -> None:
    learner = tiny_learner()
    found = [name for part in PARTS for name, _ in learner.part_parameters(part)]
    assert sorted(found) == sorted(name for name, _ in learner.model.named_parameters())
    assert all(any(True for _ in learner.part_parameters(part)) for part in PARTS)
    with pytest.raises(ValueError, match="'vision': the parts of a model are vision_tower, projector, language_model"):
        list(learner.part_parameters("vision"))


def test_text_reaches_no_vision_parameter_and_pictures_reach_all() -> None:
    for view, reached in (("text", {"language_model"}), ("image", set(PARTS))):
        learner = tiny_learner()
        batch = learner.processor.collate([learner.processor.encode(d) for d in dialogues(2, (view,))])
        learner.target_logits(batch)[0].square().sum().backward()
        with_gradient = {
            part for part in PARTS for _, p in learner.part_parameters(part) if p.grad is not None and p.grad.any()
        }
        assert with_gradient == reached


def test_pictures_go_to_their_own_rows(learner: Learner) -> None:
    """In a mixed batch another picture changes the logits of its row and of no other."""
    rows = [learner.processor.encode(d) for d in dialogues(4, ("text", "image"))]
    before = learner.processor.collate(rows)
    assert rows[3].image is not None
    changed = [*rows[:3], type(rows[3])(rows[3].input_ids, rows[3].segments, 255 - np.asarray(rows[3].image))]
    with torch.no_grad():
        first, second = (learner.target_logits(b)[0] for b in (before, learner.processor.collate(changed)))
    num_own = sum(s > 0 for s in rows[3].segments)
    assert torch.equal(first[:-num_own], second[:-num_own])
    assert not torch.allclose(first[-num_own:], second[-num_own:])
    assert SIZES.num_image_tokens == 36


def test_losses_in_pieces_are_those_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for max_logits in (learner_module.MAX_LOGITS, 1):
        monkeypatch.setattr(learner_module, "MAX_LOGITS", max_logits)
        learner = tiny_learner()
        batch = learner.processor.collate([learner.processor.encode(d) for d in dialogues(8)])
        losses_N, segments_N = learner.token_losses(batch)
        losses_N.mean().backward()
        gradient = torch.cat([p.grad.flatten() for p in learner.model.parameters() if p.grad is not None])
        found.append((losses_N, gradient))
        assert len(losses_N) == len(segments_N) > 300, "more than one piece"
        logits_NV, targets_N, _ = learner.target_logits(batch)
        torch.testing.assert_close(losses_N, torch.nn.functional.cross_entropy(logits_NV, targets_N, reduction="none"))
    torch.testing.assert_close(found[0], found[1], rtol=1e-4, atol=1e-6)


def test_numbers_below_the_normal_format_count_as_zero() -> None:
    """Processors take ten times as long for them, and sharp attention makes many."""
    assert not (torch.tensor([2.0**-140]) * 0.5).view(torch.int32).any()
