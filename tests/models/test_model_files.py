"""Every file of conf/model that names a repository builds the tiny model of its family."""

from pathlib import Path

import pytest
from support.families import TINY, memorable, write_tiny

from vlmreason.assembly import build, catalog
from vlmreason.models.vlm.hugging_face import HuggingFace

FAMILY_OF = {
    "Qwen/Qwen2.5-VL-": "qwen2_5_vl",
    "llava-hf/llava-1.5-": "llava",
    "llava-hf/llava-v1.6-": "llava_next",
    "meta-llama/Llama-3.2-": "mllama",
    "HuggingFaceTB/SmolVLM-": "idefics3",
    "HuggingFaceTB/SmolVLM2-": "smolvlm",
}
"""The tiny model of the configuration class that a repository has."""


def names(composed) -> dict[str, HuggingFace]:
    found = {name: composed("train", f"model={name}") for name in catalog.groups()["model"]}
    target = f"{HuggingFace.__module__}.{HuggingFace.__name__}"
    return {name: build.build_model(cfg) for name, cfg in found.items() if cfg["model"]["_target_"] == target}


@pytest.mark.slow
def test_every_model_file_builds_its_tiny_version(composed, tmp_path: Path) -> None:
    models = names(composed)
    assert {"hf", "qwen2_5_vl_3b", "llava_1_5_7b", "llava_next_7b", "llama_3_2_vision_11b", "smolvlm_256m"} <= set(
        models
    )
    for name, model in models.items():
        assert model.name == name
        family = next((kind for start, kind in FAMILY_OF.items() if (model.id or "").startswith(start)), None)
        assert (family is None) == (name == "hf"), f"{name}: {model.id} belongs to no family of this test"
        directory = tmp_path / (family or "qwen2_vl")
        if not directory.exists():
            write_tiny(directory.name, directory)
        cfg = composed("train", f"model={name}", f"model.checkpoint={directory}", "model.dtype=float32")
        learner = build.build_learner(cfg)
        assert (
            learner.model.config.model_type == TINY[directory.name].config(TINY[directory.name].tokenizer()).model_type
        )
        batch = learner.processor.collate([learner.processor.encode(d) for d in memorable(2)])
        assert learner.token_losses(batch)[0].isfinite().all()


def test_the_template_can_be_changed_from_the_command_line(composed) -> None:
    cfg = composed("train", "model=hf", "model.id=owner/model", "model.template.end='</s>'", "model.max_pixels=50000")
    model = build.build_model(cfg)
    assert model.template.end == "</s>"
    assert model.max_pixels == 50000
    with pytest.raises(ValueError, match=r"model\.attention='slow': allowed are eager, sdpa, flash_attention_2"):
        build.build_model(composed("train", "model=hf", "model.attention=slow"))
