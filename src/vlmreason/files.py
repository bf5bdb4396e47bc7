"""Files that are either whole or absent: written beside, flushed to the disk, then renamed into place."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import os
import stat
import weakref
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any


def plain(value: Any) -> Any:
    """Return `value` as it is read back from a JSON file."""
    return json.loads(json.dumps(value, default=_fields))


def _fields(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    raise TypeError(f"{type(value).__name__} is no JSON")


MAX_LINE_BYTES = 64 * 2**20  # a longer line is no record of ours: memory stays bounded
MAX_JSON_BYTES = 256 * 2**20
MAX_YAML_BYTES = 2**19  # a hundred times what a run's configuration has
MAX_DEPTH = 64


@dataclass(frozen=True)
class Line:
    """One JSON object of a file. `where` is "path:number"; `utf8` is False where bytes had to be replaced."""

    where: str
    start: int  # offset in bytes
    end: int  # offset behind the line, newline included
    data: dict[str, Any]
    utf8: bool
    terminated: bool


def read_jsonl(path: Path, start: int = 0) -> Iterator[Line]:
    """Return the objects of a JSON-lines file, one at a time; blank lines and a cut-off last line are left out.

    A cut-off line is an unreadable last one without a newline: what a killed writer leaves. Anything else
    that is not a JSON object, or longer than MAX_LINE_BYTES, raises ValueError naming file and line.
    """
    try:
        check_ordinary(path)
        handle = path.open("rb")
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    with handle:
        handle.seek(start)
        number, end = 0, start
        while raw := handle.readline(MAX_LINE_BYTES + 1):
            number, begin, end = number + 1, end, end + len(raw)
            where = f"{path}:{number}" if start == 0 else f"{path} at byte {begin}"
            terminated = raw.endswith(b"\n")
            if len(raw) > MAX_LINE_BYTES:
                raise ValueError(f"{where}: the line is longer than {MAX_LINE_BYTES // 2**20} MiB")
            if not raw.strip():
                continue
            text = raw.decode("utf-8-sig" if begin == 0 else "utf-8", errors="replace")
            try:
                data = json.loads(text)
            except (ValueError, RecursionError):
                if not terminated:
                    return
                raise ValueError(f"{where}: the line is damaged: it is not JSON") from None
            if not isinstance(data, dict):
                raise ValueError(f"{where}: a JSON object is expected, got {type(data).__name__}")
            yield Line(where, begin, end, data, _is_utf8(raw), terminated)


def has_rest(path: Path, end: int) -> bool:
    """Tell whether something stands behind byte `end`, as a cut-off last line of a file that should be whole."""
    with path.open("rb") as handle:
        handle.seek(end)
        return any(block.strip() for block in iter(lambda: handle.read(4096), b""))


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def write_json(path: Path, data: object) -> None:
    """Write a JSON file atomically. Raises ValueError naming the file."""
    try:
        write_json_atomic(path, data)
    except OSError as error:
        raise ValueError(f"{path}: cannot be written: {error.strerror}") from None


def read_json(path: Path, any_number: bool = False) -> Any:
    """Read a JSON file, wherever it comes from; `any_number`: of any size. Raises ValueError naming the file."""
    content = read_bytes(path, MAX_JSON_BYTES)
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: the file is damaged: it is not JSON") from None
    _check_bounded(path, data, any_number)
    return data


def read_object(path: Path, any_number: bool = False) -> dict[str, Any]:
    """Read a JSON object as `read_json`. Raises ValueError naming the file."""
    data = read_json(path, any_number)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: damaged: a JSON object is expected")
    return data


def read_plain_yaml(path: Path, aliases: bool = False) -> Any:
    """Read a YAML file of plain data, wherever it comes from. Raises ValueError naming the file.

    Unless `aliases` are allowed they are refused; where they are, what they stand for counts.
    """
    import yaml

    content, loader = read_bytes(path, MAX_YAML_BYTES), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    try:
        _check_events(path, yaml.parse(content, loader), aliases)
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: damaged: it is not YAML{_place_of(error)}") from None
    try:
        data = yaml.load(content, loader)
    except (yaml.YAMLError, ValueError, TypeError) as error:  # a number or a date that is none, a mapping as a key
        raise ValueError(f"{path}: damaged: it holds what is no plain data{_place_of(error)}") from None
    _check_bounded(path, data)
    return data


def _check_events(path: Path, events: Iterable[Any], aliases: bool) -> None:
    """Raises ValueError for what is nested too deeply, and for aliases that are not wanted or stand for too much."""
    import yaml

    begun, sizes, total = list[tuple[str | None, int]](), dict[str, int](), 0  # anchors with the count before them
    for event in events:
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = begun.pop()
            sizes |= {} if anchor is None else {anchor: total - before}
        elif isinstance(event, yaml.AliasEvent):
            if not aliases:
                raise ValueError(f"{path}: damaged: aliases (*{event.anchor[:80]}) are not read")
            if event.anchor not in sizes:
                raise ValueError(f"{path}: damaged: the alias *{event.anchor[:80]} stands for nothing before it")
            total += sizes[event.anchor]
        elif isinstance(event, yaml.CollectionStartEvent):
            begun.append((event.anchor, total))
            total += 1
        elif isinstance(event, yaml.ScalarEvent):
            total += 1
            sizes |= {} if event.anchor is None else {event.anchor: 1}
        if len(begun) > MAX_DEPTH:
            raise ValueError(f"{path}: damaged: nested deeper than {MAX_DEPTH}")
        if total > MAX_YAML_BYTES:
            raise ValueError(f"{path}: damaged: with what its aliases stand for it is too large")


def _place_of(error: Exception) -> str:
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f" (line {mark.line + 1}: {str(problem)[:200]})" if mark is not None and problem else ""


def read_text(path: Path, most: int) -> str:
    """Read a text of at most `most` bytes, wherever it comes from. Raises ValueError naming the file."""
    try:
        return read_bytes(path, most).decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(f"{path}: damaged: it is not UTF-8 text") from None


def read_bytes(path: Path, most: int) -> bytes:
    """Read a file of at most `most` bytes; pipes and devices, which may never end, are none. Raises ValueError."""
    content = _read(path, 0, most + 1)
    if len(content) > most:
        raise ValueError(f"{path}: larger than such a file is ({most:,} bytes)")
    return content


def read_end(path: Path, most: int) -> bytes:
    """Read the last `most` bytes of a file, as `read_bytes`. Raises ValueError."""
    return _read(path, most, most)


def _read(path: Path, before_end: int, most: int) -> bytes:
    """Up to `most` bytes from the beginning, or from so many before the end."""
    try:
        check_ordinary(path)
        with path.open("rb") as handle:
            handle.seek(max(0, path.stat().st_size - before_end) if before_end else 0)
            return handle.read(most)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None


def check_ordinary(path: Path) -> None:
    """Raise ValueError for a pipe or a device, which may never end, and OSError where there is nothing."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder the system's own words follow
        raise ValueError(f"{path}: cannot be read: it is no ordinary file")


def _check_bounded(path: Path, data: Any, any_number: bool = False) -> None:
    """Raises ValueError for what is nested too deeply, numbers beyond 64 bits and what is no plain data."""
    level = [data]
    for _ in range(MAX_DEPTH):
        for value in level:
            if isinstance(value, int) and abs(value) >= 2**63 and not any_number:
                raise ValueError(f"{path}: damaged: a number beyond 64 bits")
            if not (value is None or isinstance(value, (dict, list, str, int, float))):
                raise ValueError(f"{path}: damaged: {type(value).__name__} is no plain data")
        level = [
            one
            for value in level
            if isinstance(value, (dict, list))
            for one in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise ValueError(f"{path}: damaged: nested deeper than {MAX_DEPTH}")


def write_bytes_atomic(path: Path, data: bytes, durable: bool = True) -> None:
    """Write `data` to `path`; a reader sees the old content or the new one. Makes missing folders. Raises OSError.

    Unless it is to be `durable` that holds after a kill, not after a power cut: for many files that can be made again.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(beside, "wb") as file:
            file.write(data)
            if durable:
                file.flush()
                os.fsync(file.fileno())
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    if durable:
        _sync_folder(path.parent)


def write_text_atomic(path: Path, text: str) -> None:
    """Return `write_bytes_atomic` of a text as UTF-8."""
    write_bytes_atomic(path, text.encode())


def write_csv_atomic(path: Path, rows: Iterable[Sequence[Any]]) -> None:
    """Write a CSV file atomically, a line for each row."""
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows(rows)
    write_text_atomic(path, text.getvalue())


def write_json_atomic(path: Path, data: object) -> None:
    """Return `write_bytes_atomic` of a value as indented JSON in the order of its keys."""
    write_text_atomic(path, json.dumps(data, indent=2) + "\n")


def rename_synced(source: Path, target: Path) -> None:
    """Rename a finished, flushed file; the new name survives a power cut."""
    os.replace(source, target)
    _sync_folder(target.parent)


def hold(path: Path) -> bool:
    """Tell whether this process has `path` for itself from now until it ends; True where the file system cannot
    tell."""
    if path.resolve() in _held:
        return True
    handle = open(path, "a")  # noqa: SIM115  # stays open: the lock lives as long
    if not lock(handle):
        handle.close()
        return False
    _held[path.resolve()] = handle
    return True


_held: dict[Path, IO[str]] = {}


def lock(file: IO[Any]) -> bool:
    """Lock an open file for this process alone, until the file is closed or the process ends.

    False while another process has it; True where the system has no locks. Processes that are forked let go of it: one
    that is killed leaves no lock in the hands of its workers.
    """
    try:
        import fcntl
    except ImportError:  # not POSIX
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks there
        return True
    _locked.add(file)
    return True


_locked: weakref.WeakSet[IO[Any]] = weakref.WeakSet()


def _let_go() -> None:
    for file in list(_locked):
        with contextlib.suppress(OSError, ValueError):  # closed
            null = os.open(os.devnull, os.O_RDWR)
            os.dup2(null, file.fileno(), inheritable=False)  # closed, its number would be another file's one day
            os.close(null)
    _locked.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


def first_process() -> bool:
    """Tell whether this process writes for its run: the first of those that torchrun, srun or the run itself
    started."""
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
