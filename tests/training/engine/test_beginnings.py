"""First phases that runs share: whoever trains them, every run ends as if it had trained them itself, byte for byte."""

import errno
import json
import multiprocessing
import os
import shutil
import signal
import time
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from support.acting import reinforced_run
from support.processes import in_processes
from support.tiny import TRAINER, TWO_PHASES, outcome, tiny_learner, tiny_run

from vlmreason import files
from vlmreason.models.contract import AdapterSettings
from vlmreason.structure import structure
from vlmreason.training.engine import beginnings
from vlmreason.training.engine.beginnings import RECORD, Beginnings, find
from vlmreason.training.engine.console import Stopped
from vlmreason.training.engine.keeper import RunKeeper
from vlmreason.training.engine.loggers import LoggerSettings, make_logger
from vlmreason.training.engine.settings import TrainerSettings

THREE = {"text": TWO_PHASES["warmup"], "warmup": {"num_examples": 9}, "main": TWO_PHASES["main"]}


class Crash(BaseException):
    """Stands for a power cut."""


def sharing(run_dir: Path, names: str = "warmup=w main={}", **changes: Any) -> Beginnings:
    """The beginnings of a run; "{}" is a name of its own."""
    found = dict(word.split("=") for word in names.format(run_dir.name).split())
    settings = structure(TrainerSettings, vars(TRAINER) | changes)
    return Beginnings(run_dir.parent / beginnings.FOLDER, run_dir, found, settings)


def run(
    run_dir: Path, names: str = "warmup=w main={}", phases: Any = TWO_PHASES, shares: bool = True, **changes: Any
) -> Path:
    """A run of tiny_run that shares its first phases, or does not."""
    with sharing(run_dir, names) if shares else nullcontext() as shared:
        return tiny_run(run_dir, phases, shared=shared, **changes)


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def taken(run_dir: Path) -> list[str]:
    """Phases that a run has not trained itself, by its timing; what it says itself must agree."""
    found = list(dict.fromkeys(line["phase"] for line in lines(run_dir / "timing.jsonl") if line.get("reused")))
    assert json.loads((run_dir / RECORD).read_text())["phases"] == found
    return found


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    folder = tmp_path_factory.mktemp("alone") / "run"
    run(folder, shares=False)
    return outcome(folder)


@pytest.fixture
def first(tmp_path: Path, alone: dict[str, bytes]) -> Path:
    """A finished run that has trained its first phase for others."""
    run(tmp_path / "first")
    assert taken(tmp_path / "first") == []
    assert outcome(tmp_path / "first") == alone
    return tmp_path / "first"


def test_a_run_begins_where_another_one_was(
    first: Path, alone: dict[str, bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    second = first.with_name("second")
    run(second, make_logger=lambda: make_logger(LoggerSettings("csv"), second))
    assert taken(second) == ["warmup"]
    assert outcome(second) == alone
    assert capsys.readouterr().out.startswith("phase warmup: taken from first, which trained ")
    speed = json.loads((second / "throughput.json").read_text())
    own = sum(line["seconds"] for line in lines(second / "timing.jsonl") if line["phase"] == "main")
    assert speed["seconds"] == pytest.approx(own)
    there = sum(line["seconds"] for line in lines(first / "timing.jsonl") if line["phase"] == "warmup")
    assert speed["reused_seconds"] == {"warmup": pytest.approx(there)}
    rows = (second / "csv" / "version_0" / "metrics.csv").read_text().splitlines()
    steps = [int(row.split(",")[rows[0].split(",").index("step")]) for row in rows[1:]]
    assert steps == list(range(1, 12)), "curves elsewhere hold what was taken too"
    weights = first / "checkpoints" / "warmup" / "model.safetensors"
    assert weights.samefile(second / "checkpoints" / "warmup" / "model.safetensors"), "it takes room once"


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_the_start_of_reinforcement(tmp_path: Path, algorithm: str) -> None:
    def start(run_dir: Path, **changes: Any) -> dict[str, bytes]:
        reinforced_run(run_dir, algorithm, num_examples=8, updates=1, **changes)
        return outcome(run_dir)

    wanted = start(tmp_path / "alone")
    with sharing(tmp_path / "other", "expert=e") as shared:
        other = "ppo" if algorithm == "grpo" else "grpo"
        reinforced_run(tmp_path / "other", other, num_examples=8, updates=1, epochs=1, shared=shared)
    with sharing(tmp_path / "run", "expert=e") as shared:
        assert start(tmp_path / "run", shared=shared) == wanted
    assert taken(tmp_path / "run") == ["expert"]


def test_adapters(tmp_path: Path) -> None:
    def learner() -> Any:
        made = tiny_learner()
        made.adapt(AdapterSettings("lora", parts=("language_model",), r=2, alpha=4.0, dropout=0.1), 0)
        return made

    def weights(run_dir: Path) -> dict[str, bytes]:
        paths = [*run_dir.glob("checkpoints/*/adapter_model.safetensors"), run_dir / "metrics.jsonl"]
        return {str(path.relative_to(run_dir)): path.read_bytes() for path in paths}

    run(tmp_path / "alone", shares=False, learner=learner())
    run(tmp_path / "first", learner=learner())
    run(tmp_path / "second", learner=learner())
    assert taken(tmp_path / "second") == ["warmup"]
    assert len(weights(tmp_path / "alone")) == 4
    assert weights(tmp_path / "second") == weights(tmp_path / "alone")


def test_several_phases_and_what_only_some_share(tmp_path: Path) -> None:
    run(tmp_path / "alone", phases=THREE, shares=False)
    run(tmp_path / "one", "text=t main={}", {"text": THREE["text"], "main": {"num_examples": 5}})
    run(tmp_path / "two", "text=t warmup=w main={}", THREE)
    run(tmp_path / "three", "text=t warmup=w main={}", THREE)
    assert [taken(tmp_path / name) for name in ("one", "two", "three")] == [[], ["text"], ["text", "warmup"]]
    for name in ("two", "three"):
        assert outcome(tmp_path / name) == outcome(tmp_path / "alone")
    shutil.rmtree(tmp_path / beginnings.FOLDER / "t")
    run(tmp_path / "four", "text=t warmup=w main={}", THREE)
    assert taken(tmp_path / "four") == ["text", "warmup"], "a longer one needs no shorter one"
    shutil.rmtree(tmp_path / "two")
    run(tmp_path / "five", "text=t warmup=w main={}", THREE)
    assert taken(tmp_path / "five") == ["text", "warmup"], "nor the run that trained it"


def test_a_run_that_another_one_begins_with(first: Path, alone: dict[str, bytes], tmp_path: Path) -> None:
    """Its last phase is kept as long as the run is; a whole run is taken too."""
    again = tmp_path / "again"
    final = run(again, "warmup=w main=first")
    assert taken(again) == ["warmup", "main"]
    assert final.is_dir() and outcome(again) == alone
    assert json.loads((again / "throughput.json").read_text())["seconds"] == 0
    assert run(again, "warmup=w main=first") == final
    longer = {**TWO_PHASES, "more": {"num_examples": 5}}
    run(tmp_path / "whole", phases=longer, shares=False)
    run(tmp_path / "longer", "warmup=w main=first more={}", longer)
    assert taken(tmp_path / "longer") == ["warmup", "main"]
    assert outcome(tmp_path / "longer") == outcome(tmp_path / "whole")
    folder = tmp_path / beginnings.FOLDER
    assert find(folder, "first") and not list((folder / "first").rglob("*.safetensors"))
    shutil.rmtree(first)
    assert find(folder, "first") is None and find(folder, "w")
    run(tmp_path / "later", "warmup=w main=first")
    assert taken(tmp_path / "later") == ["warmup"]


def test_snapshots_are_taken_too(tmp_path: Path) -> None:
    for name in ("first", "second"):
        run(tmp_path / name, snapshots=2)
    assert taken(tmp_path / "second") == ["warmup"]
    names = [
        sorted(path.name for path in (tmp_path / name / "checkpoints" / "snapshots").iterdir())
        for name in ("first", "second")
    ]
    assert names[0] == names[1] == ["main-3", "warmup-2"]


def test_stopped_in_a_later_phase(first: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    second = first.with_name("second")

    def write(self: RunKeeper, metrics: dict[str, Any], timing: dict[str, Any]) -> None:
        before(self, metrics, timing)
        if self.num_lines == 9:
            raise Crash

    before = RunKeeper._write
    with monkeypatch.context() as patch:
        patch.setattr(RunKeeper, "_write", write)
        with pytest.raises(Crash):
            run(second)
    run(second)
    assert taken(second) == ["warmup"]
    assert outcome(second) == alone


def crash_at(number: int, name: str) -> Callable[..., Any]:
    count = 0

    def call(*args: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            raise Crash
        return before(*args)

    before = getattr(beginnings, name)
    return call


@pytest.mark.parametrize(
    ("name", "number"), [("_link", 1), ("_link", 5), ("write_json_atomic", 3), ("rename_synced", 1)]
)
def test_killed_while_it_keeps_a_phase(
    tmp_path: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(beginnings, name, crash_at(number, name))
        with pytest.raises(Crash):
            run(tmp_path / "first")
    assert find(tmp_path / beginnings.FOLDER, "w") is None
    run(tmp_path / "other", "warmup=w main={}", {**TWO_PHASES, "main": {"num_examples": 4}})
    assert taken(tmp_path / "other") == [], "nothing half written is read"
    shutil.rmtree(tmp_path / beginnings.FOLDER)
    run(tmp_path / "first")
    assert outcome(tmp_path / "first") == alone
    assert find(tmp_path / beginnings.FOLDER, "w"), "what it has trained before is kept when it goes on"
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize(
    ("name", "number"), [("_link", 2), ("rename_synced", 1), ("rename_synced", 4), ("rename_synced", 5)]
)
def test_killed_while_it_takes_one(
    first: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, name: str, number: int
) -> None:
    second = first.with_name("second")
    with monkeypatch.context() as patch:
        patch.setattr(beginnings, name, crash_at(number, name))
        with pytest.raises(Crash):
            run(second)
    assert not list((second / "checkpoints" / "steps").glob("*"))
    run(second)
    assert taken(second) == ["warmup"]
    assert outcome(second) == alone
    assert not list(second.rglob("*.tmp"))


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def overwrite(path: Path) -> None:
    with open(path, "rb+") as file:
        file.seek(-8, os.SEEK_END)
        file.write(b"\0" * 8)


DAMAGE = {
    "cut": ("checkpoints/steps/warmup-5/00000-of-00001.safetensors", cut),
    "other bytes": ("checkpoints/warmup/model.safetensors", overwrite),
    "a file missing": ("metrics.jsonl", Path.unlink),
    "no record": (RECORD, cut),
    "record of something else": (RECORD, lambda path: path.write_text("[]")),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_beginning(
    first: Path, alone: dict[str, bytes], capsys: pytest.CaptureFixture[str], what: str
) -> None:
    path, damage = DAMAGE[what]
    damage(first.parent / beginnings.FOLDER / "w" / path)
    capsys.readouterr()
    run(first.with_name("second"))
    assert taken(first.with_name("second")) == []
    assert outcome(first.with_name("second")) == alone
    [said] = capsys.readouterr().err.splitlines()
    assert "the beginning is damaged" in said and said.endswith("phase warmup is trained anew")
    run(first.with_name("third"))
    assert taken(first.with_name("third")) == ["warmup"], "it has been replaced"
    assert outcome(first.with_name("third")) == alone


def test_no_room_to_keep_it(
    tmp_path: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(beginnings, "_link", full)
    run(tmp_path / "first")
    assert outcome(tmp_path / "first") == alone
    assert "phase warmup is not kept for other runs: [Errno 28] No space left" in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.tmp"))


def test_no_links_in_the_file_system(first: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    for name in ("second", "third"):
        run(first.with_name(name), "warmup=x main={}")
        assert outcome(first.with_name(name)) == alone
    assert taken(first.with_name("third")) == ["warmup"]


def test_begun_elsewhere(tmp_path: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that goes on under another name, as of other code, keeps nothing: its beginning was the other one's."""
    with monkeypatch.context() as patch:
        patch.setattr(RunKeeper, "_write", crash_after(4, RunKeeper._write))
        with pytest.raises(Crash):
            run(tmp_path / "first")
    with monkeypatch.context() as patch:
        patch.setattr(RunKeeper, "_write", crash_after(5, RunKeeper._write))
        with pytest.raises(Crash):
            run(tmp_path / "first", "warmup=other main={}")
    run(tmp_path / "first")
    assert outcome(tmp_path / "first") == alone
    assert not list((tmp_path / beginnings.FOLDER).glob("*/beginning.json"))


def crash_after(num_lines: int, before: Any) -> Any:
    def write(self: RunKeeper, metrics: dict[str, Any], timing: dict[str, Any]) -> None:
        before(self, metrics, timing)
        if self.num_lines == num_lines:
            raise Crash

    return write


def slow(seconds: float, before: Any) -> Any:
    def write(self: RunKeeper, metrics: dict[str, Any], timing: dict[str, Any]) -> None:
        time.sleep(seconds)
        before(self, metrics, timing)

    return write


needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")


@needs_fork
def test_two_at_once(tmp_path: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginnings, "POLL", 0.05)
    monkeypatch.setattr(RunKeeper, "_write", slow(0.1, RunKeeper._write))
    context = multiprocessing.get_context("fork")
    both = [context.Process(target=run, args=(tmp_path / name,)) for name in ("a", "b")]
    for process in both:
        process.start()
    for process in both:
        process.join(60)
        assert process.exitcode == 0
    assert sorted(taken(tmp_path / name) for name in ("a", "b")) == [[], ["warmup"]], "one has waited for the other"
    for name in ("a", "b"):
        assert outcome(tmp_path / name) == alone


@pytest.mark.slow
@needs_fork
def test_the_one_that_trains_is_killed(
    tmp_path: Path, alone: dict[str, bytes], capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beginnings, "POLL", 0.05)
    context = multiprocessing.get_context("fork")
    with monkeypatch.context() as patch:
        patch.setattr(RunKeeper, "_write", slow(30, RunKeeper._write))
        maker = context.Process(target=run, args=(tmp_path / "maker",), kwargs={"num_workers": 1})
        maker.start()
        lock = tmp_path / beginnings.FOLDER / ".w.lock"
        until(lambda: lock.exists() and lock.read_text() == "maker")
    other = context.Process(target=run, args=(tmp_path / "other",))
    other.start()
    said = ""

    def waits() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return "waiting for phase warmup, which maker trains; trainer.reuse=false trains it here" in said

    until(waits)
    assert maker.pid is not None
    os.kill(maker.pid, signal.SIGKILL)
    maker.join()
    other.join(60)
    assert other.exitcode == 0
    assert said.count("waiting for") == 1
    assert outcome(tmp_path / "other") == alone and taken(tmp_path / "other") == []


def test_one_that_is_trained_anew_while_another_run_waits(
    first: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cut(first.parent / beginnings.FOLDER / "w" / "checkpoints" / "warmup" / "model.safetensors")
    maker, waited = sharing(first.with_name("maker")), False
    assert maker._hold("warmup")

    def replace(_: float) -> None:
        nonlocal waited
        if not waited:
            shutil.rmtree(first.parent / beginnings.FOLDER / "w")
            run(first.with_name("source"), "warmup=x main={}")
            (first.parent / beginnings.FOLDER / "x").rename(first.parent / beginnings.FOLDER / "w")
            maker._release("warmup")
            waited = True

    monkeypatch.setattr(beginnings.time, "sleep", replace)
    run(first.with_name("second"))
    assert waited and taken(first.with_name("second")) == ["warmup"]
    assert outcome(first.with_name("second")) == alone


def until(holds: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_told_to_stop_while_it_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waiting = sharing(tmp_path / "waiting")
    with sharing(tmp_path / "maker") as maker:
        assert maker._hold("warmup")
        monkeypatch.setattr(beginnings.time, "sleep", lambda _: os.kill(os.getpid(), signal.SIGTERM))
        with pytest.raises(Stopped, match="stopped waiting for phase warmup"), waiting:
            tiny_run(tmp_path / "waiting", shared=waiting)
    monkeypatch.undo()
    run(tmp_path / "waiting")
    assert taken(tmp_path / "waiting") == []


def test_where_nothing_can_be_locked(first: Path, alone: dict[str, bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", refuse)
    with sharing(first.with_name("maker"), "warmup=x main={}") as maker:
        assert maker._hold("warmup")
        run(first.with_name("second"), "warmup=x main={}")
    assert taken(first.with_name("second")) == [] and outcome(first.with_name("second")) == alone
    run(first.with_name("third"), "warmup=x main={}")
    assert taken(first.with_name("third")) == ["warmup"]


def test_a_run_of_two_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second one waits for what the first one decides."""
    monkeypatch.setattr(beginnings, "POLL", 0.05)

    def train(name: str, shares: bool) -> None:
        settings = {"devices": 2, "strategy": "ddp"}
        with sharing(tmp_path / name, **settings) if shares else nullcontext() as shared:
            tiny_run(tmp_path / name, shared=shared, **settings)

    for name, shares in (("alone", False), ("first", True), ("second", True)):
        assert in_processes(train, name, shares) == [None, None], name
    assert [taken(tmp_path / name) for name in ("first", "second")] == [[], ["warmup"]]
    for name in ("first", "second"):
        assert outcome(tmp_path / name) == outcome(tmp_path / "alone")


def test_a_process_that_does_not_see_the_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(beginnings, "PATIENCE", 0.0)
    monkeypatch.setenv("RANK", "1")
    sharing(tmp_path / "run").take(["warmup", "main"])
    assert not (tmp_path / "run").exists()


def test_files_are_whole_or_absent_for_those_who_look(first: Path) -> None:
    folder = first.parent / beginnings.FOLDER
    found = find(folder, "w")
    assert found is not None and found.run == "first" and found.phases == ("warmup",) and found.seconds > 0
    assert {path for path in found.files if path.endswith(".jsonl")} == {"metrics.jsonl", "timing.jsonl"}
    assert find(folder, "nothing") is None
    assert files.read_json(folder / "w" / RECORD)["state"] == "warmup-5"
