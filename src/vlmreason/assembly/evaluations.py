"""An evaluation that is there, of a run or in a record: what was asked, its task as it was then, what was right."""

from __future__ import annotations

import operator
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vlmreason.assembly import build
from vlmreason.dialogue.build import build_dialogue
from vlmreason.evaluation.paired import Marks, Place, letter
from vlmreason.evaluation.scores import judged_cell
from vlmreason.evaluation.shown import cells
from vlmreason.files import read_json
from vlmreason.pictures import png_bytes
from vlmreason.report.pages.examples import Example, answer
from vlmreason.structure import nearest
from vlmreason.studies.records import DAMAGES, RIGHT, Record, read_record
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


def open_marks(place: str) -> tuple[Evaluated, Marks]:
    """Read what was right in an evaluation: of a run's directory its own, of a folder in its `evaluations/` that one,
    of a record's file that which it keeps of the run's own. Raises ValueError."""
    path = Path(place)
    try:
        return _of_record(read_record(path)) if path.suffix == ".json" and path.is_file() else _of_run(path)
    except DAMAGES as error:
        raise ValueError(f"{path}: damaged ({type(error).__name__}: {error})") from None


def _of_run(path: Path) -> tuple[Evaluated, Marks]:
    further = path.parent.name == "evaluations" and not (path / "config.yaml").exists()
    found = open_evaluation(path.parents[1], path.name) if further else open_evaluation(path)
    right: dict[Place, dict[int, bool]] = {}
    responses: dict[Place, dict[int, str]] = {}
    for at in cells(found.folder, found.task):
        for prediction, verdict in judged_cell(found.folder, found.task, *at, found.split):
            index = int(prediction.id.rpartition("-")[2])
            right.setdefault(at, {})[index] = verdict.correct
            responses.setdefault(at, {})[index] = prediction.response or ""
    name = f"{found.run}/{found.folder.name}" if further else found.run
    return found, Marks(name, _problems(found.record), right, responses)


def side_by_side(opened: Sequence[tuple[Evaluated, Marks]], place: Place, index: int) -> Example:
    """Put what several runs answered to a problem beside each other, and the problem, as the first was asked it."""
    (level, view), first = place, opened[0][0]
    answers = [
        answer(
            marks.run, f"{letter(number)}: {marks.run}", view, marks.right[place][index], found.task,
            found.task.sample(level, found.split, index), marks.responses[place][index],
        )
        for number, (found, marks) in enumerate(opened)
    ]  # fmt: skip
    problem = first.task.sample(level, first.split, index)
    dialogue, picture = build_dialogue(first.task, problem, view), first.task.draw(problem.state)
    size = (picture.shape[1], picture.shape[0])
    return Example(
        first.task.name, level, problem.id, png_bytes(picture), size, {view: dialogue.prompt},
        {view: dialogue.response}, tuple(answers),
    )  # fmt: skip


def _of_record(record: Record) -> tuple[Evaluated, Marks]:
    own = record.evaluation(None, "auto")
    if own is None:
        raise ValueError(f"{record.path}: holds no evaluation of the run's own")
    task = build.evaluated_task(own.identity, record.path, record.config)
    found = Evaluated(record.run, record.path, own.identity, task)
    right, responses = dict[Place, dict[int, bool]](), dict[Place, dict[int, str]]()
    for cell in own.cells:
        right[cell.level, cell.view] = {index: mark == RIGHT for index, mark in enumerate(cell.right)}
        responses[cell.level, cell.view] = {operator.index(one["index"]): str(one["response"]) for one in cell.examples}
    return found, Marks(record.run, _problems(own.identity), right, responses)


def _problems(record: Mapping[str, Any]) -> dict[str, Any]:
    """What decides the problem of an index; not how it is put into words, nor who answers it."""
    config = {key: value for key, value in record["task_config"].items() if key not in ("trace", "wording")}
    return {key: record[key] for key in ("task", "task_version", "split")} | config


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
