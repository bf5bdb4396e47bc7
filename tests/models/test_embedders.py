"""Towers give whole pictures the vectors that their makers compare, and each picture is seen once."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from support.parts import SIDE, tower
from support.tiny import shared_learner

from vlmreason.models.contract import Prompt
from vlmreason.models.embedders import HubEncoder, KeptVectors, Pixels, Sight, TowerOf
from vlmreason.pictures import Picture

SEEN = {"image_mean": [0.5] * 3, "image_std": [0.25] * 3, "resample": 2}


def pictures(num: int = 3, side: int = 40) -> list[Picture]:
    return list(np.random.default_rng(0).integers(0, 256, (num, side, side + 8, 3), np.uint8))


def encoder_folder(kind: str, folder: Path, **seen: Any) -> Path:
    """A tiny encoder as the hub has it: weights, how it sees, and for CLIP and SigLIP a tokenizer of 16 words."""
    shutil.copytree(tower(kind), folder, dirs_exist_ok=True)
    (folder / "preprocessor_config.json").write_text(json.dumps({**SEEN, "size": SIDE, **seen}))
    if kind in ("clip", "siglip"):
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        made = Tokenizer(models.WordLevel({"[UNK]": 0, "a": 1, "red": 2, "ball": 3}, unk_token="[UNK]"))
        made.pre_tokenizer = pre_tokenizers.Whitespace()
        PreTrainedTokenizerFast(tokenizer_object=made, unk_token="[UNK]", pad_token="[UNK]").save_pretrained(folder)
    return folder


@pytest.mark.parametrize("kind", ["clip", "siglip", "dinov2", "narrow", "convnext"])
def test_an_encoder_gives_its_own_vectors(kind: str, tmp_path: Path) -> None:
    encoder = HubEncoder("towers", str(encoder_folder(kind, tmp_path)))
    images = pictures()
    found = encoder.embed([Prompt("", image) for image in images])
    resized = [Image.fromarray(image).resize((SIDE, SIDE), Image.Resampling.BILINEAR) for image in images]
    pixels = (torch.tensor(np.stack(resized)).permute(0, 3, 1, 2) / 255 - 0.5) / 0.25
    with torch.no_grad():
        if kind in ("clip", "siglip"):
            wanted = encoder.model(pixel_values=pixels, input_ids=torch.ones(1, 2, dtype=torch.long)).image_embeds
            found = found / found.norm(dim=1, keepdim=True)
        elif kind == "convnext":
            wanted = encoder.model(pixel_values=pixels).pooler_output
        else:
            wanted = encoder.model(pixel_values=pixels).last_hidden_state[:, 0]
    assert found.shape[1] == encoder.width and torch.allclose(found, wanted, atol=1e-5)


def test_texts_stand_beside_pictures(tmp_path: Path) -> None:
    encoder = HubEncoder("towers", str(encoder_folder("clip", tmp_path)))
    one, other = encoder.embed([Prompt("red ball", None), Prompt("a ball", None)])
    assert len(one) == encoder.width and not torch.equal(one, other)
    with pytest.raises(ValueError, match="a picture alone is expected"):
        encoder.embed([Prompt("a", pictures()[0])])
    with pytest.raises(ValueError, match="it sees pictures alone"):
        HubEncoder("towers", str(encoder_folder("dinov2", tmp_path / "dino"))).embed([Prompt("a", None)])


def test_the_middle_is_seen_where_pictures_are_cropped() -> None:
    picture = np.zeros((20, 60, 3), np.uint8)
    picture[:, 20:40] = 255
    seen = Sight(side=20, resized=20, crop=True, resample=0, mean=(0.0,) * 3, std=(1.0,) * 3).pixels([picture])
    assert seen.shape == (1, 3, 20, 20) and (seen == 1).all()


@pytest.mark.parametrize(
    ("seen", "message"),
    [({"size": {"height": 4, "width": 5}}, "are not those of square"), ({"image_std": [0, 1, 1]}, "are not those of")],
)
def test_how_an_encoder_sees_is_checked(seen: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        HubEncoder("towers", str(encoder_folder("dinov2", tmp_path, **seen)))


def test_a_text_model_is_no_tower(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is no encoder of pictures"):
        HubEncoder("towers", str(encoder_folder("gridless", tmp_path)))
    (tmp_path / "preprocessor_config.json").unlink()
    with pytest.raises(ValueError, match=r"preprocessor_config\.json is missing"):
        HubEncoder("towers", str(tmp_path))


def test_the_tower_of_a_model_and_pixels() -> None:
    one = TowerOf(shared_learner())
    images = pictures(side=144)
    found = one.embed([Prompt("", image) for image in images])
    assert found.shape == (3, one.width) and torch.allclose(found[:1], one.embed([Prompt("", images[0])]), atol=1e-6)
    plain = Pixels().embed([Prompt("", np.full((5, 9, 3), 255, np.uint8))])
    assert plain.shape == (1, Pixels.width) and (plain == 1).all()


def test_pictures_are_seen_once_and_vectors_have_length_1(tmp_path: Path) -> None:
    images, asked = pictures(), list[int]()

    class Counting(Pixels):
        def embed(self, prompts: Any) -> torch.Tensor:
            asked.append(len(prompts))
            return super().embed(prompts)

    kept = KeptVectors("pixels", Counting(), tmp_path)
    rows = kept.numbers([*images, images[0]])
    again = KeptVectors("pixels", Counting(), tmp_path)
    assert rows == again.numbers([*images, images[0]]) and rows[0] == rows[3] and asked == [3]
    vectors = again.of_length_1(np.array(rows))
    assert len(vectors) == 4 and np.allclose(np.linalg.norm(vectors[1:3], axis=1), 1, atol=1e-3)
    assert np.allclose(vectors[np.array([3])], vectors[:1])
