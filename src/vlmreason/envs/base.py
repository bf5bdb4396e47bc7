"""What every environment is: a task of several turns, played by text.

An environment knows nothing of models or training. Its states are plain data and its transitions pure functions, so
an episode (level, split, index) can be started anywhere, saved as JSON and gone on with, and many are played side by
side without processes. As a task it offers the turns of its expert's episodes: supervised training, galleries and
scores per step need nothing else. `envs/gym.py` shows any environment with Gymnasium's interface.
"""

from __future__ import annotations

import json
import random
import re
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Generic, TypeVar

from vlmreason.envs.replies import find_key, read_action
from vlmreason.streams import stream
from vlmreason.tasks.base import Score, Task

State = TypeVar("State")


@dataclass(frozen=True)
class Outcome(Generic[State]):
    """What a response led to.

    `rewards` are those that the rules give, by the names of `Env.rewards`: most have one, "env". `parsed` says whether
    the response held an action or answer that could be read; `action` is what was done in words, None where nothing
    was. `success` is whether the episode is won, known when it is `done`. `parts` are measures of the turn in [0, 1],
    as "step_accuracy" and "recognition".
    """

    state: State
    rewards: Mapping[str, float]
    done: bool
    success: bool = False
    parsed: bool = True
    action: str | None = None
    parts: Mapping[str, float] = field(default_factory=dict)

    @property
    def reward(self) -> float:
        return sum(self.rewards.values())


@dataclass(frozen=True)
class Reward:
    """One reward: its name, what it is, its weight in training where the user gives none, and how much a turn has.

    value: of an environment, a state of it, the response to it (untrusted text) and what that led to; None: the turn
    has nothing of it.
    """

    name: str
    words: str
    weight: float
    value: Callable[[Env[Any], Any, str, Outcome[Any]], float | None]


def given(name: str, words: str, weight: float = 1.0) -> Reward:
    """Name a reward that the rules give: `turn` puts it into `Outcome.rewards`."""
    return Reward(name, words, weight, lambda env, state, response, outcome: outcome.rewards.get(name))


class Env(Task[State]):
    """An environment at given sizes and wording.

    Beside what a task needs (`_sample` draws the first state of an episode, `thought` and `answer` are the expert's
    for a state), subclasses define `turn`, `finished` and `max_turns`. Responses are JSON objects; `answer_key` is the
    key that holds the action, before which all is thought.
    """

    answer_key: ClassVar[str] = "action"
    cot: bool = True
    """Whether a response has a chain of thought before the answer."""

    @property
    def rewards(self) -> tuple[Reward, ...]:
        """Name its own rewards, all that `turn` gives among them. `rewards.py` has those of any environment."""
        return (given("env", "what the rules of the game give"),)

    @property
    def played(self) -> tuple[str, ...]:
        """Return the levels that are played where none is chosen: the first one."""
        return self.levels[:1]

    @property
    @abstractmethod
    def max_turns(self) -> int:
        """Return turns after which every episode has ended."""

    def start(self, level: str, split: str, index: int) -> State:
        """Return the first state of episode number `index` (>= 0, unbounded) of a level and split; the same on every
        call."""
        rng = stream(self.name, self.version, level, split, index)
        return self._sample(level, rng, lambda key: self.split_of(key) == split)

    @abstractmethod
    def turn(self, state: State, response: str, rng: random.Random) -> Outcome[State]:
        """Return what a response leads to. `response` is untrusted text of any content and length.

        `rng` is asked for nothing but the exploration that replaces an unreadable action (equation 4.1).
        """

    def expert(self, state: State) -> str:
        """Return the expert's response."""
        return self.response(state, "image").text

    def expert_start(self, level: str, split: str, index: int) -> State:
        """Return the state from which the expert plays episode number `index`; here the first one."""
        return self.start(level, split, index)

    def expert_episode(self, level: str, split: str, index: int) -> Iterator[tuple[State, Outcome[State]]]:
        """Play the expert's episode of that number: each state with what the expert's response to it led to."""
        state, rng = self.expert_start(level, split, index), stream(self.name, self.version, level, split, index)
        while True:
            outcome = self.turn(state, self.expert(state), rng)
            yield state, outcome
            if outcome.done:
                return
            state = outcome.state

    def write_answer(self, value: str) -> str:
        """Return the end of the JSON object whose beginning is the chain of thought; without one the whole object."""
        return ("" if self.cot else "{") + f'"{self.answer_key}": {json.dumps(value)}}}'

    def convert(self, state: State) -> str:
        return "Convert the picture to text:"

    def answer_marker(self) -> re.Pattern[str]:
        return re.compile(rf'(?<!\\)"{self.answer_key}"\s{{0,8}}:')

    def answer_start(self, response: str, after: int) -> int:
        """Say where the key stands that is read; without chain of thought its object, which begins with it.

        In a response that cannot be read the marker says it.
        """
        start = find_key(response, self.answer_key)
        if start is None:
            return super().answer_start(response, after)
        brace = response.index("{")
        return start if self.cot or response[brace + 1 : start].strip() else brace

    def _state(self, level: str, split: str, index: int) -> State:
        """A turn of the expert's episode of that number, each as likely as the others."""
        states = [state for state, _ in self.expert_episode(level, split, index)]
        return states[stream(self.name, self.version, level, split, index, "turn").randrange(len(states))]


class ActionEnv(Env[State]):
    """An environment whose turn is one of a few actions in words.

    `penalty`: the reward of a turn whose response holds no action, which then changes nothing; None: a legal action at
    random is taken instead (equation 4.1), with the reward that it gives.
    """

    penalty: float | None = None

    @abstractmethod
    def actions(self, state: State) -> Sequence[str]:
        """Return the actions that can be named: the action space of the prompt."""

    def options(self, state: State) -> tuple[str, ...]:
        """Return every action of the prompt as a response without chain of thought."""
        return tuple(json.dumps({self.answer_key: action}) for action in self.actions(state))

    def legal(self, state: State) -> Sequence[str]:
        """Return those that the rules allow now; exploration takes one of them."""
        return self.actions(state)

    @abstractmethod
    def act(self, state: State, action: str) -> Outcome[State]:
        """Return what an action of `actions(state)` leads to."""

    def wait(self, state: State) -> Outcome[State]:
        """Return a turn that passes without an action; its reward is 0 and at the last turn the episode ends."""
        after: Any = replace(state, turn=state.turn + 1)  # type: ignore[type-var, attr-defined]  # states have turns
        return Outcome(after, {"env": 0.0}, done=after.turn >= self.max_turns)

    @abstractmethod
    def best(self, state: State) -> Collection[str]:
        """Return the actions an expert may take."""

    def turn(self, state: State, response: str, rng: random.Random) -> Outcome[State]:
        action = read_action(response, self.actions(state), self.answer_key)
        if action is not None:
            outcome = self.act(state, action)
            return replace(
                outcome, action=action, parts={"step_accuracy": float(action in self.best(state)), **outcome.parts}
            )
        if self.penalty is None:
            action = rng.choice(self.legal(state))
            outcome = self.act(state, action)
        else:
            outcome = self.wait(state)
            outcome = replace(outcome, rewards={"env": self.penalty})
        return replace(outcome, action=action, parsed=False, parts={"step_accuracy": 0.0, **outcome.parts})

    def check_wording(self, state: State, action: str) -> None:
        """Raise ValueError where the templates do not show the state or write another action of the expert's."""
        try:
            asked, expert = self.prompt(state, "text") + self.prompt(state, "image"), self.expert(state)
        except (LookupError, ValueError, AttributeError) as error:
            raise ValueError(f"wording of {self.name}: a template cannot be filled in: {error!r}") from None
        if self.text(state) not in asked or read_action(expert, self.actions(state), self.answer_key) != action:
            raise ValueError(
                f"wording of {self.name}: {{text}} in prompt_text and a JSON object of the thoughts and the action "
                f"are expected, not {expert!r}"
            )

    def score(self, state: State, response: str) -> Score:
        """Tell whether the response's action is one of the expert's: accuracy per step."""
        action = read_action(response, self.actions(state), self.answer_key)
        return Score(correct=action in self.best(state), parsed=action is not None)
