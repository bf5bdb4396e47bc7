"""The phase runner: one phase after the other in one run directory, resumable at any moment.

    metrics.jsonl               one line per logged step and per evaluation; a function of config and machine
    timing.jsonl                speed, waiting for data and memory of the same steps (never the same twice)
    throughput.json             the same over the whole run
    checkpoints/steps/          the states to go on from, the last few (training/checkpoints.py)
    checkpoints/snapshots/      the weights along the way, for figures over training; in the same format
    checkpoints/<phase>/        the model after each phase, in the Hugging Face layout
    checkpoints/final/          the model after the last phase

A run that was stopped goes on at its last checkpoint; lines of the metrics beyond it are dropped and made
again, so that the end is bit-identical to that of an unbroken run on the same machine. With several processes all
train, and the first one writes; a stop that one is asked for is a stop of all, after the same step.
"""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, TQDMProgressBar
from lightning.pytorch.loggers import Logger
from torch.distributed.fsdp import FSDPModule
from torch.optim import Optimizer

from vlmreason.data.mixture import mixtures
from vlmreason.files import write_text_atomic
from vlmreason.models.learner import Learner
from vlmreason.structure import structure
from vlmreason.supervision import Supervision
from vlmreason.tasks.base import Task
from vlmreason.training import memory, precision, strategies, throughput
from vlmreason.training.checkpoints import Checkpoint, Writer, newest, remove
from vlmreason.training.optimizers import OptimizerSettings, phase_optimizers
from vlmreason.training.phase import PhaseModule, PhaseSettings, Stage
from vlmreason.training.settings import TrainerSettings
from vlmreason.training.supervised import SupervisedStage
from vlmreason.training.throughput import FlopCounter, Meter


class Stopped(Exception):
    """The run was told to stop and has saved its state; the same command goes on."""


class Lost(Stopped):
    """Another process of the run has died; the last checkpoint is there."""


Evaluate = Callable[[Learner], Mapping[str, float]]


def train(
    learner: Learner,
    tasks: Mapping[str, Task[Any]],
    supervision: Supervision,
    task: str | None,
    seed: int,
    optimizer: OptimizerSettings,
    settings: TrainerSettings,
    run_dir: Path,
    make_logger: Callable[[], Logger | bool] = lambda: False,
    evaluate: Evaluate | None = None,
    further: Sequence[Stage] = (),
) -> Path:
    """Train the phases of the supervision, then `further` ones; returns the directory of the final model.

    Raises Stopped, ValueError, OSError.
    Everything that can be checked is checked before the first step, of all phases.
    """
    if settings.num_threads:
        torch.set_num_threads(settings.num_threads)
    os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "4096")  # kernels of all shapes of a run are kept
    L.seed_everything(seed, verbose=False)
    optimizers = phase_optimizers(optimizer, supervision, learner)
    data_of_phases = mixtures(supervision, task, seed)
    for row in (row for mixture in data_of_phases.values() for row in mixture.describe()):
        tasks[str(row["task"])].sample(str(row["level"]), "train", 0)  # raises for a level the sizes do not allow
    stages: list[Stage] = [
        SupervisedStage(learner, mixture, tasks, supervision.phase(name), optimizers[name], settings)
        for name, mixture in data_of_phases.items()
    ]
    stages += further
    names = tuple(stage.name for stage in stages)
    steps_before = itertools.accumulate((stage.num_steps for stage in stages), initial=0)
    writer = Writer(run_dir / "checkpoints" / "steps", settings.keep_checkpoints)
    state, checkpoint, faults = RunState.load(run_dir, writer.folder, names)
    final = run_dir / "checkpoints" / "final"
    if state.finished and final.is_dir():
        return final
    if not stages:
        if strategies.is_first() and not final.is_dir():
            (run_dir / "metrics.jsonl").touch()
            save_whole(learner, final)
        return final
    if settings.gradient_checkpointing:
        learner.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        learner.model.disable_input_require_grads()  # else frozen towers are passed backward for nothing
    half = precision.is_half(learner.model)
    logger = make_logger()
    stop = StopRequest()
    with stop, writer:
        for stage, num_before in zip(stages, steps_before, strict=False):
            if stage.name in state.done:
                continue
            trained = [parameter for _, parameter in learner.trained_parameters(stage.train)]
            precision.prepare(learner.model, trained, settings.precision, settings.strategy in strategies.SHARDED)
            first_step = state.step if state.phase == stage.name else 0
            narrow = half and settings.precision == "bf16-mixed"
            place = PhaseSettings(stage.name, stage.train, first_step, seed, lambda: stop.requested, narrow)
            module = stage.module(place)
            before = [other.train for other in stages if other.name in (*state.done, stage.name)]
            changed = {parameter for train in before for parameter, _ in learner.trained_parameters(train)}
            pace = stage.pace(settings)
            keeper = RunKeeper(
                run_dir, state, stage, pace, stop, evaluate, num_before, writer, changed, checkpoint, faults
            )
            trainer = _trainer(pace, run_dir, stage, first_step, logger, keeper, half)
            where = f"in phase {stage.name} after step %d of {stage.num_steps}"
            try:
                trainer.fit(module, stage.steps(first_step, settings))
                if module.step == stage.num_steps:
                    state = keeper.end_phase(trainer, module, last=stage is stages[-1])
            except SystemExit:  # Lightning's own answer to the second Ctrl-C
                raise KeyboardInterrupt("stopped at once; the same command goes on at the last checkpoint") from None
            except (RuntimeError, MemoryError) as error:
                if memory.is_out_of_memory(error):
                    num, device = trainer.world_size, trainer.strategy.root_device
                    raise ValueError(stage.explain_memory(settings, num, device)) from error
                if not strategies.lost(error):
                    raise
                raise Lost(f"{strategies.LOST}: stopped {where % module.step}") from error
            if module.step < stage.num_steps and not module.stopping:
                raise RuntimeError(f"stopped {where % module.step}")
            if module.stopping:
                writer.wait()
                strategies.wait()  # a process that ends may take others with it: all have written
                raise Stopped(f"stopped {where % module.step}")
            checkpoint, faults = None, {}
    if not isinstance(learner.model, FSDPModule):
        learner.model.cpu()  # what follows loads the model of the run
    if strategies.is_first():
        throughput.write(run_dir)
    if not final.is_dir() and checkpoint is not None:  # finished, then lost
        checkpoint.restore(dict(learner.model.named_parameters()))
        save_whole(learner, final)
    return final


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
        """The state in a run directory, the initial one where there is none, its checkpoint and the damaged ones.

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
        if trainer.world_size == 1:  # else what the processes agreed on in the step
            pl_module.stopping = self.stop_request.requested
        if not last and (step % self.settings.checkpoint_every == 0 or pl_module.stopping):
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
        if pl_module.stopping:
            trainer.should_stop = True

    def end_phase(self, trainer: L.Trainer, module: PhaseModule, last: bool) -> RunState:
        """Export the model of the phase and note that it is done; agree on whether to stop."""
        self.writer.wait()
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


class StopRequest:
    """The first SIGINT, SIGTERM or SIGUSR2 asks for a stop at the next step; a second SIGINT stops at once."""

    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)

    def __init__(self) -> None:
        self.requested = False
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopRequest:
        self._before = {number: signal.getsignal(number) for number in self.signals}
        self.listen()
        return self

    def listen(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in self.signals:
                signal.signal(number, self._request)

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _request(self, number: int, _: object) -> None:
        if self.requested and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.requested = True


class ProgressBar(TQDMProgressBar):
    """Loss, examples and tokens per second, time left; counts the steps of the phase from its beginning."""

    BAR_FORMAT = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}{postfix}]"  # 80 columns

    def __init__(self, phase: str, first_step: int) -> None:
        super().__init__(refresh_rate=1)
        self.phase, self.first_step = phase, first_step
        self._started, self._examples, self._tokens = 0.0, 0, 0

    @property
    def total_train_batches(self) -> int | float:
        return super().total_train_batches + self.first_step

    @property
    def train_description(self) -> str:
        return f"train {self.phase}"

    def on_train_start(self, *args: Any) -> None:
        super().on_train_start(*args)
        self._started = time.perf_counter()

    def on_train_epoch_start(self, *args: Any) -> None:
        bar = self.train_progress_bar
        bar.reset(total=int(self.total_train_batches))
        bar.initial = bar.n = self.first_step
        bar.refresh()

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, PhaseModule)
        self._examples += int(pl_module.counts["num_examples"])
        self._tokens += int(pl_module.counts["num_tokens"])
        super().on_train_batch_end(trainer, pl_module, outputs, batch, self.first_step + batch_idx)

    def get_metrics(
        self, trainer: L.Trainer, pl_module: L.LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        assert isinstance(pl_module, PhaseModule)
        seconds = max(time.perf_counter() - self._started, 1e-9)
        return {
            **pl_module.bar(),
            "ex/s": f"{self._examples / seconds:.0f}",
            "tok/s": f"{self._tokens / seconds:.0f}",
        }


def save_whole(learner: Learner, directory: Path) -> None:
    """Save a model so that the directory is whole or absent."""
    beside = directory.with_name(f".{directory.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    learner.save(beside)
    shutil.rmtree(directory, ignore_errors=True)
    os.replace(beside, directory)


def _trainer(
    settings: TrainerSettings, run_dir: Path, stage: Stage, first_step: int, logger: Logger | bool,
    keeper: RunKeeper, half: bool,
) -> L.Trainer:  # fmt: skip
    callbacks: list[Callback] = [keeper]
    if settings.progress:
        callbacks.append(ProgressBar(stage.name, first_step))
    devices, num_nodes = strategies.processes(settings.devices, settings.num_nodes, settings.accelerator)
    timeout = timedelta(minutes=settings.timeout_minutes)
    try:
        return L.Trainer(
            default_root_dir=run_dir,
            accelerator=settings.accelerator,
            devices=devices,
            num_nodes=num_nodes,
            strategy=strategies.make_strategy(settings.strategy, devices, num_nodes, settings.precision, timeout),
            plugins=strategies.plugins(devices * num_nodes),
            precision=precision.lightning_name(settings.precision, half),
            max_epochs=1,
            limit_train_batches=stage.num_steps - first_step,
            logger=logger,
            callbacks=callbacks,
            enable_checkpointing=False,
            enable_progress_bar=settings.progress,
            enable_model_summary=False,
            use_distributed_sampler=False,
            num_sanity_val_steps=0,
        )
    except MisconfigurationException as error:
        raise ValueError(f"trainer: {' '.join(str(error).split())}") from error


def _cut_lines(path: Path, num_lines: int) -> None:
    """Keep the first lines of a file."""
    if not path.is_file():
        return
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    if len(lines) != num_lines or (lines and not lines[-1].endswith("\n")):
        write_text_atomic(path, "".join(lines[:num_lines]))
