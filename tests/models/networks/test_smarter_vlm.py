"""The network over kinds of puzzles: what encoders see is kept, answers are written over time, all parts count."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from vlmreason.answers import AnswerSpace
from vlmreason.dialogue.build import Dialogue, build_dialogue
from vlmreason.models.contract import Example, NetworkSettings, Preparing, Prompt
from vlmreason.models.networks import smarter_net
from vlmreason.models.networks.smarter_net import SmarterNet, losses
from vlmreason.models.networks.smarter_settings import Eye, Reader, Sizes
from vlmreason.models.networks.smarter_vlm import SmarterLearner, SmarterVlm
from vlmreason.models.networks.store import FeatureStore
from vlmreason.tasks.puzzles.smart_families import FamilySizes, SmartFamilies

NAMES = ("counting_kind", "path_maze", "spatial_cards", "math_chain")
SMALL = Sizes(repr=16, hidden=16, qf_width=16)
KINDS = {
    "single": AnswerSpace(("0", "1", "2")),
    "word": AnswerSpace(tuple("ABCDE"), steps=4),
}


def task() -> SmartFamilies:
    return SmartFamilies(FamilySizes((144, 144)), families=NAMES)


def dialogues(num: int, split: str = "train") -> list[Dialogue]:
    made = task()
    return [build_dialogue(made, made.sample("puzzle", split, index), "image") for index in range(num)]


def settings(sizes: Sizes = SMALL, features: Path | None = None) -> SmarterVlm:
    vision: dict[str, Eye | None] = {"tables": Eye("nano"), "first": None}
    return SmarterVlm("smarter_vlm", vision, Reader("nano", tokens=48), sizes, 6, features and str(features))


@functools.cache
def learner() -> SmarterLearner:
    return settings().untrained(Example(Prompt("", None), (), 0, task().kinds()))


def net(**changes: Any) -> SmarterNet:
    torch.manual_seed(0)
    return SmarterNet(KINDS, (6, 10), dataclasses.replace(SMALL, **changes)).eval()


def inputs(num: int, places: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(num)
    text = torch.randn(num, 5, 10, generator=generator)
    padding = torch.zeros(num, 5, dtype=torch.bool)
    padding[1:, 3:] = True
    return torch.randn(num, places, 6, generator=generator), text, padding


def test_features_are_kept_by_content(tmp_path: Path) -> None:
    store = FeatureStore(tmp_path, "tower-1", 3)
    keys = [bytes([i]) * 16 for i in range(4)]
    vectors = np.arange(12, dtype=np.float16).reshape(4, 3)
    assert store.missing([keys[0], keys[0], keys[1]]) == [0, 2]
    store.add(keys[:2], vectors[:2])
    other = FeatureStore(tmp_path, "tower-1", 3)
    other.add(keys, vectors)  # two are there already
    assert len(other) == 4 and (other.vectors(other.numbers(keys[::-1])) == vectors[::-1]).all()
    store.add(keys, vectors)
    assert len(store) == 4 == (store.path.stat().st_size - 512) // (16 + 6)
    with store.path.open("ab") as file:
        file.write(b"half a row")
    again = FeatureStore(tmp_path, "tower-1", 3)
    again.add([b"n" * 16], np.ones((1, 3), np.float16))
    assert len(again) == 5 and (again.vectors(again.numbers([b"n" * 16])) == 1).all()
    store.path.rename(tmp_path / "tower-2.features")
    with pytest.raises(ValueError, match=r"tower-2\.features holds features of another encoder"):
        FeatureStore(tmp_path, "tower-2", 3)


@pytest.mark.parametrize("sequence", ["gru", "lstm", "published"])
def test_sequences_run_over_time_and_not_over_the_batch(sequence: Any) -> None:
    """An answer depends on its own example alone; as published it hangs on those before it in the batch."""
    model = net(sequence=sequence)
    fused = torch.randn(6, SMALL.repr, generator=torch.Generator().manual_seed(1))
    together = model.decode("word", fused)
    alone = torch.cat([model.decode("word", row[None]) for row in fused])
    assert torch.allclose(together, alone, atol=1e-5) == (sequence != "published")
    assert together.shape == (6, 4, 6)


def test_elements_depend_on_those_before() -> None:
    model, fused = net(), torch.randn(2, SMALL.repr)
    numbers = torch.tensor([[0, 1, 2, 5], [0, 1, 2, 5]])
    changed = numbers.clone()
    changed[0, 1] = 4
    one, other = (model.decode("word", fused, given) for given in (numbers, changed))
    assert torch.equal(one[1], other[1]) and torch.equal(one[0, :2], other[0, :2])
    assert not torch.allclose(one[0, 2:], other[0, 2:])
    free = model.decode("word", fused)
    assert torch.allclose(model.decode("word", fused, free.argmax(dim=2)), free, atol=1e-5)


def test_what_follows_the_end_of_a_sequence_does_not_count() -> None:
    space = KINDS["word"]
    numbers = torch.tensor([space.numbers("Answer: BA")])
    logits = torch.randn(1, 4, space.num_classes)
    changed = logits.clone()
    changed[:, 3] += 5 * torch.randn(space.num_classes)
    assert numbers.tolist() == [[1, 0, 5, 5]]
    assert torch.equal(losses(logits, numbers, space), losses(changed, numbers, space))
    logs = torch.log_softmax(logits, dim=2)[0]
    assert torch.allclose(losses(logits, numbers, space), -(logs[0, 1] + logs[1, 0] + logs[2, 5]) / 3)


def test_words_reach_the_picture_only_where_tokens_do() -> None:
    """As published the QF layer gives the same whatever the question is."""
    image, text, padding = inputs(3)
    for qf, sees in (("tokens", True), ("pooled", False)):
        model = net(qf=qf, composite=("qf",), residuals=())
        found = [model(image, some, padding, ["single"] * 3) for some in (text, text + torch.randn_like(text))]
        assert torch.allclose(*found, atol=1e-5) != sees


@pytest.mark.parametrize(
    "changes",
    [
        {}, {"qf": "pooled"}, {"qf": "none"}, {"qf": "none", "question": "gru"}, {"image_heads": "shared"},
        {"decoders": "shared"}, {"heads": 1}, {"activation": "relu"}, {"composite": ("image", "qf")},
        {"residuals": ("qf", "attention", "fusion", "decoder")}, {"residuals": ()}, {"decoder_activations": 1},
        {"sequence": "lstm"}, {"sequence": "published"}, {"qf_width": None},
    ],
)  # fmt: skip
def test_every_setting_makes_a_network_of_its_own_all_of_which_trains(changes: dict[str, Any]) -> None:
    model = net(**changes)
    image, text, padding = inputs(4)
    kinds = ["single", "word", "single", "word"]
    fused = model(image, text, padding, kinds)
    words = model.decode("word", fused[[1, 3]], torch.tensor([[0, 1, 2, 5], [3, 5, 5, 5]]))
    (model.decode("single", fused[[0, 2]]).sum() + words.sum()).backward()
    untouched = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert untouched == []
    shapes = {name: tuple(p.shape) for name, p in model.named_parameters()}
    plain = {name: tuple(p.shape) for name, p in net().named_parameters()}
    assert not changes or shapes != plain or not torch.allclose(answers(model), answers(net()), atol=1e-5)


def answers(model: SmarterNet) -> torch.Tensor:
    image, text, padding = inputs(2)
    return model.decode("single", model(image, text, padding, ["single"] * 2))


def test_padding_and_the_order_of_a_batch_change_nothing() -> None:
    model, (image, text, padding) = net(), inputs(4)
    kinds = ["single", "word", "word", "single"]
    found = model(image, text, padding, kinds)
    longer = torch.cat((text, torch.randn(4, 3, 10)), dim=1)
    masked = torch.cat((padding, torch.ones(4, 3, dtype=torch.bool)), dim=1)
    assert torch.allclose(found, model(image, longer, masked, kinds), atol=1e-5)
    order = [2, 0, 3, 1]
    moved = model(image[order], text[order], padding[order], [kinds[i] for i in order])
    assert torch.allclose(found[order], moved, atol=1e-5)


def test_shared_decoders_know_the_answers_of_all_kinds() -> None:
    spaces = smarter_net.decoded_spaces({**KINDS, "more": AnswerSpace(("2", "7"))}, shared=True)
    assert spaces == {"value": AnswerSpace(("0", "1", "2", "7")), "sequence": KINDS["word"]}


def test_prepared_examples_are_those_that_are_encoded() -> None:
    made, some = learner(), dialogues(10)
    assert isinstance(made, Preparing) and isinstance(settings(), NetworkSettings)
    asked: list[int] = []

    def dialogue(number: int) -> Dialogue:
        asked.append(number)
        return some[number % 8]

    prepared = made.prepare(12, lambda number: number % 8, dialogue, progress=False)
    assert asked == list(range(8))  # each problem once
    assert [prepared(i) for i in range(12)] == [made.processor.encode(some[i % 8]) for i in range(12)]
    model = made.model.eval()
    whole = made.token_losses(made.processor.collate([prepared(i) for i in range(8)]))[0]
    single = torch.cat([made.token_losses(made.processor.collate([prepared(i)]))[0] for i in range(8)])
    assert model is made.model and torch.allclose(whole, single, atol=1e-4)


def test_answers_choices_and_what_is_saved_agree(tmp_path: Path) -> None:
    made, some, puzzles = learner(), dialogues(6, "test"), task()
    made.model.eval()
    prompts = [Prompt(one.prompt, one.image, kind=one.kind) for one in some]
    for prompt, generation in zip(prompts, made.generate(prompts), strict=True):
        space = puzzles.kinds()[prompt.kind]
        if not space.is_sequence:
            every = [space.write([number]) for number in range(space.num_classes)]
            [scores] = made.choose([prompt], [every])
            assert generation.text == every[int(np.argmax([score.logprob for score in scores]))]
            assert sum(np.exp(score.logprob) for score in scores) == pytest.approx(1, abs=1e-4)
    made.save(tmp_path)
    again = settings().load(tmp_path)
    assert torch.allclose(again.embed(prompts), made.embed(prompts))
    [[choice]] = made.choose(prompts[:1], [["Answer: no such thing"]])
    assert choice.logprob < -1e6
    (tmp_path / "network.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match=r"not the weights of network\.json"):
        settings().load(tmp_path)


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValueError, match="the task has no kinds of puzzles"):
        settings().untrained(Example(Prompt("", None), ("a", "b"), 0))
    with pytest.raises(ValueError, match="this network knows 4 kinds"):
        learner().generate([Prompt("?", None, kind="unheard_of")])
    with pytest.raises(ValueError, match=r"model\.sizes\.composite"):
        Sizes(qf="none", composite=("image",))
    with pytest.raises(ValueError, match=r"model\.sizes\.question=gru: has no effect"):
        Sizes(question="gru")


@pytest.mark.parametrize(("qf_width", "repr"), [(16, 16), (8, 16)])
def test_what_the_words_see_is_the_mean_of_attention_word_by_word(qf_width: int, repr: int) -> None:
    _, _, padding = inputs(3)
    model = net(qf_width=qf_width, repr=repr)
    assert isinstance(model.qf, smarter_net.QuestionFusion)
    words, places = torch.randn(3, 5, qf_width), torch.randn(3, 4, repr)
    each, _ = model.qf.cross(words, places, places, need_weights=False)
    assert torch.allclose(model.qf._seen(words, places, padding), smarter_net.masked_mean(each, padding), atol=1e-6)


def test_answers_of_many_decoders_are_those_of_each_alone() -> None:
    torch.manual_seed(0)
    kinds = {**KINDS, "more": AnswerSpace(tuple("0123456"))}
    model = SmarterNet(kinds, (6, 10), dataclasses.replace(SMALL, residuals=("qf", "decoder"))).eval()
    fused, names = torch.randn(5, SMALL.repr), ["more", "word", "single", "more", "word"]
    numbers = torch.tensor([[6, 0, 0, 0], [0, 1, 5, 5], [2, 0, 0, 0], [1, 0, 0, 0], [4, 4, 4, 4]])
    found = model.answers(names, fused, numbers)
    for row, name in enumerate(names):
        logits = model.decode(name, fused[row : row + 1], numbers[row : row + 1])
        assert torch.allclose(found[row], losses(logits, numbers[row : row + 1], kinds[name])[0], atol=1e-6)


@pytest.mark.parametrize("residuals", [("qf",), ("qf", "attention")])
def test_texts_read_in_groups_of_like_length_are_what_they_are_alone(
    residuals: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    model = net(residuals=residuals)
    assert isinstance(model.qf, smarter_net.QuestionFusion)
    lengths = torch.tensor([9, 2, 5, 9, 1, 3, 7, 2])
    text, places, padding = torch.randn(8, 9, 10), torch.randn(8, 4, SMALL.repr), torch.arange(9) >= lengths[:, None]
    alone = [model.qf(text[i : i + 1, :num], places[i : i + 1], padding[i : i + 1, :num]) for i, num in
             enumerate(lengths.tolist())]  # fmt: skip
    for group in (2, 3, 8):
        monkeypatch.setattr(smarter_net, "GROUP", group)
        groups = smarter_net.by_length(padding)
        assert len(groups) == max(1, 8 // group)
        assert sorted(row for rows, _ in groups for row in rows.tolist()) == list(range(8))
        assert torch.allclose(model.qf(text, places, padding), torch.cat(alone), atol=1e-5)
    assert len(smarter_net.by_length(torch.zeros(128, 9, dtype=torch.bool))) == 1


def test_what_words_ask_of_each_other_is_attention() -> None:
    _, _, padding = inputs(3)
    model = net()
    assert isinstance(model.qf, smarter_net.QuestionFusion)
    words = torch.randn(3, 5, 16)
    found, _ = model.qf.own(words, words, words, key_padding_mask=padding, need_weights=False)
    assert torch.allclose(model.qf._asked(words, padding), found, atol=1e-6)
