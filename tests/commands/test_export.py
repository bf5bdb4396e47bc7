"""What `export` writes opens without this package and answers as the run's model does."""

import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from support.tiny import SIZES

from vlmreason import runs
from vlmreason.assembly import build
from vlmreason.dialogue.build import build_dialogue
from vlmreason.models.contract import Prompt
from vlmreason.models.nano.model import build_nano, read_vocabulary
from vlmreason.models.vlm.learner import Learner

SMALL = (
    "scale.num_examples=16", "scale.num_align=8", "scale.batch_size=8", "evaluation.num=1",
    "evaluation.max_new_tokens=2", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.num_threads=1",
    "trainer.num_workers=0", "trainer.progress=false", "optimizer=adamw", "optimizer.lr=0.01",
)  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A finished run without adapters, one with LoRA and a projector in full, and one of a tiny model whose decoder
    has learned positions."""
    from vlmreason.__main__ import main

    found, placed = {}, tmp_path_factory.mktemp("placed_base")
    Learner(*build_nano(replace(SIZES, placed=True), read_vocabulary(), seed=0)).save(placed)
    kinds: dict[str, tuple[str, ...]] = {
        "none": (),
        "lora": ("adapter=lora", "adapter.frozen=[vision_tower]", "adapter.r=4"),
        "placed": (f"model.checkpoint={placed}",),
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, words in kinds.items():
            out = tmp_path_factory.mktemp(name)
            patch.setattr("sys.argv", ["vlmreason", "train", *SMALL, *words, f"out={out}"])
            with pytest.raises(SystemExit) as end:
                main()
            assert not end.value.code
            [found[name]] = out.glob("*-s0-*")
    return found


@torch.no_grad()
def logits(model: Any, run: Path) -> torch.Tensor:
    cfg = runs.read_config(run)
    processor = build.build_learner(cfg, run / "checkpoints" / "final").processor
    task = build.build_task(cfg)
    made = [build_dialogue(task, task.sample("simple", "test", i), "image") for i in range(3)]
    batch = processor.collate([processor.encode(dialogue) for dialogue in made])
    inputs = {key: value for key, value in batch.items() if key not in ("labels", "segments")}
    found: torch.Tensor = model.eval()(**inputs).logits
    return found


def trained_logits(run: Path, phase: str = "final") -> torch.Tensor:
    return logits(build.build_learner(runs.read_config(run), run / "checkpoints" / phase).model, run)


def opened(folder: Path) -> Any:
    from transformers import AutoModelForImageTextToText, AutoTokenizer

    assert AutoTokenizer.from_pretrained(folder).eos_token_id is not None
    loaded: Any = AutoModelForImageTextToText.from_pretrained(
        folder, attn_implementation="eager", dtype=torch.float32, output_loading_info=True
    )
    model, found = loaded
    assert not any(found.values()), found
    return model


@pytest.mark.parametrize("name", ["none", "lora"])
def test_it_opens_and_answers_as_the_run_does(
    name: str, trained: dict[str, Path], tmp_path: Path, program: Any
) -> None:
    done = program("export", f"run={trained[name]}", f"out={tmp_path / 'exported'}")
    assert (done.code, done.err) == (0, "")
    assert done.last_line == str(tmp_path / "exported")
    expected = trained_logits(trained[name])
    model = opened(tmp_path / "exported")
    torch.testing.assert_close(logits(model, trained[name]), expected, rtol=1e-4, atol=1e-3)
    assert not any("lora" in key for key in load_file(tmp_path / "exported" / "model.safetensors"))
    noted = json.loads((tmp_path / "exported" / "provenance.json").read_text())
    assert (noted["run"], noted["phase"]) == (trained[name].name, "final")
    assert noted["adapter"] == {"none": "none", "lora": "merged"}[name]
    assert noted["config"] == runs.read_config(trained[name])
    assert noted["provenance"]["config_hash"] == trained[name].name.rpartition("-")[2]
    assert [path.name for path in tmp_path.iterdir()] == ["exported"]
    assert (tmp_path / "exported" / "README.md").read_text().count("| simple | ") == 2
    assert (tmp_path / "exported" / "loss.svg").read_bytes().count(b"<path") > 2


@pytest.mark.parametrize("name", ["none", "lora", "placed"])
def test_the_code_of_its_card_answers_as_the_run_does(
    name: str, trained: dict[str, Path], tmp_path: Path, program: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "exported"
    assert program("export", f"run={trained[name]}", f"out={folder}").code == 0
    cfg = runs.read_config(trained[name])
    task, learner = build.build_task(cfg), build.build_learner(cfg, trained[name] / "checkpoints" / "final")
    card = (folder / "README.md").read_text()
    assert ("import vlmreason" in card) == (name == "placed")
    [code] = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    made = [build_dialogue(task, task.sample("simple", "test", i), "image") for i in range(3)]
    for dialogue, expected in zip(made, learner.generate([Prompt(d.prompt, d.image) for d in made], 500), strict=True):
        capsys.readouterr()
        exec(code, {"folder": folder, "picture": Image.fromarray(dialogue.image), "question": dialogue.prompt})
        assert capsys.readouterr().out == expected.text + "\n"


@pytest.mark.parametrize(("name", "words"), [("none", ()), ("placed", ()), ("lora", ("merge=false",))])
def test_what_is_copied_is_not_loaded(
    name: str, words: tuple[str, ...], trained: dict[str, Path], tmp_path: Path, program: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def refused(*_: Any, **__: Any) -> Any:
        raise AssertionError("weights are read")

    monkeypatch.setattr("vlmreason.models.nano.model.load_nano", refused)
    monkeypatch.setattr("transformers.PreTrainedModel.from_pretrained", refused)
    done = program("export", f"run={trained[name]}", f"out={tmp_path / 'new'}", *words)
    assert (done.code, done.err) == (0, "")
    there = {path.name: path for path in (tmp_path / "new").iterdir()}
    assert {"chat_template.jinja", "preprocessor_config.json"} <= there.keys()
    [weights] = (path for path in there.values() if path.suffix == ".safetensors")
    assert weights.read_bytes() == (trained[name] / "checkpoints" / "final" / weights.name).read_bytes()


def test_an_adapter_apart_is_opened_by_peft(trained: dict[str, Path], tmp_path: Path, program: Any) -> None:
    from peft import PeftModel

    done = program("export", f"run={trained['lora']}", f"out={tmp_path / 'adapter'}", "merge=false")
    assert done.code == 0
    base = build.build_model(runs.read_config(trained["lora"])).load().model
    model = PeftModel.from_pretrained(base, str(tmp_path / "adapter"))
    torch.testing.assert_close(logits(model, trained["lora"]), trained_logits(trained["lora"]), rtol=1e-4, atol=1e-3)
    assert not (tmp_path / "adapter" / "model.safetensors").exists()
    assert "PeftModel.from_pretrained" in (tmp_path / "adapter" / "README.md").read_text()
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert Path(config["base_model_name_or_path"]).is_dir()


def test_of_an_earlier_phase(trained: dict[str, Path], tmp_path: Path, program: Any) -> None:
    assert program("export", f"run={trained['lora']}", f"out={tmp_path / 'align'}", "phase=align").code == 0
    found = logits(opened(tmp_path / "align"), trained["lora"])
    torch.testing.assert_close(found, trained_logits(trained["lora"], "align"), rtol=1e-4, atol=1e-3)
    assert not torch.allclose(found, trained_logits(trained["lora"]), atol=1e-2)


@pytest.mark.parametrize("name", ["none", "lora"])
@pytest.mark.parametrize("where", ["notes.txt", "weights", "deep/notes.txt", "folder", "", "../../provenance.json"])
def test_nothing_from_outside_of_the_run_is_fetched(
    where: str, name: str, trained: dict[str, Path], tmp_path: Path, program: Any
) -> None:
    run, secret = tmp_path / trained[name].name, tmp_path / "secret"
    shutil.copytree(trained[name], run)
    final = run / "checkpoints" / "final"
    place = next(final.glob("*.safetensors")) if where == "weights" else final / where
    if where in ("", "folder"):
        shutil.copytree(final, secret)
        shutil.rmtree(place, ignore_errors=True)
    else:
        secret.write_bytes(place.read_bytes() if place.exists() else b"secret")
        place.parent.mkdir(exist_ok=True)
        place.unlink(missing_ok=True)
    (place.parent.resolve() / place.name).symlink_to(secret)
    done = program("export", f"run={run}", f"out={tmp_path / 'new'}")
    assert done.code == 2
    assert "leads out of the run" in done.err and done.err.count("\n") == 1
    assert not (tmp_path / "new").exists()


def test_a_pipe_is_no_weight(trained: dict[str, Path], tmp_path: Path, program: Any) -> None:
    run = tmp_path / trained["none"].name
    shutil.copytree(trained["none"], run)
    os.mkfifo(run / "checkpoints" / "final" / "more.safetensors")
    done = program("export", f"run={run}", f"out={tmp_path / 'new'}")
    assert done.code == 2
    assert "more.safetensors: neither a file nor a folder" in done.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("phase=aling",), "phase=aling: "),
        (("out=OUT",), "is there and not empty; choose another folder"),
        (("run=nowhere",), "nowhere: no run directory (config.yaml is missing)"),
        (("merge=perhaps",), "merge='perhaps'"),
        (("run=PLAIN", "merge=false"), "was trained without an adapter"),
    ],
)
def test_mistakes(
    words: tuple[str, ...], sentence: str, trained: dict[str, Path], tmp_path: Path, program: Any
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").write_text("mine")
    given = {"run": str(trained["lora"]), "out": str(tmp_path / "new")}
    places = {"OUT": tmp_path / "full", "PLAIN": trained["none"]}
    for word in words:
        key, value = word.split("=", 1)
        given[key] = str(places.get(value, value))
    done = program("export", *(f"{key}={value}" for key, value in given.items()))
    assert done.code == 2
    assert sentence in done.err and done.err.count("\n") == 1
    assert (tmp_path / "full" / "file").read_text() == "mine"
    assert not (tmp_path / "new").exists()
