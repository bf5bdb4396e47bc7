"""Policies that act by text, tiny, for the tests of reinforcement learning."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from support.tiny import ADAMW, TRAINER, nano_task, plan, tiny_learner
from vlmreason.answering.rollout import Rollouts, Turn
from vlmreason.envs.base import Env
from vlmreason.models.vlm.learner import Learner
from vlmreason.structure import structure
from vlmreason.training.engine.phase import PhaseSettings
from vlmreason.training.engine.runner import train
from vlmreason.training.engine.settings import TrainerSettings
from vlmreason.training.reinforced.settings import ReinforcementSettings
from vlmreason.training.reinforced.stage import ALGORITHMS, ReinforcedStage

COMMON: dict[str, Any] = {
    "updates": 3, "epochs": 2, "minibatches": 2, "max_new_tokens": 12, "temperature": 1.0, "thought_weight": 0.5,
    "optimizer": {"lr": 1e-3}, "evaluate_every": 0, "checkpoint_every": 1,
}  # fmt: skip
OWN: dict[str, dict[str, Any]] = {
    "ppo": {
        "parallel": 3, "turns": 4, "gamma": 0.9, "decay": 0.95, "clip": 0.1, "value_weight": 0.5, "value_lr": 1e-3,
    },
    "grpo": {
        "groups": 3, "group_size": 2, "clip_low": 0.2, "clip_high": 0.28, "kl_weight": 0.1,
        "normalisation": "token_mean", "filter": False,
    },
}  # fmt: skip


def settings_of(name: str, **changes: Any) -> ReinforcementSettings:
    return structure(ALGORITHMS[name], {"name": name, **COMMON, **OWN[name], **changes}, "algorithm")


def stage_of(
    name: str, learner: Learner, env: Env[Any], view: str = "text", trainer: TrainerSettings = TRAINER, **changes: Any
) -> ReinforcedStage:
    """A stage with the settings above; `levels`: not the environment's first one alone; `server`: its engine."""
    levels, server = changes.pop("levels", env.levels[:1]), changes.pop("server", None)
    settings = settings_of(name, **changes)
    rollouts = rollouts_of(env, levels, view, settings, sys.maxsize if server else 4)
    return ReinforcedStage(learner, settings, rollouts, ADAMW, trainer, tiny_learner, server)


def rollouts_of(env: Env[Any], levels: Any, view: Any, settings: ReinforcementSettings, batch_size: int) -> Rollouts:
    return Rollouts(env, levels, view, settings.rewards, settings.max_new_tokens, settings.temperature, 0, batch_size)


def policy_of(name: str, learner: Learner, env: Env[Any], **changes: Any) -> Any:
    """The module of a phase without a trainer: gradients are left where they are, no step is made."""
    module: Any = stage_of(name, learner, env, **changes).module(PhaseSettings(name))
    module.setup("fit")
    module.manual_backward = lambda loss: loss.backward()
    module.optimize = lambda sums: (sums.cpu(), 0.0)
    return module


def play(
    learner: Learner, env: Env[Any], num: int, view: str = "text", max_new_tokens: int = 12, **changes: Any
) -> list[Turn]:
    """Turns of `num` episodes side by side until these many are there."""
    rollouts = Rollouts(env, env.levels[:1], view, changes.get("weights", {}), max_new_tokens, 1.0, 0, 4)  # type: ignore[arg-type]
    episodes = {slot: rollouts.begin(slot) for slot in range(num)}
    return list(rollouts.play(changes.get("engine", learner), episodes, 0).values())


def reinforced_run(
    run_dir: Path, name: str, env: Env[Any] | None = None, learner: Learner | None = None,
    evaluate: Callable[[Learner], Mapping[str, float]] | None = None, num_examples: int = 12, **changes: Any,
) -> Path:  # fmt: skip
    """A supervised phase of `num_examples` expert turns of the environment (0: none), then one by reinforcement.

    `changes`: keys of the trainer or of the algorithm.
    """
    env, learner = env or nano_task("number_line"), learner or tiny_learner()  # type: ignore[assignment]
    trainer = {key: changes.pop(key) for key in list(changes) if key in vars(TRAINER)}
    shared = changes.pop("shared", None)
    own = {key: trainer.pop(key) for key in ("evaluate_every", "checkpoint_every") if key in trainer}
    settings = structure(TrainerSettings, vars(TRAINER) | trainer)
    stage = stage_of(name, learner, env, trainer=settings, **changes, **own)
    level = env.levels[0]
    phases = {"expert": {"num_examples": num_examples, "parts": {"turns": {"level": level, "views": ["text"]}}}}
    run_dir.mkdir(parents=True, exist_ok=True)
    return train(
        learner, {env.name: env}, plan(**(phases if num_examples else {})), env.name, 0, ADAMW, settings, run_dir,
        evaluate=evaluate, further=[stage], shared=shared,
    )  # fmt: skip
