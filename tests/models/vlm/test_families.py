"""Every family of Hugging Face models, at tiny size through the path that loads the hub's: text, pictures, batches."""

import functools
import tempfile
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from support.families import STUDIED, TINY, learn_by_heart, memorable, mixtures, picture, write_tiny
from support.tiny import nano_task

from vlmreason.dialogue.build import Dialogue, build_dialogue
from vlmreason.models.contract import PARTS, Prompt
from vlmreason.models.vlm.chat_template import DATE
from vlmreason.models.vlm.families import FAMILIES
from vlmreason.models.vlm.hugging_face import HuggingFace
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.processor import IGNORED, Encoded, Processor
from vlmreason.segments import ANSWER, SEGMENT_IDS, THOUGHT, VIEWS, Response, Segment
from vlmreason.structure import structure

CLOSE = {"rtol": 2e-4, "atol": 2e-4}
each_family = pytest.mark.parametrize("name", TINY)
each_mixture = pytest.mark.parametrize("mixture", ["text", "image", "mixed"])


@functools.cache
def files(name: str) -> Path:
    return write_tiny(name, Path(tempfile.mkdtemp(prefix=f"{name}_")))


def model_of(name: str, directory: Path | None = None, **changes: Any) -> HuggingFace:
    data = {"name": name, "checkpoint": str(directory or files(name)), "dtype": "float32"}
    return structure(HuggingFace, data | dict(TINY[name].settings) | changes, "model")


@functools.cache
def learner_of(name: str) -> Learner:
    """One for all tests that leave it as it is."""
    learner = model_of(name).load()
    learner.model.eval()
    return learner


@functools.cache
def trained(name: str) -> Learner:
    """After it has learned eight dialogues by heart."""
    return learn_by_heart(model_of(name).load(), num_steps=300)


def prompts(made: list[Dialogue]) -> list[Prompt]:
    return [Prompt(d.prompt, d.image) for d in made]


def answers(learner: Learner, made: list[Dialogue]) -> list[str]:
    return [found.text for found in learner.generate(prompts(made), 30)]


def labels_of(learner: Learner, dialogue: Dialogue) -> list[int]:
    labels_L = learner.processor.collate([learner.processor.encode(dialogue)])["labels"][0]
    return [int(token) for token in labels_L[labels_L != IGNORED]]


def exact(name: str, text: str) -> str:
    """What a tokenizer can give back of a text: Qwen's composes characters, SentencePiece's has "▁" for the space."""
    return unicodedata.normalize("NFC", text) if name.startswith("qwen") else text


# ---- text


@each_family
@settings(deadline=None, max_examples=30)
@given(text=st.text(st.characters(exclude_characters="▁", exclude_categories=["Cs"]), min_size=1, max_size=40))
def test_any_response_is_what_the_labels_decode_to(name: str, text: str) -> None:
    learner = learner_of(name)
    segments = (Segment(THOUGHT, text[: len(text) // 2]), Segment(ANSWER, text[len(text) // 2 :]))
    for image in (None, picture(1)):
        ids = labels_of(learner, Dialogue("x", "text", text, image, Response(segments)))
        assert learner.processor.decode(ids) == exact(name, text)
        assert ids[-1] == learner.processor.eos_id


@each_family
@pytest.mark.parametrize(
    "text", ["a", " a", "  two  ", "\n", "\n\nx\n", " ", "é e\u0301", "日本語 ٣", "👩‍👩‍👧 ok", "a .b , c ?"]
)
def test_hard_responses_are_what_the_labels_decode_to(name: str, text: str) -> None:
    learner = learner_of(name)
    found = learner.processor.decode(labels_of(learner, Dialogue("x", "text", "Q", None, response(text))))
    assert found == exact(name, text)


def response(text: str) -> Response:
    return Response((Segment(ANSWER, text),))


@each_family
def test_responses_of_tasks_are_what_the_labels_decode_to(name: str) -> None:
    coder = learner_of(name).processor
    for task in (nano_task(task) for task in STUDIED):
        for number, view in enumerate(VIEWS):
            dialogue = build_dialogue(task, task.sample(task.levels[0], "train", number), view)
            assert coder.decode(labels_of(learner_of(name), dialogue)) == dialogue.response.text
            check_segments(coder, dialogue)


def check_segments(coder: Processor, dialogue: Dialogue) -> None:
    """A token belongs to the segment of its last character: up to a segment's end as many as fit, and no more."""
    encoded, whole = coder.encode(dialogue), dialogue.response.text
    ids = [token for token, number in zip(encoded.input_ids, encoded.segments, strict=True) if number]
    numbers = [number for number in encoded.segments if number]
    for kind, _, end in dialogue.response.spans():
        num = sum(number <= SEGMENT_IDS[kind] for number in numbers)
        assert len(coder.decode(ids[:num])) <= end
        assert num == len(ids) or len(coder.decode(ids[: num + 1])) > end
        assert whole.startswith(coder.decode(ids[:num]))


def rendered(learner: Learner, dialogue: Dialogue) -> list[int]:
    """Ids of the whole chat, tokenized in one go as the library does; a picture's token is expanded afterwards."""
    coder, tokenizer = learner.processor, learner.processor.tokenizer
    content = [{"type": "image"}] * (dialogue.image is not None) + [{"type": "text", "text": dialogue.prompt}]
    turn = tokenizer.apply_chat_template(
        [{"role": "user", "content": content}], tokenize=False, add_generation_prompt=True, date_string=DATE
    )
    whole = turn + coder.template.lead + dialogue.response.text + coder.template.end
    bos = tokenizer.bos_token
    ids = tokenizer(whole, add_special_tokens=not (bos and whole.startswith(bos)))["input_ids"]
    if dialogue.image is None:
        return ids
    at = ids.index(coder.pictures.placeholder_id)
    return ids[:at] + coder.pictures.expand(*dialogue.image.shape[:2]) + ids[at + 1 :]


@each_family
@pytest.mark.parametrize("prompt", ["What is it?", "two\nlines, 3\n", "  spaces ", "Ünï 日本"])
def test_ids_are_those_of_the_chat_in_one_go(name: str, prompt: str) -> None:
    learner = learner_of(name)
    for image in (None, picture(2)):
        for text in ("Step 1. (3,2) blue", "x", "Ünï"):
            dialogue = Dialogue("x", "image", prompt, image, response(text))
            assert learner.processor.encode(dialogue).input_ids == rendered(learner, dialogue)


@each_family
def test_special_tokens_from_outside_stay_text(name: str) -> None:
    coder = learner_of(name).processor
    special = [str(token) for token in coder.tokenizer.all_special_tokens]
    hostile = " ".join(special) + "".join(special)
    for image in (None, picture(1)):
        plain, spelled = (
            coder.encode(Dialogue("x", "image", text, image, response(text))) for text in ("innocent", hostile)
        )
        count = [
            sum(token in coder.tokenizer.all_special_ids for token in found.input_ids) for found in (plain, spelled)
        ]
        assert count[0] == count[1]
        assert coder.decode(labels_of(learner_of(name), Dialogue("x", "text", "Q", None, response(hostile)))) == hostile
    batch = coder.collate_prompts([Prompt(hostile, None, prefill=hostile)])
    end = coder.encode(Dialogue("x", "text", hostile, None, response(hostile))).input_ids
    assert batch["input_ids"][0].tolist() == end[:-1]


@each_family
def test_a_begun_response_goes_on(name: str) -> None:
    """The decoded whole is the same wherever generation began."""
    coder = learner_of(name).processor
    ids = coder._follow("Step 1. Then two words")[0]
    for cut in range(1, len(ids)):
        begun = coder.decode(ids[:cut])
        assert coder.decode(ids[cut:], prefill=begun) == "Step 1. Then two words"


# ---- pictures


@each_family
def test_placeholders_are_the_features_of_the_vision_tower(name: str) -> None:
    learner = learner_of(name)
    pictures = learner.processor.pictures
    if name == "mllama":
        assert pictures.expand(30, 40) == [pictures.placeholder_id]
        pytest.skip("cross attention: no features in the sequence (see test_the_answer_depends_on_the_picture)")
    stream = np.random.default_rng(0)
    for _ in range(25):
        height, width = (int(side) for side in stream.integers(20, 200, 2))
        ids = pictures.expand(height, width)
        inputs = pictures.inputs(torch.tensor([ids]), [[np.zeros((height, width, 3), np.uint8)]])
        inputs.pop("mm_token_type_ids", None)
        with torch.no_grad():
            features = learner.model.get_image_features(**inputs).pooler_output
        assert ids.count(pictures.placeholder_id) == sum(map(len, features)), (height, width)


@each_family
def test_the_answer_depends_on_the_picture(name: str) -> None:
    learner = learner_of(name)
    encoded = learner.processor.encode(memorable(2)[1])
    assert encoded.image is not None
    other = Encoded(encoded.input_ids, encoded.segments, 255 - encoded.image)
    with torch.no_grad():
        first, second = (learner.target_logits(learner.processor.collate([e]))[0] for e in (encoded, other))
    assert not torch.allclose(first, second, atol=1e-4)


def test_llava_sees_the_edges_of_a_long_picture() -> None:
    """CLIP's processor crops to a square: what lies outside would be lost."""
    pictures = learner_of("llava").processor.pictures
    dark = np.zeros((40, 120, 3), np.uint8)
    marked = dark.copy()
    marked[:, :10] = 255
    tensors = [pictures.inputs(torch.zeros(1, 1), [[image]])["pixel_values"] for image in (dark, marked)]
    assert not torch.equal(*tensors)


def test_pictures_that_a_model_refuses() -> None:
    with pytest.raises(ValueError, match=r"a picture of 10 x 5000 px: .*aspect ratio"):
        learner_of("qwen2_5_vl").processor.pictures.expand(10, 5000)


def test_limits_of_picture_sizes(tmp_path: Path) -> None:
    def num_tokens(name: str, **changes: Any) -> int:
        learner = model_of(name, **changes).load()
        learner.processor.save(tmp_path)
        assert model_of(name, tmp_path, checkpoint=str(files(name)), **changes).load()
        return len(learner.processor.pictures.expand(120, 120))

    assert num_tokens("qwen2_5_vl") > num_tokens("qwen2_5_vl", max_pixels=28 * 28 * 4) == 4
    assert num_tokens("smolvlm") > num_tokens("smolvlm", longest_edge=32)
    for name, setting, sentence in (
        ("qwen2_5_vl", "longest_edge", "model.longest_edge=64: has no effect .*; there are min_pixels, max_pixels"),
        ("llava", "max_pixels", "model.max_pixels=64: has no effect .*; it has one size"),
        ("smolvlm", "longest_edge", "model.longest_edge=40: a multiple of 32 is expected"),
    ):
        with pytest.raises(ValueError, match=sentence):
            model_of(name, **{setting: 40 if "multiple" in sentence else 64}).load()


# ---- batches


@each_family
@each_mixture
def test_a_batch_gives_what_its_rows_give(name: str, mixture: str) -> None:
    learner = learner_of(name)
    made = dict(mixtures())[mixture]
    encoded = [learner.processor.encode(d) for d in made]
    with torch.no_grad():
        together = learner.target_logits(learner.processor.collate(encoded, 64))
        alone = [learner.target_logits(learner.processor.collate([e])) for e in encoded]
    for i in range(3):
        torch.testing.assert_close(together[i], torch.cat([found[i] for found in alone]), **CLOSE)


@each_family
@each_mixture
def test_packed_rows_give_what_single_ones_give(name: str, mixture: str) -> None:
    learner = learner_of(name)
    if not learner.processor.pictures.packable:
        pytest.skip("cross attention knows one dialogue per row")
    encoded = [learner.processor.encode(d) for d in dict(mixtures())[mixture]]
    with torch.no_grad():
        packed = learner.token_losses(learner.processor.collate_packed([encoded[:3], encoded[3:]], 64))[0]
        alone = torch.cat([learner.token_losses(learner.processor.collate([e]))[0] for e in encoded])
    torch.testing.assert_close(packed, alone, **CLOSE)


@each_family
@each_mixture
def test_generation_of_a_batch_is_that_of_its_rows(name: str, mixture: str) -> None:
    learner = trained(name)
    made = dict(mixtures())[mixture]
    asked = [*prompts(made), *(Prompt(p.text + " Again?", p.image, prefill="Step") for p in prompts(made))]
    assert learner.generate(asked, 12) == [learner.generate([prompt], 12)[0] for prompt in asked]


@each_family
def test_greedy_means_greedy(name: str) -> None:
    """The repository's generation settings (sampling, a repetition penalty) have no effect."""
    learner = trained(name)
    for prompt in (Prompt("Something new?", None), Prompt("And this?", picture(6))):
        batch = learner.processor.collate_prompts([prompt])
        new: list[int] = []
        while len(new) < 12 and (not new or new[-1] not in learner.processor.eos_ids):
            encoded = Encoded(
                batch["input_ids"][0].tolist() + new, [0] * (batch["input_ids"].shape[1] + len(new)), prompt.image
            )
            with torch.no_grad():
                logits_V = learner.model(**model_inputs(learner, encoded)).logits[0, -1]
            logits_V[learner.processor.pictures.placeholder_id :][:1] = -torch.inf
            new.append(int(logits_V.argmax()))
        found = learner.generate([prompt], 12)[0]
        ended = new[-1] in learner.processor.eos_ids
        assert found.text == learner.processor.decode(new[:-1] if ended else new)
        assert (found.num_tokens, found.finished) == (len(new), ended)


def model_inputs(learner: Learner, encoded: Encoded) -> dict[str, torch.Tensor]:
    batch = learner.processor.collate([encoded])
    return {key: value for key, value in batch.items() if key not in ("labels", "segments")}


def test_every_end_token_ends_a_response() -> None:
    learner = learner_of("qwen2_5_vl")
    tokenizer = learner.processor.tokenizer
    assert learner.processor.eos_ids == sorted(tokenizer.convert_tokens_to_ids(["<|im_end|>", "<|endoftext|>"]))
    ids = [*learner.processor.coder.sequence("so"), tokenizer.convert_tokens_to_ids("<|endoftext|>"), 5, 5]
    found = learner._generation(Prompt("x", None), ids)
    assert (found.text, found.finished) == ("so", True)


@pytest.mark.parametrize("name", ["qwen2_vl", "qwen2_5_vl"])
def test_positions_are_those_of_the_model(name: str) -> None:
    learner = learner_of(name)
    for dialogue in memorable(8):
        encoded = learner.processor.encode(dialogue)
        found = learner.processor.pictures.positions(
            encoded.input_ids, [] if encoded.image is None else [encoded.image]
        )
        assert found is not None
        assert torch.equal(found[0], torch.arange(len(encoded)))
        if encoded.image is None:
            assert torch.equal(found[1:], torch.arange(len(encoded)).expand(3, -1))
            continue
        batch = learner.processor.collate([encoded])
        expected = learner.model.model.get_rope_index(
            batch["input_ids"],
            batch["mm_token_type_ids"],
            batch["image_grid_thw"],
            attention_mask=batch["attention_mask"],
        )[0]
        assert torch.equal(found[1:], expected[:, 0])


# ---- learning, saving


@each_family
def test_every_parameter_belongs_to_one_part(name: str) -> None:
    learner = learner_of(name)
    found = [found for part in PARTS for found, _ in learner.part_parameters(part)]
    assert sorted(found) == sorted(found for found, _ in learner.model.named_parameters())
    assert all(any(True for _ in learner.part_parameters(part)) for part in PARTS)


@each_family
def test_learns_by_heart_and_answers_the_same_when_loaded_again(name: str, tmp_path: Path) -> None:
    learner, made = trained(name), memorable(8)
    expected = [d.response.text for d in made]
    assert answers(learner, made) == expected
    learner.save(tmp_path)
    again = model_of(name).load(tmp_path)
    assert answers(again, made) == expected
    assert again.processor.template == learner.processor.template
    batch = learner.processor.collate([learner.processor.encode(d) for d in made])
    with torch.no_grad():
        assert torch.equal(again.token_losses(batch)[0], learner.token_losses(batch)[0])


def test_every_family_is_tested() -> None:
    assert {tiny.config(tiny.tokenizer()).model_type for tiny in TINY.values()} == set(FAMILIES)


@each_family
def test_no_mask_keeps_fast_kernels_from_training(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A padded batch is causal and nothing else: padding lies behind what is looked at."""
    learner, seen = learner_of(name), []
    whole = torch.nn.functional.scaled_dot_product_attention

    def watched(*states: Any, **options: Any) -> Any:
        seen.append((states[0].shape[2] == states[1].shape[2] == length, options))
        return whole(*states, **options)

    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", watched)
    batch = learner.processor.collate([learner.processor.encode(d) for d in memorable(3)], 16)
    length = batch["input_ids"].shape[1]
    assert not batch["attention_mask"].all()
    with torch.no_grad():
        learner.token_losses(batch)
    layers = [options for is_text, options in seen if is_text and options["is_causal"]]
    config = learner.model.config.get_text_config()
    assert len(layers) == config.num_hidden_layers - len(getattr(config, "cross_attention_layers", ()))
    assert all(options["attn_mask"] is None for options in layers)
