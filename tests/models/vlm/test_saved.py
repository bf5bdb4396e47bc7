"""A saved model from elsewhere is built within limits, and what it says about generation is not obeyed."""

import json
import os
import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import prompts, tiny_learner

from vlmreason.models.nano.model import load_nano
from vlmreason.models.networks.actions import load_actor
from vlmreason.models.vlm import saved
from vlmreason.models.vlm.learner import Learner


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    tiny_learner().save(folder)
    return folder


def changed(model: Path, folder: Path, name: str, *keys: str, value: Any) -> Path:
    """A copy of a model with one value of a file replaced."""
    shutil.copytree(model, folder)
    data = json.loads((folder / name).read_text())
    place = data
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    (folder / name).write_text(json.dumps(data))
    return folder


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (("text_config", "num_hidden_layers"), 10**7, "text_config.num_hidden_layers=10000000: at most 1,000"),
        (("text_config", "num_hidden_layers"), 900, "num_hidden_layers=900: more than the [0-9]+ weights beside it"),
        (("vision_config", "num_hidden_layers"), 1e12, "num_hidden_layers=1000000000000: at most"),
        (("text_config", "hidden_size"), 10**9, "text_config.hidden_size=1000000000: at most"),
        (("text_config", "hidden_size"), 2**15, "a model of [0-9,]+ parameters, and the weights beside it have"),
        (("text_config", "vocab_size"), 2**20, "a model of [0-9,]+ parameters"),
        (("vision_config", "image_size"), 10**5, "vision_config.image_size=100000: at most 16,384"),
        (("image_seq_length",), 10**6, "image_seq_length=1000000: 36 are expected"),
        (("text_config", "max_position_embeddings"), 10**12, "max_position_embeddings=1000000000000: at most"),
        (("text_config", "num_hidden_layers"), "four", "config.json"),
        (("text_config",), [], "config.json"),
        (("vision_feature_layer",), 40, "."),
    ],
)
def test_what_sizes_a_model_has_limits(
    model: Path, tmp_path: Path, keys: tuple[str, ...], value: Any, says: str
) -> None:
    folder = changed(model, tmp_path / "model", "config.json", *keys, value=value)
    started = time.monotonic()
    with pytest.raises(ValueError, match=says) as found:
        learner = Learner(*load_nano(folder))
        learner.generate(prompts(1), 1)
    assert str(folder) in str(found.value) and len(str(found.value)) < 1000
    assert time.monotonic() - started < 10


def test_only_its_end_tokens_are_taken_from_settings_for_generation(model: Path, tmp_path: Path) -> None:
    wanted = Learner(*load_nano(model)).generate(prompts(2), 4)
    folder = changed(model, tmp_path / "model", "generation_config.json", "no_repeat_ngram_size", value=1)
    data = json.loads((folder / "generation_config.json").read_text())
    data |= {"num_beams": 10**6, "repetition_penalty": 50.0, "do_sample": True, "num_return_sequences": 3}
    (folder / "generation_config.json").write_text(json.dumps(data))
    learner = Learner(*load_nano(folder))
    assert learner.generate(prompts(2), 4) == wanted
    learner.save(tmp_path / "again")
    kept = json.loads((tmp_path / "again" / "generation_config.json").read_text())
    assert not {"num_beams", "repetition_penalty", "num_return_sequences"} & kept.keys()


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("text", ["", "[", "null", "[]", '{"a": ' * 200 + "1" + "}" * 200, "\xff\xfe"])
def test_damaged_files_of_a_model_are_named(model: Path, tmp_path: Path, name: str, text: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(model, folder)
    (folder / name).write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=re.escape(str(folder))):
        Learner(*load_nano(folder)).generate(prompts(1), 1)


def test_whole_numbers_of_any_size_are_read_where_they_size_nothing(tmp_path: Path) -> None:
    text = '{"model_max_length": 1000000000000000019884624838656}'
    for name in saved.TOKENIZER_FILES:
        (tmp_path / name).write_text(text)
    saved.check_beside(tmp_path)
    (tmp_path / "config.json").write_text('{"rope_theta": 5000000000, "max_window_layers": 28, "layer_types": []}')
    assert saved.read_config(tmp_path / "config.json")["rope_theta"] == 5 * 10**9


@pytest.mark.parametrize("number", [2**31, -1, 1.5, "3", None, 10**30])
def test_numbers_of_a_vocabulary_have_limits(number: Any, tmp_path: Path) -> None:
    for data in ({"model": {"vocab": {"a": 0, "b": number}}}, {"added_tokens": [{"id": number, "content": "b"}]}):
        (tmp_path / "tokenizer.json").write_text(json.dumps(data))
        with pytest.raises(ValueError, match=r"tokenizer\.json: damaged: .* is no number of a token"):
            saved.check_tokenizer_file(tmp_path / "tokenizer.json")


def test_a_chat_template_of_megabytes_is_not_read(tmp_path: Path) -> None:
    (tmp_path / "chat_template.jinja").write_text("x" * (saved.MAX_TEMPLATE_BYTES + 1))
    with pytest.raises(ValueError, match="larger than such a file is"):
        saved.read_template_file(tmp_path / "chat_template.jinja")


def test_a_policy_has_the_width_of_its_weights(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    settings = {"options": ["a", "b"], "width": 60_000, "grid": 2, "pictures": False}
    (tmp_path / "policy.json").write_text(json.dumps(settings))
    tensors = {"reference_F": torch.zeros(4), "body.0.bias": torch.zeros(8), "head.bias": torch.zeros(2)}
    save_file(tensors, tmp_path / "policy.safetensors")
    with pytest.raises(ValueError, match=r"not the weights of policy\.json"):
        load_actor(tiny_learner(), tmp_path)
    (tmp_path / "policy.safetensors").unlink()
    os.mkfifo(tmp_path / "policy.safetensors")
    with pytest.raises(ValueError, match="no ordinary file"):
        load_actor(tiny_learner(), tmp_path)


@pytest.mark.parametrize("value", ["1", [None], True, 1.5, {}, -7])
def test_numbers_of_tokens_are_numbers(value: Any, tmp_path: Path) -> None:
    (tmp_path / "generation_config.json").write_text(json.dumps({"pad_token_id": None, "eos_token_id": value}))
    with pytest.raises(ValueError, match=r"generation_config\.json: eos_token_id: numbers of tokens"):
        saved.check_beside(tmp_path)
