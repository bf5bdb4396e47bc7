"""Rollouts: many episodes side by side, their responses generated together, every turn with its exact prompt.

Environments are pure, so a running episode is its state as plain data: rollouts go on after a restart where they were.
Slot s of n plays the episodes s, s + n, s + 2n, ...; processes take every `num`-th slot. What is drawn at random
depends on the seed, the update, the turn and the slot, and on no process or batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, get_args

from vlmreason.dialogue.build import ask
from vlmreason.dialogue.parse import split_response
from vlmreason.envs import rewards
from vlmreason.envs.base import Env, Outcome
from vlmreason.models.contract import Prompt, Sample
from vlmreason.models.vlm.processor import Encoded, Processor
from vlmreason.segments import Shown
from vlmreason.streams import stream
from vlmreason.structure import check_choice, first_line
from vlmreason.tasks.base import state_to_json


class Engine(Protocol):
    """What draws responses, each by its own seed: the learner itself, or a server that has its weights."""

    def sample(
        self, prompts: Sequence[Prompt], seeds: Sequence[int], max_new_tokens: int, temperature: float
    ) -> list[Sample]: ...


@dataclass
class Episode:
    """One that is being played."""

    level: str
    index: int
    state: Any
    turn: int = 0
    gained: float = 0.0


@dataclass(frozen=True)
class Turn:
    """One turn of an episode: what was asked, what was answered, what it led to; `reward` is weighted."""

    prompt: Prompt
    state: Any
    sample: Sample
    outcome: Outcome[Any]
    reward: float
    gained: float  # of the episode, this turn included


@dataclass
class Seconds:
    """Where the time of rollouts went."""

    generate: float = 0.0
    environment: float = 0.0


@dataclass
class Rollouts:
    """The environment with the choices that all its episodes share.

    weights: of rewards by name, in place of their entries' own. Raises ValueError for one that is not offered
    and for an unknown view.
    """

    env: Env[Any]
    levels: Sequence[str]
    view: Shown
    weights: Mapping[str, float]
    max_new_tokens: int
    temperature: float
    seed: int
    batch_size: int
    split: str = "train"
    seconds: Seconds = field(default_factory=Seconds)

    def __post_init__(self) -> None:
        check_choice("view", self.view, get_args(Shown))
        rewards.check(self.env, self.weights)
        self._weights = {name: reward.weight for name, reward in rewards.offered(self.env).items()} | dict(self.weights)

    def begin(self, number: int) -> Episode:
        """Return episode `number` of the split: the levels in turn. Raises ValueError naming it where it cannot be
        started."""
        level, index = self.levels[number % len(self.levels)], number // len(self.levels)
        episode = Episode(level, index, None)
        episode.state = self._guard(episode, self.env.start, level, self.split, index)
        return episode

    def prompt(self, state: Any) -> Prompt:
        return Prompt(*ask(self.env, state, self.view))

    def play(self, engine: Engine, episodes: Mapping[int, Episode], *where: object) -> dict[int, Turn]:
        """Return one turn of each episode (they are moved on); keys are slots.

        Raises ValueError naming the episode whose environment fails, gives a reward that is no number or never ends.
        """
        started = time.perf_counter()
        prompts = {slot: self._guard(episode, self.prompt, episode.state) for slot, episode in episodes.items()}
        self.seconds.environment += time.perf_counter() - started
        slots = list(prompts)
        seeds = {
            slot: stream(self.seed, "draw", slot, episode.turn, *where).getrandbits(63)
            for slot, episode in episodes.items()
        }
        samples: dict[int, Sample] = {}
        started = time.perf_counter()
        for first in range(0, len(slots), self.batch_size):
            part = slots[first : first + self.batch_size]
            of_part = [prompts[slot] for slot in part], [seeds[slot] for slot in part]
            found = engine.sample(*of_part, self.max_new_tokens, self.temperature)
            samples |= dict(zip(part, found, strict=True))
        self.seconds.generate += time.perf_counter() - started
        started = time.perf_counter()
        turns = {}
        for slot, episode in episodes.items():
            rng = stream(self.seed, "exploration", slot, episode.turn, *where)
            text, before = samples[slot].text, episode.state
            outcome = self._guard(episode, self.env.turn, before, text, rng)
            if unknown := outcome.rewards.keys() - self._weights.keys():
                raise ValueError(f"{self._name(episode)}: gives {', '.join(sorted(unknown))}, no entry of its rewards")
            more = self._guard(episode, rewards.further, self.env, self.weights, before, text, outcome)
            outcome = replace(outcome, rewards={**outcome.rewards, **more}) if more else outcome
            reward = sum(self._weights[name] * value for name, value in outcome.rewards.items())
            if not math.isfinite(reward):
                weights = {name: self._weights[name] for name in outcome.rewards}
                raise ValueError(
                    f"{self._name(episode)}: rewards {dict(outcome.rewards)} with weights {weights}: no finite number"
                )
            episode.state, episode.turn, episode.gained = outcome.state, episode.turn + 1, episode.gained + reward
            if not outcome.done and episode.turn >= self.env.max_turns:
                raise ValueError(f"{self._name(episode)}: the episode goes on after max_turns={self.env.max_turns}")
            turns[slot] = Turn(prompts[slot], before, samples[slot], outcome, reward, episode.gained)
        self.seconds.environment += time.perf_counter() - started
        return turns

    def _guard(self, episode: Episode, call: Callable[..., Any], *arguments: Any) -> Any:
        try:
            return call(*arguments)
        except Exception as error:
            raise ValueError(f"{self._name(episode)}: the environment fails ({first_line(error)})") from error

    def _name(self, episode: Episode) -> str:
        return f"{self.env.name}, level {episode.level}, episode {episode.index}, turn {episode.turn}"


class Slots:
    """Endless episodes in slots, for updates that cut through them (PPO)."""

    def __init__(self, rollouts: Rollouts, num: int) -> None:
        self.rollouts, self.num = rollouts, num
        self.mine: list[int] = list(range(num))
        self.played: dict[int, int] = {}
        self.running: dict[int, Episode] = {}

    def place(self, rank: int, world_size: int) -> None:
        self.mine = list(range(rank, self.num, world_size))

    def collect(self, engine: Engine, num_turns: int, update: int) -> dict[int, list[Turn]]:
        """Return `num_turns` turns of each of this process's slots."""
        found: dict[int, list[Turn]] = {slot: [] for slot in self.mine}
        for number in range(num_turns):
            for slot, turn in self.rollouts.play(engine, self.episodes(), update, number).items():
                found[slot].append(turn)
                if turn.outcome.done:
                    self.played[slot] = self.played.get(slot, 0) + 1
                    del self.running[slot]
        return found

    def episodes(self) -> dict[int, Episode]:
        """Return those that are being played, with new ones where one has ended."""
        for slot in self.mine:
            if slot not in self.running:
                self.running[slot] = self.rollouts.begin(slot + self.num * self.played.get(slot, 0))
        return {slot: self.running[slot] for slot in self.mine}

    def state(self) -> dict[str, Any]:
        """Write it as JSON, by slot."""
        return {
            str(slot): {
                "played": self.played.get(slot, 0),
                **({"episode": vars(e) | {"state": state_to_json(e.state)}} if (e := self.running.get(slot)) else {}),
            }
            for slot in self.mine
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        for slot in self.mine:
            held = state[str(slot)]
            self.played[slot] = int(held["played"])
            self.running.pop(slot, None)
            if "episode" in held:
                data = dict(held["episode"])
                self.running[slot] = Episode(**data | {"state": self.rollouts.env.state_from_json(data["state"])})


def encode(processor: Processor, env: Env[Any], turn: Turn) -> Encoded:
    """Return the turn in tokens: the exact prompt and the very tokens that were drawn."""
    return processor.encode_generated(turn.prompt, turn.sample.ids, lambda text: split_response(env, turn.state, text))
