"""Write a trained model as a plain Hugging Face directory, for other tools.

`from_pretrained` of model and AutoProcessor opens it without this package where the architecture is one of the
library's; a composed model needs this package, a nano model with learned positions one module of it. Adapters are
merged into the weights, or with merge=false written as PEFT reads them. Tokenizer, chat template and picture
processor lie beside; README.md says how to open it and how it did, provenance.json which run it comes from.

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
    from vlmreason.files import write_json_atomic, write_text_atomic
    from vlmreason.models.nano.placed import is_placed
    from vlmreason.models.vlm.plain import packages, write_processor
    from vlmreason.report.card import Use, model_card
    from vlmreason.runs import checkpoint_digest, find_checkpoint

    own = build.settings(Settings, cfg)
    run_folder, out = Path(own.run), Path(own.out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"out={out}: is there and not empty; choose another folder")
    trained = build.read_run(run_folder)
    weights = run_folder / "checkpoints" / (own.phase or "final")
    noted = (run_folder / name for name in ("config.yaml", "provenance.json", "metrics.jsonl"))
    for path in (*noted, weights, *weights.rglob("*")):
        _check_inside(path, run_folder)
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
    processor = build.build_processor(trained, checkpoint)
    use: Use = "package"
    if processor is not None and write_processor(processor, beside):
        use = "adapter" if not own.merge else "placed" if is_placed(beside) else "plain"
    needed = packages(beside) if use == "plain" else ()
    summary = _read(run_folder / "summary.json") if own.phase is None else None
    name, phase = run_folder.resolve().name, own.phase or "final"
    loss = _write_loss(run_folder, beside)
    write_text_atomic(beside / "README.md", model_card(name, phase, trained, use, summary, needed, loss))
    write_json_atomic(
        beside / "provenance.json",
        {
            "run": name,
            "phase": phase,
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


def _write_loss(run: Path, folder: Path) -> str:
    """Draw the loss of a run; returns the name of the file, "" where the run has noted none."""
    from vlmreason.files import read_jsonl, write_bytes_atomic
    from vlmreason.report.figures.loss import loss_curve

    path = run / "metrics.jsonl"
    picture = loss_curve(line.data for line in read_jsonl(path)) if path.is_file() else None
    if picture is None:
        return ""
    write_bytes_atomic(folder / "loss.svg", picture)
    return "loss.svg"


def _check_inside(path: Path, run: Path) -> None:
    """Raises ValueError for what does not belong to the run: a run from elsewhere must not fetch files of this machine
    into what is given away."""
    if not path.resolve().is_relative_to(run.resolve()):
        raise ValueError(f"{path}: leads out of the run, to {path.resolve()}; put the file itself there")
    if path.exists() and not (path.is_file() or path.is_dir()):
        raise ValueError(f"{path}: neither a file nor a folder")


def _read(path: Path) -> Any:
    """What the run noted about itself; None where it noted nothing. Raises ValueError."""
    from vlmreason.files import read_json

    return read_json(path) if path.exists() else None
