"""One thread per test process and no network, set before anything heavy is imported; the fixtures that rooms share."""

import os

os.environ["OMP_NUM_THREADS"] = "1"
os.environ["VLMREASON_CACHE"] = ""  # what is drawn is drawn
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("WANDB_MODE", "offline")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from support.composing import compose_plain
from support.program import Done, runner


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long ones first: what is left at the end is short, and no process waits for another."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


@pytest.fixture(scope="session")
def composed() -> Callable[..., dict[str, Any]]:
    """`composed("train", "seed=1")`: the configuration that a command gets."""
    return compose_plain


@pytest.fixture
def program(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Callable[..., Done]:
    """`program("train", "seed=1")`: the program run in this process; the working directory is a temporary one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # --info of Hydra adds one
    return runner(monkeypatch, capsys)


@pytest.fixture
def vlmreason(program: Callable[..., Done]) -> Callable[..., Done]:
    """`vlmreason("sweep", "status", "dir=s")`, as `program`."""
    return program


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model for the jobs of sweeps."""
    from support.launching import tiny_base

    return tiny_base(tmp_path_factory.mktemp("base") / "model")
