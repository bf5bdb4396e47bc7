"""PPO of a policy without language, the baseline "CNN+RL" of table 4.2 (appendix C.2).

The algorithm is that of ppo.py: to it an action is a response of one token (models/networks/actions.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlmreason.envs.base import ActionEnv
from vlmreason.models.contract import Prompt
from vlmreason.models.networks.actions import ActionLearner, new_actor
from vlmreason.models.networks.features import ActorSettings
from vlmreason.models.vlm.learner import Learner
from vlmreason.structure import check_positive
from vlmreason.tasks.base import Modality, Task
from vlmreason.training.engine import strategies
from vlmreason.training.engine.settings import TrainerSettings
from vlmreason.training.reinforced.ppo import PPOSettings

NAME = "cnn_ppo"


@dataclass(frozen=True, kw_only=True)
class CnnPPOSettings(PPOSettings):
    """conf/algorithm/cnn_ppo.yaml.

    width: of the policy's two layers; grid: places along a side to which a picture's features are pooled.
    """

    width: int
    grid: int
    thought_weight: float = 1.0
    max_new_tokens: int = 1

    def __post_init__(self) -> None:
        super().__post_init__()
        check_positive(self, "width", "grid", where="algorithm.")
        for name in ("thought_weight", "max_new_tokens"):
            if getattr(self, name) != 1:
                raise ValueError(f"algorithm.{name}={getattr(self, name)}: has no effect, this policy writes no text")

    def check(self, trainer: TrainerSettings) -> None:
        """Raises ValueError for what this small policy cannot be trained with."""
        if trainer.gradient_checkpointing:
            raise ValueError(f"trainer.gradient_checkpointing=true: has no effect with algorithm={NAME}")
        if trainer.precision == "bf16-true":
            raise ValueError(f"trainer.precision=bf16-true: with algorithm={NAME} bf16-mixed and 32-true are allowed")
        if trainer.strategy in strategies.SHARDED:
            raise ValueError(f"trainer.strategy={trainer.strategy}: with algorithm={NAME} auto and ddp are allowed")


def make_actor(
    base: Learner, task: Task[Any], levels: Sequence[str] | None, view: Modality, settings: CnnPPOSettings, seed: int
) -> ActionLearner:
    """An untrained policy over the actions of an environment's first state. Raises ValueError."""
    if not isinstance(task, ActionEnv):
        raise ValueError(
            f"algorithm={NAME}: {task.name} is answered by text; an environment with actions in words is expected, "
            "as env=number_line and env=blackjack"
        )
    state = task.start((levels or task.levels)[0], "train", 0)
    own = ActorSettings(
        tuple(task.actions(state)), task.answer_key, settings.width, settings.grid, pictures=view == "image"
    )
    return new_actor(base, own, Prompt(task.prompt(state, view), task.draw(state) if own.pictures else None), seed)
