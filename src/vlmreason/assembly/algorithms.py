"""From a composed configuration to the phases of an algorithm: what is played, how it is shown, what follows what."""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from vlmreason.assembly import build
from vlmreason.structure import structure

Config = Mapping[str, Any]
View = Literal["text", "image", "both"]


def build_stages(cfg: Config, learner: Any, folder: Path) -> list[Any]:
    """Return the phases that follow the supervision's (vlmreason.training.engine.phase.Stage): none, or that of the
    algorithm, with `algorithm.text_first` after one like it on text.

    `folder`: the run's directory, where the model is that a phase begins with. Raises ValueError.
    """
    if "algorithm" not in cfg:
        return []
    from vlmreason.answering.rollout import Rollouts
    from vlmreason.envs.base import Env
    from vlmreason.training.reinforced.stage import ReinforcedStage

    data, task, evaluation = cfg["algorithm"], build.build_task(cfg), build.build_evaluation(cfg)
    levels, view, attempts = data["levels"], data.get("view"), data.get("attempts", 1)
    settings, text_first = build_algorithm(cfg), data.get("text_first")
    if isinstance(task, Env):
        if view is not None or attempts != 1:
            what = f"view={view}" if view is not None else f"attempts={attempts}"
            raise ValueError(f"algorithm.{what}: of a task only; env={task.name} has its own")
        view = cfg["env"]["view"]
    env: Any = build_env(cfg)
    phases = list(build.build_supervision(cfg).phases)
    trainer, engine = build.build_trainer(cfg), None
    if settings.engine == "vllm":
        from vlmreason.training.reinforced import vllm_engine

        vllm_engine.check(learner, settings, trainer)
        engine = vllm_engine.VllmEngine(learner, settings.vllm)
    optimizer, stages = build.build_optimizer(cfg), list[Any]()
    for name, shown, updates in algorithm_phases(settings.name, view or "image", settings.updates, text_first):
        rollouts = Rollouts(
            env, tuple(levels or env.played), shown, settings.rewards, settings.max_new_tokens,
            settings.temperature, int(cfg["seed"]), sys.maxsize if engine else evaluation.batch_size,
        )  # fmt: skip
        start = folder / "checkpoints" / phases[-1] if phases else None
        reference = functools.partial(build.build_learner, cfg, start)
        own = dataclasses.replace(settings, updates=updates)
        stages.append(ReinforcedStage(learner, own, rollouts, optimizer, trainer, reference, engine, name))
        phases.append(name)
    return stages


def algorithm_phases(name: str, view: View, updates: int, text_first: int | None) -> list[tuple[str, View, int]]:
    """Return name, view and number of updates of each phase of an algorithm."""
    first: list[tuple[str, View, int]] = [(f"{name}_text", "text", text_first)] if text_first else []
    return [*first, (name, view, updates)]


def build_algorithm(cfg: Config) -> Any:
    """Return the algorithm's settings (vlmreason.training.reinforced.policy.ReinforcementSettings). Raises
    ValueError."""
    from vlmreason.training.reinforced.stage import ALGORITHMS

    data = {key: value for key, value in cfg["algorithm"].items() if key not in _OF_ROLLOUTS}
    if "max_new_tokens" in data and data["max_new_tokens"] is None:
        data["max_new_tokens"] = build.build_scale(cfg).max_response_tokens
    settings = structure(ALGORITHMS[data["name"]], data, "algorithm")
    _check_text_first(cfg)
    levels, env = cfg["algorithm"].get("levels"), build_env(cfg)
    if levels is not None and not levels:
        raise ValueError("algorithm.levels=[]: one or more are expected; null: the first one")
    for level in levels or ():
        build.check_level(env, level, "algorithm.levels")
    if settings.rewards:
        from vlmreason.envs import rewards

        rewards.check(env, settings.rewards)
    return settings


_OF_ROLLOUTS = ("levels", "view", "attempts", "tasks", "text_first")
"""Settings of an algorithm that say what is played, and how it is shown."""


def _check_text_first(cfg: Config) -> None:
    """Raise ValueError where there is nothing that text could come first of."""
    number, view = cfg["algorithm"].get("text_first"), cfg["algorithm"].get("view")
    if number is None:
        return
    if type(number) is not int or number < 1:
        raise ValueError(f"algorithm.text_first={number}: 1 or more updates, or null, are expected")
    if "env" in cfg or view == "text":
        what = f"env={cfg['env']['name']}" if "env" in cfg else "algorithm.view=text"
        raise ValueError(f"algorithm.text_first={number}: has no effect with {what}; pictures of a task are expected")


def build_env(cfg: Config) -> Any:
    """Return the environment of an algorithm: the run's own, or its task with `algorithm.attempts` turns, or the tasks
    that `algorithm.tasks` names, those of its task's family at the sizes of that. Raises ValueError."""
    from vlmreason.envs import base, revision, together

    task, algorithm, scale = build.build_task(cfg), cfg["algorithm"], build.build_scale(cfg)
    attempts, names = algorithm.get("attempts", 1), algorithm.get("tasks")
    if names is None:
        alone = isinstance(task, base.Env)
        return task if alone else revision.Revision(task.asked_in("reinforced"), attempts, scale.trace)
    if isinstance(task, base.Env) or task.name not in names:
        raise ValueError(f"algorithm.tasks={names}: tasks are expected, the run's own among them, and not {task.name}")
    own = dict(cfg["task"])
    made = [own if name == task.name else build.beside(cfg, name) for name in names]
    tasks = [build.make_task(one, scale).asked_in("reinforced") for one in made]
    return together.Together([revision.Revision(one, attempts, scale.trace) for one in tasks])


def check_apart(cfg: Config) -> None:
    """Raise ValueError where training meets problems that the run is evaluated on (unless evaluation.split=train)."""
    evaluation = build.build_evaluation(cfg)
    if "task" not in cfg or evaluation.split == "train":
        return
    task, trained = build.build_task(cfg), _trained_levels(cfg)
    for level in evaluation.levels or task.levels:
        if said := task.met_in_training(trained, level, evaluation.split):
            raise ValueError(f"evaluation.split={evaluation.split}, level {level} of {task.name}: {said}")


def _trained_levels(cfg: Config) -> set[str]:
    """The levels of the run's own task that its phases show or play."""
    name, supervision = cfg["task"]["name"], build.build_supervision(cfg)
    levels = {
        part.level
        for phase, held in supervision.phases.items()
        for part in held.parts.values()
        if name in ((part.task,) if part.task else supervision.phase_tasks(phase, name))
    }
    if "algorithm" in cfg:
        played = cfg["algorithm"]["levels"] or build_env(cfg).played
        levels.update(level.removeprefix(f"{name}/") for level in played)  # those of other tasks keep their names
    return levels
