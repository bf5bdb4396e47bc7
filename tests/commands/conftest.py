"""The program run in this process, and configurations composed without running it."""

import logging
from collections.abc import Callable
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from program import Done, runner

from vlmreason.commands import catalog
from vlmreason.commands.runner import resolve

GIVEN = {
    "generate": ["out=x"],
    "score": ["problems=x", "predictions=x"],
    "evaluate": ["run=x"],
    "export": ["run=x", "out=x"],
    "analyze": ["run=x", "what=failures"],
    "job": ["config=x"],
    "figure": ["experiment=s2h/fig5"],
    "collect": ["experiment=s2h/fig5"],
}


@pytest.fixture(scope="session")
def composed() -> Callable[..., dict[str, Any]]:
    """`composed("train", "seed=1")`: the configuration that a command gets."""

    def compose_plain(command: str, *overrides: str) -> dict[str, Any]:
        words = [*GIVEN.get(command, []), *overrides]
        with initialize_config_dir(str(catalog.conf_dir()), version_base="1.3"):
            cfg = compose(catalog.commands()[command], words)
        return resolve(cfg, words)

    return compose_plain


@pytest.fixture
def program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> Callable[..., Done]:
    """`program("train", "seed=1")`; the working directory is a temporary one."""
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # --info of Hydra adds one
    return runner(monkeypatch, capsys)
