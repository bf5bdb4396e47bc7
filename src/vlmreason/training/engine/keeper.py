"""What a run keeps while it trains: metrics, checkpoints, snapshots, and where it stands."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import lightning as L
from lightning.pytorch.callbacks import Callback
from torch.optim import Optimizer

from vlmreason.files import MAX_JSON_BYTES, read_bytes, write_bytes_atomic
from vlmreason.models.vlm.learner import Learner
from vlmreason.structure import structure
from vlmreason.training.engine import strategies
from vlmreason.training.engine.checkpoints import Checkpoint, Writer, newest, remove
from vlmreason.training.engine.console import StopRequest
from vlmreason.training.engine.phase import Marks, PhaseModule, Stage
from vlmreason.training.engine.settings import TrainerSettings
from vlmreason.training.engine.throughput import FlopCounter, Meter

Evaluate = Callable[[Learner], Mapping[str, float]]


@dataclass(frozen=True)
class RunState:
    """Where a run stands: the finished phases, phase and step of the last checkpoint; the state of the phase's module,
    and what the run has used up."""

    done: tuple[str, ...] = ()
    phase: str | None = None
    step: int = 0
    finished: bool = False
    num_lines: int = 0
    module: dict[str, Any] = field(default_factory=dict)
    totals: dict[str, float] = field(default_factory=dict)

    @classmethod
    def load(
        cls, run_dir: Path, folder: Path, phases: tuple[str, ...]
    ) -> tuple[RunState, Checkpoint | None, dict[Path, str]]:
        """Return the state in a run directory, the initial one where there is none, its checkpoint and the damaged
        ones.

        The first process cuts the metrics to it. Raises ValueError where all checkpoints are damaged.
        """
        checkpoint, faults = newest(folder)
        state = cls()
        if checkpoint is not None:
            state = structure(cls, checkpoint.run, f"{checkpoint.path}: run")
            if any(name not in phases for name in (*state.done, *([state.phase] if state.phase else []))):
                raise ValueError(f"{checkpoint.path}: belongs to other phases than {', '.join(phases)}")
        elif damaged := [fault for fault in faults.values() if "damaged" in fault]:
            raise ValueError(f"{damaged[0]}; delete it to begin the run again")
        if strategies.is_first():
            for name in ("metrics.jsonl", "timing.jsonl"):
                _cut_lines(run_dir / name, state.num_lines)
        return state, checkpoint, faults


class RunKeeper(Callback):
    """Writes metrics and checkpoints of a phase, restores a stopped one, evaluates while training."""

    def __init__(
        self,
        run_dir: Path,
        state: RunState,
        stage: Stage,
        settings: TrainerSettings,
        stop: StopRequest,
        evaluate: Evaluate | None,
        steps_before: int,
        writer: Writer,
        changed: set[str],
        checkpoint: Checkpoint | None,
        faults: Mapping[Path, str],
    ) -> None:
        self.run_dir, self.state, self.stage, self.phase, self.settings = run_dir, state, stage, stage.name, settings
        self.stop_request, self.evaluate = stop, evaluate
        self.steps_before = steps_before  # of earlier phases: loggers count the steps of the whole run
        self.writer, self.changed = writer, changed  # `changed`: parameters that are not as the run found them
        self.snapshots = Writer(run_dir / "checkpoints" / "snapshots", keep=None)
        self.snapshot_steps = {stage.num_steps * k // settings.snapshots for k in range(1, settings.snapshots)} - {0}
        self.checkpoint, self.faults = checkpoint, faults
        self.num_lines = state.num_lines
        self.writes = True
        self._mark = time.perf_counter()
        self._meter: Meter | None = None

    def setup(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.writes = trainer.is_global_zero
        self.stage.place(trainer.global_rank, trainer.world_size)
        for writer in (self.writer, self.snapshots):
            writer.rank, writer.num = trainer.global_rank, trainer.world_size

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, PhaseModule)
        self.stop_request.listen()  # Lightning put its own handler of SIGTERM before ours, a collective for one process
        starts = strategies.gather_rows([len(self.state.done), pl_module.step], pl_module.device)
        if any(start != starts[0] for start in starts):
            raise ValueError(
                f"{self.writer.folder}: the processes do not see the same checkpoints; a folder that all machines "
                "share is needed"
            )
        pl_module.totals = dict(self.state.totals)
        if self.checkpoint is not None:
            same = self.state.phase == self.phase
            self.checkpoint.restore(pl_module.saved_parameters(), trainer.optimizers if same else [])
            if same:
                pl_module.restore_state(self.state.module)
        if trainer.is_global_zero:
            remove(self.faults)
        flops = FlopCounter(pl_module.learner, pl_module.trained)
        self._meter = Meter(flops, pl_module.device, trainer.world_size, self.settings.peak_tflops)
        trainer.strategy.barrier()
        if self.stage.evaluates_start and pl_module.step == 0:
            self._evaluate(trainer, pl_module)
        self._mark = time.perf_counter()

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        self.snapshots.wait()
        if self._meter is not None:
            self._meter.close()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, PhaseModule) and self._meter is not None
        now = time.perf_counter()
        seconds = now - self._mark
        self._meter.step(pl_module.counts, seconds, max(0.0, seconds - pl_module.seconds_in_step))
        self._mark = now
        step, last = pl_module.step, pl_module.step == pl_module.num_steps
        if step % self.settings.log_every == 0 or last:
            self._log(trainer, pl_module)
        due = self.settings.evaluate_every and step % self.settings.evaluate_every == 0
        if due:
            self._evaluate(trainer, pl_module)
        pl_module.ended = last
        if self.stage.marks is not None and (last or (self.stage.marks.every and step % self.stage.marks.every == 0)):
            self._look_at_marks(self.stage.marks, trainer, pl_module)
        if trainer.world_size == 1:  # else what the processes agreed on in the step
            pl_module.stopping = self.stop_request.requested
        if not pl_module.ended and (step % self.settings.checkpoint_every == 0 or pl_module.stopping):
            self.state = replace(
                self.state,
                phase=self.phase,
                step=step,
                num_lines=self.num_lines,
                module=pl_module.state(),
                totals=pl_module.totals,
            )
            self._save(self.writer, self.state, pl_module, step, trainer.optimizers)
            self._mark = time.perf_counter()
        if step in self.snapshot_steps:
            self._save(self.snapshots, replace(self.state, phase=self.phase, step=step), pl_module, step, [])
            self._mark = time.perf_counter()
        if pl_module.stopping or pl_module.ended:
            trainer.should_stop = True

    def end_phase(self, trainer: L.Trainer, module: PhaseModule, last: bool) -> RunState:
        """Finish and export the model of the phase and note that it is done; agree on whether to stop."""
        self.writer.wait()
        self.stage.finish()
        directories = [self.run_dir / "checkpoints" / name for name in (self.phase, *(["final"] if last else []))]
        with strategies.gathered(module.model) as first:
            if first:
                for directory in directories:
                    save_whole(module.learner, directory)
        self.state = replace(
            self.state, done=(*self.state.done, self.phase), phase=None, step=0, finished=last,
            num_lines=self.num_lines, module={}, totals=module.totals,
        )  # fmt: skip
        self._save(self.writer, self.state, module, module.step, [])  # a phase begins with new optimizers
        self.writer.wait()
        stops = strategies.gather_rows([self.stop_request.requested], module.device)  # also: all have written
        module.stopping = any(stop for [stop] in stops)
        if last and self.writes:
            self.writer.prune(1)
        return self.state

    def _save(
        self, writer: Writer, state: RunState, module: PhaseModule, step: int, optimizers: Sequence[Optimizer]
    ) -> None:
        run = {**vars(state), "done": list(state.done)}
        named = {name: value for name, value in module.model.named_parameters() if name in self.changed}
        if self.phase not in state.done:
            named |= dict(module.extra_parameters())
        writer.save(f"{self.phase}-{step}", run, named, optimizers)

    def _evaluate(self, trainer: L.Trainer, module: PhaseModule) -> None:
        if self.evaluate is None:
            return
        with strategies.usable(module.model), module.computing():
            figures = {**module.totals, **self.evaluate(module.learner)}
        self._write({"phase": self.phase, "step": module.step, **figures}, {})
        if trainer.logger is not None:
            trainer.logger.log_metrics(figures, step=self.steps_before + module.step)
        self._mark = time.perf_counter()

    def _look_at_marks(self, marks: Marks, trainer: L.Trainer, module: PhaseModule) -> None:
        """End the phase where all marks are reached; say at its end which are not.

        Raises ValueError then, unless `trainer.marks` is warn.
        """
        with strategies.usable(module.model), module.computing():
            found = marks.measure(module)
        figures = {f"mark/{name}": share for name, share in found.items()}
        self._write({"phase": self.phase, "step": module.step, **figures}, {})
        if trainer.logger is not None:
            trainer.logger.log_metrics(figures, step=self.steps_before + module.step)
        missing = marks.missing(found)
        if not missing:
            module.ended = True
        elif module.ended:
            said = f"phase {self.phase} ends without its marks: {'; '.join(missing)}"
            if self.settings.marks == "refuse":
                raise ValueError(f"{said}; more examples may bring them, trainer.marks=warn goes on without")
            if self.writes:
                print(f"vlmreason: {said}", file=sys.stderr, flush=True)
        self._mark = time.perf_counter()

    def _log(self, trainer: L.Trainer, module: PhaseModule) -> None:
        assert self._meter is not None
        speed = self._meter.line()
        place = {"phase": self.phase, "step": module.step}
        self._write({**place, **module.last}, {**place, **speed, **module.timing})
        if trainer.logger is not None:
            known = {name: value for name, value in speed.items() if value is not None}
            trainer.logger.log_metrics({**module.last, **known}, step=self.steps_before + module.step)

    def _write(self, metrics: dict[str, Any], timing: dict[str, Any]) -> None:
        self.num_lines += 1
        if not self.writes:
            return
        for name, line in (("metrics.jsonl", metrics), ("timing.jsonl", timing)):
            with open(self.run_dir / name, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")


def save_whole(learner: Learner, directory: Path) -> None:
    """Save a model so that the directory is whole or absent."""
    beside = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    learner.save(beside)
    shutil.rmtree(directory, ignore_errors=True)
    os.replace(beside, directory)


def last_step(run_dir: Path, steps_before: Mapping[str, int]) -> int:
    """Count the steps of the whole run up to the last whole line of the metrics; `steps_before`: of earlier phases."""
    path = run_dir / "metrics.jsonl"
    if not path.is_file():
        return 0
    for line in reversed(read_bytes(path, MAX_JSON_BYTES).splitlines()):
        try:
            data = json.loads(line)
            return steps_before[data["phase"]] + int(data["step"])
        except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
            continue  # cut off, or damaged
    return 0


def _cut_lines(path: Path, num_lines: int) -> None:
    """Keep the first lines of a file."""
    if not path.is_file():
        return
    lines = read_bytes(path, MAX_JSON_BYTES).splitlines(keepends=True)
    if len(lines) != num_lines or (lines and not lines[-1].endswith(b"\n")):
        write_bytes_atomic(path, b"".join(lines[:num_lines]))
