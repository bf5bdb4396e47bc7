"""A run that was stopped, killed or crashed anywhere ends as an unbroken one, byte for byte."""

import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from support.tiny import TWO_PHASES, outcome, tiny_learner, tiny_run

from vlmreason import files
from vlmreason.training.engine import checkpoints, keeper, runner
from vlmreason.training.engine.checkpoints import Writer, newest
from vlmreason.training.engine.keeper import RunKeeper, last_step
from vlmreason.training.engine.runner import Stopped

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
    last, faults = newest(tmp_path / "checkpoints" / "steps")
    assert last is not None and not faults
    assert last.run["num_lines"] == num_lines, "nothing done is lost"
    tiny_run(tmp_path)
    assert outcome(tmp_path) == unbroken


SIMPLE, HARD = {"level": "simple", "views": ["text", "image"]}, {"level": "hard", "views": ["image"]}


@pytest.mark.parametrize(
    "more",
    [
        {"match": 1.0},
        {"choose": {"toward": ["hard"]}},
        {"choose": {"toward": ["hard"], "by": "chance"}},
        {"parts": {"simple": SIMPLE, "hard": HARD | {"own": 8}}},
    ],
)
def test_told_to_stop_where_a_step_is_made_by_the_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, more: dict[str, Any]
) -> None:
    phases = {"main": {"num_examples": 16, "parts": {"simple": SIMPLE, "hard": HARD}} | more}
    tiny_run(tmp_path / "unbroken", phases)
    with monkeypatch.context() as patch:
        patch.setattr(RunKeeper, "_write", signal_after(2, signal.SIGTERM))
        with pytest.raises(Stopped):
            tiny_run(tmp_path / "stopped", phases)
    tiny_run(tmp_path / "stopped", phases)
    assert outcome(tmp_path / "stopped") == outcome(tmp_path / "unbroken")


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

    saved_whole, write_json = keeper.save_whole, files.write_json_atomic
    return {
        "before the first checkpoint": (RunKeeper, "_write", once(RunKeeper._write, 2, after=True)),
        "behind a line of the metrics": (RunKeeper, "_write", once(RunKeeper._write, 9, after=True)),
        "half a checkpoint": (checkpoints, "rename_synced", once(files.rename_synced, 3)),
        "before a checkpoint gets its state": (checkpoints, "write_json_atomic", once(write_json, 3)),
        "behind a checkpoint": (RunKeeper, "_save", once(RunKeeper._save, 3, after=True)),
        "before the first phase is exported": (keeper, "save_whole", once(saved_whole, 1)),
        "before the first phase is noted": (keeper, "save_whole", once(saved_whole, 1, after=True)),
        "between the phases": (RunKeeper, "end_phase", once(RunKeeper.end_phase, 1, after=True)),
        "before the run is noted": (keeper, "save_whole", once(saved_whole, 3, after=True)),
        "at the very end": (RunKeeper, "end_phase", once(RunKeeper.end_phase, 2, after=True)),
    }[place]


@pytest.mark.parametrize(
    "place",
    [
        "before the first checkpoint",
        "behind a line of the metrics",
        "half a checkpoint",
        "before a checkpoint gets its state",
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="TorchInductor needs a C++ compiler, g++ is not here")
def test_compiled_layers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unbroken: dict[str, bytes]) -> None:
    tiny_run(tmp_path / "whole", compile=True)
    whole = outcome(tmp_path / "whole")
    assert whole != unbroken, "nothing was compiled: rounding differs where layers are"
    losses = [[json.loads(line)["loss"] for line in run["metrics.jsonl"].splitlines()] for run in (whole, unbroken)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
    with monkeypatch.context() as patch:
        patch.setattr(RunKeeper, "_write", signal_after(7, signal.SIGINT))
        with pytest.raises(Stopped, match="stopped in phase main"):
            tiny_run(tmp_path / "broken", compile=True)
    torch.compiler.reset()
    tiny_run(tmp_path / "broken", compile=True)
    assert outcome(tmp_path / "broken") == whole


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


DAMAGE: dict[str, tuple[str, Any]] = {
    "no weights": ("00000-of-00001.safetensors", None),
    "no state": ("state.json", None),
    "empty weights": ("00000-of-00001.safetensors", b""),
    "cut weights": ("00000-of-00001.safetensors", 0.9),
    "other weights": ("00000-of-00001.safetensors", b"PK\x03\x04 no tensors"),
    "cut state": ("state.json", 0.5),
    "other state": ("state.json", b"[1, 2]"),
    "endless state": ("state.json", b'{"run": {}, "shapes": {}, "num_files": 1000000000}'),
}


def damage(run_dir: Path, name: str, kind: str) -> Path:
    """Spoil a checkpoint; returns its directory."""
    file, content = DAMAGE[kind]
    path = run_dir / "checkpoints" / "steps" / name / file
    if content is None:
        path.unlink()
    else:
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * content)] if isinstance(content, float) else content)
    return path.parent


@pytest.mark.parametrize("kind", DAMAGE)
def test_half_written_checkpoint_is_passed_over(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    unbroken: dict[str, bytes],
    kind: str,
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*crash_at("behind a checkpoint"))
        with pytest.raises(Crash):
            tiny_run(tmp_path)
    steps = tmp_path / "checkpoints" / "steps"
    assert sorted(path.name for path in steps.iterdir()) == ["main-3", "warmup-5"], "the last two are kept"
    spoilt = damage(tmp_path, "main-3", kind)
    tiny_run(tmp_path)
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith(f"vlmreason: {spoilt}: ")
    assert line.endswith("; it is passed over")
    assert outcome(tmp_path) == unbroken


def test_all_checkpoints_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(*crash_at("behind a checkpoint"))
        with pytest.raises(Crash):
            tiny_run(tmp_path)
    for name in ("main-3", "warmup-5"):
        damage(tmp_path, name, "cut weights")
    metrics = (tmp_path / "metrics.jsonl").read_bytes()
    with pytest.raises(ValueError, match=r"damaged checkpoint \(.*\); delete it to begin the run again") as raised:
        tiny_run(tmp_path)
    assert "\n" not in str(raised.value)
    assert (tmp_path / "metrics.jsonl").read_bytes() == metrics, "nothing is lost"


def test_checkpoints_that_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three while it runs; one without the state of an optimizer when it is finished."""
    seen = []

    def save(self: Writer, name: str, *args: Any) -> None:
        self.wait()
        seen.append(sorted(path.name for path in self.folder.iterdir()) if self.folder.is_dir() else [])
        save_before(self, name, *args)

    save_before = Writer.save
    monkeypatch.setattr(Writer, "save", save)
    tiny_run(tmp_path, checkpoint_every=2, keep_checkpoints=3)
    assert seen[-1] == ["main-2", "main-4", "warmup-5"]
    [last] = (tmp_path / "checkpoints" / "steps").iterdir()
    assert last.name == "main-6"
    assert not any(name.startswith("optimizer.") for name in json.loads((last / "state.json").read_text())["shapes"])


def test_snapshots_stay(tmp_path: Path) -> None:
    """The weights after each third of a phase, without the optimizer's state; they do not change the run."""
    plain, snapped = tmp_path / "plain", tmp_path / "snapped"
    tiny_run(plain)
    tiny_run(snapped, snapshots=3)
    folder = snapped / "checkpoints" / "snapshots"
    assert sorted(path.name for path in folder.iterdir()) == ["main-2", "main-4", "warmup-1", "warmup-3"]
    state = json.loads((folder / "main-2" / "state.json").read_text())
    assert not any(name.startswith("optimizer.") for name in state["shapes"])
    assert outcome(plain) == outcome(snapped)
    values = []
    for checkpoint in checkpoints.complete(folder):
        learner = tiny_learner()
        checkpoint.restore(dict(learner.model.named_parameters()))
        values.append(sum(float(parameter.detach().double().abs().sum()) for parameter in learner.model.parameters()))
    assert len(set(values)) == 4, "each is of another step"


def test_error_of_the_writing_thread_surfaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(tensors: Any, path: Path) -> None:
        path.write_bytes(b"half")
        raise SafetensorError("Error while serializing: No space left on device")

    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(SafetensorError, match="No space left"):
        tiny_run(tmp_path)
    assert not list(tmp_path.rglob("*.tmp"))


def test_checkpoint_of_other_phases(tmp_path: Path) -> None:
    tiny_run(tmp_path, phases={"warmup": TWO_PHASES["warmup"]})
    with pytest.raises(ValueError, match="belongs to other phases than main"):
        tiny_run(tmp_path, phases={"main": TWO_PHASES["main"]})


@pytest.mark.parametrize("line", ["[" * 100_000, '{"phase": "main", "step": 1e999}', "\xff", "9" * 10_000])
def test_damaged_metrics_are_passed_over(line: str, tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(f'{{"phase": "main", "step": 3}}\n{line}\n')
    assert last_step(tmp_path, {"main": 10}) == 13
