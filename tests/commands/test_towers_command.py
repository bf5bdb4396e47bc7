"""`towers` makes what an encoder of the hub is, the same by the same seed, and says what it tells."""

from __future__ import annotations

import csv
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.shipped import shipped
from support.tiny import dialogues

from vlmreason.analysis import probing
from vlmreason.assembly.towers import open_tower
from vlmreason.models.composed.fusion import Fusion
from vlmreason.models.composed.nano_mixture import NanoMixture
from vlmreason.models.contract import Prompt
from vlmreason.training.towers import objectives

SMALL = (
    "sizes.side=48", "sizes.width=16", "sizes.layers=2", "sizes.heads=2", "sizes.shared=8", "pictures=24", "pairs=3",
    *(f"recipes.{name}.{key}" for name in ("captions", "views", "labels") for key in ("steps=3", "batch_size=8")),
)  # fmt: skip
FACTS = ({"ink": "red", "count": "two"}, {"ink": "red", "count": "one"}, {"ink": "blue", "count": "two"})


def made(program: Any, *words: str, code: int = 0) -> Any:
    done = program("towers", *SMALL, *words)
    assert done.code == code, done.err
    return done


def weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.fixture(scope="module")
def towers(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("towers")


@pytest.fixture
def both(towers: Path, program: Any) -> Path:
    """A tower by captions and one by views, made once."""
    made(program, "make=[captions,views]", f"out={towers}", f"to={towers / 'numbers.csv'}")
    return towers


def test_what_they_tell_is_written(both: Path) -> None:
    with (both / "numbers.csv").open() as file:
        rows = {row["series"]: row for row in csv.DictReader(file)}
    assert {"captions: vector", "captions: places", "captions: cosine", "captions: matched", "captions: blind"} < set(
        rows
    )
    assert "views: matched" not in rows and "views: blind" not in rows, "it has no texts"
    assert all(0 <= float(value) <= 100 for value in list(rows["views: places"].values())[2:] if value)
    facts = json.loads((both / "captions-0" / "tower.json").read_text())
    assert facts["layer"] == -2 and len(facts["losses"]) == 3 and np.isfinite(facts["losses"]).all()


def test_a_tower_that_is_there_stays_and_another_is_refused(both: Path, program: Any, tmp_path: Path) -> None:
    before = weights(both / "captions-0"), (both / "captions-0" / "model.safetensors").stat().st_mtime_ns
    made(program, "make=[captions]", f"out={both}")
    assert before == (weights(both / "captions-0"), (both / "captions-0" / "model.safetensors").stat().st_mtime_ns)
    done = made(program, "make=[captions]", f"out={both}", "recipes.captions.named=[ink]", code=2)
    assert "captions-0 is there with other settings" in done.err
    made(program, "make=[captions]", f"out={tmp_path}", "seeds=[0,1]")
    assert weights(tmp_path / "captions-0") == weights(both / "captions-0"), "the same by the same seed"
    assert weights(tmp_path / "captions-1") != weights(both / "captions-0")


def test_whatever_takes_an_encoder_takes_it(both: Path) -> None:
    image = shipped("visual_pairs").draw(shipped("visual_pairs").sample("mixed", "test", 0).state)
    tower, alone = (open_tower(str(both / name), "cpu") for name in ("captions-0", "views-0"))
    vectors = tower.embed([Prompt("a photo of a red body", None)]), tower.embed([Prompt("", image)])
    assert [one.shape for one in vectors] == [(1, 8), (1, 8)] and not alone.both
    assert alone.embed([Prompt("", image)]).shape == (1, 16)


def tokens(**fusion: Any) -> torch.Tensor:
    folders = {"first": fusion.pop("first"), "second": fusion.pop("second")}
    learner = NanoMixture(folders, Fusion(**fusion), seed=0).load()
    batch = learner.processor.collate([learner.processor.encode(d) for d in dialogues(3) if d.image is not None][:1])
    with torch.no_grad():
        found: torch.Tensor = learner.model.eval().model.image_features(batch["pixel_values"])
    return found


def test_they_are_mixed_before_a_decoder(both: Path) -> None:
    names = {"first": str(both / "captions-{seed}"), "second": str(both / "views-{seed}")}
    one, other = (tokens(**names, kind="additive", alpha=alpha) for alpha in (1.0, 0.0))
    assert one.shape[1] == 4 and not torch.allclose(one, other, atol=1e-3)
    assert tokens(**names, kind="interleaved").shape[1] == 8
    with pytest.raises(ValueError, match=r"model\.seed=None: a number is expected where a tower has"):
        NanoMixture(names, Fusion(kind="interleaved"))


def test_labels_of_several_sets(program: Any, tmp_path: Path) -> None:
    done = made(program, "make=[labels]", f"out={tmp_path}")
    assert "digits  things10  things30  symbols30" in done.out
    tower = open_tower(str(tmp_path / "labels-0"), "cpu")
    told = tower.embed([Prompt('a photo of the number "3"', None), Prompt('a photo of the number "4"', None)])
    assert not torch.allclose(told[0], told[1], atol=1e-4), "each label has words of its own"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["make=[caption]"], "make='caption': allowed are captions"),
        (["recipes.captions.named=[colour]"], "recipes.captions.named='colour': allowed are ink"),
        (["recipes.captions.named=[]"], "captions name one fact or more"),
        (["recipes.captions.tasks=[table_readout]"], "table_readout says nothing of its pictures"),
        (["+recipes.captions.shift=2"], "recipes.shift: has no effect with objective=captions"),
        (["recipes.views.blanked=1"], "with objective=views 1 px and more"),
        (["sizes.patch=7"], "whole patches"),
        (["alike=2"], "alike=2.0: a cosine from -1 to 1"),
    ],
)
def test_wrong_settings_are_named(words: list[str], message: str, program: Any, tmp_path: Path) -> None:
    assert message in made(program, *words, f"out={tmp_path}", code=2).err


def test_a_caption_fits_every_picture_that_it_holds_of() -> None:
    captions = ({"ink": "red"}, {"ink": "red", "count": "one"}, {"count": "two"})
    assert objectives.fits(FACTS, captions).tolist() == [[1, 0, 1], [1, 1, 0], [0, 0, 1]]
    rng = random.Random(0)
    said = [objectives.named(FACTS[0], ("ink", "count"), rng) for _ in range(40)]
    assert {frozenset(one) for one in said} == {frozenset({"ink"}), frozenset({"count"}), frozenset({"ink", "count"})}


def test_views_of_a_picture() -> None:
    pixels, drawn = torch.randn(2, 3, 8, 8), torch.Generator().manual_seed(0)
    shown = torch.tensor([[True, False, True, True], [False] * 4])
    seen = objectives.blank(pixels, shown, 4)
    assert torch.equal(seen[0, :, 4:], pixels[0, :, 4:]) and not seen[0, :, :4, 4:].any() and not seen[1].any()
    places = objectives.in_places(pixels, 4)
    assert places.shape == (2, 4, 48) and torch.equal(places[1, 1].reshape(3, 4, 4), pixels[1, :, :4, 4:])
    moved = objectives.shifted(pixels, 3, drawn)
    inner = [pixels[0, :, 3 + y : 5 + y, 3 + x : 5 + x] for y in range(-3, 4) for x in range(-3, 4)]
    assert sum(torch.equal(moved[0, :, 3:5, 3:5], one) for one in inner) == 1


def test_a_probe_reads_what_is_there_and_nothing_else() -> None:
    rng = np.random.default_rng(0)
    values = [("a", "b", "c")[number] for number in rng.integers(0, 3, 300)]
    shown = np.stack([np.eye(3)["abc".index(value)] for value in values]) @ rng.normal(size=(3, 10))
    noise = rng.normal(size=(300, 10)).astype(np.float32)
    there, nothing = (
        (one[:200].astype(np.float32), one[200:].astype(np.float32)) for one in (shown + noise / 20, noise)
    )
    assert probing.probe((there[0], values[:200]), (there[1], values[200:])) == 1
    assert probing.probe((nothing[0], values[:200]), (nothing[1], values[200:])) < 0.55
    assert probing.cosines(there[0], 2 * there[0]) == pytest.approx(1, abs=1e-5)
