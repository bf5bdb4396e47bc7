"""What all phases of training share, supervised or by reinforcement: a Lightning module over one learner."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal

import lightning as L
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor

from vlmreason.models.vlm.learner import Learner
from vlmreason.streams import stream
from vlmreason.training.engine import precision, strategies
from vlmreason.training.engine.optimizers import OptimizerSettings, build_optimizers, schedule
from vlmreason.training.engine.settings import TrainerSettings

Parts = Literal["all"] | Sequence[str]


@dataclass(frozen=True)
class PhaseSettings:
    """Where a phase stands in its run and how it is computed.

    `first_step` is where a resumed phase goes on. What a step draws at random depends on `seed`, `name`, its number
    and the process alone. `stop` says whether this process was asked to stop. `narrow`: compute in bfloat16 with
    weights that are kept in float32 (training/engine/precision.py); `float32`: compute in float32 throughout, and with
    whole weights.
    """

    name: str = ""
    train: Parts = "all"
    first_step: int = 0
    seed: int = 0
    stop: Callable[[], bool] = lambda: False
    narrow: bool = False
    float32: bool = False


class PhaseModule(L.LightningModule):
    """One phase over one learner; a step is one batch of its loader.

    Of the latest step: `last` holds its figures, `counts` those of its batch, `stopping` whether any process was asked
    to stop, `ended` whether the phase is over, `timing` where its time went; `totals` what the run has used up so far,
    over all phases. All but the timing are the same in every process. `extra` are modules that train beside the model;
    `state` and `restore_state` carry what else a resumed phase needs.
    """

    def __init__(self, learner: Learner, optimizer: OptimizerSettings, num_steps: int, phase: PhaseSettings) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.learner = learner
        self.model: nn.Module = learner.model
        self.extra: dict[str, nn.Module] = {}
        self.settings, self.phase = optimizer, phase
        self.num_steps, self.step = num_steps, phase.first_step
        self.trained = learner.trained_parameters(phase.train)
        self.last: dict[str, float] = {}
        self.timing: dict[str, float] = {}
        self.totals: dict[str, float] = {}
        self.counts: dict[str, float] = {}
        self.stopping = self.ended = False
        self.seconds_in_step = 0.0

    def setup(self, stage: str) -> None:
        trained = {name for name, _ in self.trained}
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(name in trained)
            parameter.grad = None
        self.model.train()

    def configure_optimizers(self) -> Any:
        self.trained = self.learner.trained_parameters(self.phase.train)  # sharding has replaced them
        return build_optimizers(self.settings, self.trained, self.learner.prefixes, float32=self.phase.float32)

    def extra_parameters(self) -> list[tuple[str, nn.Parameter]]:
        return [
            (f"{name}.{key}", value) for name, module in self.extra.items() for key, value in module.named_parameters()
        ]

    def saved_parameters(self) -> dict[str, nn.Parameter]:
        """Return all parameters by the names under which checkpoints keep them."""
        return dict(self.model.named_parameters()) | dict(self.extra_parameters())

    def state(self) -> dict[str, Any]:
        """Return what a resumed phase needs beside weights and optimizers, as JSON; of this process."""
        return {}

    def restore_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a `state`. Raises ValueError where it does not fit."""

    def add(self, **counts: float) -> None:
        """Count what the run has used up so far: tokens, steps of environments."""
        for name, value in counts.items():
            self.totals[name] = self.totals.get(name, 0.0) + value

    def gradient_scale(self) -> float:
        """Return factor on a loss that is divided by sums over all processes: FSDP averages their gradients."""
        return float(strategies.group_size()) if isinstance(self.model, FSDPModule) else 1.0

    def bar(self) -> dict[str, str]:
        """Return what the progress bar says of the latest step."""
        return {"loss": f"{self.last.get('loss', float('nan')):.4f}"}

    def hold_start(self, make: Callable[[], Learner]) -> Learner:
        """Return the model that the phase began with, which `make` makes, frozen and where this one is."""
        start = make()
        start.model.to(self.device).eval().requires_grad_(False)
        return start

    def all_optimizers(self) -> list[Any]:
        found = self.optimizers(use_pl_optimizer=True)
        return found if isinstance(found, list) else [found]

    def begin_step(self) -> float:
        """Seed the step, clear the gradients and set its learning rates; returns their factor on the peak rates."""
        self.seed_step()
        factor = schedule(self.step, self.num_steps, self.settings.warmup, self.settings.end, self.settings.fall)
        for optimizer in self.all_optimizers():
            for group in optimizer.param_groups:
                group["lr"] = group["peak_lr"] * factor
            optimizer.zero_grad()
        return factor

    def seed_step(self) -> None:
        """Let the random numbers of this process depend on this step alone."""
        where = (self.phase.seed, self.phase.name, self.step, self.global_rank)
        torch.manual_seed(stream(*where).getrandbits(63))

    def computing(self) -> AbstractContextManager[None]:
        """Put the model in the type in which it computes, for the block; sharded models are gathered in it."""
        narrow = self.phase.narrow and not isinstance(self.model, FSDPModule)
        return precision.narrowed(self.model) if narrow else nullcontext()

    def sum_over_processes(self, sums: Tensor) -> Tensor:
        """Return sums of all processes (on the CPU); asks all whether to stop and sums the gradients."""
        if strategies.group_size() == 1:
            self.stopping = self.phase.stop()
            return sums.cpu()
        parameters = [parameter for _, parameter in self.trained + self.extra_parameters()]
        flags = torch.tensor([self.phase.stop(), *(p.grad is not None for p in parameters)], device=self.device)
        shared = torch.cat((sums.flatten(), flags.double()))
        dist.all_reduce(shared)
        values = shared.tolist()
        self.stopping = values[sums.numel()] > 0
        present = [value > 0 for value in values[sums.numel() + 1 :]]
        first = len(self.trained) if isinstance(self.model, FSDPModule) else 0  # sharded ones are summed already
        strategies.sum_gradients(parameters[first:], present[first:])
        return shared[: sums.numel()].view(sums.shape).cpu()

    def clip(self) -> float:
        """Bound the gradient; returns its norm before."""
        return bound_gradient((p for _, p in self.trained + self.extra_parameters()), self.settings.clip)


def bound_gradient(parameters: Iterable[nn.Parameter], bound: float) -> float:
    """Scale the gradients of some parameters down to this norm (0: never); returns the norm before."""
    norm = nn.utils.clip_grad_norm_(list(parameters), bound or float("inf"))
    return float(norm.full_tensor() if isinstance(norm, DTensor) else norm)


class Marks(ABC):
    """What a phase must reach before the next one begins; `every`: steps between two looks, None: at the end alone."""

    every: int | None

    @abstractmethod
    def measure(self, module: PhaseModule) -> dict[str, float]:
        """Return the share reached of each mark, by its name."""

    @abstractmethod
    def missing(self, found: Mapping[str, float]) -> list[str]:
        """Say of each mark that is not reached what was asked and what was found."""


class Stage(ABC):
    """A phase as the runner sees it: what it trains and how, its steps from any one on, its module.

    `num_steps` are those of the whole phase; `steps` have no state, so that any number of workers can make them.
    """

    name: str
    num_steps: int
    train: Parts
    optimizer: OptimizerSettings

    evaluates_start = False  # before its first step, beside every so many steps
    marks: Marks | None = None

    @property
    def changed(self) -> Parts:
        """Return what of the model is not as before once the phase is over."""
        return self.train

    def finish(self) -> None:  # noqa: B027 (most stages do nothing)
        """Do to the model, before it is saved, what comes after the last step."""

    def pace(self, settings: TrainerSettings) -> TrainerSettings:
        """Return the run's settings with the phase's own intervals in their place."""
        return settings

    @abstractmethod
    def place(self, rank: int, world_size: int) -> None:
        """Say which of several processes this is."""

    @abstractmethod
    def steps(self, first_step: int, settings: TrainerSettings) -> Iterable[Any]:
        """Return what the module's training step gets, for the steps from `first_step` on."""

    @abstractmethod
    def module(self, phase: PhaseSettings) -> PhaseModule: ...

    @abstractmethod
    def explain_memory(self, settings: TrainerSettings, num_devices: int, device: torch.device) -> str:
        """Say, when memory has run out, what the phase needs and what would fit."""
