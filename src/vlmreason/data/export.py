"""Problems of a task written out for other people's tools, by all cores, continued after an interruption.

folder      Hugging Face image folder: `<split>/metadata.jsonl`, one object per problem, and a PNG per problem beside it
lmms_eval   the same, for the task folder of data/lmms_eval.py
llava       conversation JSON: `conversations.json`, a list of {id, image, conversations}, and the PNGs
vlmevalkit  TSV with index, id, image (base64 PNG), question, answer, category (the level), split

Problem i is written i-th whatever the number of processes, so the result is the same byte for byte. Records
go to a hidden partial file that gets its name at the end; `.generate.json` beside it says what is held there
and how far it is. Memory does not grow with the number of problems.
"""

from __future__ import annotations

import base64
import collections
import contextlib
import csv
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
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlmreason.dialogue.build import build_dialogue
from vlmreason.dialogue.parse import kinds_of
from vlmreason.files import rename_synced, write_json_atomic
from vlmreason.pictures import Picture, png_bytes
from vlmreason.segments import CONVERT, View
from vlmreason.streams import SPLITS
from vlmreason.structure import check_choice, check_positive
from vlmreason.tasks.base import Problem, Task, state_to_json

Format = Literal["folder", "lmms_eval", "llava", "vlmevalkit"]
IMAGE_FOLDERS = ("folder", "lmms_eval")
STATE_FILE = ".generate.json"
CHUNK = 8  # problems that a process makes at a time
SAVE_EVERY_S = 1.0  # seconds between two notes of how far the work is


_COLUMNS = ("index", "id", "image", "question", "answer", "category", "split")


@dataclass(frozen=True)
class ExportSettings:
    """What is written. `view` is for llava alone (null: image)."""

    level: str
    split: str
    num: int
    format: Format = "folder"
    view: View | None = None

    def __post_init__(self) -> None:
        check_choice("split", self.split, SPLITS)
        check_positive(self, "num")
        if self.view is not None and self.format != "llava":
            raise ValueError(f"view={self.view}: has no effect with format={self.format}")


def export(
    task: Task[Any],
    settings: ExportSettings,
    folder: Path,
    identity: Mapping[str, object],
    num_workers: int,
    progress: bool | None = None,
) -> Path:
    """Write the first `num` problems of a level and split to `folder`; return the file of records.

    An image folder takes one export per split, which `datasets` reads from the folder's name. `identity` (JSON) says
    what else decides the content: the task's sizes and wording. A folder that was begun with the same settings is
    continued, one that holds anything else is refused with ValueError.
    `progress` None: a bar when stderr is a terminal. On Ctrl-C what is in work is finished and kept, then
    KeyboardInterrupt goes on.
    """
    if num_workers < 1:
        raise ValueError(f"workers={num_workers}: 1 or more is expected")
    task.sample(settings.level, settings.split, 0)  # impossible levels and sizes end here, before a folder is made
    settings = dataclasses.replace(settings, num=len(task.first(settings.level, settings.split, settings.num)))
    held = {"task": task.name, "version": task.version, **identity, **dataclasses.asdict(settings)}
    if settings.format in IMAGE_FOLDERS:
        _check_splits(folder)
        folder = folder / settings.split
    target = folder / _file_name(task, settings)
    with _only_writer(folder):
        state = _open(folder, held)
        if state["done"] < settings.num or not target.exists():
            _write(task, settings, folder, target, state, num_workers, progress)
    return target


def _file_name(task: Task[Any], settings: ExportSettings) -> str:
    if settings.format == "vlmevalkit":
        return f"{task.name}_{settings.level}_{settings.split}.tsv"
    return "conversations.json" if settings.format == "llava" else "metadata.jsonl"


def _check_splits(folder: Path) -> None:
    """Refuse a folder with anything but exports of splits in it. Raises ValueError."""
    if (folder / STATE_FILE).exists():
        why = f"holds an export outside of a folder of its split ({', '.join(SPLITS)})"
        raise ValueError(f"out={folder}: {why}; choose another one")
    if folder.is_dir() and not any((folder / split / STATE_FILE).exists() for split in SPLITS):
        _check_fresh(folder, SPLITS)


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
        state = {"holds": held, "done": 0, "bytes": 0}
        write_json_atomic(path, state)
        return state
    try:
        state = json.loads(path.read_text())
        there, _, _ = dict(state["holds"]), int(state["done"]), int(state["bytes"])
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: damaged; delete the folder to write it anew") from None
    if there != held:
        key = next(key for key in [*held, *there] if there.get(key) != held.get(key))
        values = f"{key} is {there.get(key)!r} there, {held.get(key)!r} here"
        raise ValueError(f"out={folder}: holds another configuration ({values}); choose another folder")
    return dict(state)


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
    done = state["done"]
    num_workers = max(1, min(num_workers, -(-(settings.num - done) // CHUNK)))
    # without buffering: a full disk shows up in write, and never again when the file is closed
    with (
        open(partial, "r+b" if partial.exists() else "w+b", buffering=0) as file,
        tqdm(
            total=settings.num, initial=done, unit="problems", disable=None if progress is None else not progress
        ) as bar,
    ):
        file.seek(state["bytes"])
        file.truncate()
        saved = time.monotonic()
        ranges = (range(i, min(i + CHUNK, settings.num)) for i in range(done, settings.num, CHUNK))
        try:
            for indices, records in _chunks(task, settings, folder, ranges, num_workers):
                head = _head(settings) if indices.start == 0 else ""
                tail = _tail(settings) if indices.stop == settings.num else ""
                _write_all(file, (head + records + tail).encode())
                state |= {"done": indices.stop, "bytes": file.tell()}
                bar.update(len(indices))
                if time.monotonic() - saved > SAVE_EVERY_S:
                    _save_state(folder, state, file)
                    saved = time.monotonic()
        finally:
            _save_state(folder, state, file)
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
    return "".join(_record(task, settings, folder, i, settings.num) for i in indices)


def _record(task: Task[Any], settings: ExportSettings, folder: Path, index: int, num: int) -> str:
    problem = task.sample(settings.level, settings.split, index)
    if settings.format in IMAGE_FOLDERS:
        return json.dumps(_folder_row(task, problem, settings.format, folder)) + "\n"
    if settings.format == "llava":
        separator = ",\n" if index + 1 < num else "\n"
        return json.dumps(_llava_row(task, problem, settings.view or "image", folder)) + separator
    return _tsv_line(_vlmevalkit_row(task, problem))


def _head(settings: ExportSettings) -> str:
    return {"llava": "[\n", "vlmevalkit": _tsv_line(_COLUMNS)}.get(settings.format, "")


def _tail(settings: ExportSettings) -> str:
    return "]\n" if settings.format == "llava" else ""


def _folder_row(task: Task[Any], problem: Problem[Any], format: Format, folder: Path) -> dict[str, Any]:
    state, response = problem.state, task.response(problem.state, "image")
    return {
        "id": problem.id,
        "task": problem.task,
        "level": problem.level,
        "split": problem.split,
        "index": problem.index,
        "text": task.text(state),
        "prompt_text": task.prompt(state, "text"),
        "prompt_image": task.prompt(state, "image"),
        "file_name": _save(_picture(task, problem, format), problem, folder),
        **{kind: response.text_of(kind) for kind in kinds_of(task)},
        CONVERT: task.convert(state),
        "meta": json.dumps(state_to_json(state)),  # a text: columns of other tools hold one type, deep down too
    }


def _llava_row(task: Task[Any], problem: Problem[Any], view: View, folder: Path) -> dict[str, Any]:
    dialogue = build_dialogue(task, problem, view)
    shown = {} if dialogue.image is None else {"image": _save(dialogue.image, problem, folder)}
    question = f"<image>\n{dialogue.prompt}" if shown else dialogue.prompt
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": dialogue.response.text}]
    return {"id": problem.id, **shown, "conversations": turns}


def _vlmevalkit_row(task: Task[Any], problem: Problem[Any]) -> tuple[str, ...]:
    state = problem.state
    image = base64.b64encode(png_bytes(_picture(task, problem, "vlmevalkit"))).decode()
    question, answer = task.prompt(state, "image"), task.answer(state)
    return (str(problem.index), problem.id, image, question, answer, problem.level, problem.split)


def _picture(task: Task[Any], problem: Problem[Any], format: Format) -> Picture:
    """The picture that the format cannot do without. Raises ValueError for a problem that has none."""
    picture: Picture | None = task.draw(problem.state)
    if picture is None:
        raise ValueError(f"format={format}: {problem.id} has no picture, which only format=llava can write")
    return picture


def _save(picture: Picture, problem: Problem[Any], folder: Path) -> str:
    name = f"{problem.id}.png"
    (folder / name).write_bytes(png_bytes(picture))
    return name


def _tsv_line(cells: tuple[str, ...]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, delimiter="\t", lineterminator="\n").writerow(cells)
    return buffer.getvalue()
