"""Several tasks as one environment: problems of all of them in turn, each asked, answered and rewarded as alone.

So one policy is reinforced on two skills at once. A level is `task/level`. The tasks have to write their responses in
segments that begin alike, because a response is cut before it is known whose it is.
"""

from __future__ import annotations

import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vlmreason.envs.base import Env, Outcome, Reward
from vlmreason.pictures import Picture
from vlmreason.segments import Response
from vlmreason.structure import structure
from vlmreason.tasks.base import Belongs, Modality, Score


@dataclass(frozen=True)
class TogetherState:
    """The name of a task and a state of it."""

    task: str
    state: Any


class Together(Env[TogetherState]):
    """`envs`: the tasks as environments, of different names. Raises ValueError where they do not go together."""

    state_type = TogetherState

    def __init__(self, envs: Sequence[Env[Any]]) -> None:
        self.envs = {env.name: env for env in envs}
        first = envs[0]
        if len(self.envs) < len(envs):
            raise ValueError(f"algorithm.tasks={[env.name for env in envs]}: different ones are expected")
        for env in envs[1:]:
            if _form(env) != _form(first):
                raise ValueError(
                    f"algorithm.tasks: responses of {env.name} do not begin their answers or captions as those of "
                    f"{first.name}"
                )
        self.name = "+".join(self.envs)  # type: ignore[misc]
        self.version = first.version  # type: ignore[misc]
        self.levels = tuple(f"{env.name}/{level}" for env in envs for level in env.levels)  # type: ignore[misc]
        self.converted_as = first.converted_as  # type: ignore[misc]
        self.reads_files = any(env.reads_files for env in envs)  # type: ignore[misc]

    @property
    def played(self) -> tuple[str, ...]:
        return tuple(f"{env.name}/{level}" for env in self.envs.values() for level in env.played)

    @property
    def rewards(self) -> tuple[Reward, ...]:
        """Name the rewards of all tasks; one that several give counts for each of them."""
        return tuple({reward.name: reward for env in self.envs.values() for reward in env.rewards}.values())

    @property
    def max_turns(self) -> int:
        return max(env.max_turns for env in self.envs.values())

    def start(self, level: str, split: str, index: int) -> TogetherState:
        name, _, own = level.partition("/")
        return TogetherState(name, self.envs[name].start(own, split, index))

    def _state(self, level: str, split: str, index: int) -> TogetherState:
        return self.start(level, split, index)

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> TogetherState:
        name, _, own = level.partition("/")
        return TogetherState(name, self.envs[name]._sample(own, rng, belongs))

    def num_problems(self, level: str, split: str) -> int | None:
        name, _, own = level.partition("/")
        return self.envs[name].num_problems(own, split)

    def turn(self, state: TogetherState, response: str, rng: random.Random) -> Outcome[TogetherState]:
        outcome = self._of(state).turn(state.state, response, rng)
        return replace(outcome, state=TogetherState(state.task, outcome.state))

    def state_from_json(self, data: object) -> TogetherState:
        found = structure(TogetherState, data, f"problem of {self.name}")
        if found.task not in self.envs:
            raise ValueError(f"problem of {self.name}: task={found.task!r}, allowed are {', '.join(self.envs)}")
        return replace(found, state=self._of(found).state_from_json(found.state))

    def _of(self, state: TogetherState) -> Env[Any]:
        return self.envs[state.task]

    @property
    def _any(self) -> Env[Any]:
        """Any of them, for what they have alike."""
        return next(iter(self.envs.values()))

    # What follows is the task's of which the state is.

    def key(self, state: TogetherState) -> object:
        return [state.task, self._of(state).key(state.state)]

    def draw(self, state: TogetherState) -> Picture:
        return self._of(state).draw(state.state)

    def text(self, state: TogetherState) -> str:
        return self._of(state).text(state.state)

    def prompt(self, state: TogetherState, modality: Modality) -> str:
        return self._of(state).prompt(state.state, modality)

    def convert(self, state: TogetherState) -> str:
        return self._of(state).convert(state.state)

    def thought(self, state: TogetherState) -> list[str]:
        return self._of(state).thought(state.state)

    def answer(self, state: TogetherState) -> str:
        return self._of(state).answer(state.state)

    def response(self, state: TogetherState, view: str) -> Response:
        return self._of(state).response(state.state, view)

    def score(self, state: TogetherState, response: str) -> Score:
        return self._of(state).score(state.state, response)

    def groups(self, state: TogetherState) -> Mapping[str, str]:
        return self._of(state).groups(state.state)

    def options(self, state: TogetherState) -> tuple[str, ...] | None:
        return self._of(state).options(state.state)

    def facts(self, state: TogetherState, kind: str, text: str) -> Mapping[object, object] | None:
        return self._of(state).facts(state.state, kind, text)

    # And this is alike of all of them.

    def markers(self) -> Mapping[str, re.Pattern[str]]:
        return self._any.markers()

    def answer_marker(self) -> re.Pattern[str]:
        return self._any.answer_marker()

    def answer_start(self, response: str, after: int) -> int:
        return self._any.answer_start(response, after)

    def conversion_end(self, response: str, start: int) -> int | None:
        return self._any.conversion_end(response, start)


_PROBE = "Caption:\n3 rows\n(1,1) red square 2\nConvert: a\nb\nAnswer: 1\nAnswer: 2"


def _form(env: Env[Any]) -> object:
    """What says how a response of a task is cut."""
    ends = [(env.answer_start(_PROBE, at), env.conversion_end(_PROBE, at)) for at in (0, 9, 40)]
    return env.converted_as, dict(env.markers()), env.answer_marker(), ends
