"""LoRA and frozen parts: what trains, what is written, and that it computes the same when it is read again."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.families import TINY, memorable, write_tiny
from support.tiny import dialogues, outcome, processor, tiny_learner, tiny_run

from vlmreason.models.composed.loading import NanoComposed
from vlmreason.models.contract import PARTS, AdapterSettings
from vlmreason.models.vlm.adapters import CONFIG, WEIGHTS, linear_layers, merged_weights, part_of
from vlmreason.models.vlm.hugging_face import HuggingFace
from vlmreason.models.vlm.learner import Learner
from vlmreason.structure import structure

LORA = AdapterSettings("lora", parts=("language_model",), frozen=("vision_tower", "projector"), r=4, alpha=8)
MIXED = AdapterSettings("lora", parts=("language_model",), frozen=("vision_tower",), r=4, alpha=8)
ALL = AdapterSettings("lora", parts=PARTS, r=2, alpha=4)
ONE = {"only": {"num_examples": 14}}


def adapted(settings: AdapterSettings, trained: Path | None = None, seed: int = 0) -> Learner:
    learner = tiny_learner()
    learner.adapt(settings, seed, trained)
    return learner


@torch.no_grad()
def logits(learner: Learner) -> torch.Tensor:
    was_training = learner.model.training
    learner.model.eval()
    found = learner.target_logits(processor().collate([processor().encode(d) for d in dialogues(6)]))[0]
    learner.model.train(was_training)
    return found


def parameters(learner: Learner) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in learner.model.named_parameters()}


@pytest.mark.parametrize("settings", [LORA, MIXED, ALL])
def test_a_new_adapter_computes_what_the_model_did(settings: AdapterSettings) -> None:
    assert torch.equal(logits(adapted(settings)), logits(tiny_learner()))


def test_every_parameter_still_has_one_part() -> None:
    learner = adapted(ALL)
    found = [name for part in PARTS for name, _ in learner.part_parameters(part)]
    assert sorted(found) == sorted(name for name, _ in learner.model.named_parameters())
    for part in PARTS:
        assert any(".lora_A." in name for name, _ in learner.part_parameters(part))
        assert {part_of(name, learner.prefixes) for name, _ in learner.part_parameters(part)} == {part}


@pytest.mark.parametrize("part", PARTS)
def test_adapters_are_in_every_linear_layer_of_the_part_alone(part: str) -> None:
    learner = adapted(AdapterSettings("lora", parts=(part,), frozen=tuple({*PARTS} - {part}), r=2, alpha=4))
    names = [name for name, _ in learner.trained_parameters("all")]
    assert names and all(".lora_" in name for name in names)
    layers = linear_layers(tiny_learner().model, learner.prefixes, part)
    assert {name.partition(".lora_")[0] for name in names} == set(layers)
    assert "lm_head" not in layers
    assert len(names) == 2 * len(layers)


def test_what_trains_is_what_the_phase_and_the_adapter_let() -> None:
    learner = adapted(MIXED)
    assert {part_of(name, learner.prefixes) for name, _ in learner.trained_parameters("all")} == {
        "projector",
        "language_model",
    }
    assert [name for name, _ in learner.trained_parameters(["projector", "vision_tower"])] == [
        name for name, _ in learner.part_parameters("projector")
    ]
    with pytest.raises(ValueError, match=r"adapter\.frozen=\['vision_tower'\]: nothing trains in a phase of"):
        learner.trained_parameters(["vision_tower"])


@pytest.mark.parametrize("settings", [LORA, MIXED, AdapterSettings(frozen=("vision_tower", "language_model"))])
def test_what_is_frozen_does_not_move(tmp_path: Path, settings: AdapterSettings) -> None:
    learner = adapted(settings)
    before = parameters(learner)
    trained = {name for name, _ in learner.trained_parameters("all")}
    tiny_run(tmp_path, {"only": {"num_examples": 12, "optimizer": {"weight_decay": 0.1}}}, learner=learner)
    for name, after in learner.model.named_parameters():
        assert torch.equal(before[name], after) != (name in trained), name
        assert name in trained or after.grad is None, "no work is spent on it"


@pytest.mark.parametrize("settings", [LORA, MIXED, ALL])
def test_saved_and_read_again_it_answers_the_same(tmp_path: Path, settings: AdapterSettings) -> None:
    learner = adapted(settings)
    final = tiny_run(tmp_path, ONE, learner=learner)
    expected = logits(learner)
    assert not torch.allclose(expected, logits(tiny_learner()), atol=1e-3), "it learned something"
    assert torch.equal(logits(adapted(settings, final, seed=9)), expected)
    assert sorted(load_file(final / WEIGHTS)) == sorted(
        "base_model.model." + name.replace(".default", "") for name, _ in learner.trained_parameters("all")
    )


@pytest.mark.parametrize("settings", [LORA, MIXED])
def test_peft_opens_what_is_saved(tmp_path: Path, settings: AdapterSettings) -> None:
    from peft import PeftModel

    learner = adapted(settings)
    final = tiny_run(tmp_path, ONE, learner=learner)
    theirs = PeftModel.from_pretrained(tiny_learner().model, str(final))
    batch = processor().collate([processor().encode(d) for d in dialogues(6)])
    inputs = {key: value for key, value in batch.items() if key not in ("labels", "segments")}
    with torch.no_grad():
        torch.testing.assert_close(
            theirs.eval()(**inputs).logits, learner.model.eval()(**inputs).logits, rtol=1e-5, atol=1e-6
        )


def test_the_files_are_the_same_each_time(tmp_path: Path) -> None:
    for name in ("a", "b"):
        adapted(MIXED).save(tmp_path / name)
    for name in (WEIGHTS, CONFIG):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    config = json.loads((tmp_path / "a" / CONFIG).read_text())
    assert config["modules_to_save"] == ["model.multi_modal_projector"]
    assert (config["r"], config["lora_alpha"]) == (4, 8)
    assert adapted(MIXED, seed=1).model.state_dict().keys() == adapted(MIXED).model.state_dict().keys()
    adapted(MIXED, seed=1).save(tmp_path / "c")
    assert (tmp_path / "a" / WEIGHTS).read_bytes() != (tmp_path / "c" / WEIGHTS).read_bytes()


def test_source_of_the_base_is_noted(tmp_path: Path) -> None:
    learner = tiny_learner()
    learner.source = {"id": "some/model", "revision": "main", "commit": "0123abc"}
    learner.adapt(LORA, 0)
    learner.save(tmp_path)
    config = json.loads((tmp_path / CONFIG).read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("some/model", "0123abc")


def test_a_resumed_run_equals_an_unbroken_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = AdapterSettings("lora", parts=("language_model",), frozen=("vision_tower",), r=4, alpha=8, dropout=0.1)
    phases = {"first": {"num_examples": 12, "train": ["language_model"]}, "second": {"num_examples": 20}}

    def run(directory: Path, **options: Any) -> None:
        tiny_run(directory, phases, learner=adapted(settings), checkpoint_every=1, **options)

    run(tmp_path / "unbroken")

    def fail(_: Any) -> dict[str, float]:
        raise OSError("out of order")

    with pytest.raises(OSError, match="out of order"):
        run(tmp_path / "broken", evaluate=fail, evaluate_every=4)
    broken = tmp_path / "broken" / "checkpoints"
    assert (broken / "first").is_dir() and not (broken / "final").exists()
    run(tmp_path / "broken")
    for name in ("metrics.jsonl", f"checkpoints/first/{WEIGHTS}", f"checkpoints/final/{WEIGHTS}"):
        assert (tmp_path / "broken" / name).read_bytes() == (tmp_path / "unbroken" / name).read_bytes(), name


def test_adapters_are_kept_in_float32() -> None:
    learner = tiny_learner()
    learner.model.to(torch.bfloat16)
    learner.adapt(MIXED, 0)
    kinds = {".lora_" in name: p.dtype for name, p in learner.model.named_parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    losses_N, _ = learner.token_losses(
        {
            key: value.to(torch.bfloat16) if value.is_floating_point() else value
            for key, value in processor().collate([processor().encode(d) for d in dialogues(3)]).items()
        }
    )
    losses_N.mean().backward()
    assert all(p.grad is not None for name, p in learner.trained_parameters(["language_model"]))


def test_without_an_adapter_nothing_changes(tmp_path: Path) -> None:
    tiny_run(tmp_path / "plain", ONE)
    tiny_run(tmp_path / "none", ONE, learner=adapted(AdapterSettings()))
    assert outcome(tmp_path / "plain") == outcome(tmp_path / "none")


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"parts": ["tower"]}, "adapter.parts: 'tower' is no part of a model; there are vision_tower, projector"),
        ({"frozen": ["language_model"]}, "adapter.frozen and adapter.parts both name language_model"),
        ({"parts": []}, "adapter.parts=[]: LoRA needs a part"),
        ({"r": 0}, "adapter.r=0: 1 or more"),
        ({"alpha": 0}, "adapter.alpha=0.0: more than 0"),
        ({"dropout": 1.0}, "adapter.dropout=1.0: 0 or more and less than 1"),
        ({"rank": 3}, "adapter.rank: no such key"),
        ({"name": "none"}, "adapter=none: parts, r, alpha and dropout have no effect"),
        ({"name": "none", "parts": [], "r": None, "alpha": None, "frozen": list(PARTS)}, "nothing would train"),
    ],
)
def test_settings_that_cannot_be(changes: dict[str, Any], sentence: str) -> None:
    data = {"name": "lora", "parts": ["language_model"], "frozen": [], "r": 4, "alpha": 8} | changes
    with pytest.raises(ValueError) as raised:
        structure(AdapterSettings, data, "adapter")
    assert sentence in str(raised.value)
    assert "\n" not in str(raised.value)


def test_weights_that_do_not_fit(tmp_path: Path) -> None:
    adapted(LORA).save(tmp_path)
    with pytest.raises(ValueError, match=r"has the shape \(4, 16\), expected is \(2, 16\)"):
        adapted(AdapterSettings("lora", parts=("language_model",), frozen=LORA.frozen, r=2, alpha=8), tmp_path)
    with pytest.raises(ValueError, match="not those of this model and adapter"):
        adapted(MIXED, tmp_path)
    tensors = load_file(tmp_path / WEIGHTS)
    tensors.pop(sorted(tensors)[0])
    save_file(tensors, tmp_path / WEIGHTS)
    with pytest.raises(ValueError, match="not those of this model and adapter"):
        adapted(LORA, tmp_path)
    (tmp_path / WEIGHTS).write_bytes(b"half")
    with pytest.raises(ValueError, match="the adapter is missing or damaged"):
        adapted(LORA, tmp_path)


def family(name: str, directory: Path) -> Learner:
    if not (directory / "config.json").exists():
        write_tiny(name, directory)
    data = {"name": name, "checkpoint": str(directory), "dtype": "float32"} | dict(TINY[name].settings)
    return structure(HuggingFace, data, "model").load()


@pytest.mark.parametrize("name", [*TINY, "nano_composed"])
def test_every_family_trains_saves_merges(name: str, tmp_path: Path) -> None:
    """LoRA on the language model and the tower, the projector in full; merged, it is the library's own model again."""
    settings = AdapterSettings("lora", parts=("language_model", "vision_tower"), r=4, alpha=8)

    def load() -> Learner:
        return NanoComposed().load() if name == "nano_composed" else family(name, tmp_path / "base")

    learner = load()
    examples = dialogues(6) if name == "nano_composed" else memorable(6)
    batch = learner.processor.collate([learner.processor.encode(d) for d in examples])

    @torch.no_grad()
    def logits_of(other: Learner) -> torch.Tensor:
        other.model.eval()
        return other.target_logits(batch)[0]

    before = logits_of(learner)
    names = [key for key, _ in learner.model.named_parameters()]
    learner.adapt(settings, 0)
    torch.testing.assert_close(logits_of(learner), before)
    optimizer = torch.optim.Adam([p for _, p in learner.trained_parameters("all")], lr=1e-2)
    learner.model.train()
    for _ in range(3):
        learner.token_losses(batch)[0].mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    expected = logits_of(learner)
    assert not torch.allclose(expected, before, atol=1e-2)
    learner.save(tmp_path / "adapter")
    again = load()
    again.adapt(settings, 1, tmp_path / "adapter")
    assert torch.equal(logits_of(again), expected)
    again.merge()
    torch.testing.assert_close(logits_of(again), expected, rtol=1e-3, atol=1e-3)
    assert [key for key, _ in again.model.named_parameters()] == names
    again.save(tmp_path / "merged")
    assert not (tmp_path / "merged" / WEIGHTS).exists()
    opened = again if name == "nano_composed" else family(name, tmp_path / "merged")
    torch.testing.assert_close(logits_of(opened), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("settings", [AdapterSettings(), LORA, ALL], ids=["none", "lora", "all"])
@pytest.mark.parametrize("name", ["llava_next", "qwen2_5_vl", "idefics3"])
def test_merged_weights_are_those_that_would_be_saved(tmp_path: Path, name: str, settings: AdapterSettings) -> None:
    """Under the names of the files that the model came from; the model keeps its adapters."""
    write_tiny(name, tmp_path / "hub")
    data = {"name": name, "checkpoint": str(tmp_path / "hub"), "dtype": "float32"}
    learner = structure(HuggingFace, data | dict(TINY[name].settings), "model").load()
    learner.adapt(settings, seed=0)
    with torch.no_grad():
        for parameter in learner.model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.1)
    before = parameters(learner)
    found = {key: value.clone() for key, value in merged_weights(learner.model)}
    after = parameters(learner)
    assert before.keys() == after.keys()
    assert all(torch.equal(before[key], after[key]) for key in before)
    assert found.keys() == load_file(tmp_path / "hub" / "model.safetensors").keys()
    if settings.name != "none":
        learner.merge()
    learner.save(tmp_path / "saved")
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    assert saved.keys() == found.keys()
    assert all(torch.equal(saved[key], found[key]) for key in saved)
