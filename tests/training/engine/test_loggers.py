"""Loggers beside the run's own files."""

from pathlib import Path

import pytest
from support.tiny import tiny_run

from vlmreason.training.engine.loggers import LoggerSettings, make_logger


def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    run, settings = tmp_path / "run", LoggerSettings("tensorboard")
    tiny_run(run, make_logger=lambda: make_logger(settings, run))
    (folder,) = {path.parent for path in run.glob("tensorboard/**/events.out.*")}
    found = accumulators.EventAccumulator(str(folder)).Reload()
    assert len(found.Scalars("loss")) > 5
    assert all(0 < scalar.value < 20 for scalar in found.Scalars("loss"))


def test_a_package_that_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="logger=tensorboard: the package is not installed: pip install"):
        LoggerSettings("tensorboard")
    assert LoggerSettings("csv").name == "csv"
