"""Checkpoints to resume from: sharded, written in the background, readable by any number of processes.

    checkpoints/steps/<phase>-<step>/state.json                        where the run stands; number of files
    checkpoints/steps/<phase>-<step>/<r>-of-<n>.safetensors            the r-th of n equal shares of rows of all tensors

Process r of n writes file r, whether it holds those rows alone (fsdp) or whole tensors (ddp). Every file is written
beside and renamed, so a checkpoint is complete when all its files are there; one that is not is passed over and
the one before is taken. Nothing in a file is executed when it is read. torch.distributed.checkpoint was not
taken because its own files are unpickled and its safetensors hold no optimizer state.
"""

from __future__ import annotations

import os
import shutil
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, Shard
from torch.optim import Optimizer

from vlmreason.files import read_json, rename_synced, write_json_atomic
from vlmreason.structure import one_line

STATE = "state.json"
MAX_FILES = 16_384  # one of each process
_OPTIMIZER = "optimizer."


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint; `run` is what `save` was given, `shapes` those of its tensors."""

    path: Path
    run: dict[str, Any]
    shapes: Mapping[str, tuple[int, ...]]
    num_files: int

    def restore(self, named: Mapping[str, nn.Parameter], optimizers: Sequence[Optimizer] = ()) -> None:
        """Copy what was saved into parameters, and with `optimizers` their state. Raises ValueError."""
        saved = [name for name in self.shapes if not name.startswith(_OPTIMIZER)]
        with ExitStack() as stack, torch.no_grad():
            try:
                files = [stack.enter_context(safe_open(path, "pt")) for path in self._files()]
                for name in saved:
                    if name not in named or tuple(named[name].shape) != self.shapes[name]:
                        raise ValueError(f"{self.path}: {name} is no parameter of this model, or of another size")
                    self._read(files, name, named[name])
                names = {id(parameter): name for name, parameter in named.items()}
                for optimizer in optimizers:
                    self._restore_optimizer(files, optimizer, names)
            except SafetensorError as error:
                raise ValueError(f"{self.path}: the checkpoint is damaged ({error})") from error

    def _restore_optimizer(self, files: list[Any], optimizer: Optimizer, names: Mapping[int, str]) -> None:
        parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
        numbers = {f"{_OPTIMIZER}{names[id(parameter)]}": number for number, parameter in enumerate(parameters)}
        state: dict[int, dict[str, Tensor]] = {}
        for name, shape in self.shapes.items():
            owner, _, key = name.rpartition("/")
            if owner in numbers:
                parameter = parameters[numbers[owner]].detach()
                target = torch.zeros_like(parameter) if shape and shape == parameter.shape else torch.zeros(shape)
                self._read(files, name, target)
                state.setdefault(numbers[owner], {})[key] = target
        optimizer.load_state_dict({**optimizer.state_dict(), "state": state})

    def _read(self, files: list[Any], name: str, target: Tensor) -> None:
        """Fill the rows of a tensor that this process holds."""
        local, first = _local(target)
        if not self.shapes[name]:
            local.copy_(files[0].get_tensor(name))
            return
        num_rows, last = self.shapes[name][0], first + len(local)
        for number, file in enumerate(files):
            start, stop = _share(num_rows, number, self.num_files)
            low, high = max(start, first), min(stop, last)
            if low < high:
                local[low - first : high - first].copy_(file.get_slice(name)[low - start : high - start])

    def _files(self) -> list[Path]:
        return [self.path / file_name(number, self.num_files) for number in range(self.num_files)]


def file_name(number: int, num: int) -> str:
    return f"{number:05d}-of-{num:05d}.safetensors"


def newest(folder: Path) -> tuple[Checkpoint | None, dict[Path, str]]:
    """Return the last complete checkpoint below `folder`, and the later ones that are not, each with what is wrong."""
    faults: dict[Path, str] = {}
    found: list[Checkpoint] = []
    for path in folder.iterdir() if folder.is_dir() else ():
        if path.is_dir():
            try:
                found.append(_open(path))
            except ValueError as error:
                faults[path] = str(error)
    last = max(found, key=lambda checkpoint: _age(checkpoint.run), default=None)
    return last, faults


def complete(folder: Path) -> list[Checkpoint]:
    """Return the complete checkpoints below `folder`, in the order of training; others are passed over."""
    found = []
    for path in folder.iterdir() if folder.is_dir() else ():
        try:
            found.append(_open(path))
        except ValueError:
            continue  # being written, or left behind half written
    return sorted(found, key=lambda checkpoint: _age(checkpoint.run))


class Writer:
    """Saves a run's checkpoints below `folder`, as process `rank` of `num`, and keeps the last `keep` (None: all).

    `save` copies the tensors to the processor's memory and returns; a thread writes them. The next `save`, `wait`
    and the end of a `with` wait for it and raise what it raised.
    """

    def __init__(self, folder: Path, keep: int | None, rank: int = 0, num: int = 1) -> None:
        self.folder, self.keep, self.rank, self.num = folder, keep, rank, num
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    def save(
        self, name: str, run: Mapping[str, Any], named: Mapping[str, nn.Parameter], optimizers: Sequence[Optimizer]
    ) -> None:
        """Save the parameters and the optimizers' state of them. All processes call it at the same step."""
        self.wait()
        tensors: dict[str, Tensor] = {**named}
        names = {id(parameter): key for key, parameter in named.items()}
        for optimizer in optimizers:
            for parameter, state in optimizer.state.items():
                for key, value in state.items():
                    assert isinstance(value, Tensor), f"{key} of {type(optimizer).__name__} is no tensor"
                    tensors[f"{_OPTIMIZER}{names[id(parameter)]}/{key}"] = value
        state = {
            "run": dict(run), "num_files": self.num, "shapes": {key: list(t.shape) for key, t in tensors.items()}
        }  # fmt: skip
        mine = dict(self._rows(tensors))
        self._thread = threading.Thread(target=self._write, args=(self.folder / name, state, mine), name="checkpoint")
        self._thread.start()

    def wait(self) -> None:
        """Wait until all that was saved is on the disk. Raises what the writing raised."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.wait()
        elif self._thread is not None:  # its own error would hide the first one
            self._thread.join()

    def prune(self, keep: int) -> None:
        """Delete all but the last complete checkpoints."""
        for checkpoint in complete(self.folder)[:-keep]:
            _remove(checkpoint.path)

    def _rows(self, tensors: Mapping[str, Tensor]) -> Iterator[tuple[str, Tensor]]:
        for name, tensor in tensors.items():
            local, _ = _local(tensor.detach())
            if not tensor.ndim:
                if self.rank:
                    continue
            elif not isinstance(tensor, DTensor):
                low, high = _share(len(tensor), self.rank, self.num)
                local = local[low:high]
            if not tensor.ndim or len(local):
                yield name, local.to("cpu", copy=True).contiguous()

    def _write(self, path: Path, state: dict[str, Any], tensors: dict[str, Tensor]) -> None:
        try:
            path.mkdir(parents=True, exist_ok=True)
            target = path / file_name(self.rank, self.num)
            beside = target.with_name(f".{target.name}.tmp")
            try:
                save_file(tensors, beside)
                with open(beside, "rb+") as file:
                    os.fsync(file.fileno())
                rename_synced(beside, target)
            finally:
                beside.unlink(missing_ok=True)
            if self.rank == 0:
                write_json_atomic(path / STATE, state)
                if self.keep is not None:
                    self.prune(self.keep)
        except BaseException as error:
            self._error = error


def remove(faults: Mapping[Path, str]) -> None:
    """Name half-written checkpoints and delete them."""
    for path, fault in faults.items():
        print(f"vlmreason: {one_line(fault)}; it is passed over", file=sys.stderr)
        _remove(path)


def _open(path: Path) -> Checkpoint:
    """A checkpoint that is complete. Raises ValueError that says why it is not."""
    try:
        if not (path / STATE).exists():
            raise FileNotFoundError
        state = read_json(path / STATE)
        shapes = {str(name): tuple(map(int, shape)) for name, shape in state["shapes"].items()}
        checkpoint = Checkpoint(path, dict(state["run"]), shapes, int(state["num_files"]))
    except FileNotFoundError:
        raise ValueError(f"{path}: half-written checkpoint ({STATE} is missing)") from None
    except (ValueError, TypeError, KeyError, AttributeError, OSError):
        raise ValueError(f"{path}: damaged checkpoint ({STATE})") from None
    if not 0 < checkpoint.num_files <= MAX_FILES:
        raise ValueError(f"{path}: damaged checkpoint ({STATE}: num_files={checkpoint.num_files})")
    for file in checkpoint._files():
        try:
            with safe_open(file, "pt"):
                pass
        except FileNotFoundError:
            raise ValueError(f"{path}: half-written checkpoint ({file.name} is missing)") from None
        except (SafetensorError, OSError):
            raise ValueError(f"{path}: damaged checkpoint ({file.name})") from None
    return checkpoint


def _age(run: Mapping[str, Any]) -> tuple[int, int]:
    return len(run["done"]), run["step"]


def _remove(path: Path) -> None:
    """Delete a checkpoint; one that is half deleted is no checkpoint."""
    (path / STATE).unlink(missing_ok=True)
    shutil.rmtree(path)


def _share(num_rows: int, number: int, num: int) -> tuple[int, int]:
    """First row and end of a process's share, as FSDP divides them."""
    size = -(-num_rows // num)
    return min(number * size, num_rows), min((number + 1) * size, num_rows)


def _local(tensor: Tensor) -> tuple[Tensor, int]:
    """What this process holds of a tensor, and its first row."""
    if not isinstance(tensor, DTensor):
        return tensor, 0
    assert tensor.placements == (Shard(0),), tensor.placements
    mesh = tensor.device_mesh
    first, _ = _share(len(tensor), mesh.get_local_rank(), mesh.size())
    return tensor.to_local(), first
