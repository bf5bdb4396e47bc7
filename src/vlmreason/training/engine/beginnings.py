"""Beginnings that runs share: the first phases of a run, kept so that other runs need not train them again.

    <out>/beginnings/<name>/               metrics.jsonl, timing.jsonl and checkpoints/ of a run, as after a phase
    <out>/beginnings/<name>/beginning.json its phases, who trained it, the size and time of every file
    <out>/beginnings/.<name>.lock          held by the process that is training it, and let go when that ends
    <out>/<run>/beginning.json             the beginnings that a run has by name, and the phases that it took

The name says all that decides these files to the last bit (assembly/beginnings.py). A run that has no checkpoint yet
puts the longest finished beginning into its own directory, and goes on as if it had been stopped between two phases;
while another run trains the next of its phases it waits. A beginning is written beside and renamed: whole or absent.
Weights are hard links: they take room once, and stay when the run that trained them is deleted. After the last phase of
a run only the places of its files are noted: this beginning goes with the run.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

import torch

from vlmreason import provenance
from vlmreason.files import (
    lock,
    read_json,
    read_jsonl,
    read_object,
    read_text,
    rename_synced,
    write_json_atomic,
    write_text_atomic,
)
from vlmreason.models.contract import Source
from vlmreason.structure import structure
from vlmreason.training.engine import checkpoints, strategies
from vlmreason.training.engine.console import Stopped, StopRequest
from vlmreason.training.engine.settings import TrainerSettings

FOLDER, RECORD = "beginnings", "beginning.json"
METRICS, TIMING = "metrics.jsonl", "timing.jsonl"
WEIGHTS = ".safetensors"
POLL = 0.5  # seconds between two looks at what another process does
PATIENCE = 120.0  # seconds until a process takes it that it does not see the files of the first one

APART = ("analysis", "studies", "report", "launch", "cli", "commands")
"""Rooms of the package that take no part in training."""


@dataclass(frozen=True)
class File:
    """Size and time (ns) of a file. at: its place from the folder of all beginnings; None: it lies in this one."""

    size: int
    time: int
    at: str | None = None

    @classmethod
    def of(cls, path: Path, at: str | None = None) -> File:
        stat = path.stat()
        return cls(stat.st_size, stat.st_mtime_ns, at)


@dataclass(frozen=True)
class Beginning:
    """beginning.json. run: that trained it, seconds: for so long; made: when and by which code; files: by their place
    in a run's directory; state: the checkpoint among them."""

    run: str
    phases: tuple[str, ...]
    seconds: float
    made: dict[str, Any]
    state: str
    files: dict[str, File]


def environment(settings: TrainerSettings, source: Source | None) -> dict[str, Any]:
    """Collect what decides the last bits of training beside its configuration; `source`: where the weights are from."""
    gpu = strategies.on_gpu(settings.accelerator)
    return {
        "code": provenance.code_digest(APART),
        "versions": provenance.versions(),
        "device": torch.cuda.get_device_name() if gpu else provenance.hardware()["cpu"],
        "threads": None if gpu else settings.num_threads or torch.get_num_threads(),
        "processes": _num_processes(settings),
        "model": source,
    }


def find(folder: Path, name: str) -> Beginning | None:
    """Open a finished beginning below `folder`; None where there is none. Raises ValueError where it is damaged."""
    here = folder / name
    try:
        if not (here / RECORD).exists():
            return None
        found = structure(Beginning, read_json(here / RECORD))
    except ValueError as error:
        raise ValueError(f"{here}: the beginning is damaged ({RECORD}: {error})") from None
    for path, file in found.files.items():
        place = _place(folder, name, path, file)
        if not place.is_file():
            if file.at is not None:
                return None  # the run has been deleted
            raise ValueError(f"{here}: the beginning is damaged ({path} is missing)")
        if File.of(place, file.at) != file:
            raise ValueError(f"{here}: the beginning is damaged ({path} has changed)")
    return found


def longest(
    folder: Path, names: Mapping[str, str], without: Mapping[str, str]
) -> tuple[Beginning | None, dict[str, str]]:
    """Find the longest finished beginning, `names` being given by phase in order; and what is wrong with longer ones.

    `without`: beginnings that are passed over, by name.
    """
    faults: dict[str, str] = {}
    for name in reversed(list(names.values())):
        try:
            if name not in without and (found := find(folder, name)):
                return found, faults
        except ValueError as error:
            faults[name] = str(error)
    return None, faults


class Beginnings:
    """The beginnings of one run. Used in a `with`, at whose end it lets go what it holds."""

    def __init__(self, folder: Path, run_dir: Path, names: Mapping[str, str], settings: TrainerSettings) -> None:
        """`folder`: of all beginnings; `names`: of the beginning that ends with each phase that can be shared."""
        self.folder, self.run_dir, self.names = folder, run_dir, dict(names)
        self.several = _num_processes(settings) > 1
        self.taken: Beginning | None = None  # at this start of the run
        self._locks: dict[str, IO[str]] = {}
        self._faults: dict[str, str] = {}

    def __enter__(self) -> Beginnings:
        return self

    def __exit__(self, *_: object) -> None:
        for phase in list(self._locks):
            self._release(phase)

    def take(self, stages: Sequence[str]) -> None:
        """Let a new run begin with the longest finished beginning; wait for one that another run trains.

        `stages`: all phases of the run. Raises Stopped when it is told to stop while it waits.
        """
        last = self._last()
        if not strategies.is_first():
            self._wait_for_first()
        elif last is not None and _read(self.run_dir / RECORD).get("names") == self.names:
            self._go_on(last, stages)
        elif last is not None or not self.names:  # begun by other code, on another machine, or for itself: it stays so
            self.names = {}
            if (self.run_dir / RECORD).exists():
                write_json_atomic(self.run_dir / RECORD, _read(self.run_dir / RECORD) | {"names": {}})
        elif self.several and self._decided() == []:
            self._note([])  # processes may have read it
        else:
            self._note(None)
            self._begin(stages)

    def finish(self, phase: str, is_last: bool) -> None:
        """Keep the phases up to this one for other runs, then let those go on that wait for it."""
        if phase not in self.names or not strategies.is_first():
            return
        phases = list(self.names)
        for following in phases[phases.index(phase) + 1 :][:1]:
            self._hold(following)
        beside = self.folder / f".{self.names[phase]}.{os.getpid()}.tmp"
        try:
            self._keep(phase, is_last, beside)
        except OSError as error:
            shutil.rmtree(beside, ignore_errors=True)
            if not (self.folder / self.names[phase] / RECORD).exists():  # else another run has been faster
                print(f"vlmreason: phase {phase} is not kept for other runs: {error}", file=sys.stderr, flush=True)
        self._release(phase)

    def lines(self) -> Iterator[tuple[str, int, dict[str, float]]]:
        """Give phase, step and figures of the lines that were taken, for loggers."""
        for line, speed in zip(_lines(self.run_dir / METRICS), _lines(self.run_dir / TIMING), strict=False):
            figures = {key: value for key, value in {**speed, **line}.items() if type(value) in (int, float)}
            yield line["phase"], int(figures.pop("step")), figures

    def _begin(self, stages: Sequence[str]) -> None:
        """Look, and wait, until the run has all that others have trained and may train what follows."""
        self.folder.mkdir(parents=True, exist_ok=True)
        said = ""
        with StopRequest() as stop:
            while True:
                found = self._longest()
                following = list(self.names)[len(found.phases) if found else 0 :][:1]
                if following and not self._hold(following[0]):
                    said = self._say_waiting(following[0], said)
                    time.sleep(POLL)
                    if stop.requested:
                        raise Stopped(f"stopped waiting for phase {following[0]}")
                    continue
                if said:
                    said, self._faults = "", {}  # what was damaged may have been trained anew
                if self._longest() == found and (found is None or self._put(found, stages)):
                    break
                self.__exit__()  # finished, or damaged, since the first look
        if found is None:
            self._note([])

    def _go_on(self, last: checkpoints.Checkpoint, stages: Sequence[str]) -> None:
        """Train what a run with a checkpoint has still to train for others too."""
        done = last.run["done"]
        if done and last.run["phase"] is None:
            self.finish(done[-1], done[-1] == stages[-1])  # it may have been stopped just before
        for phase in list(self.names)[len(done) :][:1]:
            self._hold(phase)

    def _wait_for_first(self) -> None:
        started = time.monotonic()
        while self.names and self._last() is None and self._decided() != []:
            if not (self.run_dir / RECORD).exists() and time.monotonic() - started > PATIENCE:
                return
            time.sleep(POLL)

    def _last(self) -> checkpoints.Checkpoint | None:
        return checkpoints.newest(self.run_dir / "checkpoints" / "steps")[0]

    def _decided(self) -> list[str] | None:
        """Read which phases the run has taken; None: it is not known yet."""
        found: list[str] | None = _read(self.run_dir / RECORD).get("phases")
        return found

    def _note(self, phases: list[str] | None) -> None:
        write_json_atomic(self.run_dir / RECORD, {"names": self.names, "phases": phases})

    def _longest(self) -> Beginning | None:
        found, faults = longest(self.folder, self.names, self._faults)
        for name, fault in faults.items():
            phase = next(phase for phase in self.names if self.names[phase] == name)
            print(f"vlmreason: {fault}; phase {phase} is trained anew", file=sys.stderr, flush=True)
        self._faults |= faults
        return found

    def _say_waiting(self, phase: str, said: str) -> str:
        holder = _text(self._lock_file(phase)) or "another run"
        sentence = f"vlmreason: waiting for phase {phase}, which {holder} trains; trainer.reuse=false trains it here"
        if sentence != said:
            print(sentence, file=sys.stderr, flush=True)
        return sentence

    def _put(self, found: Beginning, stages: Sequence[str]) -> bool:
        """Put a beginning into the run's directory, its checkpoint last; False where it changed meanwhile."""
        name, last = self.names[found.phases[-1]], found.phases[-1]
        beside = self.run_dir / ".beginning.tmp"
        shutil.rmtree(beside, ignore_errors=True)
        try:
            for path, file in found.files.items():
                source = _place(self.folder, name, path, file)
                _link(source, beside / path)
                if File.of(source, file.at) != file:
                    raise FileNotFoundError(path)
        except FileNotFoundError:
            shutil.rmtree(beside, ignore_errors=True)
            return False
        is_whole = last == stages[-1]
        if is_whole:
            for source in _files(beside / "checkpoints" / last):
                _link(source, beside / "checkpoints" / "final" / source.relative_to(beside / "checkpoints" / last))
        state = beside / "checkpoints" / "steps" / found.state / checkpoints.STATE
        record = _read(state)
        write_json_atomic(state, {**record, "run": {**record["run"], "finished": is_whole}})
        timing = [line | ({"reused": True} if line else {}) for line in _lines(beside / TIMING)]
        write_text_atomic(beside / TIMING, "".join(json.dumps(line) + "\n" for line in timing))
        kept = {key: value for key, value in asdict(found).items() if key not in ("files", "state")}
        write_json_atomic(beside / RECORD, {"names": self.names, **kept})
        snapshots = {f"snapshots/{path.name}" for path in (beside / "checkpoints" / "snapshots").glob("*")}
        folders = [*found.phases, *(["final"] if is_whole else []), *sorted(snapshots), f"steps/{found.state}"]
        for path in (METRICS, TIMING, RECORD, *(f"checkpoints/{folder}" for folder in folders)):
            target = self.run_dir / path
            if target.is_dir():
                shutil.rmtree(target)
            target.parent.mkdir(parents=True, exist_ok=True)
            rename_synced(beside / path, target)
        shutil.rmtree(beside)
        self.taken = found
        words = f"phase{'s' * (len(found.phases) > 1)} {', '.join(found.phases)}"
        print(f"{words}: taken from {found.run}, which trained {found.seconds:,.0f} s for it", flush=True)
        return True

    def _keep(self, phase: str, is_last: bool, beside: Path) -> None:
        """Keep what the run has after a phase, unless it is kept already."""
        name, state = self.names[phase], self._last()
        if longest(self.folder, {phase: name}, self._faults)[0] is not None:
            return
        phases = list(self.names)[: list(self.names).index(phase) + 1]
        assert state is not None and state.run["done"] == phases, "a phase ends with its checkpoint"
        shots = checkpoints.complete(self.run_dir / "checkpoints" / "snapshots")
        folders = [self.run_dir / "checkpoints" / one for one in phases]
        folders += [*(shot.path for shot in shots if shot.run["phase"] in phases), state.path]
        files = {}
        for source in (
            self.run_dir / METRICS,
            self.run_dir / TIMING,
            *(file for one in folders for file in _files(one)),
        ):
            path = source.relative_to(self.run_dir)
            if is_last:
                files[path.as_posix()] = File.of(source, os.path.relpath(source, self.folder))
            else:
                _link(source, beside / path)
                files[path.as_posix()] = File.of(beside / path)
        seconds = math.fsum(line.get("seconds", 0.0) for line in _lines(self.run_dir / TIMING))
        origin = _read(self.run_dir / "provenance.json")
        made = {"time": origin.get("time"), "commit": origin.get("source", {}).get("commit")}
        found = Beginning(self.run_dir.name, tuple(phases), round(seconds, 1), made, state.path.name, files)
        write_json_atomic(beside / RECORD, asdict(found))
        for old in (
            self.folder / name,
            *self.folder.glob(f".{name}.*.tmp"),
        ):  # damaged, or of a process that was killed
            if old != beside:
                shutil.rmtree(old, ignore_errors=True)
        rename_synced(beside, self.folder / name)

    def _lock_file(self, phase: str) -> Path:
        return self.folder / f".{self.names[phase]}.lock"

    def _hold(self, phase: str) -> bool:
        """Whether this run may train a phase for others; False while another run does, True where nobody can tell."""
        if phase in self._locks:
            return True
        self.folder.mkdir(parents=True, exist_ok=True)
        handle = open(self._lock_file(phase), "a", encoding="utf-8")  # noqa: SIM115  # the lock lives as long as it
        if not lock(handle):
            handle.close()
            return False
        handle.truncate(0)
        handle.write(self.run_dir.name)
        handle.flush()
        self._locks[phase] = handle
        return True

    def _release(self, phase: str) -> None:
        if (handle := self._locks.pop(phase, None)) is not None:
            handle.close()


def _num_processes(settings: TrainerSettings) -> int:
    return math.prod(strategies.processes(settings.devices, settings.num_nodes, settings.accelerator))


def _place(folder: Path, name: str, path: str, file: File) -> Path:
    return folder / name / path if file.at is None else folder / file.at


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())


def _link(source: Path, target: Path) -> None:
    """Let `target` be a file with the same content: weights, which nothing changes in place, without a copy."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if source.suffix == WEIGHTS:
        try:
            os.link(source, target)
            return
        except FileNotFoundError:
            raise
        except OSError:
            pass  # no links in this file system
    shutil.copy2(source, target)


def _lines(path: Path) -> list[dict[str, Any]]:
    return [line.data for line in read_jsonl(path)]


def _read(path: Path) -> dict[str, Any]:
    """The content of a JSON file; empty where there is none."""
    try:
        return read_object(path)
    except ValueError:
        return {}


def _text(path: Path) -> str:
    try:
        return read_text(path, 1000)
    except ValueError:
        return ""
