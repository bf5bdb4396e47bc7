"""A phase of supervised training as a stage of a run: its data, packed and made ahead, and its module."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch

from vlmreason.data.loader import AHEAD, LENGTH_STEP, Packing, Step, StepData, step_loader
from vlmreason.data.mixture import Mixture
from vlmreason.models.contract import AdapterSettings, Preparing
from vlmreason.models.vlm.evenness import check_even, even_sizes
from vlmreason.models.vlm.learner import Learner
from vlmreason.supervision import Phase
from vlmreason.tasks.base import Task
from vlmreason.training.engine import memory, precision, strategies
from vlmreason.training.engine.optimizers import OptimizerSettings
from vlmreason.training.engine.phase import Parts, PhaseModule, PhaseSettings, Stage
from vlmreason.training.engine.settings import TrainerSettings
from vlmreason.training.supervised.marks import SkillMarks
from vlmreason.training.supervised.matching import Matching
from vlmreason.training.supervised.own_answers import OwnAnswers
from vlmreason.training.supervised.pulls import Pull, Staying
from vlmreason.training.supervised.sft import SupervisedFineTuning


class SupervisedStage(Stage):
    def __init__(
        self,
        learner: Learner,
        mixture: Mixture,
        tasks: Mapping[str, Task[Any]],
        phase: Phase,
        optimizer: OptimizerSettings,
        settings: TrainerSettings,
        run_task: str | None = None,
        start: Callable[[], Learner] | None = None,
    ) -> None:
        """`run_task`: the task of the run, for marks that name none; `start`: makes the learner that the phase begins
        with. Raises ValueError for what the phase asks and the model or the run cannot do."""
        self.name, self.train, self.optimizer = mixture.phase, phase.train, optimizer
        self.learner, self.choose = learner, phase.choose
        self.pull: Pull | None = None
        packing = choose_packing(settings, learner)
        where = f"supervision.phases.{self.name}"
        if phase.match:
            _check_rows(f"{where}.match={phase.match}", learner, settings, packing)
            self.pull = Matching(phase.match)
        if phase.kl_weight:
            _check_rows(f"{where}.kl_weight={phase.kl_weight}", learner, settings, None)
            if start is None:
                raise ValueError(f"{where}.kl_weight={phase.kl_weight}: a pretraining has no model to stay near")
            self.pull = Staying(phase.kl_weight, start)
        if phase.choose:
            _check_rows(f"{where}.choose", learner, settings, packing)
            if settings.precision == "bf16-true":
                raise ValueError(f"{where}.choose: trainer.precision=bf16-true keeps no weights in float32")
        own = {name: part.own for name, part in phase.parts.items() if part.own is not None}
        if own:
            _check_rows(f"{where}.parts.{next(iter(own))}.own", learner, settings, packing)
        self.own = OwnAnswers(learner, tasks, _most(mixture, own)) if own else None
        self.data = StepData(
            mixture, tasks, learner.processor, phase.batch_size or settings.batch_size, settings.micro_tokens,
            settings.max_length, packing=packing,
            pixel_type=precision.computed(settings.precision, precision.is_half(learner.model)),
            cut=settings.cut, match=phase.match > 0, toward=phase.choose.toward if phase.choose else (), own=tuple(own),
        )  # fmt: skip
        self.num_steps, self.even = self.data.num_steps, phase.even
        if phase.even is not None:
            _check_rows(f"{where}.even={phase.even}", learner, settings, None)
            _check_evening(f"{where}.even={phase.even}", learner)
        if phase.marks:
            every = phase.mark_every and max(1, phase.mark_every // self.data.batch_size)
            self.marks = SkillMarks(phase.marks, tasks, run_task, every)

    @property
    def changed(self) -> Parts:
        return self.train if self.even is None else "all"

    def finish(self) -> None:
        if self.even is not None:
            even_sizes(self.learner.model, self.even)

    def place(self, rank: int, world_size: int) -> None:
        if self.choose and world_size > 1:
            raise ValueError(
                f"supervision.phases.{self.name}.choose: examples are chosen in one process; trainer.devices=1"
            )
        self.data.rank, self.data.world_size = rank, world_size

    def steps(self, first_step: int, settings: TrainerSettings) -> Iterable[Step]:
        self.data.first_step = first_step
        learner: object = self.learner
        if isinstance(learner, Preparing):
            seen = learner.prepare(len(self.data.mixture), self.data.problem, self.data.dialogue, settings.progress)
            self.data.prepared = seen
        return step_loader(self.data, num_workers(settings), pin=strategies.on_gpu(settings.accelerator))

    def module(self, phase: PhaseSettings) -> PhaseModule:
        own = self._answer if self.own else None
        filler = Filler(self.data)
        return SupervisedFineTuning(
            self.learner, self.optimizer, self.num_steps, phase, filler, self.choose, own, self.pull
        )

    def _answer(self, numbers: Sequence[int]) -> Step:
        """What the model answers to some examples and keeps, as micro-batches."""
        assert self.own is not None
        kept = self.own([self.data.mixture[number] for number in numbers])
        return self.data.counted([self.data.processor.encode(one) for one in kept])

    def explain_memory(self, settings: TrainerSettings, num_devices: int, device: torch.device) -> str:
        return memory.explain(self.learner, self.train, settings, self.optimizer.name, num_devices, self.data, device)


def _most(mixture: Mixture, own: Mapping[str, int]) -> dict[tuple[str, str], int]:
    """Most tokens of responses of the model's own, by task and level."""
    rows = [row for row in mixture.describe() if row["part"] in own]
    return {(row["task"], row["level"]): own[row["part"]] for row in rows}


def _check_rows(where: str, learner: object, settings: TrainerSettings, packing: Packing | None) -> None:
    if not isinstance(learner, Learner):
        raise ValueError(f"{where}: this model writes no tokens, a model that answers in text is expected")
    if packing:
        raise ValueError(f"{where}: with trainer.packing={settings.packing} dialogues share a row; allowed is off")
    if settings.strategy in strategies.SHARDED:
        raise ValueError(f"{where}: trainer.strategy={settings.strategy} shards the model; auto and ddp are allowed")


def _check_evening(where: str, learner: Learner) -> None:
    if learner.adapter != AdapterSettings():
        raise ValueError(f"{where}: all of the model is scaled, so no adapter and nothing frozen is allowed")
    try:
        check_even(learner.model)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def num_workers(settings: TrainerSettings) -> int:
    """Choose for auto: a GPU learns faster than one process draws large pictures; there is a share of the cores."""
    if settings.num_workers != "auto":
        return int(settings.num_workers)
    if not strategies.on_gpu(settings.accelerator):
        return 1
    return max(1, min(AHEAD, strategies.num_cores(settings.devices) - 1))


def choose_packing(settings: TrainerSettings, learner: Learner) -> Packing | None:
    """Say how dialogues share rows; auto: where attention costs nothing across them, which is FlashAttention's alone.

    Other kernels compute what a mask of dialogues hides, and without one leave out half: padding is cheaper there.
    """
    if not learner.packable:
        if settings.packing in ("auto", "off"):
            return None
        raise ValueError(f"trainer.packing={settings.packing}: this model takes one dialogue per row; allowed is off")
    flash = learner.model.config._attn_implementation.startswith("flash_attention")
    if settings.packing == "auto":
        return "row" if flash else None
    if settings.packing == "off":
        return None
    if flash and settings.packing == "rows":  # the library tells dialogues apart in a single row only
        raise ValueError("trainer.packing=rows: model.attention=flash_attention_2 needs row, or off")
    return settings.packing


class Filler:
    """An example of a step with or without a picture, as a micro-batch; one of each kind serves all later steps."""

    def __init__(self, data: StepData) -> None:
        self.data = data
        self._made: dict[bool, strategies.Micro] = {}

    def __call__(self, step: int, picture: bool) -> strategies.Micro:
        start = step * self.data.batch_size
        for number in range(start, min(start + self.data.batch_size, len(self.data.mixture))):
            if picture in self._made:
                break
            micro = self.data.processor.collate([self.data.encode(number)], LENGTH_STEP)
            self._made.setdefault(strategies.has_picture(micro), micro)
        return self._made[picture]
