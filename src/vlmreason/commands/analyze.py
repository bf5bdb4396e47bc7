"""Look into a run: what its responses get wrong, how likely they are, its gradients, the pixels its traces come from.

  what=failures     (appendix K) faults of the responses of an evaluation, step by step; needs no model
  what=gradients    (section 5, appendix H) gradient alignment, cosine, Adam update alignment and norms between simple
                    and hard problems, losses on conversion and solution; for every checkpoint of the run
  what=attribution  (appendix J) gradient times input on the pixels, and its share on the path or the panels
  what=likelihood   (Zhai's dissertation, table 4.1) log-probabilities of the thoughts and of the actions of responses
                    that the model draws, over whole episodes of its environment or on problems of its task

Prints a table and writes <run>/analysis/<what>.json. A result of the same settings, code and weights is shown again,
one of others is replaced; either is said.

Examples:
  vlmreason analyze run=outputs/RUN what=failures
  vlmreason analyze run=outputs/RUN what=gradients num=64 train=[language_model]
  vlmreason analyze run=outputs/RUN what=attribution levels=[hard] out=hard.json
  vlmreason analyze run=outputs/RUN what=likelihood num=200 temperature=0.5
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CONFIG = "analyze"

_KEYS = {
    "failures": ("folder", "num_worst"),
    "gradients": (
        "phase", "levels", "num", "split", "batch_size", "view", "train", "adam", "projection", "seed",
    ),
    "attribution": ("phase", "levels", "num", "split", "batch_size", "top_percent", "num_examples"),
    "likelihood": ("phase", "levels", "num", "split", "batch_size", "view", "temperature", "seed"),
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/analyze.yaml. What is no null and not for `what` is an error."""

    run: str
    what: Literal["failures", "gradients", "attribution", "likelihood"]
    out: str | None
    accelerator: Literal["auto", "cpu", "gpu"]
    folder: str | None
    num_worst: int | None
    phase: str | None
    levels: tuple[str, ...] | None
    num: int | None
    split: str | None
    batch_size: int | None
    view: str | None
    train: Literal["all"] | tuple[str, ...] | None
    adam: bool | None
    projection: int | None
    seed: int | None
    top_percent: float | None
    num_examples: int | None
    temperature: float | None

    def __post_init__(self) -> None:
        for keys in _KEYS.values():
            for key in keys:
                if getattr(self, key) is not None and key not in _KEYS[self.what]:
                    allowed = ", ".join(_KEYS[self.what])
                    raise ValueError(f"{key}={getattr(self, key)}: has no effect on what={self.what}; it has {allowed}")

    def given(self, *without: str) -> dict[str, Any]:
        """The keys of `what` that are no null."""
        keys = (key for key in _KEYS[self.what] if key not in without)
        return {key: value for key in keys if (value := getattr(self, key)) is not None}


def run(cfg: dict[str, Any]) -> Path:
    """Print the table; returns the file of the result."""
    from vlmreason import runs
    from vlmreason.assembly import build

    own = build.settings(Settings, cfg)
    trained = runs.read_config(Path(own.run))
    kinds = {"failures": _failures, "gradients": _gradients, "attribution": _attribution, "likelihood": _likelihood}
    return kinds[own.what](own, trained)


def _failures(own: Settings, trained: dict[str, Any]) -> Path:
    from vlmreason.analysis.failures import analyze_files, check_task, failures_table
    from vlmreason.assembly import build

    if own.num_worst is not None and own.num_worst < 0:
        raise ValueError(f"num_worst={own.num_worst}: 0 or more is expected")
    folder = _evaluation_folder(Path(own.run), own.folder)
    record = _read_record(folder)
    task = build.evaluated_task(record, folder, trained)
    check_task(task)
    paths = sorted((folder / "predictions").glob("*.jsonl"))
    if not any(path.stat().st_size for path in paths):
        raise ValueError(f"{folder}: there are no predictions; `vlmreason evaluate` makes them")
    name = "failures" if own.folder is None else f"failures-{folder.name}"
    settings = {"num_worst": 5} | own.given("folder")
    inputs = {"evaluation": record, "predictions": {path.name: _digest(path) for path in paths}}

    def compute() -> list[Any]:
        return analyze_files(task, str(record["split"]), paths, settings["num_worst"])

    return _finish(own, name, settings, inputs, compute, failures_table)


def _gradients(own: Settings, trained: dict[str, Any]) -> Path:
    from dataclasses import asdict

    from vlmreason.analysis.gradients import LOSSES, GradientSettings, check_levels, gradients_table, losses, measure
    from vlmreason.assembly import build
    from vlmreason.structure import structure

    given = own.given("phase")
    if own.projection is not None:
        given = {"adam": False} | given
    settings = structure(GradientSettings, given)
    task = build.build_task(trained)
    levels = check_levels(task, settings.levels)
    places = _checkpoints(Path(own.run), own.phase, list(trained["supervision"]["phases"]))

    def compute() -> list[Any]:
        results = []
        for name, place in places.items():
            learner = _load(trained, place, own.accelerator)
            found = measure(learner, task, settings)
            known = {"solution_given_image": found.hard.loss} if settings.view == "image" else {}
            missing = [loss for loss in LOSSES if loss not in known]
            each = losses(learner, task, levels[1], settings.num, settings.split, missing) | known
            results.append({"checkpoint": name, "levels": levels, "alignment": found, "losses": each})
        return results

    inputs = _weights(places) | build.task_identity(trained)
    return _finish(own, "gradients", asdict(settings), inputs, compute, gradients_table)


def _attribution(own: Settings, trained: dict[str, Any]) -> Path:
    from dataclasses import asdict

    from vlmreason.analysis.attribution import AttributionSettings, attribute, attribution_table
    from vlmreason.assembly import build
    from vlmreason.structure import structure

    settings = structure(AttributionSettings, own.given("phase"))
    task = build.build_task(trained)
    return _of_one(
        own, trained, asdict(settings), lambda learner: attribute(learner, task, settings), attribution_table
    )


def _likelihood(own: Settings, trained: dict[str, Any]) -> Path:
    from dataclasses import asdict

    from vlmreason.analysis.likelihood import LikelihoodSettings, likelihood_table, measure
    from vlmreason.assembly import build
    from vlmreason.envs.base import Env
    from vlmreason.envs.revision import Revision
    from vlmreason.structure import structure

    task = build.build_task(trained)
    env = task if isinstance(task, Env) else Revision(task)
    shown = {
        "view": trained["env"]["view"] if "env" in trained else "image",
        "max_new_tokens": build.build_evaluation(trained).max_new_tokens,
    }
    settings = structure(LikelihoodSettings, shown | own.given("phase"))
    for level in settings.levels or ():
        build.check_level(env, level)
    return _of_one(own, trained, asdict(settings), lambda learner: measure(learner, env, settings), likelihood_table)


def _of_one(
    own: Settings,
    trained: dict[str, Any],
    settings: Mapping[str, Any],
    compute: Callable[[Any], list[Any]],
    table: Callable[[Any], str],
) -> Path:
    """Finish what is computed of the learner with one phase's weights, the last one's where none is named."""
    from vlmreason.assembly import build

    places = _checkpoints(Path(own.run), own.phase or "final", list(trained["supervision"]["phases"]))
    (place,) = places.values()
    inputs = _weights(places) | build.task_identity(trained)
    return _finish(own, own.what, settings, inputs, lambda: compute(_load(trained, place, own.accelerator)), table)


def _finish(
    own: Settings, name: str, settings: Mapping[str, Any], inputs: Mapping[str, Any], compute: Any, table: Any
) -> Path:
    """Compute and write the result, or find it there; print its table."""
    import datetime
    import hashlib
    import json
    import sys

    from vlmreason import provenance, runs
    from vlmreason.files import plain, read_json, write_json

    path = Path(own.out) if own.out else Path(own.run) / "analysis" / f"{name}.json"
    source = provenance.source()
    changes = hashlib.blake2b(str(source["diff"]).encode(), digest_size=8).hexdigest() if source["dirty"] else None
    wanted = plain({
        "what": own.what,
        "run": Path(own.run).resolve().name,
        "settings": settings,
        "inputs": inputs,
        "source": {"commit": source["commit"], "changes": changes},
        "versions": provenance.versions(),
    })  # fmt: skip
    if path.exists():
        try:
            held = read_json(path)
            results, at = held["results"], held["time"]
            difference = runs.first_difference({key: held[key] for key in wanted}, wanted)
        except (ValueError, KeyError, TypeError):
            difference = "it is damaged"
        if difference is None:
            print(f"vlmreason: {path} is there already, of {at}; delete it to compute it again", file=sys.stderr)
            print(table(results))
            return path
        print(f"vlmreason: {path} is replaced: {difference}", file=sys.stderr)
    results = plain(compute())
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    json.dumps(results, allow_nan=False)  # raises for what other programs could not read
    write_json(path, {**wanted, "time": now, "hardware": provenance.hardware(), "results": results})
    print(table(results))
    return path


def _evaluation_folder(run: Path, name: str | None) -> Path:
    from vlmreason.structure import nearest

    if name is None:
        if (run / "evaluation.json").exists():
            return run
        there = sorted(path.parent.name for path in run.glob("evaluations/*/evaluation.json"))
        hint = f"; choose one of folder={', '.join(there)}" if there else "; `vlmreason evaluate` makes them"
        raise ValueError(f"{run}: there are no predictions of the run's own{hint}")
    for folder in (run / "evaluations" / name, Path(name)):
        if (folder / "evaluation.json").exists():
            return folder
    there = sorted(path.parent.name for path in run.glob("evaluations/*/evaluation.json"))
    raise ValueError(
        f"folder={name}: not there; {run} has {', '.join(there) or 'none but its own'}{nearest(name, there)}"
    )


def _read_record(folder: Path) -> dict[str, Any]:
    """What says which problems the predictions of a folder answer. Raises ValueError."""
    from vlmreason.files import read_json

    path = folder / "evaluation.json"
    record = read_json(path)
    if not isinstance(record, dict) or not {"task", "task_version", "task_config", "split"} <= record.keys():
        raise ValueError(f"{path}: the file is damaged: it does not say which task was evaluated")
    return record


def _checkpoints(run: Path, phase: str | None, phases: list[str]) -> dict[str, Any]:
    """The weights of a run by name, in the order of training: phases as directories, steps as checkpoints.

    `phase`: one of them, or final; None: all.
    """
    from vlmreason.runs import find_checkpoint
    from vlmreason.training.engine.checkpoints import complete

    kept = [c for folder in ("steps", "snapshots") for c in complete(run / "checkpoints" / folder)]
    steps = {c.path.name: c for c in sorted(kept, key=lambda c: c.run["step"]) if c.run.get("phase") is not None}
    if phase is not None:
        return {phase: steps[phase] if phase in steps else find_checkpoint(run, None if phase == "final" else phase)}
    found: dict[str, Any] = {}
    for name in phases:
        found |= {step: checkpoint for step, checkpoint in steps.items() if checkpoint.run["phase"] == name}
        if any((run / "checkpoints" / name).glob("*.safetensors")):
            found[name] = find_checkpoint(run, name)
    if not found:
        find_checkpoint(run)  # raises and says what there is
    return found


def _load(trained: dict[str, Any], place: Any, accelerator: str) -> Any:
    """The learner with the weights of a phase or a step."""
    from vlmreason.assembly import build

    if isinstance(place, Path):
        learner = build.build_learner(trained, place)
    else:
        learner = build.build_learner(trained)
        place.restore(dict(learner.model.named_parameters()))
    build.place(learner, accelerator)
    return learner


def _weights(places: Mapping[str, Any]) -> dict[str, Any]:
    from vlmreason.runs import checkpoint_digest

    paths = {name: place if isinstance(place, Path) else place.path for name, place in places.items()}
    return {"checkpoints": {name: checkpoint_digest(path) for name, path in paths.items()}}


def _digest(path: Path) -> str:
    import hashlib

    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
