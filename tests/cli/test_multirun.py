"""What is printed at the end of -m."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.program import Done

from vlmreason.cli import runner


def test_a_table_says_in_what_jobs_differ_and_what_came_out(tmp_path: Path) -> None:
    (tmp_path / "summary.json").write_text(json.dumps({"accuracy": 0.5, "ci_low": 0.25, "ci_high": 0.75}))
    common = ["task=table_readout"]
    jobs = [
        runner.Done([*common, "seed=0"], tmp_path, False),
        runner.Done([*common, "seed=1"], tmp_path / "none", False),
        runner.Done([*common, "seed=2"], None, True),
    ]
    lines = runner.table_of_jobs(jobs).splitlines()
    assert lines[0].split() == ["seed", "accuracy", "where"]
    assert lines[2].split() == ["0", "50.0", "%", "(25.0", "to", "75.0)", str(tmp_path)]
    assert lines[3].split() == ["1", "-", str(tmp_path / "none")]
    assert lines[4].split() == ["2", "failed", "-"]


def test_it_follows_several_jobs_alone(program: Callable[..., Done]) -> None:
    done = program("generate", "-m", "num=1", "workers=1", "level=simple,hrad", "out=a")
    assert done.code == 2 and "hrad: table_readout has simple, hard" in done.err
    table = done.out.splitlines()[-4:]
    assert table[0].split() == ["level", "accuracy", "where"]
    assert table[3].split() == ["hrad", "failed", "-"]
    assert "where" not in program("generate", "num=1", "workers=1", "out=b").out


def test_a_reader_that_has_gone_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def write(*_: object) -> None:
        raise BrokenPipeError(32, "Broken pipe")

    monkeypatch.setattr("sys.argv", ["vlmreason", "list"])
    monkeypatch.setattr("vlmreason.commands.list.run", write)
    with pytest.raises(BrokenPipeError):
        runner.launch("list", "list", [])
    assert capsys.readouterr().err == ""
