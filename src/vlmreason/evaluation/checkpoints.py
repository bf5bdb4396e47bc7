"""Which weights of a run are evaluated, and what tells them from others."""

from __future__ import annotations

import hashlib
from pathlib import Path

from safetensors import SafetensorError, safe_open

from vlmreason.structure import nearest


def find_checkpoint(run: Path, phase: str | None = None) -> Path:
    """The model directory of a run after a phase (None: after the last).

    Raises ValueError naming the phases that there are, or the weights file that is damaged.
    """
    if not run.is_dir():
        raise ValueError(f"run={run}: there is no such directory")
    checkpoints = run / "checkpoints"
    found = [
        path.name
        for path in sorted(checkpoints.glob("[!.]*"))
        if any(path.glob("*.safetensors")) or (path / "api.json").is_file()  # a model behind an endpoint has no weights
    ]
    wanted = phase or "final"
    if wanted in found:
        for weights in (checkpoints / wanted).glob("*.safetensors"):
            _check_weights(weights)
        return checkpoints / wanted
    if phase is not None:
        phases = [name for name in found if name != "final"]
        raise ValueError(f"phase={phase}: {checkpoints} has {', '.join(phases) or 'none'}{nearest(phase, phases)}")
    if found:
        raise ValueError(f"run={run}: not finished; finish it, or choose phase={found[-1]}")
    raise ValueError(f"run={run}: there is no finished phase in it")


def checkpoint_digest(directory: Path) -> str:
    """A digest of the files that decide what a model answers: weights, settings, tokenizer."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(directory.glob("*")):
        if path.suffix in (".safetensors", ".json", ".jinja", ".model", ".txt") and path.is_file():
            digest.update(path.name.encode() + b"\0")
            with path.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "blake2b").digest())
    return digest.hexdigest()


def _check_weights(path: Path) -> None:
    """Raises ValueError where a file is cut off or no safetensors file; reads its header only."""
    try:
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: the weights are damaged ({error})") from None
