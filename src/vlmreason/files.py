"""Files that are either whole or absent: written beside, flushed to the disk, then renamed into place."""

from __future__ import annotations

import dataclasses
import json
import os
import stat
from collections.abc import Iterator
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
        _check_regular(path)
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


def read_json(path: Path) -> Any:
    """Read a JSON file, wherever it comes from. Raises ValueError naming the file."""
    content = read_bytes(path, MAX_JSON_BYTES)
    try:
        data = json.loads(content)
    except (ValueError, RecursionError):
        raise ValueError(f"{path}: the file is damaged: it is not JSON") from None
    _check_bounded(path, data)
    return data


def read_plain_yaml(path: Path) -> Any:
    """Read a YAML file of plain data without aliases, wherever it comes from. Raises ValueError naming the file."""
    import yaml

    content, loader = read_bytes(path, MAX_YAML_BYTES), getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    depth = 0
    try:
        for event in yaml.parse(content, loader):
            if isinstance(event, yaml.AliasEvent):
                raise ValueError(f"{path}: damaged: aliases (*{event.anchor}) are not read")
            depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
            if depth > MAX_DEPTH:
                raise ValueError(f"{path}: damaged: nested deeper than {MAX_DEPTH}")
    except (yaml.YAMLError, UnicodeDecodeError):
        raise ValueError(f"{path}: damaged: it is not YAML") from None
    try:
        data = yaml.load(content, loader)
    except (yaml.YAMLError, ValueError):  # a number or a date that is none
        raise ValueError(f"{path}: damaged: it holds what is no plain data") from None
    _check_bounded(path, data)
    return data


def read_bytes(path: Path, most: int) -> bytes:
    """Read a file of at most `most` bytes; pipes and devices, which may never end, are none. Raises ValueError."""
    try:
        _check_regular(path)
        with path.open("rb") as handle:
            content = handle.read(most + 1)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    if len(content) > most:
        raise ValueError(f"{path}: larger than such a file is ({most:,} bytes)")
    return content


def _check_regular(path: Path) -> None:
    """Raises ValueError for a pipe or a device, OSError where there is nothing."""
    mode = path.stat().st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):  # of a folder the system's own words follow
        raise ValueError(f"{path}: cannot be read: it is no ordinary file")


def _check_bounded(path: Path, data: Any) -> None:
    """Raises ValueError for what is nested too deeply, numbers beyond 64 bits and what is no plain data."""
    level = [data]
    for _ in range(MAX_DEPTH):
        for value in level:
            if isinstance(value, int) and abs(value) >= 2**63:
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
    """Return `write_bytes_atomic` of a text as UTF-8."""
    write_bytes_atomic(path, text.encode())


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
