"""Two towers of nano models before one decoder: what each mixture sees, and that a saved one opens again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.tiny import dialogues, shared_learner

from vlmreason.models.composed.fusion import Fusion
from vlmreason.models.composed.nano_mixture import NanoMixture
from vlmreason.models.nano.model import BASES


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Two tiny models in the nano layout, whose towers differ."""
    from support.tiny import tiny_learner

    found = {}
    for seed, name in enumerate(("first", "second")):
        place = tmp_path_factory.mktemp(name)
        tiny_learner(seed).save(place)
        found[name] = str(place)
    return found


def mixture(folders: dict[str, str], **fusion: Any) -> Any:
    return NanoMixture(folders, Fusion(**fusion), language_model=folders["first"]).load()


def tokens(learner: Any) -> torch.Tensor:
    batch = learner.processor.collate([learner.processor.encode(d) for d in dialogues(3) if d.image is not None][:1])
    with torch.no_grad():
        found: torch.Tensor = learner.model.eval().model.image_features(batch["pixel_values"])
    return found


def test_the_ends_of_an_additive_mixture_are_single_towers(folders: dict[str, str]) -> None:
    first = folders["first"]
    one, other, both = (tokens(mixture(folders, kind="additive", alpha=alpha)) for alpha in (1.0, 0.0, 0.5))
    assert torch.allclose(one, tokens(mixture({"first": first, "again": first}, kind="additive", alpha=0.3)), atol=1e-5)
    assert not torch.allclose(one, other, atol=1e-3) and not torch.allclose(one, both, atol=1e-3)


def test_an_interleaved_mixture_has_the_tokens_of_both(folders: dict[str, str], tmp_path: Path) -> None:
    learner = mixture(folders, kind="interleaved")
    found = tokens(learner)
    places = shared_learner().processor.pictures.num_tokens
    assert found.shape[1] == 2 * places and not torch.allclose(found[:, 0], found[:, 1], atol=1e-3)
    learner.save(tmp_path)
    again = NanoMixture(folders, Fusion(kind="interleaved"), language_model=folders["first"]).load(tmp_path)
    assert torch.equal(tokens(again), found)


def test_shipped_bases_mix() -> None:
    learner = NanoMixture({"first": "nano", "second": "nano_first"}, Fusion(kind="additive", alpha=0.25)).load()
    batch = learner.processor.collate([learner.processor.encode(d) for d in dialogues(3)])
    assert learner.token_losses(batch)[0].isfinite().all()
    assert {"nano", "nano_first"} <= set(BASES)


def test_a_tower_that_is_not_there_is_named() -> None:
    with pytest.raises(ValueError, match=r"model\.towers\.second=nanoo: nano, nano_first or a folder"):
        NanoMixture({"first": "nano", "second": "nanoo"}, Fusion(kind="additive", alpha=0.5)).load()
