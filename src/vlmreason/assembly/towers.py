"""Open a tower by a word: raw pixels, the vision tower of a model of the suite or of a run, an encoder of the hub."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vlmreason import runs
from vlmreason.assembly import build, catalog

PIXELS = "pixels"


def open_towers(words: Sequence[str], features: str | None, accelerator: str) -> list[Any]:
    """Return towers with what they have seen (vlmreason.models.embedders.KeptVectors). Raises ValueError."""
    from vlmreason.models.embedders import KeptVectors

    folder = None if features is None else Path(features)
    return [KeptVectors(word, open_tower(word, accelerator), folder) for word in words]


def open_tower(word: str, accelerator: str = "auto") -> Any:
    """Return a tower (vlmreason.models.embedders.PictureEmbedder) by `pixels`, a choice of conf/model, the directory of
    a run or of an encoder, or an encoder's name on the hub, as NAME or NAME@REVISION. Raises ValueError."""
    from vlmreason.models import embedders

    build.quieten()
    if word == PIXELS:
        return embedders.Pixels()
    name, choices, place = word, catalog.groups()["model"], Path(word)
    if (place / "config.yaml").is_file():
        trained = build.read_run(place)
        learner = build.build_learner(trained, runs.find_checkpoint(place))
    elif name in choices:
        learner = build.build_model({"model": catalog.tree_of(f"model/{name}")}).load()
    else:
        id, _, revision = word.partition("@") if not place.is_dir() else (word, "", "")
        encoder = embedders.HubEncoder("towers", id, revision or None)
        build.place(encoder, accelerator)
        return encoder
    if not hasattr(learner, "processor") or learner.model is None or not hasattr(learner.model, "model"):
        raise ValueError(f"towers={word}: a model of LLaVA's layout with one tower is expected (nano, llava_1_5_7b)")
    build.place(learner, accelerator)
    return embedders.TowerOf(learner)
