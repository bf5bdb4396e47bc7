"""Records: what is kept of a run once its figures are drawn, small enough to be committed.

A record is one JSON file: the resolved configuration, where the run comes from, what it cost, its scores problem by
problem, its evaluations while training, its analyses and a few of its responses. Everything a table or figure shows is
read from records, so that they are drawn without checkpoints, predictions or a model. `condense` makes one of a run
directory.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from vlmreason.evaluation.groups import part_means
from vlmreason.evaluation.predictions import Prediction
from vlmreason.evaluation.problems import SampledProblems
from vlmreason.evaluation.scores import Verdict, judge, judged_cell
from vlmreason.files import read_json, read_jsonl, write_text_atomic
from vlmreason.runs import upgraded
from vlmreason.structure import structure
from vlmreason.tasks.base import MAX_RESPONSE_CHARS, Task

FORMAT = 1
NUM_EXAMPLES = 2  # right and wrong responses that are kept, per level and view, at most
MAX_BYTES = 4 * 2**20  # of a record that is read

DAMAGES = (LookupError, TypeError, AttributeError, ArithmeticError, RecursionError, SafetensorError)
"""What data of another form than ours leads to."""

RIGHT, WRONG, NONE = "1", "0", "-"


@dataclass(frozen=True)
class EvaluationCell:
    """Scores of one level in one view.

    row: the cell of summary.json. right: one character per problem, in the order of their index: 1 correct, 0 not.
    converted: the same for the conversion: 1 exact, 0 not exact, - none. examples: some responses with their index.
    groups: for every kind of group of the task's the value of each problem, in the same order. parts: by kind and value
    of a group, of each part of the task's score its mean and the number of problems behind it.
    """

    level: str
    view: str
    row: Mapping[str, Any]
    right: str
    converted: str
    examples: tuple[Mapping[str, Any], ...]
    groups: Mapping[str, Sequence[str | None]] = field(default_factory=dict)
    parts: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]] = field(default_factory=dict)


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a run; `own`: that of training, else one by `vlmreason evaluate`."""

    own: bool
    task: str
    task_version: int
    conversion: str
    split: str
    phase: str
    identity: Mapping[str, Any]
    cells: tuple[EvaluationCell, ...]
    how: str = "generate"
    length: str = "free"
    condition: str = "free"

    @property
    def asked(self) -> str:
        """Say how responses came about, in words."""
        further = ", length given" if self.length == "given" else ""
        further += f", condition {self.condition}" if self.condition != "free" else ""
        return "chosen" if self.how == "choose" else f"conversion {self.conversion}{further}"

    def cell(self, level: str | None, view: str | None) -> EvaluationCell | None:
        return next((c for c in self.cells if level in (None, c.level) and view in (None, c.view)), None)


class Record:
    """A record as it was read. `path`: its file, or the run directory that it was made of."""

    def __init__(self, data: Mapping[str, Any], path: Path) -> None:
        """Raises ValueError where it is damaged or of another format."""
        self.data, self.path = data, path
        if data.get("format", FORMAT) != FORMAT:
            raise ValueError(f"{path}: a record of format {data['format']}; this version reads {FORMAT}")
        try:
            _ = data["format"]
            self.run = structure(str, data["run"], "run")
            self.config: Mapping[str, Any] = upgraded(data["config"])
            self.provenance: Mapping[str, Any] = data["provenance"]
            self.cost: Mapping[str, Any] = data["cost"]
            self.analyses: Mapping[str, Any] = data["analyses"]
            self.steps: Mapping[str, int] = data["steps"]
            self.training: Mapping[str, Any] = data.get("training", {})
            for cell in (cell for one in self.evaluations for cell in one.cells):
                _check_cell(cell)
            for analysis in self.analyses.values():
                _check_mappings(analysis["results"])
            _ = self.evaluations, self.commit, self.fullness, self.provenance["time"], self.provenance["hardware"]
            _ = self.config["task"]["name"], self.config["supervision"]["name"], int(self.config.get("seed", 0))
            _ = float(self.cost.get("seconds") or 0), self.steps.items(), self.training.items()
        except (ValueError, *DAMAGES) as error:
            raise ValueError(f"{path}: damaged record ({error})") from None

    @cached_property
    def evaluations(self) -> tuple[Evaluation, ...]:
        return tuple(
            Evaluation(**{**e, "cells": tuple(EvaluationCell(**cell) for cell in e["cells"])})
            for e in self.data["evaluations"]
        )

    @property
    def has_pixels(self) -> bool:
        """Tell whether top pixels are listed, which records are without where their study does not draw them."""
        return any("examples" in group for group in self.analyses.get("attribution", {"results": []})["results"])

    @property
    def fullness(self) -> int:
        """Say how much it holds of its run: records of one run, as of two studies, may differ in that."""
        return len(self.evaluations) + len(self.analyses) + self.has_pixels

    @property
    def commit(self) -> str:
        """Return version of the code that trained the run, as `abcdef012345` or, with changes, `abcdef012345+`."""
        source = self.provenance["source"]
        return str(source["commit"])[:12] + ("+" if source["dirty"] else "")

    def evaluation(
        self,
        task: str | None,
        conversion: str,
        how: str = "auto",
        length: str = "auto",
        condition: str = "auto",
    ) -> Evaluation | None:
        """Return the final model's evaluation on a task (None: its own), with a conversion, asked so, with thoughts
        of such a length and with such a line on the kind before them (auto: the run's own).

        Of responses that came about otherwise than the run's own (written, chosen), any conversion is as good. Of
        several the run's own comes first, then the one with the most problems.
        """
        wanted = task or self.config["task"]["name"]
        owns = ((e.conversion, e.how, e.length, e.condition) for e in self.evaluations if e.own)
        own = next(owns, ("free", "generate", "free", "free"))
        asked = tuple(
            mine if one == "auto" else one for one, mine in zip((how, length, condition), own[1:], strict=True)
        )
        fitting = [
            e
            for e in self.evaluations
            if (e.task, e.phase) == (wanted, "final")
            and (e.how, e.length, e.condition) == asked
            and (
                e.conversion == (own[0] if conversion == "auto" else conversion)
                or (conversion == "auto" and asked[0] != own[1])
            )
        ]
        return max(fitting, key=lambda e: (e.own, sum(len(cell.right) for cell in e.cells)), default=None)

    def write(self, path: Path) -> None:
        text = json.dumps(self.data, sort_keys=True, separators=(",", ":"), allow_nan=False)
        write_text_atomic(path, text + "\n")


def _check_cell(cell: EvaluationCell) -> None:
    """Raise TypeError where marks are no text, or what else a cell holds is of another form."""
    if not all(isinstance(text, str) for text in (cell.level, cell.view, cell.right, cell.converted)):
        raise TypeError("level, view, right and converted: texts are expected")
    _check_mappings([cell.row, cell.groups, cell.parts, *cell.examples])


def _check_mappings(values: Any) -> None:
    if not isinstance(values, list) or not all(isinstance(value, Mapping) for value in values):
        raise TypeError("a list of mappings is expected")


def read_record(path: Path) -> Record:
    """Raise ValueError."""
    if path.stat().st_size > MAX_BYTES:
        raise ValueError(f"{path}: larger than a record is ({MAX_BYTES // 2**20} MiB)")
    data = read_json(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: damaged record")
    return Record(data, path)


def read_records(folder: Path) -> tuple[list[Record], list[str]]:
    """Return all records below a folder, and what is wrong with those that are damaged."""
    found, faults = [], []
    for path in sorted(folder.rglob("*.json")):
        try:
            found.append(read_record(path))
        except (ValueError, OSError) as error:
            faults.append(str(error))
    return found, faults


def condense(run_dir: Path, config: Mapping[str, Any], load_task: Callable[[Mapping[str, Any]], Task[Any]]) -> Record:
    """Return the record of a finished run. `load_task`: the task of an evaluation.json. Raises ValueError."""
    try:
        return Record(json.loads(json.dumps(_data(run_dir, config, load_task))), run_dir)
    except DAMAGES as error:
        raise ValueError(f"{run_dir}: damaged run ({type(error).__name__}: {error})") from error


def _data(
    run_dir: Path, config: Mapping[str, Any], load_task: Callable[[Mapping[str, Any]], Task[Any]]
) -> dict[str, Any]:
    provenance = read_json(run_dir / "provenance.json")
    keys = ("config_hash", "time", "seeds", "versions", "hardware", "model", "base")
    source = {key: provenance["source"][key] for key in ("commit", "dirty")}
    throughput, own = run_dir / "throughput.json", run_dir / "evaluation.json"
    final = read_json(own)["checkpoint"] if own.exists() else None
    others = sorted(path.parent for path in run_dir.glob("evaluations/*/evaluation.json"))
    training = _training(run_dir, config)
    return {
        "format": FORMAT,
        "run": run_dir.name,
        "config": config,
        "provenance": {key: provenance[key] for key in keys if key in provenance} | {"source": source},
        "cost": read_json(throughput) if throughput.exists() else {},
        "steps": _steps(run_dir),
        "evaluations": [
            _evaluation(folder, folder == run_dir, final, load_task)
            for folder in ([run_dir, *others] if own.exists() else others)
        ],
        "analyses": {path.stem: _analysis(path) for path in sorted((run_dir / "analysis").glob("*.json"))},
    } | ({"training": training} if training else {})


def fingerprint(run_dir: Path) -> str:
    """Return what changes whenever a file that a record is made of does."""
    patterns = ("provenance.json", "metrics.jsonl", "summary.json", "evaluations/*/summary.json", "analysis/*.json")
    paths = sorted(itertools.chain.from_iterable(run_dir.glob(pattern) for pattern in patterns))
    stats = [(path.relative_to(run_dir).as_posix(), path.stat().st_size, path.stat().st_mtime_ns) for path in paths]
    return hashlib.blake2b(repr((FORMAT, stats)).encode(), digest_size=8).hexdigest()


def _steps(run_dir: Path) -> dict[str, int]:
    """Optimizer steps of each phase."""
    steps: dict[str, int] = {}
    for line in read_jsonl(run_dir / "metrics.jsonl"):
        steps[str(line.data["phase"])] = int(line.data["step"])
    return steps


def _training(run_dir: Path, config: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluations while training, a column per figure, null where a line has it not; empty where there were none.

    num: problems of each level and view. parameters: of the model, None where its whole weights are not there.
    """
    lines = [line.data for line in read_jsonl(run_dir / "metrics.jsonl")]
    lines = [line for line in lines if any(name.startswith("accuracy/") for name in line)]
    if not lines:
        return {}
    names = dict.fromkeys(name for line in lines for name in line)
    return {
        "num": config["trainer"]["evaluate_num"],
        "parameters": _num_parameters(run_dir / "checkpoints" / "final"),
        "columns": {name: [_short(line.get(name)) for line in lines] for name in names},
    }


def _short(value: Any) -> Any:
    """A number in 6 digits."""
    if not isinstance(value, float):
        return value
    return int(value) if value.is_integer() else float(f"{value:.6g}")


def _num_parameters(checkpoint: Path) -> int | None:
    """Of a whole model, by the headers of its weights; None where there is none (adapters alone)."""
    num = 0
    for path in checkpoint.glob("model*.safetensors"):
        with safe_open(path, "np") as weights:
            num += sum(math.prod(weights.get_slice(name).get_shape()) for name in weights.keys())  # noqa: SIM118
    return num or None


def _evaluation(
    folder: Path, own: bool, final: str | None, load_task: Callable[[Mapping[str, Any]], Task[Any]]
) -> dict[str, Any]:
    identity, summary = read_json(folder / "evaluation.json"), read_json(folder / "summary.json")
    task = load_task(identity)
    return {
        "own": own,
        "task": identity["task"],
        "task_version": identity["task_version"],
        "conversion": identity["conversion"],
        "split": identity["split"],
        "phase": "final" if identity["checkpoint"] == final else "other",
        "identity": identity,
        "cells": [_cell(folder, task, str(identity["split"]), row) for row in summary["cells"]],
    } | {key: identity[key] for key in ("how", "length", "condition") if key in identity}


def _cell(folder: Path, task: Task[Any], split: str, row: Mapping[str, Any]) -> dict[str, Any]:
    level, view = str(row["level"]), str(row["view"])
    problems = SampledProblems(task, (level,), split, int(row["num"]))
    judged = {p.id: (p, verdict) for p, verdict in judged_cell(folder, task, level, view, split) if p.id in problems}
    right, converted = "", ""
    groups: dict[str, list[str | None]] = {}
    verdicts: list[Verdict] = []
    examples: dict[str, list[dict[str, Any]]] = {RIGHT: [], WRONG: []}
    for index, id in enumerate(problems):
        prediction, verdict = judged[id] if id in judged else (None, judge(task, problems[id].state, None))
        response, exact = _readable(prediction), verdict.conversion_exact
        mark = RIGHT if verdict.correct else WRONG
        right += mark
        verdicts.append(verdict)
        converted += NONE if exact is None else RIGHT if exact else WRONG
        for kind, value in verdict.groups.items():
            groups.setdefault(kind, [None] * len(problems))[index] = value
        if response and len(examples[mark]) < NUM_EXAMPLES:
            examples[mark].append({"index": index, "right": mark == RIGHT, "response": response[:2000]})
    if right.count(RIGHT) != row["correct"]:
        raise ValueError(f"{folder}: summary.json does not belong to the predictions of {level} {view}; evaluate again")
    means = part_means([verdict.groups for verdict in verdicts], [verdict.parts for verdict in verdicts])
    return {
        "level": level, "view": view, "row": row, "right": right, "converted": converted,
        "examples": [*examples[RIGHT], *examples[WRONG]],
    } | ({"groups": groups} if groups else {}) | ({"parts": means} if means else {})  # fmt: skip


def _readable(prediction: Prediction | None) -> str:
    response = prediction.response if prediction else None
    return response if response is not None and len(response) <= MAX_RESPONSE_CHARS else ""


def _analysis(path: Path) -> dict[str, Any]:
    data = read_json(path)
    return {key: data[key] for key in ("settings", "results", "source", "time", "hardware") if key in data}


def each_run(folder: Path) -> Iterator[Path]:
    """Run directories below a folder that have been evaluated."""
    for path in sorted(folder.glob("*/config.yaml")):
        if (path.parent / "summary.json").exists() and (path.parent / "provenance.json").exists():
            yield path.parent
