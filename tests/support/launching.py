"""Sweeps of very short runs, for the tests: a tiny model, a plan file, waiting for what happens in other processes."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from support.tiny import tiny_learner
from vlmreason.launch import directory, state


def tiny_base(folder: Path) -> Path:
    """A folder with an untrained model that takes milliseconds per step."""
    tiny_learner().save(folder)
    return folder


def settings(base: Path, num_examples: int = 48) -> dict[str, Any]:
    """Of a run of a few steps; `num_examples` makes it longer, in steps of 8."""
    return {
        "task": "table_readout",
        "supervision": "image",
        "model.checkpoint": str(base),
        "scale.num_examples": num_examples,
        "scale.batch_size": 8,
        "scale.num_problems": 1,
        "scale.max_response_tokens": 4,
        "evaluation.views": [["text"]],
        "trainer.precision": "32-true",
        "trainer.accelerator": "cpu",
        "trainer.num_workers": 0,
        "trainer.num_threads": 1,
        "trainer.log_every": 1,
        "trainer.checkpoint_every": 10,
        "trainer.progress": False,
    }


def write_plan(path: Path, *grids: dict[str, Any]) -> Path:
    path.write_text(yaml.safe_dump({"command": "train", "grids": list(grids)}, sort_keys=False))
    return path


def write_yaml(path: Path, **data: Any) -> Path:
    path.write_text(yaml.safe_dump(data))
    return path


def job_state(folder: Path, number: int) -> state.State:
    return state.read_state(directory.job_dir(folder, number))


def steps_done(folder: Path, number: int) -> int:
    """Lines of the run's metrics."""
    path = Path(directory.read_sweep(folder).jobs[number].run_dir) / "metrics.jsonl"
    return len(path.read_bytes().splitlines()) if path.exists() else 0


def losses(run_dir: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def wait_until(holds: Callable[[], object], what: str, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)
