"""An evaluation of a run that is there: its folder, what was asked, the task as it was evaluated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmreason.assembly import build
from vlmreason.files import read_json
from vlmreason.structure import nearest
from vlmreason.tasks.base import Task


@dataclass(frozen=True)
class Evaluated:
    """run: the name of its directory. record: the content of evaluation.json."""

    run: str
    folder: Path
    record: Mapping[str, Any]
    task: Task[Any]

    @property
    def split(self) -> str:
        return str(self.record["split"])


def open_evaluation(run: Path, name: str | None = None, trained: Mapping[str, Any] | None = None) -> Evaluated:
    """Find an evaluation of a run: its own, or one by its name in `evaluations/` or its path.

    `trained`: the run's configuration, where it was read already. Raises ValueError, too where there is no response.
    """
    trained = trained or build.read_run(run)
    folder = _folder(run, name)
    record = _read_record(folder)
    task = build.evaluated_task(record, folder, trained)
    if not any(path.stat().st_size for path in (folder / "predictions").glob("*.jsonl")):
        raise ValueError(f"{folder}: there are no predictions; `vlmreason evaluate` makes them")
    return Evaluated(run.resolve().name, folder, record, task)


def _folder(run: Path, name: str | None) -> Path:
    there = sorted(path.parent.name for path in run.glob("evaluations/*/evaluation.json"))
    if name is None:
        if (run / "evaluation.json").exists():
            return run
        hint = f"; choose one of folder={', '.join(there)}" if there else "; `vlmreason evaluate` makes them"
        raise ValueError(f"{run}: there are no predictions of the run's own{hint}")
    for folder in (run / "evaluations" / name, Path(name)):
        if (folder / "evaluation.json").exists():
            return folder
    raise ValueError(
        f"folder={name}: not there; {run} has {', '.join(there) or 'none but its own'}{nearest(name, there)}"
    )


def _read_record(folder: Path) -> dict[str, Any]:
    """What says which problems the predictions of a folder answer. Raises ValueError."""
    path = folder / "evaluation.json"
    record = read_json(path)
    if not isinstance(record, dict) or not {"task", "task_version", "task_config", "split"} <= record.keys():
        raise ValueError(f"{path}: the file is damaged: it does not say which task was evaluated")
    return record
