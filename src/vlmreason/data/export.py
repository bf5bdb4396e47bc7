"""Problems of a task written out for other people's tools, by all cores, continued after an interruption.

What is written is in data/formats.py. Number i is written i-th whatever the number of processes, so the result is the
same byte for byte. Records go to a hidden partial file that gets its name at the end (or is made into one file of
parquet); `.generate.json` beside it says what is held there and how far it is. Memory does not grow with the number of
problems.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import io
import json
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ProcessPoolExecutor
from pathlib import Path
from typing import Any

from vlmreason.data import parquet
from vlmreason.data.formats import ExportSettings, check_format, file_name, place, records
from vlmreason.envs.base import Env
from vlmreason.files import read_object, rename_synced, write_json_atomic
from vlmreason.streams import SPLITS
from vlmreason.tasks.base import Task

STATE_FILE = ".generate.json"
CHUNK = 8  # problems that a process makes at a time
SAVE_EVERY_S = 1.0  # seconds between two notes of how far the work is


def export(
    task: Task[Any],
    settings: ExportSettings,
    folder: Path,
    identity: Mapping[str, object],
    num_workers: int,
    progress: bool | None = None,
) -> Path:
    """Write the first `num` problems of a level and split to `folder`; return the file of records.

    An image folder takes one export per split, which `datasets` reads from the folder's name; one of parquet one per
    level and split, with a data-set card over all. `identity` (JSON) says what else decides the content: the task's
    sizes and wording. A folder that was begun with the same settings is continued, one that holds anything else is
    refused with ValueError.
    `progress` None: a bar when stderr is a terminal. On Ctrl-C what is in work is finished and kept, then
    KeyboardInterrupt goes on.
    """
    if num_workers < 1:
        raise ValueError(f"workers={num_workers}: 1 or more is expected")
    check_format(task, settings.format)
    task.sample(settings.level, settings.split, 0)  # impossible levels and sizes end here, before a folder is made
    settings = dataclasses.replace(settings, num=len(task.first(settings.level, settings.split, settings.num)))
    held = {"task": task.name, "version": task.version, **identity, **dataclasses.asdict(settings)}
    root, own = folder, place(settings)
    if settings.format == "parquet":
        parquet.check(held, _held(root, len(own)))
    if own:
        _check_root(root, len(own), task.levels if settings.format == "parquet" else SPLITS)
        folder = root.joinpath(*own)
    target = folder / file_name(task, settings)
    with _only_writer(folder):
        for left in folder.glob(".*.tmp"):  # by workers that were killed
            left.unlink()
        state = _open(folder, held)
        if state["done"] < settings.num or not target.exists():
            _write(task, settings, folder, target, state, num_workers, progress)
    if settings.format == "parquet":
        parquet.write_card(root, task, [root.joinpath(*path) for path in _held(root, len(own))])
    return target


def _held(root: Path, depth: int) -> dict[tuple[str, ...], Any]:
    """What the exports below a folder hold, by their folders' names."""
    states = sorted(root.glob("/".join(["*"] * depth + [STATE_FILE])))
    return {path.parent.relative_to(root).parts: _read(path)["holds"] for path in states}


def _check_root(root: Path, depth: int, names: tuple[str, ...]) -> None:
    """Refuse a folder with anything but exports of levels or splits in it. Raises ValueError."""
    if (root / STATE_FILE).exists():
        raise ValueError(f"out={root}: holds an export outside of a folder of its split; choose another one")
    if root.is_dir() and not any(root.glob("/".join(["*"] * depth + [STATE_FILE]))):
        _check_fresh(root, names)


def _check_fresh(folder: Path, allowed: tuple[str, ...]) -> None:
    if any(entry.name not in allowed and not entry.name.endswith(".tmp") for entry in folder.iterdir()):
        raise ValueError(f"out={folder}: the folder is not empty and was not made by generate; choose another one")


@contextlib.contextmanager
def _only_writer(folder: Path) -> Iterator[None]:
    folder.mkdir(parents=True, exist_ok=True)
    if os.name != "posix":
        yield
        return
    import fcntl

    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"out={folder}: another process is writing there") from None
        yield
    finally:
        os.close(handle)


def _open(folder: Path, held: dict[str, Any]) -> dict[str, Any]:
    """The state of a folder that holds or will hold `held`: problems done, bytes of their records."""
    path = folder / STATE_FILE
    held = json.loads(json.dumps(held))
    if not path.exists():
        _check_fresh(folder, (path.name,))
        state: dict[str, Any] = {"holds": held, "done": 0, "bytes": 0}
        write_json_atomic(path, state)
        return state
    state = _read(path)
    there = state["holds"]
    if there != held:
        key = next(key for key in [*held, *there] if there.get(key, ...) != held.get(key, ...))
        values = f"{key} is {there.get(key)!r} there, {held.get(key)!r} here"
        raise ValueError(f"out={folder}: holds another configuration ({values}); choose another folder")
    return state


def _read(path: Path) -> dict[str, Any]:
    """What a state file says. Raises ValueError."""
    try:
        state = read_object(path)
        return state | {"holds": dict(state["holds"]), "done": int(state["done"]), "bytes": int(state["bytes"])}
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: damaged; delete the folder to write it anew") from None


def _write(
    task: Task[Any],
    settings: ExportSettings,
    folder: Path,
    target: Path,
    state: dict[str, Any],
    num_workers: int,
    progress: bool | None,
) -> None:
    from tqdm import tqdm

    partial = folder / f".{target.name}.partial"
    if state["done"] and (not partial.exists() or partial.stat().st_size < state["bytes"]):
        state |= {"done": 0, "bytes": 0}  # the records were deleted or cut: they are made again
    done, what = state["done"], "episodes" if isinstance(task, Env) else "problems"
    num_workers = max(1, min(num_workers, -(-(settings.num - done) // CHUNK)))
    # without buffering: a full disk shows up in write, and never again when the file is closed
    with (
        open(partial, "r+b" if partial.exists() else "w+b", buffering=0) as file,
        tqdm(total=settings.num, initial=done, unit=what, disable=None if progress is None else not progress) as bar,
    ):
        file.seek(state["bytes"])
        file.truncate()
        saved = time.monotonic()
        ranges = (range(i, min(i + CHUNK, settings.num)) for i in range(done, settings.num, CHUNK))
        try:
            for indices, text in _chunks(task, settings, folder, ranges, num_workers):
                _write_all(file, text.encode())
                state |= {"done": indices.stop, "bytes": file.tell()}
                bar.update(len(indices))
                if time.monotonic() - saved > SAVE_EVERY_S:
                    _save_state(folder, state, file)
                    saved = time.monotonic()
        finally:
            _save_state(folder, state, file)
    if settings.format == "parquet":
        parquet.write(partial, target)
        partial.unlink()
    else:
        rename_synced(partial, target)


def _save_state(folder: Path, state: dict[str, Any], file: io.FileIO) -> None:
    os.fsync(file.fileno())
    write_json_atomic(folder / STATE_FILE, state)


def _write_all(file: io.FileIO, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[file.write(view) :]


def _chunks(
    task: Task[Any], settings: ExportSettings, folder: Path, ranges: Iterator[range], num_workers: int
) -> Iterator[tuple[range, str]]:
    """The records of each range, in order, made by processes; at most a few ranges are in work or waiting."""
    method = "fork" if sys.platform.startswith("linux") else "spawn"
    pool = ProcessPoolExecutor(
        num_workers,
        mp_context=multiprocessing.get_context(method),
        initializer=_start_worker,
        initargs=(task, settings, folder),
    )
    waiting: collections.deque[tuple[range, Future[str]]] = collections.deque()
    interrupted = False
    try:
        for indices in ranges:
            waiting.append((indices, pool.submit(_make, indices)))
            if len(waiting) > 2 * num_workers:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    except KeyboardInterrupt:
        interrupted = True
        raise
    finally:
        pool.shutdown(wait=not interrupted, cancel_futures=True)


_worker: tuple[Task[Any], ExportSettings, Path] | None = None


def _start_worker(task: Task[Any], settings: ExportSettings, folder: Path) -> None:
    global _worker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides when to stop
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _worker = (task, settings, folder)


def _end_with_parent() -> None:
    """A worker whose parent was killed would wait for work for ever."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _make(indices: range) -> str:
    assert _worker is not None
    task, settings, folder = _worker
    return "".join(records(task, settings, folder, index) for index in indices)
