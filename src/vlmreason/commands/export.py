"""Write a trained model as a plain Hugging Face directory, for other tools.

`from_pretrained` opens it without this package where the architecture is one of the library's; a composed model
needs this package. Adapters are merged into the weights, or with merge=false written as PEFT reads them. Tokenizer,
chat template and picture processor lie beside; provenance.json says which run it comes from.

Examples:
  vlmreason export run=outputs/RUN out=exported
  vlmreason export run=outputs/RUN out=adapter phase=align merge=false
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "export"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/export.yaml."""

    run: str
    out: str
    phase: str | None
    merge: bool


def run(cfg: dict[str, Any]) -> Path:
    """Write the directory, whole or not at all, and return it."""
    import os
    import shutil

    from vlmreason.assembly import build
    from vlmreason.files import write_json_atomic
    from vlmreason.runs import checkpoint_digest, find_checkpoint

    own = build.settings(Settings, cfg)
    run_folder, out = Path(own.run), Path(own.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out={out}: is there and not empty; choose another folder")
    trained = build.read_run(run_folder)
    checkpoint = find_checkpoint(run_folder, own.phase)
    adapted = build.build_adapter(trained).name != "none"
    if not own.merge and not adapted:
        raise ValueError(f"merge=false: {run_folder} was trained without an adapter, so there is none to write apart")
    beside = out.with_name(f".{out.name}.tmp")
    shutil.rmtree(beside, ignore_errors=True)
    if adapted and own.merge:
        learner = build.build_learner(trained, checkpoint)
        learner.merge()
        learner.save(beside)
    else:
        shutil.copytree(checkpoint, beside)
    write_json_atomic(
        beside / "provenance.json",
        {
            "run": run_folder.resolve().name,
            "phase": own.phase or "final",
            "checkpoint": checkpoint_digest(checkpoint),
            "adapter": "merged" if adapted and own.merge else "apart" if adapted else "none",
            "config": trained,
            "provenance": _read(run_folder / "provenance.json"),
        },
    )
    if out.is_dir():
        out.rmdir()
    os.replace(beside, out)
    return out


def _read(path: Path) -> Any:
    """What the run noted about itself; None where it noted nothing. Raises ValueError."""
    import json

    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError:
        raise ValueError(f"{path}: damaged, not JSON") from None
