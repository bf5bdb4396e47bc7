"""An analysis on a run: what it is about, its settings, and its result as a file that is made once."""

from __future__ import annotations

import dataclasses
import datetime
import hashlib
import importlib
import json
import re
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from vlmreason import provenance, runs
from vlmreason.assembly import build, catalog, smoke
from vlmreason.assembly.evaluations import open_evaluation
from vlmreason.files import plain, read_json, write_json
from vlmreason.structure import check_choice, structure

_PLACES = {"responses": "folder", "checkpoints": "phase", "model": "phase"}
"""The key that says of what, by Analysis.OVER."""


def find(what: str) -> Any:
    """Return the module of an analysis (vlmreason.analysis.subjects says what it has). Raises ValueError."""
    check_choice("what", what, catalog.analyses())
    return importlib.import_module(f"vlmreason.analysis.{what}")


def analyze(
    run: Path, what: str, given: Mapping[str, Any], known: list[str], accelerator: str, out: Path | None
) -> Path:
    """Make the result, or find it there; print its table. Returns its file. Raises ValueError.

    `given`: keys of the analysis that the user gave, of the `known` ones of the command.
    """
    module, trained = find(what), build.read_run(run)
    where = _PLACES[module.OVER]
    fields = dataclasses.fields(module.Settings)
    allowed = [where, *(field.name for field in fields if field.name in known)]
    for key, value in given.items():
        if key not in allowed:
            raise ValueError(f"{key}={value}: has no effect on what={what}; it has {', '.join(allowed)}")
    own = {"view": _view(trained), "max_new_tokens": build.build_evaluation(trained).max_new_tokens}
    required = {f.name for f in fields if f.default is f.default_factory is dataclasses.MISSING}
    chosen = smoke.analysis_of(trained, module.Settings, {k: v for k, v in given.items() if k != where})
    settings = structure(module.Settings, {k: v for k, v in own.items() if k in required} | chosen)
    name, place = what, given.get(where)
    if module.OVER == "responses":
        subject, inputs, name = _responses(run, trained, place, what)
    else:
        subject, inputs = _weights(run, trained, place or ("final" if module.OVER == "model" else None), accelerator)
    path = out or run / "analysis" / f"{name}.json"
    wanted = {"what": what, "run": run.resolve().name, "settings": dataclasses.asdict(settings), "inputs": inputs}
    results = _made(path, wanted, lambda: module.run(subject, settings))
    print(with_meaning(module.table(results), getattr(module, "MEANING", {})))
    return path


def with_meaning(table: str, meaning: Mapping[str, str]) -> str:
    """Write a table with what its rows and columns are below it: those of its names that are explained."""
    there = {name: text for name, text in meaning.items() if re.search(rf"(^|  |: ){re.escape(name)}\b", table, re.M)}
    width = max(map(len, there), default=0)
    return "\n".join([table, *[""] * bool(there), *(f"{name:<{width}}  {text}" for name, text in there.items())])


def _view(trained: Mapping[str, Any]) -> str:
    return str(trained["env"]["view"]) if "env" in trained else "image"


def _made(path: Path, asked: Mapping[str, Any], compute: Callable[[], list[Any]]) -> Any:
    """The results of a file of the same settings, code and weights; else computed and written."""
    source = provenance.source()
    changes = hashlib.blake2b(str(source["diff"]).encode(), digest_size=8).hexdigest() if source["dirty"] else None
    wanted = plain({
        **asked,
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
            return results
        print(f"vlmreason: {path} is replaced: {difference}", file=sys.stderr)
    results = plain(compute())
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    json.dumps(results, allow_nan=False)  # raises for what other programs could not read
    write_json(path, {**wanted, "time": now, "hardware": provenance.hardware(), "results": results})
    return results


# Responses


def _responses(run: Path, trained: Mapping[str, Any], folder: str | None, what: str) -> tuple[Any, dict[str, Any], str]:
    """The responses of an evaluation, what decides them, and the name of the result."""
    from vlmreason.analysis.subjects import Responses
    from vlmreason.evaluation.problems import read_answered

    found = open_evaluation(run, folder, trained)
    paths = sorted((found.folder / "predictions").glob("*.jsonl"))
    inputs = {"evaluation": found.record, "predictions": {path.name: _digest(path) for path in paths}}
    subject = Responses(found.task, read_answered(found.task, found.split, paths))
    return subject, inputs, f"{what}-{found.folder.name}" if folder else what


def _digest(path: Path) -> str:
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


# Weights


def _weights(run: Path, trained: Mapping[str, Any], phase: str | None, accelerator: str) -> tuple[Any, dict[str, Any]]:
    """Checkpoints of a run (`phase`: one of them, or final; None: all), and what decides them and the task."""
    from vlmreason.analysis.subjects import Weights

    places = _checkpoints(run, phase, list(trained["supervision"]["phases"]))
    paths = {name: place if isinstance(place, Path) else place.path for name, place in places.items()}
    digests = {name: runs.checkpoint_digest(path) for name, path in paths.items()}
    subject = Weights(build.build_task(trained), tuple(places), lambda name: _load(trained, places[name], accelerator))
    return subject, {"checkpoints": digests} | build.task_identity(trained)


def _checkpoints(run: Path, phase: str | None, phases: list[str]) -> dict[str, Any]:
    """The weights of a run by name, in the order of training: phases as directories, steps as checkpoints."""
    from vlmreason.training.engine.checkpoints import complete

    kept = [c for folder in ("steps", "snapshots") for c in complete(run / "checkpoints" / folder)]
    steps = {c.path.name: c for c in sorted(kept, key=lambda c: c.run["step"]) if c.run.get("phase") is not None}
    if phase is not None:
        one = None if phase == "final" else phase
        return {phase: steps[phase] if phase in steps else runs.find_checkpoint(run, one)}
    found: dict[str, Any] = {}
    for name in phases:
        found |= {step: checkpoint for step, checkpoint in steps.items() if checkpoint.run["phase"] == name}
        if any((run / "checkpoints" / name).glob("*.safetensors")):
            found[name] = runs.find_checkpoint(run, name)
    if not found:
        runs.find_checkpoint(run)  # raises and says what there is
    return found


def _load(trained: Mapping[str, Any], place: Any, accelerator: str) -> Any:
    """The learner with the weights of a phase or a step."""
    if isinstance(place, Path):
        learner = build.build_learner(trained, place)
    else:
        learner = build.build_learner(trained)
        place.restore(dict(learner.model.named_parameters()))
    build.place(learner, accelerator)
    return learner
