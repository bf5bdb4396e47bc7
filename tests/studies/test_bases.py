"""A record of another base is marked; a run that began with another one does not go on."""

from pathlib import Path
from typing import Any

import pytest
from support.studies import make_record

from vlmreason import runs
from vlmreason.models.nano.bases import BASES, FIRST
from vlmreason.studies.library import another_base

NANO: dict[str, Any] = {"name": "nano", "checkpoint": None}


@pytest.mark.parametrize("model", [NANO, {"name": "cnn", "base": {"name": "nano"}}])
def test_a_record_of_another_base_is_marked(model: dict[str, Any]) -> None:
    config = {"task": {"name": "t"}, "supervision": {"name": "mix"}, "seed": 0, "model": model}
    of_first = make_record({("hard", "image"): "10"}, config=config)
    first = FIRST[(model.get("base") or model)["name"]]
    assert another_base(of_first, first) == "" and another_base(of_first, None) == ""
    assert another_base(of_first, "f" * 32) == f"made with another base, {first[:8]}"
    noted = make_record({("hard", "image"): "10"}, config=config)
    noted.provenance["base"] = "f" * 32  # type: ignore[index]
    assert another_base(noted, "f" * 32) == "" and another_base(noted, first) == "made with another base, ffffffff"


def test_the_base_is_that_of_the_weights(tmp_path: Path) -> None:
    assert runs.base_digest(NANO) == runs.checkpoint_digest(BASES["nano"])
    assert runs.base_digest({"name": "cnn", "base": NANO}) == runs.base_digest(NANO)
    assert runs.base_digest({"name": "hf"}) is None
    assert runs.base_digest(NANO | {"checkpoint": str(tmp_path / "none")}) is None
    (tmp_path / "config.json").write_text("{}")
    assert runs.base_digest(NANO | {"checkpoint": str(tmp_path)}) not in (None, runs.base_digest(NANO))


def test_a_run_that_began_with_another_base_is_refused(tmp_path: Path) -> None:
    cfg = {"out": str(tmp_path), "seed": 0, "model": NANO}
    folder = runs.open_run(cfg, None, "a" * 32)
    assert runs.open_run(cfg, None, "a" * 32) == folder
    with pytest.raises(ValueError, match="began with another base: the weights of model=nano have changed since"):
        runs.open_run(cfg, None, "b" * 32)
