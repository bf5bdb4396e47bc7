"""The program run in the test's own process."""

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from vlmreason.__main__ import main
from vlmreason.assembly import catalog


@dataclass(frozen=True)
class Done:
    code: int
    out: str
    err: str

    @property
    def last_line(self) -> str:
        return self.out.splitlines()[-1]


def runner(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Done]:
    """A function that runs `vlmreason` with its arguments."""

    def run(*words: str) -> Done:
        monkeypatch.setattr("sys.argv", ["vlmreason", *words])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        catalog.use_conf_dirs([])  # those of --config-dir were this call's
        assert isinstance(end.value.code, int)
        return Done(end.value.code, captured.out, captured.err)

    monkeypatch.delenv("VLMREASON_DEBUG", raising=False)
    return run
