"""The program run in this process, in a temporary directory, and a tiny model for its jobs."""

from collections.abc import Callable
from pathlib import Path

import pytest
from launching import tiny_base
from program import Done, runner


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def vlmreason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Done]:
    """`vlmreason("sweep", "status", "dir=s")`; the working directory is a temporary one."""
    monkeypatch.chdir(tmp_path)
    return runner(monkeypatch, capsys)
