"""The phase runner: one phase after the other in one run directory, resumable at any moment.

    metrics.jsonl               one line per logged step and per evaluation; a function of config and machine
    timing.jsonl                speed, waiting for data and memory of the same steps (never the same twice)
    throughput.json             the same over the whole run
    checkpoints/steps/          the states to go on from, the last few (training/engine/checkpoints.py)
    checkpoints/snapshots/      the weights along the way, for figures over training; in the same format
    checkpoints/<phase>/        the model after each phase, in the Hugging Face layout
    checkpoints/final/          the model after the last phase

A run that was stopped goes on at its last checkpoint; lines of the metrics beyond it are dropped and made
again, so that the end is bit-identical to that of an unbroken run on the same machine. With several processes all
train, and the first one writes; a stop that one is asked for is a stop of all, after the same step.
"""

from __future__ import annotations

import functools
import itertools
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger
from torch.distributed.fsdp import FSDPModule

from vlmreason.data.mixture import mixtures
from vlmreason.models.vlm.learner import Learner
from vlmreason.supervision import Supervision
from vlmreason.tasks.base import Task
from vlmreason.training.engine import memory, precision, strategies, throughput
from vlmreason.training.engine.beginnings import Beginnings
from vlmreason.training.engine.checkpoints import Writer
from vlmreason.training.engine.console import Lost, ProgressBar, Stopped, StopRequest, announce
from vlmreason.training.engine.keeper import Evaluate, RunKeeper, RunState, last_step, save_whole
from vlmreason.training.engine.optimizers import OptimizerSettings, phase_optimizers
from vlmreason.training.engine.phase import PhaseSettings, Stage
from vlmreason.training.engine.settings import TrainerSettings
from vlmreason.training.supervised.captions import CaptionStage
from vlmreason.training.supervised.stage import SupervisedStage


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
    shared: Beginnings | None = None,
    build: Callable[[Path | None], Learner] | None = None,
) -> Path:
    """Train the phases of the supervision, then `further` ones; returns the directory of the final model.

    `shared`: first phases that other runs have trained, or may take from this one; `build`: makes the learner anew,
    from a directory where it is given.
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
    stages: list[Stage] = []
    for name, phase in supervision.phases.items():
        before = run_dir / "checkpoints" / stages[-1].name if stages else None
        start = functools.partial(build, before) if build else None
        stages.append(
            SupervisedStage(learner, data_of_phases[name], tasks, phase, optimizers[name], settings, task, start)
            if phase.parts
            else CaptionStage(learner, tasks, name, phase, optimizers[name], seed)
        )
    stages += further
    names = tuple(stage.name for stage in stages)
    if shared and stages:
        shared.take(names)
    steps_before = dict(
        zip(names, itertools.accumulate((stage.num_steps for stage in stages), initial=0), strict=False)
    )
    writer = Writer(run_dir / "checkpoints" / "steps", settings.keep_checkpoints)
    reached = last_step(run_dir, steps_before)
    state, checkpoint, faults = RunState.load(run_dir, writer.folder, names)
    final = run_dir / "checkpoints" / "final"
    taken = shared is not None and shared.taken is not None
    if stages:
        at = sum(stage.num_steps for stage in stages if stage.name in state.done) + state.step
        announce(run_dir, settings, stages, state.done, state.step, reached - at)
    if state.finished and final.is_dir() and not taken:
        return final
    if not stages:
        if strategies.is_first() and not final.is_dir():
            (run_dir / "metrics.jsonl").touch()
            save_whole(learner, final)
        return final
    if settings.gradient_checkpointing:
        learner.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        learner.model.disable_input_require_grads()  # else frozen towers are passed backward for nothing
    if settings.compile:
        compile_layers(learner)
    half = precision.is_half(learner.model)
    logger = make_logger()
    if shared and taken and isinstance(logger, Logger):
        for name, step, figures in shared.lines():
            logger.log_metrics(figures, step=steps_before[name] + step)
        logger.save()
    stop = StopRequest()
    with stop, writer:
        for stage in stages:
            trained = [parameter for _, parameter in learner.trained_parameters(stage.train)]
            precision.prepare(learner.model, trained, settings.precision, settings.strategy in strategies.SHARDED)
            if stage.name in state.done:
                continue
            first_step = state.step if state.phase == stage.name else 0
            narrow = half and settings.precision == "bf16-mixed"
            float32 = settings.precision == "32-true" and settings.strategy not in strategies.SHARDED
            place = PhaseSettings(stage.name, stage.train, first_step, seed, lambda: stop.requested, narrow, float32)
            module = stage.module(place)
            changes = [other.changed for other in stages if other.name in (*state.done, stage.name)]
            changed = {parameter for train in changes for parameter, _ in learner.trained_parameters(train)}
            pace = stage.pace(settings)
            keeper = RunKeeper(
                run_dir,
                state,
                stage,
                pace,
                stop,
                evaluate,
                steps_before[stage.name],
                writer,
                changed,
                checkpoint,
                faults,
            )
            trainer = _trainer(pace, run_dir, stage, first_step, logger, keeper, half)
            where = f"in phase {stage.name} after step %d of {stage.num_steps}"
            try:
                trainer.fit(module, stage.steps(first_step, settings))
                if module.ended:
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
            if shared and stage.name in state.done:
                shared.finish(stage.name, stage is stages[-1])
            if not module.ended and not module.stopping:
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


def compile_layers(learner: Learner) -> None:
    """Compile the layers of the language model; those of towers are small beside it, and watched by hooks."""
    starts = learner.prefixes["language_model"]
    own = {id(module) for name, module in learner.model.named_modules() if name.startswith(starts)}
    for block in strategies.blocks(learner.model):
        if id(block) in own:
            block.compile(dynamic=True)


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
