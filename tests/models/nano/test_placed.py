"""The decoder with rotary and learned positions: every way of calling it gives each token the same place."""

import functools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from support.tiny import SIZES, dialogues, prompts
from transformers import DynamicCache

from vlmreason.models.composed import loading
from vlmreason.models.composed.loading import NanoComposed
from vlmreason.models.contract import AdapterSettings
from vlmreason.models.nano.model import BASE, build_nano, load_nano, read_vocabulary
from vlmreason.models.nano.placed import is_placed
from vlmreason.models.nano.start import PLACE_STD
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.processor import Encoded

POSITIONS = "model.language_model.embed_positions.weight"


def placed_learner() -> Learner:
    """Places that matter: what is at a wrong one gets other logits."""
    learner = Learner(*build_nano(replace(SIZES, placed=True, start="composed"), read_vocabulary(), seed=0))
    with torch.no_grad():
        learner.model.get_parameter(POSITIONS).mul_(1 / PLACE_STD)
    return learner


@functools.cache
def shared() -> Learner:
    return placed_learner()


def forward(learner: Learner, **inputs: object) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = learner.model.eval()(**inputs).logits
    return found


def test_the_loss_reaches_the_positions_of_a_batch() -> None:
    learner = placed_learner()
    encoded = [learner.processor.encode(dialogue) for dialogue in dialogues(4)]
    losses, _ = learner.token_losses(learner.processor.collate(encoded))
    losses.mean().backward()
    changed = learner.model.get_parameter(POSITIONS).grad.abs().sum(dim=1) > 0
    longest = max(map(len, encoded))
    assert changed[: longest - 1].all() and not changed[longest:].any()


def test_places_matter() -> None:
    learner = shared()
    ids = learner.processor.collate_prompts(prompts(1))["input_ids"]
    moved = forward(learner, input_ids=ids, position_ids=torch.arange(5, 5 + ids.shape[1])[None])
    assert not torch.allclose(forward(learner, input_ids=ids), moved, atol=1e-3)


def test_generation_with_a_cache_is_that_without() -> None:
    learner = shared()
    batch = learner.processor.collate_prompts(prompts(4))
    options = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}
    cached = learner.model.eval().generate(**batch, **options)
    assert torch.equal(cached, learner.model.generate(**batch, **options, use_cache=False))
    assert cached.shape[1] == batch["input_ids"].shape[1] + 12


def test_prompts_of_two_lengths_are_answered_as_each_by_itself() -> None:
    learner, asked = shared(), prompts(6)
    assert len({len(learner.processor.prompt_ids(p.text, p.image)) for p in asked}) > 1
    together = learner.generate(asked, 12)
    assert together == [one for prompt in asked for one in learner.generate([prompt], 12)]


@pytest.mark.parametrize("view", ["text", "image"])
def test_padding_on_the_left_moves_nothing(view: str) -> None:
    learner = shared()
    batch = learner.processor.collate_prompts(prompts(1, views=(view,)))
    num = batch["input_ids"].shape[1]
    padded = dict(batch)
    for name, value in (("input_ids", learner.processor.pad_id), ("attention_mask", 0)):
        padded[name] = torch.nn.functional.pad(batch[name], (7, 0), value=value)
    torch.testing.assert_close(forward(learner, **padded)[:, 7:], forward(learner, **batch), rtol=0, atol=1e-5)
    assert padded["input_ids"].shape[1] == num + 7


def test_what_is_in_the_cache_counts_as_places_before() -> None:
    """Prefix tuning and a prompt that several responses share: with and without a mask."""
    learner = shared()
    batch = learner.processor.collate_prompts(prompts(1, views=("text",)))
    ids, mask = batch["input_ids"], batch["attention_mask"]
    whole = forward(learner, input_ids=ids)
    for given in ({}, {"attention_mask": mask}):
        cache, cut = DynamicCache(), ids.shape[1] // 2
        first = {"attention_mask": mask[:, :cut]} if given else {}
        forward(learner, input_ids=ids[:, :cut], past_key_values=cache, use_cache=True, **first)
        rest = forward(learner, input_ids=ids[:, cut:], past_key_values=cache, use_cache=True, **given)
        torch.testing.assert_close(rest, whole[:, cut:], rtol=0, atol=1e-5)


def test_options_after_a_shared_prompt_score_as_rows_of_their_own() -> None:
    learner, asked = shared(), prompts(2)
    options = [[" (1,1) 3", "none"], ["Answer: 3 4", " (2,3) 1 (2,4) 5"]]
    together = [choice.logprob for row in learner.choose(asked, options) for choice in row]
    before = [learner.processor.prompt_ids(p.text, p.image) for p in asked]
    given = [(row, learner.processor.response_ids(text)) for row, texts in enumerate(options) for text in texts]
    apart = learner._apart(asked, before, given).tolist()
    assert together == pytest.approx(apart, abs=1e-3)


def test_dialogues_that_share_a_row_are_what_they_are_apart() -> None:
    learner = shared()
    encoded = [learner.processor.encode(dialogue) for dialogue in dialogues(2, views=("text",))]
    packed = learner.processor.collate_packed([encoded])
    (first, second), at = encoded, packed["position_ids"][0]
    assert at.tolist() == [*range(len(first)), *range(len(second))]
    alone = forward(learner, input_ids=torch.tensor([second.input_ids]))
    in_row = forward(learner, input_ids=packed["input_ids"], position_ids=packed["position_ids"], use_cache=False)
    torch.testing.assert_close(in_row[:, len(first) :], alone, rtol=0, atol=1e-4)


def test_what_is_saved_opens_again(tmp_path: Path) -> None:
    learner = shared()
    learner.save(tmp_path)
    opened, _ = load_nano(tmp_path)
    assert is_placed(tmp_path) and not is_placed(BASE)
    assert opened.lm_head.weight is opened.get_input_embeddings().weight
    batch = learner.processor.collate_prompts(prompts(3))
    assert torch.equal(forward(learner, **batch), forward(Learner(opened, learner.processor), **batch))


def test_weights_of_the_other_layout_are_refused(tmp_path: Path) -> None:
    shared().save(tmp_path)
    config = tmp_path / "config.json"
    config.write_text(config.read_text().replace("placed_llama", "llama"))
    with pytest.raises(ValueError, match=r"the weights are not those of config.json .*embed_positions"):
        load_nano(tmp_path)


def test_low_rank_adapters_train_beside_it() -> None:
    learner = placed_learner()
    learner.adapt(AdapterSettings("lora", r=2, alpha=4, parts=("language_model",)), seed=0)
    names = [name for name, _ in learner.trained_parameters(("language_model",))]
    assert names and all(".lora_" in name for name in names)
    losses, _ = learner.token_losses(learner.processor.collate([learner.processor.encode(d) for d in dialogues(2)]))
    losses.mean().backward()
    assert any(
        p.grad is not None and p.grad.abs().sum() > 0 for _, p in learner.trained_parameters(("language_model",))
    )


def test_put_together_from_its_parts_it_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared().save(tmp_path)
    monkeypatch.setattr(loading, "BASE", tmp_path)
    composed = NanoComposed().load()
    batch = shared().processor.collate_prompts(prompts(2, views=("text",)))
    torch.testing.assert_close(forward(composed, **batch), forward(shared(), **batch), rtol=0, atol=1e-5)


def moved(num: int, by: int) -> list[Encoded]:
    made = [shared().processor.encode(dialogue) for dialogue in dialogues(num)]
    return [replace(one, begins_at=by if one.image is None else 0) for one in made]


def test_examples_that_begin_later_are_what_they_are_at_those_places() -> None:
    learner, late = shared(), moved(4, by=40)
    batch = learner.processor.collate(late, 16)
    whole = forward(learner, **{k: v for k, v in batch.items() if k in ("input_ids", "pixel_values", "position_ids")})
    for row, example in enumerate(late):
        alone = learner.processor.collate([replace(example, begins_at=0)])
        inputs = {key: alone[key] for key in ("input_ids", "pixel_values") if key in alone}
        at = torch.arange(len(example))[None] + example.begins_at
        expected = forward(learner, **inputs, position_ids=at)
        torch.testing.assert_close(whole[row : row + 1, : len(example)], expected, rtol=0, atol=1e-4)
    assert {example.begins_at for example in late} == {0, 40}


def test_examples_that_begin_at_the_start_need_no_positions() -> None:
    coder = shared().processor
    assert "position_ids" not in coder.collate(moved(4, by=0))
    rows = [[one] for one in moved(3, by=5)]
    assert coder.collate_packed(rows)["position_ids"][:, 0].tolist() == [5 * (one.image is None) for [one] in rows]


def test_their_loss_is_that_of_a_packed_row() -> None:
    learner, late = shared(), moved(3, by=9)
    apart, _ = learner.token_losses(learner.processor.collate(late, 16))
    packed, _ = learner.token_losses(learner.processor.collate_packed([late]))
    torch.testing.assert_close(apart.sum(), packed.sum(), rtol=1e-4, atol=1e-3)
