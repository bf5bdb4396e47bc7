"""Where a result comes from: source commit and changes, versions, seeds, machine.

Everything is best effort and quick; what cannot be found is None. Nothing heavy is imported for it.
"""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import os
import platform
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import vlmreason
from vlmreason.files import read_object, write_json_atomic

PACKAGES = (
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "peft",
    "lightning",
    "hydra-core",
    "omegaconf",
    "numpy",
    "pillow",
    "matplotlib",
)
SOURCE_RECORD = "vlmreason-source.json"  # beside a frozen copy of the package: what `source` was when it was made
MAX_DIFF_CHARS = 1_000_000  # a longer diff is cut; `diff_cut` says so


def write_provenance(folder: Path, seeds: Mapping[str, int], config_hash: str) -> Path:
    """Write `folder/provenance.json` atomically and return its path."""
    path = folder / "provenance.json"
    write_json_atomic(path, collect(seeds, config_hash))
    return path


def collect(seeds: Mapping[str, int], config_hash: str) -> dict[str, Any]:
    """Return the record as plain JSON types."""
    return {
        "config_hash": config_hash,
        "command": sys.argv,
        "time": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seeds": dict(seeds),
        "source": source(),
        "versions": versions(),
        "hardware": hardware(),
    }


def source() -> dict[str, Any]:
    """Return commit, uncommitted changes and names of untracked files of the checkout that the package runs from.

    What was recorded where it runs from a frozen copy; all None when it runs from an installed one.
    """
    here = Path(vlmreason.__file__).resolve()
    record = here.parents[1] / SOURCE_RECORD
    if record.is_file():
        return read_object(record)
    if _git(here.parent, "ls-files", "--error-unmatch", here.name) is None:
        return {"commit": None, "dirty": None, "diff": None, "diff_cut": None, "untracked": None}
    top = Path((_git(here.parent, "rev-parse", "--show-toplevel") or str(here.parent)).strip())
    diff = _git(top, "diff", "HEAD") or ""
    untracked = (_git(top, "ls-files", "--others", "--exclude-standard") or "").splitlines()
    return {
        "commit": (_git(top, "rev-parse", "HEAD") or "").strip() or None,
        "dirty": bool(diff or untracked),
        "diff": diff[:MAX_DIFF_CHARS],
        "diff_cut": len(diff) > MAX_DIFF_CHARS,
        "untracked": untracked,
    }


def code_digest(apart: Collection[str] = ()) -> str:
    """Return 12 hexadecimal digits of all files of the package's rooms but those named."""
    found, package = hashlib.blake2b(digest_size=6), Path(vlmreason.__file__).resolve().parent
    rooms = [path for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    for room in sorted(room for room in rooms if room.stem not in apart):
        for path in sorted(room.rglob("*")) if room.is_dir() else [room]:
            if path.is_file() and path.suffix != ".pyc":
                found.update(path.relative_to(package).as_posix().encode() + b"\0" + path.read_bytes())
    return found.hexdigest()


def versions() -> dict[str, str | None]:
    """Return versions of Python, this package and the packages that can change a result; None when absent."""
    found: dict[str, str | None] = {"python": platform.python_version(), "vlmreason": vlmreason.__version__}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = None
    return found


def hardware() -> dict[str, Any]:
    """Return processor, cores this process may use, memory (GiB), GPUs by name."""
    return {
        "cpu": _cpu_name(),
        "cores": num_cores(),
        "memory_gib": _memory_gib(),
        "gpus": _gpus(),
        "system": platform.platform(),
    }


def num_cores() -> int:
    """Return processor cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _cpu_name() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (ValueError, OSError, AttributeError):
        return None


def _gpus() -> list[str]:
    listing = _output("nvidia-smi", "--query-gpu=name", "--format=csv,noheader")
    return [line.strip() for line in (listing or "").splitlines() if line.strip()]


def _git(folder: Path, *arguments: str) -> str | None:
    return _output("git", "-C", str(folder), *arguments)


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, timeout=20, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")
