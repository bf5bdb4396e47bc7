"""CLIP as a classifier: zero-shot by texts, trained by them or by a head, kept as the hub keeps it."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.parts import SIDE, SIZES
from support.shipped import shipped
from torch.nn import functional as F

from vlmreason.dialogue.build import build_dialogue
from vlmreason.models.contract import AdapterSettings, Example, Prompt
from vlmreason.models.embedders import HubEncoder
from vlmreason.models.networks.clip_classifier import FILE, HEAD, ClipClassifier

TASK = shipped("digits")
PROBLEMS = [TASK.sample("all", "train", index) for index in range(16)]
DIALOGUES = [build_dialogue(TASK, problem, "image") for problem in PROBLEMS]
PROMPTS = [Prompt(one.prompt, one.image) for one in DIALOGUES]
OPTIONS = TASK.options(PROBLEMS[0].state)
WORDS = ("[UNK]", "a", "photo", "of", "the", "number", '"', *"0123456789", "cat", "horse", "[END]")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: Any) -> str:
    """A tiny CLIP as the hub has it: real classes, random weights, a tokenizer of some words that marks the end."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import CLIPConfig, CLIPModel, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("clip")
    end = len(WORDS) - 1
    text = {**SIZES, "num_hidden_layers": 1, "vocab_size": len(WORDS), "max_position_embeddings": 12}
    ids = {"eos_token_id": end, "bos_token_id": 0, "pad_token_id": end}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config={**text, **ids}, vision_config={**SIZES, "image_size": SIDE, "patch_size": 8}, projection_dim=8
    )
    CLIPModel(config).save_pretrained(folder)
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(single="$A [END]", special_tokens=[("[END]", end)])
    PreTrainedTokenizerFast(
        tokenizer_object=made, unk_token="[UNK]", pad_token="[END]", eos_token="[END]"
    ).save_pretrained(folder)
    seen = {"size": {"shortest_edge": SIDE}, "do_center_crop": True, "crop_size": SIDE}
    seen |= {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 3}
    (folder / "preprocessor_config.json").write_text(json.dumps(seen))
    return str(folder)


def settings(encoder: str, head: Any = "texts") -> ClipClassifier:
    return ClipClassifier(
        "clip_classifier", encoder, None, head, "a photo of a {label}", 'a photo of the number "{label}"'
    )


def classifier(encoder: str, head: Any = "texts") -> Any:
    return settings(encoder, head).untrained(Example(PROMPTS[0], OPTIONS, 0))


def fit(learner: Any, train: Any, lr: float, steps: int = 40) -> None:
    batch = learner.processor.collate([learner.processor.encode(one) for one in DIALOGUES])
    trained = [value.requires_grad_(True) for _, value in learner.trained_parameters(train)]
    optimizer = torch.optim.Adam(trained, lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        learner.token_losses(batch)[0].mean().backward()
        optimizer.step()


def num_right(learner: Any) -> int:
    answers = [one.text for one in learner.generate(PROMPTS)]
    return sum(TASK.score(p.state, a).correct for p, a in zip(PROBLEMS, answers, strict=True))


def test_untrained_it_takes_the_nearest_text(encoder: str) -> None:
    """Against cosines of the model as the hub has it, over the texts of the paper."""
    other = HubEncoder("id", encoder)
    texts = other.embed([Prompt(f'a photo of the number "{number}"', None) for number in range(10)])
    pictures = other.embed([Prompt("", prompt.image) for prompt in PROMPTS])
    cosines = F.normalize(pictures) @ F.normalize(texts).T
    learner = classifier(encoder)
    assert [one.text for one in learner.generate(PROMPTS)] == [OPTIONS[i] for i in cosines.argmax(1).tolist()]
    wanted = (cosines * other.model.logit_scale.detach().exp()).log_softmax(1)
    choices = learner.choose(PROMPTS, [OPTIONS] * len(PROMPTS))
    assert np.allclose([[one.logprob for one in some] for some in choices], wanted, atol=1e-4)
    few = learner.choose(PROMPTS[:2], [OPTIONS[2:4], ("Answer: cat", "Answer: horse")])
    pair = wanted[0, 2:4].log_softmax(0)
    assert np.allclose([one.logprob for one in few[0]], pair, atol=1e-4), "among those that are given alone"
    cat = other.embed([Prompt("a photo of a cat", None), Prompt("a photo of a horse", None)])
    nearer = int((F.normalize(pictures[1:2]) @ F.normalize(cat).T).argmax())
    assert int(np.argmax([one.logprob for one in few[1]])) == nearer, "labels of another set are texts, too"


def test_texts_teach_both_towers(encoder: str) -> None:
    learner = classifier(encoder)
    before = {name: value.clone() for name, value in learner.model.named_parameters()}
    fit(learner, "all", 3e-3, steps=150)
    assert num_right(learner) >= 13
    changed = {name for name, value in learner.model.named_parameters() if not torch.equal(value, before[name])}
    for part in learner.prefixes:
        assert any(name.startswith(learner.prefixes[part]) for name in changed), part


def test_a_linear_probe_changes_the_head_alone(encoder: str) -> None:
    learner = classifier(encoder, "linear")
    batch = learner.processor.collate([learner.processor.encode(one) for one in DIALOGUES])
    assert learner.token_losses(batch)[0].tolist() == pytest.approx([math.log(10)] * 16, abs=1e-5)
    assert [name for name, _ in learner.trained_parameters(["projector"])] == ["head.weight", "head.bias"]
    assert not any("text" in name or "logit" in name for name, _ in learner.trained_parameters("all"))
    with pytest.raises(ValueError, match=r"train=\['language_model'\]: with model\.head=linear there are vision_tower"):
        learner.trained_parameters(["language_model"])
    before = learner.embed([Prompt("", PROMPTS[0].image)])
    fit(learner, ["projector"], 0.1)
    assert torch.equal(learner.embed([Prompt("", PROMPTS[0].image)]), before)
    probed = learner.token_losses(batch)[0].mean().item()
    assert probed < math.log(10) - 0.02
    fit(learner, "all", 3e-3, steps=100)
    assert learner.token_losses(batch)[0].mean().item() < 0.5 * probed, "and full fine-tuning reaches what it cannot"
    with pytest.raises(ValueError, match="'Answer: cat': this network knows 10 options"):
        learner.choose(PROMPTS[:1], [("Answer: cat",)])


@pytest.mark.parametrize("head", ["texts", "linear"])
def test_it_is_kept_whole(encoder: str, head: str, tmp_path: Path) -> None:
    learner = classifier(encoder, head)
    fit(learner, "all", 1e-3, steps=3)
    learner.save(tmp_path)
    again = settings("nowhere", head).load(tmp_path)
    for (name, kept), (_, given) in zip(again.model.named_parameters(), learner.model.named_parameters(), strict=True):
        assert torch.equal(kept, given), name
    asked = (PROMPTS, [OPTIONS] * len(PROMPTS))
    assert again.choose(*asked) == learner.choose(*asked)
    assert again.processor.sight == learner.processor.sight
    if head == "linear":
        (tmp_path / HEAD).write_bytes(b"x")
        with pytest.raises(ValueError, match=r"head\.safetensors: not the weights of network\.json"):
            settings("nowhere", head).load(tmp_path)
    (tmp_path / FILE).write_text("[]")
    with pytest.raises(ValueError, match=r"network\.json"):
        settings("nowhere", head).load(tmp_path)


def test_losses_are_those_of_single_pictures(encoder: str) -> None:
    learner = classifier(encoder)
    encoded = [learner.processor.encode(one) for one in DIALOGUES[:3]]
    together, segments = learner.token_losses(learner.processor.collate(encoded))
    alone = torch.cat([learner.token_losses(learner.processor.collate([one]))[0] for one in encoded])
    assert torch.allclose(together, alone, atol=1e-5) and len(segments) == 3


def test_what_it_cannot_do_is_named(encoder: str, tmp_path: Path) -> None:
    learner = classifier(encoder)
    with pytest.raises(ValueError, match="a network writes no text"):
        learner.generate([replace(PROMPTS[0], prefill="Answer")])
    with pytest.raises(ValueError, match="sees pictures alone"):
        learner.generate([Prompt("Which number?", None)])
    with pytest.raises(ValueError, match="it sees pictures alone"):
        settings(encoder).untrained(Example(Prompt("Which?", None), OPTIONS, 0))
    with pytest.raises(ValueError, match="it is made for the options of a task"):
        settings(encoder).load()
    with pytest.raises(ValueError, match=r"model\.caption='a photo': a text with \{label\} in it"):
        replace(settings(encoder), caption="a photo")
    with pytest.raises(ValueError, match="adapter: has no effect"):
        learner.adapt(AdapterSettings("lora", parts=("language_model",), r=4, alpha=8), 0)
    assert learner.choose([], []) == learner.generate([]) == []
