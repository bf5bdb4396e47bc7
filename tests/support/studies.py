"""A made-up study: experiments in a temporary folder, and records of runs that never were."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml

from vlmreason import places
from vlmreason.studies import artifacts
from vlmreason.studies.records import FORMAT, Record

STUDY = {
    "title": "A study",
    "source": "nowhere",
    "styles": {"Mix": ["#1f77b4", "o"]},
    "scales": {
        "nano": {"set": {"scale": "nano"}, "values": {"sizes": [10, 20], "seeds": [0, 1]}},
        "paper": {"set": {"scale": "paper"}, "values": {"sizes": [100, 200], "seeds": [0]}},
    },
}
ARTIFACT = {
    "title": "An artifact",
    "place": "figure 1",
    "draw": "lines",
    "cost": {"nano": "nothing", "paper": "much"},
    "expected": "something",
    "seeds": "${seeds}",
    "set": {"task": "table_readout"},
    "measure": {"level": "hard"},
    "panels": [{"label": "as image", "measure": {"view": "image"}}, {"label": "as text", "measure": {"view": "text"}}],
    "series": [
        {"label": "Mix", "set": {"supervision": "mix"}},
        {"label": "Image", "set": {"supervision": "image"}, "only": ["as image"]},
    ],
    "x": {
        "label": "examples", "key": "scale.num_examples", "values": "${sizes}", "paper_values": "${at_paper.sizes}",
    },
    "paper": [{"panel": "as image", "series": "Mix", "x": 200, "value": 64, "place": "section 1"}],
}  # fmt: skip


def write_study(folder: Path, **artifacts: Any) -> Path:
    """`folder/made_up/` with study.yaml and one file per artifact."""
    for name, data in {"study": STUDY, **(artifacts or {"fig1": ARTIFACT})}.items():
        path = folder / "made_up" / f"{name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(data))
    return folder


def use_study(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the commands of this process see the experiments of `folder` alone."""
    real = places.data_dir
    monkeypatch.setattr(places, "data_dir", lambda name: folder if name == "experiments" else real(name))
    monkeypatch.setattr(artifacts, "names", artifacts.names.__wrapped__)  # not those found before


def make_record(
    right: dict[tuple[str, str], str],
    seed: int = 0,
    run: str = "run",
    commit: str = "a" * 40,
    converted: str | None = None,
    config: dict[str, Any] | None = None,
    **changes: Any,
) -> Record:
    """A record with these marks (1 right, 0 wrong) per level and view; `changes`: further keys of its data."""
    cells = [
        {
            "level": level, "view": view, "right": marks, "converted": converted or "-" * len(marks), "examples": [],
            "row": {"level": level, "view": view, "num": len(marks), "correct": marks.count("1"), "mean_tokens": 20.0},
        }
        for (level, view), marks in right.items()
    ]  # fmt: skip
    evaluation = {
        "own": True, "task": "table_readout", "task_version": 1, "conversion": "forbid", "split": "test",
        "phase": "final", "identity": {}, "cells": cells,
    }  # fmt: skip
    data = {
        "format": FORMAT,
        "run": run,
        "config": config or {"task": {"name": "table_readout"}, "supervision": {"name": "mix"}, "seed": seed,
                             "scale": {"batch_size": 2}},
        "provenance": {"source": {"commit": commit, "dirty": False}, "hardware": {"cpu": "a CPU", "gpus": []},
                       "time": "2026-01-01"},
        "cost": {},
        "steps": {"align": 10, "main": 40},
        "evaluations": [evaluation],
        "analyses": {},
    }  # fmt: skip
    return Record(data | changes, Path(f"{run}.json"))


def make_training(ys: Sequence[float], before: int = 0, totals: bool = True) -> dict[str, Any]:
    """What a record has of evaluations while training: accuracies on hard images, every other step from 0 on.

    `before`: evaluations in a phase before, at steps 10, 20 and so on, all of them 0.25.
    """
    steps = [10 * (n + 1) for n in range(before)] + [2 * n for n in range(len(ys))]
    columns = {
        "phase": ["expert"] * before + ["ppo"] * len(ys),
        "step": steps,
        "accuracy/hard/image": [0.25] * before + [*ys],
        "accuracy/simple/image": [0.5] * before + [y / 2 for y in ys],
        "return/hard/image": [-1.0] * before + [4 * y - 2 for y in ys],
    }  # fmt: skip
    if totals:
        later = range(1, len(ys))
        columns |= {
            "env_steps": [None] * (before + 1) + [100 * n for n in later],
            "tokens_trained": [1000] * (before + 1) + [1000 + 400 * n for n in later],
            "tokens_generated": [None] * (before + 1) + [200 * n for n in later],
        }
    return {"num": 100, "parameters": 10**6, "columns": columns}
