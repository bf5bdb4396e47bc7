"""A run over several processes: how they find each other, what each holds, how their gradients are summed.

    ddp    every process holds the whole model; gradients are summed once per step
    fsdp   parameters, gradients and optimizer state are sharded over the processes (FSDP2)
    zero2  the same, but parameters stay whole between forward and backward pass: more memory, less communication

The loss of a step is the mean over all its response tokens, so a run is the same in one process or many. What a
process has no part in must not matter either: text-only micro-batches leave the vision tower without a
gradient, and processes have micro-batches of unequal number. With ddp gradients are therefore summed after the last
micro-batch, missing ones as zeros. With fsdp every forward pass is a collective: `align` gives all processes the
same sequence of passes.
"""

from __future__ import annotations

import atexit
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.lightning import LightningEnvironment
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.environments.torchelastic import TorchElasticEnvironment
from lightning.pytorch.strategies import DDPStrategy
from lightning.pytorch.strategies.launchers import _SubprocessScriptLauncher
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard, register_fsdp_forward_method
from torch.distributed.tensor import DTensor

from vlmreason.files import first_process
from vlmreason.training.engine.settings import StrategyName

SHARDED = ("fsdp", "zero2")
Micro = Mapping[str, Tensor]

BUCKET = 2**26
"""Elements of the gradients that are summed at once."""

LOST = "another process of this run has died or cannot be reached"

GRACE = 10.0
"""Seconds that a process has to end by itself, with its own words, once another one has died."""


def on_gpu(accelerator: str) -> bool:
    """Tell whether a run with this `trainer.accelerator` uses a GPU here."""
    return accelerator != "cpu" and torch.cuda.is_available()


def processes(devices: int | str, num_nodes: int | str, accelerator: str) -> tuple[int, int]:
    """Return processes per machine and machines; auto: those that torchrun or srun started, else one per GPU here."""
    found = (max(1, torch.cuda.device_count()) if accelerator != "cpu" else 1), 1
    if TorchElasticEnvironment.detect():
        local = int(os.environ["LOCAL_WORLD_SIZE"])
        found = local, int(os.environ["WORLD_SIZE"]) // local
    elif SLURMEnvironment.detect() and (tasks := int(os.environ["SLURM_NTASKS"])) > 1:
        nodes = int(os.environ.get("SLURM_NNODES", 1))
        found = tasks // nodes, nodes
    return (
        found[0] if devices == "auto" else int(devices),
        found[1] if num_nodes == "auto" else int(num_nodes),
    )  # fmt: skip


def num_cores(devices: int | str) -> int:
    """Return cores for one process of this machine: srun gives each its own, else all share the machine's."""
    found = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if SLURMEnvironment.detect() and int(os.environ["SLURM_NTASKS"]) > 1 and not TorchElasticEnvironment.detect():
        return found
    return found // processes(devices, 1, "auto")[0]


def make_strategy(name: StrategyName, devices: int, num_nodes: int, precision: str, timeout: timedelta) -> Any:
    """Return Lightning's `strategy`; auto: one process as it is, several as ddp."""
    if name == "auto" and devices * num_nodes == 1:
        return "auto"
    return Processes(name, precision, timeout)


def plugins(num: int) -> list[Any]:
    """Say who starts the `num` processes, where Lightning's own look-up does not do.

    Under SLURM a run stops and goes on as everywhere else: Lightning neither requeues nor listens for signals. A job
    of one task that wants several processes starts them itself.
    """
    if TorchElasticEnvironment.detect() or not SLURMEnvironment.detect():
        return []
    alone = num > 1 and os.environ["SLURM_NTASKS"] == "1"
    return [LightningEnvironment() if alone else SLURMEnvironment(auto_requeue=False)]


def lost(error: BaseException) -> bool:
    """Tell whether an error says that another process cannot be reached."""
    if group_size() == 1 or not isinstance(error, RuntimeError):
        return False
    words = ("gloo", "NCCL", "Connection closed by peer", "Connection reset by peer", "Broken pipe")
    return isinstance(error, dist.DistError) or any(word in str(error) for word in words)


def is_first() -> bool:
    """Tell whether this is the first process of a run, also before it meets the others."""
    if dist.is_initialized():
        return dist.get_rank() == 0
    return first_process()


def group_size() -> int:
    return dist.get_world_size() if dist.is_initialized() else 1


def group_rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


class Processes(DDPStrategy):
    """Lightning's processes and their group, without its wrapper around the module."""

    def __init__(self, name: StrategyName, precision: str, timeout: timedelta) -> None:
        super().__init__(timeout=timeout)
        self.name, self.precision_name = name, precision

    def _configure_launcher(self) -> None:
        assert self.cluster_environment is not None
        self._launcher: Any = _Launcher(self.cluster_environment, self.num_processes, self.num_nodes)

    def model_to_device(self) -> None:
        if self.name not in SHARDED:
            super().model_to_device()
            return
        assert self.lightning_module is not None
        self.lightning_module._device = self.root_device  # shards move one by one: no device need hold the whole model

    def teardown(self) -> None:
        """Return the model stays on its device: the processes have yet to save it together. Lightning would move it
        away."""
        for optimizer in self.optimizers:
            optimizer.state.clear()
        if self.lightning_module is not None:
            self.lightning_module.zero_grad()
        self.precision_plugin.teardown()
        if self.accelerator is not None:
            self.accelerator.teardown()
        self.checkpoint_io.teardown()

    def configure_ddp(self) -> None:
        model: Any = self.lightning_module
        if not isinstance(model.model, FSDPModule):
            _copy_from_first(model.model, self.root_device)
        if self.name in SHARDED:
            shard(model.model, self.root_device, self.precision_name, keep_whole=self.name == "zero2")


def shard(model: nn.Module, device: torch.device, precision: str, keep_whole: bool = False) -> None:
    """Shard a model in place over all processes, block by block; of one that is, note which parameters are trained.

    `keep_whole`: parameters stay whole from the forward to the backward pass.
    `precision`: bf16-mixed gathers parameters in bfloat16; gradients are reduced in float32.
    """
    if not any(True for _ in _sharded(model)):
        mesh = init_device_mesh(device.type, (group_size(),))
        policy = MixedPrecisionPolicy(
            param_dtype=torch.bfloat16 if precision == "bf16-mixed" else None, reduce_dtype=torch.float32
        )
        after: dict[str, Any] = {"reshard_after_forward": False} if keep_whole else {}
        for block in blocks(model):
            fully_shard(block, mesh=mesh, mp_policy=policy, **after)
        fully_shard(model, mesh=mesh, mp_policy=policy, **after)
        for method in ("token_losses", "token_scores", "continuations", "last_context"):
            register_fsdp_forward_method(model, method)
        return
    for module in _sharded(model):
        module.unshard()
        module.reshard()


def blocks(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the layers of vision towers and language model: what its own code names, else the lists of modules."""
    names = {name for module in model.modules() for name in (getattr(module, "_no_split_modules", None) or ())}
    lists = {id(child) for module in model.modules() if isinstance(module, nn.ModuleList) for child in module}
    found = [m for m in model.modules() if id(m) in lists and type(m).__name__ in names]
    if not found:
        found = [m for m in model.modules() if id(m) in lists]
    inside = {id(child) for block in found for child in block.modules() if child is not block}
    yield from (block for block in found if id(block) not in inside and any(True for _ in block.parameters()))


def _sharded(model: nn.Module) -> Iterator[FSDPModule]:
    return (module for module in model.modules() if isinstance(module, FSDPModule))


def _copy_from_first(model: nn.Module, device: torch.device) -> None:
    """Give all processes the first one's weights."""
    for tensor in (*model.parameters(), *model.buffers()):
        there = tensor.detach().to(device)
        dist.broadcast(there, src=0)
        if there.data_ptr() != tensor.data_ptr():
            tensor.detach().copy_(there)


def wait() -> None:
    """Wait until all processes have come here."""
    if dist.is_initialized():
        dist.barrier()


def gather_rows(values: Sequence[float], device: torch.device) -> list[list[float]]:
    """Return the values of every process, by rank."""
    if group_size() == 1:
        return [list(values)]
    mine = torch.tensor(values, dtype=torch.float64, device=device)
    rows = [torch.empty_like(mine) for _ in range(group_size())]
    dist.all_gather(rows, mine)
    return [row.tolist() for row in rows]


def gather_dicts(mine: dict[str, Any]) -> dict[str, Any]:
    """Return the dictionaries of all processes in one; each has keys of its own."""
    if group_size() == 1:
        return mine
    every: list[dict[str, Any]] = [{} for _ in range(group_size())]
    dist.all_gather_object(every, mine)
    return {key: value for one in every for key, value in one.items()}


def sum_gradients(parameters: Iterable[nn.Parameter], present: Sequence[bool]) -> None:
    """Return sum the gradients of all processes. `present`: whether any of them has one; a parameter without is left
    alone."""
    bucket: list[nn.Parameter] = []
    for parameter, some in zip(parameters, present, strict=True):
        if not some:
            continue
        if parameter.grad is None:
            parameter.grad = torch.zeros_like(parameter)
        if bucket and (
            parameter.grad.dtype != bucket[0].dtype or sum(p.numel() for p in bucket) + parameter.numel() > BUCKET
        ):
            _sum_bucket(bucket)
            bucket = []
        bucket.append(parameter)
    if bucket:
        _sum_bucket(bucket)


def _sum_bucket(parameters: Sequence[nn.Parameter]) -> None:
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(flat)
    for gradient, summed in zip(gradients, torch.split(flat, [g.numel() for g in gradients]), strict=True):
        gradient.copy_(summed.view_as(gradient))


def has_picture(micro: Micro) -> bool:
    return any(name.startswith("pixel_values") for name in micro)


def align(
    micros: Sequence[Micro], num_pictures: int, num_texts: int, filler: Callable[[bool], Micro]
) -> Iterator[tuple[Micro, bool]]:
    """Return micro-batches with pictures first, then those without, filled up to these numbers; False: to be left
    out."""
    for kind, wanted in ((True, num_pictures), (False, num_texts)):
        own = [micro for micro in micros if has_picture(micro) is kind]
        yield from ((micro, True) for micro in own)
        yield from ((filler(kind), False) for _ in range(wanted - len(own)))


@contextmanager
def usable(model: nn.Module) -> Iterator[None]:
    """Let a sharded model generate, for the block; all processes must do the same."""
    for module in _sharded(model):  # memory that is made in inference mode could not be trained with
        module.unshard()
        module.reshard()
    if isinstance(model, FSDPModule):
        model.unshard()  # some models call their vision tower from outside of their own forward pass
    yield
    for module in _sharded(model):
        module.reshard()


@contextmanager
def gathered(model: nn.Module) -> Iterator[bool]:
    """Let the first process hold a sharded model whole, on the CPU, to be saved; yields whether this is it."""
    first = group_rank() == 0
    kept: list[tuple[nn.Module, str, nn.Parameter]] = []
    whole: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if isinstance(parameter, DTensor):
                kept.append((module, name, parameter))
                if id(parameter) not in whole:
                    full = parameter.detach().full_tensor()
                    whole[id(parameter)] = nn.Parameter(full.cpu(), parameter.requires_grad) if first else parameter
                    del full
    kinds: list[tuple[Any, type]] = [(module, type(module)) for module in _sharded(model)]
    try:
        for module, name, parameter in kept:
            module._parameters[name] = whole[id(parameter)]
        for module, kind in kinds:
            module.__class__ = kind.__bases__[1]  # names of saved weights depend on the class that FSDP derived from
        yield first
    finally:
        for module, kind in kinds:
            module.__class__ = kind
        for module, name, parameter in kept:
            module._parameters[name] = parameter


class _Launcher(_SubprocessScriptLauncher):
    """Starts the other processes of this machine from `sys.argv`; torchrun and srun do so themselves."""

    def launch(self, function: Callable[..., Any], *args: Any, trainer: Any = None, **kwargs: Any) -> Any:
        environment = self.cluster_environment
        environment.validate_settings(num_devices=self.num_processes, num_nodes=self.num_nodes)
        if not environment.creates_processes_externally:
            os.environ[_PARENT] = str(os.getpid())
            self._call_children_scripts()
            _children.extend(self.procs)
            _watch(lambda: any(child.poll() not in _ORDERLY for child in self.procs))
        elif os.environ.get(_PARENT) not in (None, str(os.getpid())):
            _watch(lambda: str(os.getppid()) != os.environ[_PARENT])
        return function(*args, **kwargs)


_PARENT = "VLMREASON_PARENT"  # process id of the one that started the others
_ORDERLY = (None, 0, 130)  # still there, finished, told to stop
_children: list[subprocess.Popen[bytes]] = []


def _watch(somebody_died: Callable[[], bool]) -> None:
    """End this process when another one of this machine dies: a GPU's collective would wait for it for ever."""
    if any(thread.name == "watch" for thread in threading.enumerate()):
        return

    def watch() -> None:
        while not somebody_died():
            time.sleep(0.5)
        time.sleep(GRACE)
        print(f"vlmreason: {LOST}; the same command goes on at the last checkpoint", file=sys.stderr, flush=True)
        for child in _children:
            child.kill()
        os._exit(1)

    threading.Thread(target=watch, daemon=True, name="watch").start()


def end_abruptly(code: int) -> None:
    """Let this process end without leaving the group: the threads of a group that lost a process may abort it."""
    atexit.register(lambda: (sys.stdout.flush(), sys.stderr.flush(), os._exit(code)))


def leave() -> None:
    """Leave the group of processes; the one that started others waits for them. Further runs may follow."""
    if dist.is_initialized():
        dist.destroy_process_group()
    for child in _children:
        child.wait()
    if _children:
        for name in (_PARENT, "MASTER_ADDR", "MASTER_PORT", "NODE_RANK", "LOCAL_RANK", "WORLD_SIZE"):
            os.environ.pop(name, None)
    _children.clear()
