"""Drawn pictures kept by their content: an artifact that shows what it showed is not drawn again.

A file of the cache is named by a digest of all that decides a picture (numbers, styles, records whose pixels are shown,
format, the code that draws, the versions of what it draws with) and begins with a digest of its own bytes. What is
damaged, absent or cannot be written is drawn as if there were no cache. It lies in `VLMREASON_CACHE`, or in the user's
folder for caches; `VLMREASON_CACHE=` (empty) does without.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmreason import places
from vlmreason.files import write_bytes_atomic
from vlmreason.studies.records import Record
from vlmreason.studies.results import Result

MAX_BYTES = 64 * 2**20  # of the cache; the oldest files go first
CODE = ("report", "studies", "tasks", "envs", "pictures.py", "intervals.py", "streams.py")
LIBRARIES = ("matplotlib", "numpy", "pillow", "scipy", "fonttools", "contourpy")
DIGEST = 16  # bytes


def draw(
    result: Result,
    styles: Mapping[str, tuple[str, str]],
    records: Sequence[Record],
    path: Path,
    formats: Sequence[str],
    load_task: Any = None,
) -> list[Path]:
    """Draw as `draw.draw` does, with pictures of the cache where they are there. Raises ValueError."""
    folder = cache_folder()
    keys = {form: _key(result, styles, records, form) for form in formats} if folder else {}
    found = {form: _read(folder / f"{key}.{form}") for form, key in keys.items()} if folder else {}
    missing = [form for form in formats if found.get(form) is None]
    if missing:
        from vlmreason.report.figures import draw as drawing

        drawn = drawing.pictures(result, styles, records, missing, load_task)
        found |= drawn
        if folder:
            _keep(folder, {f"{keys[form]}.{form}": data for form, data in drawn.items()})
    files = []
    for form in formats:
        files.append(path.with_name(f"{path.name}.{form}"))
        write_bytes_atomic(files[-1], found[form] or b"")
    return files


def cache_folder() -> Path | None:
    """Find the folder of the cache; None where there is to be none."""
    named = os.environ.get("VLMREASON_CACHE")
    if named is not None:
        return Path(named) / "figures" if named else None
    base = os.environ.get("XDG_CACHE_HOME")
    try:
        return (Path(base) if base else Path.home() / ".cache") / "vlmreason" / "figures"
    except RuntimeError:  # no home
        return None


def _key(result: Result, styles: Mapping[str, tuple[str, str]], records: Sequence[Record], form: str) -> str:
    shown: list[Any] = [_code(), form, sorted(styles.items()), result]
    if result.experiment.chart.of_records:
        used = {run for cell in result.cells for run in cell.runs}
        shown += [record.data for record in records if record.run in used]
    return hashlib.blake2b(repr(shown).encode(), digest_size=DIGEST).hexdigest()


@functools.cache
def _code() -> str:
    """A digest of the code that draws and of the versions of what it draws with."""
    digest = hashlib.blake2b(digest_size=DIGEST)
    for name in CODE:
        top = places.HERE / name
        for path in sorted(top.rglob("*.py")) if top.is_dir() else [top]:
            digest.update(f"{path.relative_to(places.HERE).as_posix()}\0".encode())
            digest.update(path.read_bytes())
    for library in LIBRARIES:
        digest.update(f"{library} {importlib.metadata.version(library)}\0".encode())
    return digest.hexdigest()


def _read(path: Path) -> bytes | None:
    try:
        data = path.read_bytes()
        os.utime(path)
    except OSError:
        return None
    whole = data[:DIGEST] == _digest(data[DIGEST:])
    return data[DIGEST:] if whole else None


def _keep(folder: Path, files: Mapping[str, bytes]) -> None:
    """Add files and remove the oldest beyond MAX_BYTES; a folder that cannot be written stays as it is."""
    try:
        for name, data in files.items():
            write_bytes_atomic(folder / name, _digest(data) + data)
        there = sorted(((path.stat(), path) for path in folder.iterdir()), key=lambda one: one[0].st_mtime_ns)
        total = sum(stat.st_size for stat, _ in there)
        for stat, path in there:
            if total <= MAX_BYTES:
                break
            path.unlink(missing_ok=True)
            total -= stat.st_size
    except OSError:
        return


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=DIGEST).digest()
