"""What missing runs cost, by the time of like ones."""

from typing import Any

import pytest
from support.studies import make_record

from vlmreason.studies.price import price
from vlmreason.studies.records import Record


def config(task: str = "table_readout", model: str = "nano", **changes: Any) -> dict[str, Any]:
    named = {"scale": "nano", "model": model, "task": task, "supervision": "mix"}
    return {group: {"name": name} for group, name in named.items()} | changes


def record(seconds: float, hardware: dict[str, Any] | None = None, cost: Any = None, **changes: Any) -> Record:
    """50 steps."""
    provenance = {"source": {"commit": "a" * 40, "dirty": False}, "time": "2026-01-01"}
    provenance["hardware"] = hardware or {"cores": 2, "gpus": []}
    own = {"seconds": seconds} if cost is None else cost
    return make_record({}, config=config(**changes), cost=own, provenance=provenance)


def test_steps_cost_what_those_of_like_runs_took() -> None:
    """60 s of 2 cores for 50 steps: 2 minutes for 50, 4 for 100."""
    found = price([(config(), 50), (config(), 100)], [record(60.0)])
    assert str(found) == "2 runs missing, about 6 core minutes of training"
    with_reused = record(0.0, cost={"seconds": 30.0, "reused_seconds": {"align": 30.0}})
    assert price([(config(), 50)], [with_reused]).minutes == {"core": 2.0}


def test_the_same_task_comes_before_others_and_others_before_nothing() -> None:
    there = [record(60.0), record(600.0, task="grid_navigation")]
    assert price([(config("grid_navigation"), 50)], there).minutes == {"core": 20.0}
    assert price([(config("visual_analogy"), 50)], there).minutes == {"core": 11.0}


def test_what_nothing_is_known_of_is_said() -> None:
    there = [record(60.0), record(0.0, model="other"), record(1.0, model="small", smoke=True)]
    paper = config(model="qwen2_5_vl_3b")
    assert str(price([(paper, 50)], there)).endswith("missing, at a cost that is not known: no record is of a like run")
    assert str(price([(paper, 50), (config(), 5000)], there)) == (
        "2 runs missing, about 200 core minutes of training; of 1 it is not known"
    )
    for model in ("other", "small"):
        assert price([(config(model=model), 50)], there).unknown == 1


@pytest.mark.parametrize(("trainer", "minutes"), [({"devices": 4}, 4.0), ({"devices": "auto"}, 8.0)])
def test_gpus_are_counted_where_they_train(trainer: dict[str, Any], minutes: float) -> None:
    gpus = {"cores": 96, "gpus": ["H100"] * 8}
    assert price([(config(), 50)], [record(60.0, gpus, trainer=trainer)]).minutes == {"GPU": minutes}
    assert price([(config(), 50)], [record(60.0, gpus, trainer={"accelerator": "cpu"})]).minutes[
        "core"
    ] == pytest.approx(96)
