"""Every file of conf/model that composes parts builds its tiny version; two stages by one command."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from support.families import memorable, picture
from support.parts import SIDE, language_model, tower

from vlmreason.assembly import build, catalog
from vlmreason.commands import train
from vlmreason.models.composed.loading import Composed

TOWER_OF = {
    "openai/clip-": ("clip", SIDE),
    "facebook/dinov2-": ("dinov2", SIDE),
    "timm/convnext_": ("convnext", SIDE),
}
"""A tiny tower of the class that a repository has (timm's: the library's own ConvNeXt), and its side in pixels."""
LANGUAGE_OF = {"meta-llama/Meta-Llama-3-": "llama", "lmsys/vicuna-": "vicuna"}
NUM_TOKENS = {"eagle_x2_llama3_8b": 16, "llava_a_mof": 16, "llava_i_mof": 32}


def kind_of(table: Any, id: str) -> Any:
    return next(kind for start, kind in table.items() if id.startswith(start))


def tiny_overrides(name: str, composed: Any) -> list[str]:
    """What replaces the repositories of a file by tiny parts."""
    model = composed("train", f"model={name}")["model"]
    changes = [f"model={name}", "model.dtype=float32"]
    for key, data in model["towers"].items():
        kind, side = kind_of(TOWER_OF, data["id"])
        changes += [f"model.towers.{key}.id={tower(kind)}", f"model.towers.{key}.side={side}"]
    kind = kind_of(LANGUAGE_OF, model["language_model"]["id"])
    return [*changes, f"model.language_model.id={language_model(kind)}"]


@pytest.mark.slow
def test_every_composed_file_is_tested(composed: Any) -> None:
    targets = {name: composed("train", f"model={name}")["model"]["_target_"] for name in catalog.groups()["model"]}
    own = f"{Composed.__module__}.{Composed.__name__}"
    assert {name for name, target in targets.items() if target == own} == {*NUM_TOKENS, "composed"}


@pytest.mark.parametrize("name", NUM_TOKENS)
def test_every_composed_file_builds_its_tiny_version(name: str, composed: Any) -> None:
    settings = build.build_model(composed("train", f"model={name}"))
    assert settings.name == name
    learner = build.build_learner(composed("train", *tiny_overrides(name, composed)))
    assert len(learner.processor.pictures.expand(1500, 800)) == NUM_TOKENS[name]
    batch = learner.processor.collate([learner.processor.encode(d) for d in memorable(2)])
    assert learner.token_losses(batch)[0].isfinite().all()


def test_a_file_without_parts_says_what_is_missing(composed: Any) -> None:
    with pytest.raises(ValueError, match=r"model\.language_model\.id=None: str is expected"):
        build.build_model(composed("train", "model=composed"))


def test_a_file_of_towers_needs_the_fusion_that_joins_them(composed: Any) -> None:
    overrides = [*tiny_overrides("llava_i_mof", composed), "model.towers.dinov2.side=48"]
    with pytest.raises(ValueError, match="grids of 4 x 4 and 6 x 6 places"):
        build.build_learner(composed("train", *overrides))


@pytest.mark.slow
def test_two_stages_by_one_command(composed: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Training, evaluation, and the prepared model as the start of another run."""
    records = []
    for number in range(20):
        Image.fromarray(picture(number)).save(tmp_path / f"{number}.png")
        turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": f"Number {number}"}]
        records.append({"id": str(number), "image": f"{number}.png", "conversations": turns})
    (tmp_path / "data.json").write_text(json.dumps(records))
    cfg = composed(
        "train", *tiny_overrides("llava_i_mof", composed), "task=llava_data", f"task.data={tmp_path / 'data.json'}",
        f"task.images={tmp_path}", "task.held_out=0.2", "supervision=prepare", "scale.num_align=8",
        "scale.num_examples=8", "scale.batch_size=4", "scale.max_response_tokens=4", "optimizer=adamw",
        "trainer.precision=32-true", "trainer.accelerator=cpu", "trainer.num_workers=0", "trainer.progress=false",
        f"out={tmp_path / 'out'}",
    )  # fmt: skip
    folder = train.run(cfg)
    assert "instruction" in capsys.readouterr().out
    assert json.loads((folder / "summary.json").read_text())
    start = build.build_learner(cfg).model.state_dict()
    stages = [
        build.build_learner(cfg, folder / "checkpoints" / name).model.state_dict() for name in ("projector", "all")
    ]
    changed = {name for name in start if not torch.equal(start[name], stages[0][name])}
    assert changed == {name for name in start if name.startswith("model.multi_modal_projector.")}
    later = {name.split(".")[1] for name in start if not torch.equal(stages[0][name], stages[1][name])}
    assert later >= {"vision_tower", "multi_modal_projector", "language_model"}
    final = folder / "checkpoints" / "final"
    again = build.build_learner(
        composed("train", *tiny_overrides("llava_i_mof", composed), f"model.checkpoint={final}")
    )
    assert all(torch.equal(tensor, stages[1][name]) for name, tensor in again.model.state_dict().items())
