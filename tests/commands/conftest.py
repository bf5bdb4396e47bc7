"""Runs the program in this process: exit code, stdout and stderr of a command line."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from vlmreason.__main__ import main


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.out.splitlines()[-1]


@pytest.fixture
def program(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: object
) -> Callable[..., Done]:
    """`program("train", "seed=1")`; the working directory is a temporary one."""
    monkeypatch.chdir(str(tmp_path))
    monkeypatch.delenv("VLMREASON_DEBUG", raising=False)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # --info of Hydra adds one

    def run(*words: str) -> Done:
        monkeypatch.setattr("sys.argv", ["vlmreason", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        assert isinstance(end.value.code, int)
        return Done(end.value.code, captured.out, captured.err)

    return run
