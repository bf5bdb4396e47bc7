"""Composed models: towers to grids, fusions to tokens, parts to a model that learns, saves and answers as any other."""

import functools
import importlib.util
import itertools
import json
import re
import shutil
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from support.families import learn_by_heart, memorable, mixtures, picture
from support.parts import SIDE, TOWERS, composed, language_model, part, tower
from support.tiny import dialogues, prompts, shared_learner, tiny_run

from vlmreason.dialogue.build import Dialogue
from vlmreason.models.composed.fusion import Fusion, FusionProjector
from vlmreason.models.composed.loading import Composed, NanoComposed
from vlmreason.models.composed.towers import square
from vlmreason.models.contract import PARTS, Prompt
from vlmreason.models.nano.model import load_nano
from vlmreason.models.vlm.hugging_face import check_source
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.processor import IGNORED
from vlmreason.structure import structure

CLOSE = {"rtol": 2e-4, "atol": 2e-4}
FUSIONS: dict[str, dict[str, Any]] = {
    "channel": {"kind": "channel"},
    "additive": {"kind": "additive", "alpha": 0.3},
    "adapted": {"kind": "additive", "alpha": 0.3, "adapters": "own"},
    "interleaved": {"kind": "interleaved", "projector": "linear"},
}
MODELS: dict[str, Any] = {
    "eagle": functools.partial(composed, "clip", "convnext", fusion=FUSIONS["channel"], language="llama"),
    "a_mof": functools.partial(composed, "clip", "dinov2", fusion=FUSIONS["additive"], language="vicuna"),
    "i_mof": functools.partial(composed, "clip", "dinov2", fusion=FUSIONS["interleaved"]),
}
each_model = pytest.mark.parametrize("name", MODELS)


@functools.cache
def learner_of(name: str) -> Learner:
    """One for all tests that leave it as it is."""
    return evaluating(MODELS[name]())


def evaluating(settings: Composed) -> Learner:
    learner = settings.load()
    learner.model.eval()
    return learner


@functools.cache
def trained(name: str) -> Learner:
    """After it has learned eight dialogues by heart."""
    return learn_by_heart(MODELS[name]().load(), num_steps=200)


def asked(made: list[Dialogue]) -> list[Prompt]:
    return [Prompt(d.prompt, d.image) for d in made]


def answers(learner: Learner, made: list[Dialogue]) -> list[str]:
    return [found.text for found in learner.generate(asked(made), 30)]


def tokens_of(learner: Learner, *pictures: Any) -> torch.Tensor:
    """Image tokens (P, N, D) of pictures."""
    processor = learner.processor
    ids = torch.tensor([[processor.pictures.placeholder_id]])
    with torch.no_grad():
        found: torch.Tensor = learner.model.model.image_features(
            processor.pictures.inputs(ids, [list(pictures)])["pixel_values"]
        )
    return found


# ---- the nano model as a composed one


def test_nano_from_its_parts_is_nano() -> None:
    nano, parts = Learner(*load_nano()), NanoComposed().load()
    for learner in (nano, parts):
        learner.model.eval()
    made = dialogues(9)
    batches = [learner.processor.collate([learner.processor.encode(d) for d in made]) for learner in (nano, parts)]
    assert torch.equal(batches[0]["input_ids"], batches[1]["input_ids"])
    with torch.no_grad():
        logits = [learner.target_logits(batch)[0] for learner, batch in zip((nano, parts), batches, strict=True)]
    assert torch.equal(*logits)
    assert nano.generate(prompts(6), 40) == parts.generate(prompts(6), 40)
    assert sum(p.numel() for p in parts.model.parameters()) == sum(p.numel() for p in nano.model.parameters())


# ---- towers and fusions


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("kind", TOWERS)
def test_tokens_of_every_tower_in_every_fusion(kind: str, fusion: str) -> None:
    other = "dinov2" if kind != "dinov2" else "siglip"
    learner = evaluating(composed(kind, other, fusion=FUSIONS[fusion]))
    shown = [picture(0), picture(1)]
    found = tokens_of(learner, *shown)
    num = 32 if fusion == "interleaved" else 16
    assert found.shape == (2, num, 64)
    for one in shown:
        assert learner.processor.pictures.expand(*one.shape[:2]) == [learner.processor.pictures.placeholder_id] * num
    assert not torch.allclose(found[0], found[1], atol=1e-4), "the picture matters"
    torch.testing.assert_close(tokens_of(learner, shown[1]), found[1:], **CLOSE)
    batch = learner.processor.collate([learner.processor.encode(d) for d in memorable(2)])
    assert learner.token_losses(batch)[0].isfinite().all()


@pytest.mark.parametrize("kind", TOWERS)
def test_one_tower_at_another_side(kind: str) -> None:
    data = {"towers": {"one": part(kind, side=48)}}
    learner = evaluating(composed(kind, **data))
    assert tokens_of(learner, picture(1)).shape == (1, 36, 64)


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_the_vision_side_of_a_model_of_pictures_and_texts_is_taken(kind: str) -> None:
    stored = load_file(tower(kind) / "model.safetensors")
    learner = learner_of("eagle") if kind == "clip" else evaluating(composed(kind))
    vision = learner.model.model.vision_tower[0]
    (name,) = [name for name in stored if name.endswith("embeddings.patch_embedding.weight")]
    assert torch.equal(vision.embeddings.patch_embedding.weight, stored[name])
    assert not [name for name, _ in vision.named_parameters() if "text" in name]


def test_places_keep_their_order() -> None:
    """A tower without attention: another patch of the picture changes the tokens of its place alone."""
    learner = evaluating(composed("patches", "patches", fusion=FUSIONS["interleaved"]))
    first = np.full((SIDE, SIDE, 3), 120, np.uint8)
    before = tokens_of(learner, first)[0]
    for row, column in itertools.product(range(4), range(4)):
        changed = first.copy()
        changed[8 * row : 8 * row + 8, 8 * column : 8 * column + 8] = 9
        differs = (tokens_of(learner, changed)[0] != before).any(-1)
        place = 4 * row + column
        assert differs.nonzero().flatten().tolist() == [2 * place, 2 * place + 1]


@pytest.mark.parametrize(("place", "number"), list(itertools.product((0, 5, 11), (0, 1, 2))))
def test_interleaved_tokens_alternate_between_the_towers(place: int, number: int) -> None:
    torch.manual_seed(0)
    fusion = FusionProjector(Fusion("interleaved", grid=(3, 4)), [5, 6, 7], (3, 4), 8)
    grids = [torch.randn(1, 3, 4, channels) for channels in (5, 6, 7)]
    before = fusion(grids)
    grids[number].view(12, -1)[place] += 1
    differs = (fusion(grids) != before).any(-1)[0]
    assert differs.nonzero().flatten().tolist() == [3 * place + number]


@pytest.mark.parametrize("adapters", ["shared", "own"])
@pytest.mark.parametrize("alpha", [1.0, 0.0])
def test_additive_ends_are_the_single_towers(alpha: float, adapters: str) -> None:
    fusion = {"kind": "additive", "alpha": alpha, "adapters": adapters}
    both = evaluating(composed("clip", "dinov2", fusion=fusion))
    one = evaluating(composed("clip" if alpha else "dinov2"))
    adapter = both.model.model.multi_modal_projector.adapters[0 if alpha or adapters == "shared" else 1]
    one.model.model.multi_modal_projector.adapters[0].load_state_dict(adapter.state_dict())
    torch.testing.assert_close(tokens_of(both, picture(1)), tokens_of(one, picture(1)), rtol=0, atol=0)


def test_additive_is_linear_in_alpha() -> None:
    torch.manual_seed(0)
    settings = [Fusion("additive", "linear", alpha, "own", (2, 2)) for alpha in (1.0, 0.25, 0.0)]
    modules = [FusionProjector(one, [5, 6], (2, 2), 8) for one in settings]
    for module in modules[1:]:
        module.load_state_dict(modules[0].state_dict())
    grids = [torch.randn(3, 2, 2, channels) for channels in (5, 6)]
    first, mixed, second = [module(grids) for module in modules]
    torch.testing.assert_close(mixed, 0.25 * first + 0.75 * second)


def test_other_grids_are_resampled() -> None:
    learner = evaluating(composed("clip", "fine", fusion={"kind": "channel"}))
    assert tokens_of(learner, picture(0)).shape[1] == 16, "the first tower's"
    learner = evaluating(composed("fine", "clip", fusion={"kind": "interleaved", "grid": [3, 5]}))
    assert tokens_of(learner, picture(0)).shape[1] == 30
    fusion = FusionProjector(Fusion("channel", "linear", grid=(2, 2)), [1], (2, 2), 1)
    ramp = torch.arange(4.0).view(1, 1, 4, 1).expand(1, 4, 4, 1)
    torch.nn.init.ones_(fusion.adapters[0].linear_1.weight)
    torch.nn.init.zeros_(fusion.adapters[0].linear_1.bias)
    assert fusion([ramp]).flatten().tolist() == [0.5, 2.5, 0.5, 2.5], "rows first, and nothing is turned"


def test_pictures_are_padded_or_stretched() -> None:
    wide = np.full((10, 40, 3), 200, np.uint8)
    padded = square(wide, 32, "pad", (1, 2, 3))
    assert padded.shape == (32, 32, 3)
    assert (padded[12:20] == 200).all() and (padded[:12] == (1, 2, 3)).all() and (padded[20:] == (1, 2, 3)).all()
    assert (square(wide, 32, "stretch", (1, 2, 3)) == 200).all()
    exact = picture(3)
    assert square(exact, 61, "pad", (0, 0, 0)) is exact, "not touched at its own size"


# ---- whole models


@each_model
def test_every_parameter_belongs_to_one_part(name: str) -> None:
    learner = learner_of(name)
    found = [found for part in PARTS for found, _ in learner.part_parameters(part)]
    assert sorted(found) == sorted(found for found, _ in learner.model.named_parameters())
    assert all(any(True for _ in learner.part_parameters(part)) for part in PARTS)


@each_model
@pytest.mark.parametrize("mixture", ["text", "image", "mixed"])
def test_batches_and_packed_rows_give_what_single_ones_give(name: str, mixture: str) -> None:
    learner = learner_of(name)
    encoded = [learner.processor.encode(d) for d in dict(mixtures())[mixture]]
    processor = learner.processor
    with torch.no_grad():
        alone = torch.cat([learner.token_losses(processor.collate([e]))[0] for e in encoded])
        together = learner.token_losses(processor.collate(encoded, 64))[0]
        packed = learner.token_losses(processor.collate_packed([encoded[:3], encoded[3:]], 64))[0]
        one_row = learner.token_losses(processor.collate_packed([encoded]))[0]
    for found in (together, packed, one_row):
        torch.testing.assert_close(found, alone, **CLOSE)


@each_model
def test_labels_decode_to_the_response(name: str) -> None:
    processor = learner_of(name).processor
    for dialogue in memorable(4):
        labels_L = processor.collate([processor.encode(dialogue)])["labels"][0]
        assert processor.decode(labels_L[labels_L != IGNORED].tolist()) == dialogue.response.text
        assert labels_L[labels_L != IGNORED][-1] in processor.eos_ids


@pytest.mark.slow
@each_model
def test_learns_by_heart_and_answers_the_same_when_loaded_again(name: str, tmp_path: Path) -> None:
    learner, made = trained(name), memorable(8)
    expected = [d.response.text for d in made]
    assert answers(learner, made) == expected
    assert [learner.generate([prompt], 30)[0].text for prompt in asked(made)] == expected, "one by one"
    learner.save(tmp_path)
    assert [path.suffix for path in tmp_path.iterdir() if path.stem == "model"] == [".safetensors"]
    again = MODELS[name]().load(tmp_path)
    assert answers(again, made) == expected
    assert again.processor.template == learner.processor.template
    batch = learner.processor.collate([learner.processor.encode(d) for d in made])
    again.model.eval()
    with torch.no_grad():
        assert torch.equal(again.token_losses(batch)[0], learner.token_losses(batch)[0])
    tied = again.model.lm_head.weight.data_ptr() == again.model.get_input_embeddings().weight.data_ptr()
    assert tied == (name == "i_mof")


def test_opens_with_the_library_alone(tmp_path: Path) -> None:
    from transformers import AutoModelForImageTextToText

    learner = learner_of("i_mof")
    learner.save(tmp_path)
    model = AutoModelForImageTextToText.from_pretrained(tmp_path, dtype=torch.float32).eval()
    batch = learner.processor.collate([learner.processor.encode(d) for d in memorable(2)])
    inputs = {key: batch[key] for key in ("input_ids", "attention_mask", "pixel_values")}
    with torch.no_grad():
        found = model(**inputs, labels=batch["labels"])
        assert torch.equal(found.logits, learner.model(**inputs).logits)
        torch.testing.assert_close(found.loss, learner.token_losses(batch)[0].mean(), **CLOSE)
        torch.testing.assert_close(model(**inputs, logits_to_keep=1).logits, found.logits[:, -1:], **CLOSE)


@each_model
def test_cached_generation_is_uncached_generation(name: str) -> None:
    learner = trained(name)
    for dialogue in memorable(2):
        batch = learner.processor.collate_prompts(asked([dialogue]))
        start, ids = batch["input_ids"].shape[1], batch["input_ids"]
        for _ in range(8):
            mask = torch.ones_like(ids)
            with torch.no_grad():
                logits = learner.model(**batch | {"input_ids": ids, "attention_mask": mask}, use_cache=False).logits
            ids = torch.cat([ids, logits[:, -1:].argmax(-1)], dim=1)
        cached = learner.model.generate(**batch, do_sample=False, max_new_tokens=8, eos_token_id=-1, pad_token_id=0)
        assert torch.equal(ids[:, start:], cached[:, start:])


def test_the_answer_depends_on_the_picture() -> None:
    learner, made = trained("eagle"), memorable(8)
    shown = [d for d in made if d.image is not None]
    swapped = [Prompt(d.prompt, other.image) for d, other in zip(shown, shown[1:] + shown[:1], strict=True)]
    expected = [other.response.text for other in shown[1:] + shown[:1]]
    assert [found.text for found in learner.generate(swapped, 30)] == expected


def test_gradient_checkpointing_changes_no_gradient() -> None:
    learner = MODELS["eagle"]().load()
    learner.model.train()
    batch = learner.processor.collate([learner.processor.encode(d) for d in memorable(2)])
    found = []
    for checkpointed in (False, True):
        if checkpointed:
            learner.model.gradient_checkpointing_enable()
        learner.model.zero_grad()
        learner.token_losses(batch)[0].mean().backward()
        found.append({name: p.grad.clone() for name, p in learner.model.named_parameters() if p.grad is not None})
    assert found[0].keys() == found[1].keys()
    for name, gradient in found[0].items():
        torch.testing.assert_close(found[1][name], gradient, **CLOSE)
    assert any(module.gradient_checkpointing for module in learner.model.model.vision_tower[0].modules()
               if hasattr(module, "gradient_checkpointing"))  # fmt: skip


def test_the_projector_is_the_same_in_every_run() -> None:
    torch.manual_seed(1)
    first = MODELS["a_mof"]().load().model.state_dict()
    torch.manual_seed(2)
    second = MODELS["a_mof"]().load().model.state_dict()
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_the_placeholder_is_added_where_it_is_missing() -> None:
    learner, plain = learner_of("eagle"), language_model("llama")
    stored = load_file(plain / "model.safetensors")["model.embed_tokens.weight"]
    embedding = learner.model.get_input_embeddings().weight
    assert learner.processor.tokenizer.convert_ids_to_tokens(learner.processor.pictures.placeholder_id) == "<image>"
    assert learner.processor.pictures.placeholder_id == len(stored)
    assert torch.equal(embedding[: len(stored)], stored)
    torch.testing.assert_close(embedding[len(stored)], stored.mean(0))
    assert learner.model.lm_head.weight.shape == embedding.shape
    assert learner.model.config.text_config.vocab_size == len(embedding)


def test_training_the_projector_leaves_the_rest(tmp_path: Path) -> None:
    """Bit by bit, with batches of text alone too."""
    learner = MODELS["i_mof"]().load()
    before = {name: tensor.clone() for name, tensor in learner.model.state_dict().items()}
    parts = {"simple": {"level": "simple", "views": ["text", "image"]}}
    phases = {"projector": {"num_examples": 16, "train": ["projector"], "parts": parts}}
    tiny_run(tmp_path, phases, learner=learner, batch_size=1, micro_tokens=2048, max_length=2048)
    after = MODELS["i_mof"]().load(tmp_path / "checkpoints" / "final").model.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all(name.startswith("model.multi_modal_projector.") for name in changed)
    assert len(changed) == len([name for name in before if name.startswith("model.multi_modal_projector.")])


def test_text_alone_needs_no_picture() -> None:
    learner = MODELS["a_mof"]().load()
    learner.model.train()
    batch = learner.processor.collate([learner.processor.encode(memorable(1)[0])])
    assert "pixel_values" not in batch
    learner.token_losses(batch)[0].mean().backward()
    for name, parameter in learner.part_parameters("projector"):
        assert parameter.grad is not None and not parameter.grad.any(), name


# ---- what cannot be


def sentence_of(make: Any) -> str:
    with pytest.raises(ValueError) as raised:
        make()
    assert "\n" not in str(raised.value)
    return str(raised.value)


WRONG: dict[str, tuple[Any, str]] = {
    "one tower for two": (lambda: composed("clip", fusion=FUSIONS["additive"]), "needs two towers, model.towers has 1"),
    "three for two": (
        lambda: composed("clip", "dinov2", "siglip", fusion=FUSIONS["additive"]),
        "needs two towers, model.towers has 3",
    ),
    "one to interleave": (lambda: composed("clip", fusion=FUSIONS["interleaved"]), "needs two towers or more"),
    "other grids": (
        lambda: composed("clip", "fine", fusion=FUSIONS["interleaved"]),
        "grids of 4 x 4 and 8 x 8 places",
    ),
    "other channels": (lambda: composed("clip", "narrow", fusion=FUSIONS["additive"]), "32 and 16 channels"),
    "no grid": (lambda: composed("gridless"), r"model.towers.gridless_0: .*gives no grid"),
    "too large a share": (
        lambda: composed("clip", fusion={"kind": "additive", "alpha": 1.5}),
        "model.fusion.alpha=1.5",
    ),
    "no share": (lambda: composed("clip", fusion={"kind": "additive"}), "model.fusion.alpha=None"),
    "useless share": (lambda: composed("clip", fusion={"alpha": 0.5}), "has no effect with kind=channel"),
    "own adapters": (lambda: composed("clip", fusion={"adapters": "own"}), "has one projector for all"),
    "no tower": (lambda: composed(), "one tower or more"),
    "no side": (lambda: composed(towers={"a": part("clip", side=0)}), "side=0"),
    "no layer": (lambda: composed(towers={"a": part("clip", layer=9)}), "gives no grid"),
    "capped logits": (
        lambda: composed(
            "clip",
            language="gemma2",
            attention="eager",
            template={"text": ["a", "b"], "image": ["a", "", "b"], "end": "c"},
        ),
        "model.language_model.id: Gemma2ForCausalLM does more than a linear layer",
    ),
    "no chat template": (lambda: composed("clip", language="vicuna", template={}), "has no chat template"),
    "no such directory": (lambda: composed(towers={"a": {**part("clip"), "id": "./nowhere"}}), "model.towers.a: "),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_does_not_go_together_is_one_sentence(name: str) -> None:
    make, sentence = WRONG[name]
    with pytest.raises(ValueError, match=sentence) as raised:
        make().load()
    assert "\n" not in str(raised.value)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:100])


def without_one(path: Path) -> None:
    tensors = load_file(path)
    del tensors["model.multi_modal_projector.adapters.0.linear_1.bias"]
    save_file(tensors, path, {"format": "pt"})


def other_type(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "llama"}))


@pytest.mark.parametrize(
    ("name", "damage", "sentence"),
    [
        ("config.json", Path.unlink, "config.json is missing"),
        ("config.json", cut, "damaged"),
        ("config.json", other_type, "vlmreason_composed is expected"),
        ("model.safetensors", Path.unlink, "cannot be loaded"),
        ("model.safetensors", cut, "weights are damaged"),
        ("model.safetensors", without_one, r"not those of its config.json \(.*adapters.0.linear_1.bias"),
        ("tokenizer.json", cut, "tokenizer.json: the file is damaged"),
    ],
)
def test_damaged(name: str, damage: Any, sentence: str, tmp_path: Path) -> None:
    learner_of("i_mof").save(tmp_path)
    damage(tmp_path / name)
    with pytest.raises(ValueError, match=sentence) as raised:
        MODELS["i_mof"]().load(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_part_with_weights_of_another_is_refused(tmp_path: Path) -> None:
    for path in tower("dinov2").iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["layernorm.bias"]
    save_file(tensors, tmp_path / "model.safetensors", {"format": "pt"})
    settings = composed(towers={"a": {**part("dinov2"), "id": str(tmp_path)}})
    assert "not those of its config.json (layernorm.bias)" in sentence_of(settings.load)


def test_a_missing_package_is_named(tmp_path: Path) -> None:
    """timm's towers are classes of the library around a package of their own."""
    if importlib.util.find_spec("timm"):
        pytest.skip("timm is installed")
    config = {"model_type": "timm_wrapper", "architecture": "convnext_xxlarge", "label_names": [], "num_classes": 0}
    (tmp_path / "config.json").write_text(json.dumps(config))
    settings = composed(towers={"a": {**part("convnext"), "id": str(tmp_path)}})
    assert re.search("model.towers.a: .*timm", sentence_of(settings.load))


def test_pictures_and_placeholders_must_be_as_many() -> None:
    learner = learner_of("i_mof")
    batch = learner.processor.collate([learner.processor.encode(memorable(2)[1])])
    with pytest.raises(ValueError, match="32 image tokens for pictures of"):
        learner.model(**{k: batch[k] for k in ("input_ids",)}, pixel_values=batch["pixel_values"].repeat(2, 1))


def test_settings_are_checked_when_composed() -> None:
    with pytest.raises(ValueError, match=r"fusion\.kind='sum': allowed are channel, additive, interleaved"):
        structure(Fusion, {"kind": "sum"}, "fusion")
    assert shared_learner().model.config.model_type == "llava", "nano itself is untouched"


def test_every_part_of_the_hub_is_noted_with_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = tmp_path / "hub"
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(hub))

    def publish(id: str, directory: Path, commit: str) -> None:
        repository = hub / f"models--{id.replace('/', '--')}"
        shutil.copytree(directory, repository / "snapshots" / commit)
        (repository / "refs").mkdir(exist_ok=True)
        (repository / "refs" / "main").write_text(commit)

    publish("owner/tower", tower("clip"), "a" * 40)
    publish("owner/language", language_model("qwen2"), "b" * 40)
    towers = {"own": part("dinov2"), "clip": part("clip", id="owner/tower")}
    settings = structure(
        Composed,
        {"name": "hub", "towers": towers, "language_model": {"id": "owner/language"}, "dtype": "float32"},
    )
    recorded = settings.load().source
    assert recorded == [
        {"part": "model.towers.clip", "id": "owner/tower", "revision": "main", "commit": "a" * 40},
        {"part": "model.language_model", "id": "owner/language", "revision": "main", "commit": "b" * 40},
    ]
    check_source(recorded, settings.load().source)
    publish("owner/language", language_model("qwen2"), "c" * 40)
    with pytest.raises(
        ValueError, match=f"^model.language_model.revision=main: owner/language was at commit {'b' * 40}"
    ):
        check_source(json.loads(json.dumps(recorded)), settings.load().source)
    assert composed("clip").load().source is None
