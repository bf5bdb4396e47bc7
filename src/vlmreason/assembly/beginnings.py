"""Which beginnings a configuration has: what decides the state of a run after each of its first phases.

Equal names promise equal weights and equal lines of metrics, bit for bit. A name holds model, adapter, seed, precision
and the phases up to this one: their examples (`Mixture.identity`), tasks with sizes and wording, trained parts, batch
size and optimizer. It does not hold what follows: later phases, the algorithm, the evaluation at the end, the name of
the strategy. What a phase is asked at its end (marks) is part of it. A phase whose end is found on the way
(`mark_every`), one of captions and all that follow are no beginning.
Evaluations while training are lines of the metrics, so with `trainer.evaluate_every` it holds them too.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from vlmreason import runs
from vlmreason.assembly import build
from vlmreason.models.contract import NetworkSettings
from vlmreason.structure import exact_settings, structure

Config = Mapping[str, Any]

_OTHERWISE = ("batch_size", "evaluate_every", "evaluate_num")
"""Settings of the trainer that the phases hold, or that matter where something is evaluated."""


def names(cfg: Config, **further: Any) -> dict[str, str]:
    """Name the beginning that ends with each supervised phase, in order; none with `trainer.reuse=false`.

    `further` decides the result as well: what is known only where the run trains. Raises ValueError.
    """
    from vlmreason.data.mixture import mixtures
    from vlmreason.training.engine.optimizers import OptimizerSettings

    trainer, optimizer, supervision = build.build_trainer(cfg), build.build_optimizer(cfg), build.build_supervision(cfg)
    if not trainer.reuse:
        return {}
    own = cfg["task"]["name"] if "task" in cfg else None
    common = {key: value for key, value in _exact(trainer).items() if key not in _OTHERWISE}
    common |= {"seed": cfg["seed"], "adapter": dataclasses.asdict(build.build_adapter(cfg))}
    common |= _section(cfg.get("model", {}), "model") | {"snapshots": trainer.snapshots, **further}
    if trainer.evaluate_every:
        common |= {key: getattr(trainer, key) for key in _OTHERWISE[1:]} | _section(cfg.get("task", {}), "asked")
        common |= {"evaluation": _exact(build.build_evaluation(cfg))} if "evaluation" in cfg else {}
    if "model" in cfg and isinstance(build.build_model(cfg), NetworkSettings):  # it is made for an example of the task
        common |= _section(cfg["task"], "example") | {"levels": cfg.get("algorithm", {}).get("levels")}
        common |= {"env": cfg.get("env")}
    found, phases = {}, []
    for name, mixture in mixtures(supervision, own, cfg["seed"]).items():
        phase = supervision.phase(name)
        before = list(supervision.phases)[: list(supervision.phases).index(name) + 1]
        if any(supervision.phase(one).mark_every or supervision.phase(one).captions for one in before):
            break
        tasks = sorted({str(row["task"]) for row in mixture.describe()})
        asked = {mark: dataclasses.asdict(one) for mark, one in phase.marks.items()}
        tasks += sorted({one["task"] for one in asked.values() if one["task"]} - {*tasks})
        phases.append(
            {
                "examples": mixture.identity(),
                "tasks": [_section(_task(cfg, task), task) for task in tasks],
                "train": phase.train,
                "batch_size": phase.batch_size or trainer.batch_size,
                "optimizer": dataclasses.asdict(structure(OptimizerSettings, {**vars(optimizer), **phase.optimizer})),
                **({"match": phase.match} if phase.match else {}),
                **({"kl_weight": phase.kl_weight} if phase.kl_weight else {}),
                **({"own": own} if (own := {key: one.own for key, one in phase.parts.items() if one.own}) else {}),
                **({"choose": dataclasses.asdict(phase.choose)} if phase.choose else {}),
                **({"marks": asked, "missed": trainer.marks} if asked else {}),
            }
        )
        found[name] = runs.digest([common, phases])
    return found


def name_here(cfg: Config, source: Any) -> dict[str, str]:
    """Name them as `names` does, where the run trains: code, versions and machine decide the last bits.

    `source`: `Learner.source`.
    """
    from vlmreason.training.engine.beginnings import environment

    return names(cfg, environment=environment(build.build_trainer(cfg), source))


def find(cfg: Config, source: Any) -> Any:
    """Find the longest finished beginning, which a run would take; None where there is none."""
    from vlmreason.training.engine.beginnings import FOLDER, longest

    return longest(Path(cfg["out"]) / FOLDER, name_here(cfg, source), {})[0]


def build_beginnings(cfg: Config, source: Any, folder: Path) -> Any:
    """Open the beginnings of a run in `folder` (vlmreason.training.engine.beginnings.Beginnings)."""
    from vlmreason.training.engine.beginnings import FOLDER, Beginnings

    return Beginnings(Path(cfg["out"]) / FOLDER, folder, name_here(cfg, source), build.build_trainer(cfg))


def _exact(settings: Any) -> dict[str, Any]:
    """Keep the settings that decide a result to the last bit."""
    kept = exact_settings(type(settings))
    return {key: value for key, value in dataclasses.asdict(settings).items() if key in kept}


def _task(cfg: Config, name: str) -> Config:
    if "task" in cfg and cfg["task"]["name"] == name:
        return {**cfg["task"], "trace": cfg["task"].get("trace") or cfg["scale"]["trace"]}
    config = build.beside(cfg, name)
    return {**config, "trace": config.get("trace") or cfg["scale"]["trace"]}


def _section(section: Config, name: str) -> dict[str, Any]:
    """Give a group's settings, without the place of its code, and what is on the disk where they name files."""
    kept = {key: value for key, value in section.items() if key != runs.CODE}
    return {name: kept, f"{name} files": [stamp for value in kept.values() for stamp in _stamps(value)]}


def _stamps(value: Any) -> Iterator[list[Any]]:
    """Give name, size and time of the files that settings name, and of those in folders that they name."""
    if isinstance(value, (Mapping, list, tuple)):
        for below in value.values() if isinstance(value, Mapping) else value:
            yield from _stamps(below)
    elif isinstance(value, str) and any(map(str.isalnum, value)):  # else a mark of a wording, as "." or "/"
        for place in sorted(map(str, Path(value).iterdir())) if os.path.isdir(value) else [value]:
            if os.path.isfile(place):
                stat = os.stat(place)
                yield [os.path.basename(place), stat.st_size, stat.st_mtime_ns]
