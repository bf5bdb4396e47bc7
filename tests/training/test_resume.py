"""A run that was stopped, killed or crashed anywhere ends as an unbroken one, byte for byte."""

import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny import TWO_PHASES, outcome, tiny_learner, tiny_run

from vlmreason.training import runner
from vlmreason.training.runner import RunKeeper, Stopped

NUM_STEPS = 5 + 6
FILES = {f"checkpoints/{name}/model.safetensors" for name in ("warmup", "main", "final")} | {"metrics.jsonl"}


class Crash(BaseException):
    """Stands for a power cut: nothing of the package catches it."""


@pytest.fixture(scope="module")
def unbroken(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    run_dir = tmp_path_factory.mktemp("unbroken")
    tiny_run(run_dir)
    files = outcome(run_dir)
    assert set(files) == FILES
    lines = [json.loads(line) for line in files["metrics.jsonl"].splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 1, 2, 3, 4, 5, 6]
    return files


def signal_after(num_lines: int, number: int) -> Any:
    """A logger that sends this process a signal after some logged steps of all phases."""

    def write(self: RunKeeper, metrics: dict[str, Any], timing: dict[str, Any]) -> None:
        write_before(self, metrics, timing)
        if self.num_lines == num_lines:
            os.kill(os.getpid(), number)

    write_before = RunKeeper._write
    return write


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR2])
@pytest.mark.parametrize("num_lines", [1, 5, 8, NUM_STEPS])
def test_told_to_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: dict[str, bytes], number: int, num_lines: int
) -> None:
    before = signal.getsignal(number)
    with monkeypatch.context() as patch:
        patch.setattr(RunKeeper, "_write", signal_after(num_lines, number))
        with pytest.raises(Stopped, match=r"stopped in phase (warmup|main) after step \d of \d"):
            tiny_run(tmp_path)
    assert signal.getsignal(number) is before
    content = torch.load(tmp_path / "checkpoints" / "last.ckpt", weights_only=True)
    assert content["run"]["num_lines"] == num_lines, "nothing done is lost"
    tiny_run(tmp_path)
    assert outcome(tmp_path) == unbroken


def crash_at(place: str) -> Any:
    """(owner, name, replacement) that crashes at a place in the middle of a run."""
    counted = 0

    def once(then: Any, at: int, after: bool = False) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal counted
            counted += 1
            if counted == at and not after:
                raise Crash
            result = then(*args, **kwargs)
            if counted == at:
                raise Crash
            return result

        return call

    def half_a_checkpoint(self: Any, filepath: Path, *args: Any) -> None:
        nonlocal counted
        save(self, filepath, *args)
        counted += 1
        if counted == 3:
            filepath.write_bytes(filepath.read_bytes()[:1000])
            raise Crash

    save = runner.L.Trainer.save_checkpoint
    saved_whole = runner.save_whole
    return {
        "before the first checkpoint": (RunKeeper, "_write", once(RunKeeper._write, 2, after=True)),
        "behind a line of the metrics": (RunKeeper, "_write", once(RunKeeper._write, 9, after=True)),
        "half a checkpoint": (runner.L.Trainer, "save_checkpoint", half_a_checkpoint),
        "before a checkpoint gets its name": (runner, "rename_synced", once(runner.rename_synced, 3)),
        "behind a checkpoint": (RunKeeper, "_save", once(RunKeeper._save, 3, after=True)),
        "before the first phase is exported": (runner, "save_whole", once(saved_whole, 1)),
        "before the first phase is noted": (runner, "save_whole", once(saved_whole, 1, after=True)),
        "between the phases": (RunKeeper, "end_phase", once(RunKeeper.end_phase, 1, after=True)),
        "before the run is noted": (runner, "save_whole", once(saved_whole, 3, after=True)),
        "at the very end": (RunKeeper, "end_phase", once(RunKeeper.end_phase, 2, after=True)),
    }[place]


@pytest.mark.parametrize(
    "place",
    [
        "before the first checkpoint",
        "behind a line of the metrics",
        "half a checkpoint",
        "before a checkpoint gets its name",
        "behind a checkpoint",
        "before the first phase is exported",
        "before the first phase is noted",
        "between the phases",
        "before the run is noted",
        "at the very end",
    ],
)
def test_crash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: dict[str, bytes], place: str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*crash_at(place))
        with pytest.raises(Crash):
            tiny_run(tmp_path)
    tiny_run(tmp_path)
    assert outcome(tmp_path) == unbroken
    assert not list(tmp_path.rglob("*.tmp"))


def test_line_cut_off_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: dict[str, bytes]
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*crash_at("behind a line of the metrics"))
        with pytest.raises(Crash):
            tiny_run(tmp_path)
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"phase": "main", "st')
    tiny_run(tmp_path)
    assert outcome(tmp_path) == unbroken


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
def test_killed_twice(tmp_path: Path, unbroken: dict[str, bytes]) -> None:
    """SIGKILL of a run with a data worker, in each phase, at a moment that the machine chooses."""
    context = multiprocessing.get_context("fork")
    for num_lines, delay in ((2, 0.004), (8, 0.011)):
        run = context.Process(target=tiny_run, args=(tmp_path,), kwargs={"num_workers": 1, "checkpoint_every": 1})
        run.start()
        deadline = time.monotonic() + 60
        metrics = tmp_path / "metrics.jsonl"
        while run.is_alive() and not (metrics.is_file() and len(metrics.read_bytes().splitlines()) >= num_lines):
            assert time.monotonic() < deadline
            time.sleep(0.002)
        time.sleep(delay)
        run.kill()
        run.join()
        assert run.exitcode == -signal.SIGKILL
    tiny_run(tmp_path)
    assert outcome(tmp_path) == unbroken


@pytest.mark.parametrize("num_workers", [1, 2])
def test_number_of_workers_changes_nothing(tmp_path: Path, unbroken: dict[str, bytes], num_workers: int) -> None:
    tiny_run(tmp_path, num_workers=num_workers)
    assert outcome(tmp_path) == unbroken


def test_dropout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is drawn at random in a step depends on the step, not on what was drawn before it."""

    def learner() -> Any:
        made = tiny_learner()
        for module in made.model.modules():
            if hasattr(module, "attention_dropout"):
                module.attention_dropout = 0.3
        return made

    tiny_run(tmp_path / "unbroken", learner=learner())
    with monkeypatch.context() as patch:
        patch.setattr(*crash_at("behind a checkpoint"))
        with pytest.raises(Crash):
            tiny_run(tmp_path / "broken", learner=learner())
    tiny_run(tmp_path / "broken", learner=learner())
    assert outcome(tmp_path / "broken") == outcome(tmp_path / "unbroken")
    tiny_run(tmp_path / "without")
    assert outcome(tmp_path / "without") != outcome(tmp_path / "unbroken")


def test_finished_run_does_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tiny_run(tmp_path)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    monkeypatch.setattr(runner, "_trainer", None)
    assert tiny_run(tmp_path) == final
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_lost_model_of_a_finished_run_is_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    final = tiny_run(tmp_path)
    before = outcome(tmp_path)
    final.rename(tmp_path / "elsewhere")
    monkeypatch.setattr(runner, "_trainer", None)
    tiny_run(tmp_path)
    assert outcome(tmp_path) == before


@pytest.mark.parametrize("content", [b"", b"\0" * 500, "cut", b"PK\x03\x04 no archive"])
def test_damaged_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes | str) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*crash_at("behind a checkpoint"))
        with pytest.raises(Crash):
            tiny_run(tmp_path)
    path = tmp_path / "checkpoints" / "last.ckpt"
    path.write_bytes(path.read_bytes()[:-200] if isinstance(content, str) else content)
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"last\.ckpt: the checkpoint is damaged \(\w+\); delete it") as raised:
        tiny_run(tmp_path)
    assert "\n" not in str(raised.value)
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics, "nothing is lost"


def test_checkpoint_executes_nothing(tmp_path: Path) -> None:
    class Hostile:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (os.mkdir, (str(tmp_path / "executed"),))

    path = tmp_path / "checkpoints" / "last.ckpt"
    path.parent.mkdir()
    torch.save({"run": Hostile()}, path)
    with pytest.raises(ValueError, match="damaged"):
        tiny_run(tmp_path)
    assert not (tmp_path / "executed").exists()


def test_checkpoint_of_other_phases(tmp_path: Path) -> None:
    tiny_run(tmp_path, phases={"warmup": TWO_PHASES["warmup"]})
    with pytest.raises(ValueError, match="belongs to other phases than main"):
        tiny_run(tmp_path, phases={"main": TWO_PHASES["main"]})
