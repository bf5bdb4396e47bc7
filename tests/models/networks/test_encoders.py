"""Frozen encoders of the hub: each kind that a configuration names is loaded as from there, tiny and untrained."""

import functools
import shutil
import tempfile
from pathlib import Path
from typing import Any

import huggingface_hub
import numpy as np
import pytest
import torch
import transformers as hf
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file
from support.parts import SIDE, SIZES, tower
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from vlmreason import places
from vlmreason.models.contract import Example, Prompt
from vlmreason.models.networks.encoders import Texts, Tower
from vlmreason.models.networks.smarter_settings import Eye, Reader, Sizes
from vlmreason.models.networks.smarter_vlm import SmarterVlm
from vlmreason.tasks.puzzles.smart_families import FamilySizes, SmartFamilies

WORDS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "how", "many", "stars", "are", "there", "?")
COMMIT = "a" * 40
VISION = ("dinov2", "siglip", "clip", "mae", "resnet")
TEXT = ("siglip", "clip", "bert")
ID_OF_KIND = {
    "facebook/dinov2-base": "dinov2", "google/siglip-base-patch16-224": "siglip", "microsoft/resnet-50": "resnet",
    "facebook/vit-mae-base": "mae", "openai/clip-vit-base-patch32": "clip", "google-bert/bert-base-uncased": "bert",
}  # fmt: skip
"""The repositories that configurations name."""


@functools.cache
def repository(kind: str) -> Path:
    """A repository as the hub has it: the model that was published with its heads, and a tokenizer."""
    torch.manual_seed(len(kind))
    match kind:
        case "mae":
            decoder = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
            config = {**SIZES, "image_size": SIDE, "patch_size": 8}
            config |= {f"decoder_{key}": value for key, value in decoder.items()}
            model: Any = hf.ViTMAEForPreTraining(hf.ViTMAEConfig(**config))
        case "resnet":
            sizes = hf.ResNetConfig(embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1])
            model = hf.ResNetForImageClassification(sizes)
        case "bert":
            model = hf.BertForPreTraining(hf.BertConfig(**SIZES, vocab_size=len(WORDS), max_position_embeddings=32))
        case _:
            text = {**SIZES, "vocab_size": len(WORDS), "max_position_embeddings": 16, "eos_token_id": 3}
            vision = {**SIZES, "image_size": SIDE, "patch_size": 8}
            if kind == "siglip":
                model = hf.SiglipModel(hf.SiglipConfig(vision_config=vision, text_config=text))
            elif kind == "clip":
                model = hf.CLIPModel(hf.CLIPConfig(vision_config=vision, text_config=text, projection_dim=8))
            else:
                return tower(kind)
    directory = Path(tempfile.mkdtemp(prefix=f"{kind}_"))
    model.save_pretrained(directory)
    if kind == "bert":  # as its file on the hub names them
        weights = load_file(directory / "model.safetensors")
        old = {"LayerNorm.weight": "LayerNorm.gamma", "LayerNorm.bias": "LayerNorm.beta"}
        renamed = {functools.reduce(lambda name, one: name.replace(*one), old.items(), key): value
                   for key, value in weights.items()}  # fmt: skip
        assert renamed.keys() != weights.keys()
        save_file(renamed, directory / "model.safetensors", {"format": "pt"})
    made = Tokenizer(models.WordLevel({word: number for number, word in enumerate(WORDS)}, "[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    hf.PreTrainedTokenizerFast(tokenizer_object=made, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(directory)
    return directory


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hub's cache with all of them."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    for kind in {*VISION, *TEXT}:
        folder = tmp_path / "hub" / f"models--owner--{kind}"
        shutil.copytree(repository(kind), folder / "snapshots" / COMMIT)
        (folder / "refs").mkdir()
        (folder / "refs" / "main").write_text(COMMIT)


def pictures(num: int) -> list[np.ndarray]:
    return list(np.random.default_rng(0).integers(256, size=(num, SIDE, SIDE, 3), dtype=np.uint8))


@torch.no_grad()
def seen(kind: str, images: list[np.ndarray]) -> torch.Tensor:
    """States (N, places, D) by the library's own class for this kind."""
    classes = {"dinov2": hf.Dinov2Model, "siglip": hf.SiglipVisionModel, "clip": hf.CLIPVisionModel,
               "mae": hf.ViTMAEModel, "resnet": hf.ResNetModel}  # fmt: skip
    options = {"mask_ratio": 0.0} if kind == "mae" else {}
    model = classes[kind].from_pretrained(repository(kind), **options).eval()
    pixels = (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    if kind == "dinov2":
        return model(pixels, interpolate_pos_encoding=True).last_hidden_state[:, 1:]
    if kind == "resnet":
        return model(pixels).last_hidden_state.flatten(2).transpose(1, 2)
    states: torch.Tensor = model(pixels).last_hidden_state
    return states[:, 1:] if kind in ("clip", "mae") else states


@pytest.mark.parametrize("kind", VISION)
def test_a_tower_of_the_hub_sees_what_its_own_class_sees(kind: str, tmp_path: Path) -> None:
    images = pictures(3)
    wanted = seen(kind, images)
    grid = 1 if kind == "mae" else 4  # the places of MAE come in any order
    made = Tower(kind, Eye(f"owner/{kind}", side=SIDE), grid, tmp_path / "features")
    assert made.source == {"part": f"model.vision.{kind}", "id": f"owner/{kind}", "revision": "main", "commit": COMMIT}
    found = made.states(made.numbers([*images, images[0]]))
    wanted = wanted.mean(dim=1, keepdim=True) if grid == 1 else wanted
    assert found.shape == (4, *wanted.shape[1:]) and len(made.store) == 3, "each picture once"
    assert np.allclose(found[:3], wanted.numpy(), atol=4e-3) and not np.allclose(found[0], found[1], atol=4e-3)
    again = Tower(kind, Eye(f"owner/{kind}", side=SIDE), grid, tmp_path / "features")
    assert len(again.store) == 3 and (again.states(again.numbers(images)) == found[:3]).all(), "kept on disk"


@pytest.mark.parametrize(("kind", "padded"), [("siglip", True), ("clip", False), ("bert", False)])
@torch.no_grad()
def test_a_text_encoder_of_the_hub_reads_as_its_own_class_does(kind: str, padded: bool) -> None:
    texts = ["how many stars are there ?", "how many ?"]
    made = Texts(Reader(f"owner/{kind}", tokens=8, padded=padded), None)
    found, lengths = made.states(made.numbers(texts))
    classes = {"siglip": hf.SiglipTextModel, "clip": hf.CLIPTextModel, "bert": hf.BertModel}
    model = classes[kind].from_pretrained(repository(kind)).eval()
    assert lengths == ([8, 8] if padded else [8, 5])
    for text, states, length in zip(texts, found, lengths, strict=True):
        ids = [2, *(WORDS.index(word) for word in text.split()), 3]
        ids += [0] * (length - len(ids))
        [wanted] = model(input_ids=torch.tensor([ids])).last_hidden_state
        assert np.allclose(states[:length], wanted.numpy(), atol=4e-3) and not states[length:].any()


def test_a_network_on_encoders_of_the_hub_is_saved_without_them(tmp_path: Path) -> None:
    vision: dict[str, Eye | None] = {kind: Eye(f"owner/{kind}", side=SIDE) for kind in ("dinov2", "siglip")}
    sizes = Sizes(repr=8, hidden=8, qf_width=8)
    settings = SmarterVlm("smarter_vlm_paper", vision, Reader("owner/siglip", tokens=8, padded=True), sizes, 2)
    kinds = SmartFamilies(FamilySizes((SIDE, SIDE)), families=("counting_kind", "path_maze")).kinds()
    made = settings.untrained(Example(Prompt("", None), (), 0, kinds))
    prompts = [Prompt("how many stars ?", image, kind=kind) for image, kind in zip(pictures(2), kinds, strict=True)]
    made.save(tmp_path / "kept")
    again = settings.load(tmp_path / "kept")
    assert torch.allclose(again.embed(prompts), made.embed(prompts)) and again.embed(prompts).shape == (2, 8)
    assert [one["part"] for one in made.source or []] == ["model.vision.dinov2", "model.vision.siglip", "model.text"]
    assert sum(path.stat().st_size for path in (tmp_path / "kept").iterdir()) < 100_000
    narrower = SmarterVlm("smarter_vlm_paper", {"siglip": vision["siglip"]}, settings.text, sizes, 2)
    with pytest.raises(ValueError, match="made for encoders of widths"):
        narrower.load(tmp_path / "kept")


def test_every_repository_that_a_configuration_names_is_of_a_kind_that_is_tested() -> None:
    named = set()
    for name in ("smarter_vlm_paper", "bert_resnet50", "bert_mae", "clip_clip"):
        config = OmegaConf.load(places.conf_dir() / "model" / f"{name}.yaml")
        named |= {eye.id for eye in config.vision.values() if eye} | ({config.text.id} if "text" in config else set())
    assert {ID_OF_KIND[id] for id in named} == {*VISION, *TEXT}
