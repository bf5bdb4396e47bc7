"""Whole episodes as problems of a task: what evaluation asks, stores and scores.

A response is the episode's: a JSON list with the response of each turn. As environments are pure, it is scored by
playing it again, so stored episodes can be judged anew at any time. Here a response that holds no action does nothing;
the random exploration of equation 4.1 is for training, and would win episodes for a model that says nothing.
"""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Mapping, Sequence
from typing import Any

from vlmreason.dialogue.compare import Compared, compare, first_difference
from vlmreason.envs.base import ActionEnv, Env, Outcome
from vlmreason.pictures import Picture
from vlmreason.segments import ANSWER, Response, Segment
from vlmreason.tasks.base import Belongs, Modality, Problem, Score, Task
from vlmreason.tasks.findings import Trace


class Episodes(Task[Any]):
    """The episodes of an environment, by its name, levels and splits; a problem is the first state of one.

    `correct` is success, `parsed` whether there is a whole episode. Parts: `return` (sum of rewards), `turns`,
    `parsed_share`, and the means over turns of the environment's own measures. An episode whose list is too short
    counts as lost.
    """

    def __init__(self, env: Env[Any]) -> None:
        self.env = copy.copy(env)
        if isinstance(self.env, ActionEnv) and self.env.penalty is None:
            self.env.penalty = 0.0
        self.name, self.version, self.levels = env.name, env.version, env.levels  # type: ignore[misc]
        self.state_type, self.followed = env.state_type, env.followed  # type: ignore[misc]

    def turn(self, state: Any, response: str) -> Outcome[Any]:
        """Return what a response leads to; nothing is drawn at random."""
        return self.env.turn(state, response, random.Random(0))

    def score(self, state: Any, response: str) -> Score:
        responses = _read(response)
        gained, parsed = 0.0, 0
        parts: dict[str, list[float]] = {}
        outcome: Outcome[Any] | None = None
        played = 0
        for number, text in enumerate(responses[: self.env.max_turns]):
            outcome = self.turn(state, text)
            state, gained, parsed, played = outcome.state, gained + outcome.reward, parsed + outcome.parsed, number + 1
            for name, value in outcome.parts.items():
                parts.setdefault(name, []).append(value)
            if outcome.done:
                break
        whole = outcome is not None and outcome.done
        return Score(
            correct=whole and outcome is not None and outcome.success,
            parsed=whole,
            parts={
                "return": gained,
                "turns": float(played),
                "parsed_share": parsed / played if played else 0.0,
                **{name: sum(values) / len(values) for name, values in parts.items()},
            },
        )

    def num_problems(self, level: str, split: str) -> int | None:
        return self.env.num_problems(level, split)

    def _state(self, level: str, split: str, index: int) -> Any:
        return self.env.start(level, split, index)

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> Any:
        raise NotImplementedError  # `_state` draws nothing itself

    def key(self, state: Any) -> object:
        return self.env.key(state)

    def draw(self, state: Any) -> Picture:
        return self.env.draw(state)

    def text(self, state: Any) -> str:
        return self.env.text(state)

    def prompt(self, state: Any, modality: Modality) -> str:
        return self.env.prompt(state, modality)

    def convert(self, state: Any) -> str:
        return self.env.convert(state)

    def thought(self, state: Any) -> list[str]:
        return []

    def trace(self, state: Any, thought: str) -> Trace | None:
        """Return nothing: an episode has the thoughts of many turns."""
        return None

    def groups(self, state: Any) -> Mapping[str, str]:
        return self.env.groups(state)

    def answer(self, state: Any) -> str:
        """Return the expert's episode."""
        responses: list[str] = []
        for _ in range(self.env.max_turns):
            responses.append(self.env.expert(state))
            outcome = self.turn(state, responses[-1])
            if outcome.done:
                break
            state = outcome.state
        return write_episode(responses)

    def options(self, state: Any) -> tuple[str, ...] | None:
        """Return those of a turn: an episode is chosen turn by turn."""
        return self.env.options(state)

    def state_from_json(self, data: object) -> Any:
        return self.env.state_from_json(data)


def compare_response(task: Task[Any], problem: Problem[Any], view: str, response: str) -> Compared:
    """Hold a response against the expected one (`dialogue.compare`); episodes turn by turn, a line for each."""
    turns = _read(response) if isinstance(task, Episodes) else []
    if not turns:
        return compare(task, problem, view, response)
    expected, found = ("\n".join(texts) for texts in (_read(task.answer(problem.state)), turns))
    gold, given = (Response((Segment(ANSWER, text),)) for text in (expected, found))
    return Compared(gold, given, first_difference(expected, found))


def write_episode(responses: Sequence[str]) -> str:
    """Return the responses of an episode as one text."""
    return json.dumps(list(responses), ensure_ascii=False)


def _read(text: str) -> list[str]:
    """The responses of an episode; none where the text is no list of texts."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return []
    return found if isinstance(found, list) and all(isinstance(one, str) for one in found) else []
