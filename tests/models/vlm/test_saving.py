"""A saved model opens without this package; a damaged one ends with one sentence, before anything is built."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support.tiny import dialogues, shared_learner

from vlmreason.models.nano.model import load_nano
from vlmreason.models.vlm.learner import Learner


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    shared_learner().save(tmp_path / "model")
    return tmp_path / "model"


def logits_of(learner: Learner) -> torch.Tensor:
    batch = learner.processor.collate([learner.processor.encode(d) for d in dialogues(3)])
    learner.model.eval()
    with torch.no_grad():
        return learner.target_logits(batch)[0]


def test_loads_as_it_was(saved: Path) -> None:
    loaded = Learner(*load_nano(saved))
    assert torch.equal(logits_of(loaded), logits_of(shared_learner()))
    assert loaded.processor.tokenizer.get_vocab() == shared_learner().processor.tokenizer.get_vocab()
    head, embedding = loaded.model.lm_head.weight, loaded.model.get_input_embeddings().weight
    assert head.data_ptr() == embedding.data_ptr(), "still tied"


def test_opens_without_this_package(saved: Path) -> None:
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    model = AutoModelForImageTextToText.from_pretrained(saved, local_files_only=True, attn_implementation="sdpa")
    tokenizer = AutoTokenizer.from_pretrained(saved, local_files_only=True)
    encoded = shared_learner().processor.encode(dialogues(2)[1])
    batch = shared_learner().processor.collate([encoded])
    inputs = {k: batch[k] for k in ("input_ids", "attention_mask", "pixel_values")}
    with torch.no_grad():
        assert torch.equal(model.eval()(**inputs).logits, shared_learner().model.eval()(**inputs).logits)
    assert tokenizer("<user>Read(3,2) 7<assistant>", add_special_tokens=False)["input_ids"] == (
        shared_learner().processor.prompt_ids("Read(3,2) 7", None)
    )


def cut(path: Path, num_bytes: int) -> None:
    path.write_bytes(path.read_bytes()[:num_bytes])


def without_one(path: Path) -> None:
    tensors = load_file(path)
    del tensors["multi_modal_projector.linear_1.bias"]
    save_file(tensors, path, {"format": "pt"})


def with_other_shape(path: Path) -> None:
    tensors = load_file(path)
    tensors["multi_modal_projector.linear_1.bias"] = torch.zeros(3)
    save_file(tensors, path, {"format": "pt"})


def with_one_more(path: Path) -> None:
    save_file(load_file(path) | {"stranger": torch.zeros(3)}, path, {"format": "pt"})


def other_type(path: Path) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | {"model_type": "llama"}))


DAMAGES: list[tuple[str, Callable[[Path], object], str]] = [
    ("model.safetensors", Path.unlink, "no nano model in .*pretrain` makes one"),
    ("model.safetensors", lambda path: cut(path, 0), "the weights are damaged"),
    ("model.safetensors", lambda path: cut(path, 5000), "the weights are damaged"),
    ("model.safetensors", lambda path: cut(path, -1), "the weights are damaged"),
    ("model.safetensors", lambda path: path.write_bytes(b"\xff" * 999), "the weights are damaged"),
    ("model.safetensors", without_one, r"not those of config.json .\S*multi_modal_projector.linear_1.bias"),
    ("model.safetensors", with_other_shape, r"not those of config.json .\S*multi_modal_projector.linear_1.bias"),
    ("model.safetensors", with_one_more, r"not those of config.json .stranger"),
    ("config.json", Path.unlink, "the model has no config.json"),
    ("config.json", lambda path: cut(path, 100), "config.json: the file is damaged: it is not JSON"),
    ("config.json", other_type, "model_type llava is expected"),
    ("tokenizer.json", Path.unlink, "the model has no tokenizer.json"),
    ("tokenizer.json", lambda path: cut(path, 100), "tokenizer.json: the file is damaged: it is not JSON"),
    ("tokenizer_config.json", lambda path: cut(path, 10), "tokenizer_config.json: the file is damaged: it is not JSON"),
]


@pytest.mark.parametrize(("name", "damage", "sentence"), DAMAGES)
def test_damaged(saved: Path, name: str, damage: Callable[[Path], object], sentence: str) -> None:
    damage(saved / name)
    with pytest.raises(ValueError, match=sentence) as raised:
        load_nano(saved)
    assert "\n" not in str(raised.value)
