"""A phase of reinforcement learning as a stage of a run."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from vlmreason.answering.rollout import Rollouts
from vlmreason.envs.revision import Revision
from vlmreason.models.vlm.learner import Learner
from vlmreason.structure import structure
from vlmreason.training.engine.optimizers import OptimizerSettings
from vlmreason.training.engine.phase import PhaseModule, PhaseSettings, Stage
from vlmreason.training.engine.settings import TrainerSettings
from vlmreason.training.engine.strategies import SHARDED
from vlmreason.training.reinforced.grpo import GroupRelativePolicyOptimization, GRPOSettings
from vlmreason.training.reinforced.policy import Server
from vlmreason.training.reinforced.ppo import PPOSettings, ProximalPolicyOptimization
from vlmreason.training.reinforced.settings import ReinforcementSettings

ALGORITHMS: dict[str, type[ReinforcementSettings]] = {
    "ppo": PPOSettings,
    "grpo": GRPOSettings,
}


class ReinforcedStage(Stage):
    """`reference` makes the learner that the phase begins with, `engine` generates in the learner's place.

    name: of the phase; "": the algorithm's.
    """

    evaluates_start = True

    def __init__(
        self,
        learner: Learner,
        settings: ReinforcementSettings,
        rollouts: Rollouts,
        optimizer: OptimizerSettings,
        trainer: TrainerSettings,
        reference: Callable[[], Learner],
        engine: Server | None = None,
        name: str = "",
    ) -> None:
        """Raises ValueError for settings of the optimizer that do not exist, for a level without episodes, and where
        the model is to be sharded: each process generates as long as its own responses are."""
        if trainer.strategy in SHARDED:
            raise ValueError(f"trainer.strategy={trainer.strategy}: algorithm={settings.name} needs ddp, or auto")
        self.name, self.num_steps, self.train = name or settings.name, settings.updates, "all"
        self.optimizer = structure(OptimizerSettings, {**vars(optimizer), **settings.optimizer}, "algorithm.optimizer")
        self.learner, self.settings, self.rollouts, self.trainer = learner, settings, rollouts, trainer
        self.reference, self.engine = reference, engine
        for level in rollouts.levels:
            rollouts.env.start(level, "train", 0)
        if isinstance(rollouts.env, Revision) and rollouts.env.attempts > 1:
            _check_room(learner, rollouts, rollouts.env.attempts)

    def pace(self, settings: TrainerSettings) -> TrainerSettings:
        own = self.settings
        return replace(settings, log_every=1, checkpoint_every=own.checkpoint_every, evaluate_every=own.evaluate_every)

    def place(self, rank: int, world_size: int) -> None:
        """Do nothing: the module asks itself."""

    def steps(self, first_step: int, settings: TrainerSettings) -> Iterable[int]:
        return range(first_step, self.num_steps)

    def module(self, phase: PhaseSettings) -> PhaseModule:
        common = (self.learner, self.optimizer, self.settings, self.rollouts, phase)
        sizes = (self.trainer.micro_tokens, self.engine)
        if isinstance(self.settings, GRPOSettings):
            return GroupRelativePolicyOptimization(*common, *sizes, reference=self.reference)
        return ProximalPolicyOptimization(*common, *sizes)

    def explain_memory(self, settings: TrainerSettings, num_devices: int, device: torch.device) -> str:
        return (
            f"phase {self.name}: {device} has too little memory; smaller are "
            f"scale.micro_tokens={settings.micro_tokens} (tokens of a pass), "
            f"evaluation.batch_size={self.rollouts.batch_size} (responses generated together) and "
            f"algorithm.max_new_tokens={self.settings.max_new_tokens}"
            + (
                f" and algorithm.vllm.gpu_memory_utilization={self.settings.vllm.gpu_memory_utilization}"
                if self.engine
                else ""
            )
        )


def _check_room(learner: Learner, rollouts: Rollouts, attempts: int) -> None:
    """Raises ValueError where the prompt of the last attempt, after the longest responses, leaves no room."""
    context, length = learner.num_positions, rollouts.max_new_tokens
    if context is None:
        return
    for level in rollouts.levels:
        first = rollouts.env.start(level, "train", 0)
        second = rollouts.env.turn(first, "", random.Random(0)).state
        prompts = [rollouts.prompt(state) for state in (first, second)]
        begin, later = (len(learner.processor.prompt_ids(prompt.text, prompt.image)) for prompt in prompts)
        need = begin + (attempts - 1) * (later - begin + length) + length
        if need > context:
            raise ValueError(
                f"algorithm.attempts={attempts} algorithm.max_new_tokens={length}: an episode of level {level} may "
                f"need {need} tokens of the model's {context}; fewer or shorter attempts are expected"
            )
