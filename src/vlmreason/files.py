"""Files that are either whole or absent: written beside, flushed to the disk, then renamed into place."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO


def write_bytes_atomic(path: Path, data: bytes) -> None:
    """Write `data` to `path`; a reader sees the old content or the new one. Makes missing folders. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_text_atomic(path: Path, text: str) -> None:
    """`write_bytes_atomic` of a text as UTF-8."""
    write_bytes_atomic(path, text.encode())


def write_json_atomic(path: Path, data: object) -> None:
    """`write_bytes_atomic` of a value as indented JSON in the order of its keys."""
    write_text_atomic(path, json.dumps(data, indent=2) + "\n")


def rename_synced(source: Path, target: Path) -> None:
    """Rename a finished, flushed file; the new name survives a power cut."""
    os.replace(source, target)
    _sync_folder(target.parent)


def hold(path: Path) -> bool:
    """Whether this process has `path` for itself from now until it ends; True where the file system cannot tell."""
    if path.resolve() in _held:
        return True
    try:
        import fcntl
    except ImportError:  # not POSIX
        return True
    handle = open(path, "a")  # noqa: SIM115  # stays open: the lock lives as long
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        handle.close()
        return False
    except OSError:  # no locks there
        handle.close()
        return True
    _held[path.resolve()] = handle
    return True


_held: dict[Path, IO[str]] = {}


def first_process() -> bool:
    """Whether this process writes for its run: the first of those that torchrun, srun or the run itself started."""
    if "RANK" in os.environ:
        return os.environ["RANK"] == "0"
    return all(os.environ.get(name, "0") == "0" for name in ("SLURM_PROCID", "NODE_RANK", "LOCAL_RANK"))


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
