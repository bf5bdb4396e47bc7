"""The program run in this process, in a temporary directory, and a tiny model for its jobs."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from launching import tiny_base

from vlmreason.__main__ import main


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_base(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def vlmreason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Callable[..., Done]:
    """`vlmreason("sweep", "status", "dir=s")`; the working directory is a temporary one."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("VLMREASON_DEBUG", raising=False)

    def run(*words: str) -> Done:
        monkeypatch.setattr("sys.argv", ["vlmreason", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Done(end.value.code, captured.out, captured.err)

    return run
