"""PPO and GRPO reach the optimum of problems that are small enough to be solved by dynamic programming.

A corridor of rooms: in each room one of a few words leads on to another room or out, for a reward that is in the table
below. What pays at once is not what pays in the end.
"""

import dataclasses
import json
import re
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import pytest
from support.acting import reinforced_run
from support.tiny import tiny_learner

from vlmreason.envs.base import ActionEnv, Outcome
from vlmreason.models.contract import Prompt

OUT = None
Rooms = Mapping[str, Mapping[str, tuple[float, str | None]]]
BANDIT: Rooms = {"1": {"up": (0.2, OUT), "down": (1.0, OUT), "left": (0.0, OUT), "right": (0.4, OUT)}}
CHAIN: Rooms = {
    "1": {"up": (0.3, OUT), "down": (0.0, "2"), "left": (-0.8, "3")},
    "2": {"north": (0.0, "3"), "south": (0.1, OUT), "east": (-0.5, "2")},
    "3": {"right": (-0.3, OUT), "west": (-0.1, "1"), "stop": (1.0, OUT)},
}
"""Each room has words of its own: the supervised start tells the rooms apart, and knows nothing of rewards."""
MOST_TURNS = 5


@dataclasses.dataclass(frozen=True)
class RoomState:
    room: str
    first: str
    turn: int = 0


class Corridor(ActionEnv[RoomState]):
    """Without chain of thought: a response is the action and nothing else."""

    name = "corridor"
    version = 1
    levels = ("standard",)
    state_type: ClassVar[type] = RoomState
    rooms: Rooms

    def __init__(self, rooms: Rooms) -> None:
        self.rooms, self.penalty = rooms, -0.5

    @property
    def max_turns(self) -> int:
        return MOST_TURNS

    def turn(self, state: RoomState, response: str, rng: Any) -> Outcome[RoomState]:
        word = response.strip()
        return super().turn(state, json.dumps({"action": word}), rng)

    def actions(self, state):
        return tuple(self.rooms[state.room])

    def best(self, state):
        return (optimal(self.rooms)[1][state.room],)

    def act(self, state, action):
        reward, room = self.rooms[state.room][action]
        after = dataclasses.replace(state, room=room or state.room, turn=state.turn + 1)
        done = room is OUT or after.turn >= MOST_TURNS
        return Outcome(after, {"env": reward}, done=done, success=done)

    def wait(self, state):
        after = dataclasses.replace(state, turn=state.turn + 1)
        return Outcome(after, {"env": 0.0}, done=after.turn >= MOST_TURNS)

    def _sample(self, level, rng, belongs):
        room = rng.choice(sorted(self.rooms))
        return RoomState(room, room)

    def key(self, state):
        return state.first

    def draw(self, state):
        return np.zeros((24, 24, 3), np.uint8)

    def text(self, state):
        return state.room

    def prompt(self, state, modality):
        return state.room

    def convert(self, state):
        return "Convert:"

    def thought(self, state):
        return []

    def answer(self, state):
        """Any of the actions: who is shown these learns the words, not which of them is good."""
        actions = self.actions(state)
        return " " + actions[state.turn % len(actions)]

    def _state(self, level, split, index):
        rooms = sorted(self.rooms)
        return RoomState(rooms[index % len(rooms)], rooms[0], turn=index // len(rooms) % 12)

    def answer_marker(self):
        return re.compile(r"^")


def optimal(rooms: Rooms, gamma: float = 0.9) -> tuple[dict[str, float], dict[str, str]]:
    """Values and best actions by value iteration."""
    values = dict.fromkeys(rooms, 0.0)

    def worth(room, action):
        reward, after = rooms[room][action]
        return reward + (0.0 if after is OUT else gamma * values[after])

    for _ in range(100):
        values = {room: max(worth(room, action) for action in actions) for room, actions in rooms.items()}
    return values, {room: max(actions, key=lambda action: worth(room, action)) for room, actions in rooms.items()}


def test_what_is_to_be_learned():
    assert optimal(BANDIT)[1] == {"1": "down"}
    assert optimal(CHAIN)[1] == {"1": "down", "2": "north", "3": "stop"}
    assert optimal(CHAIN)[0]["1"] == pytest.approx(0.9 * 0.9)


PPO = {
    "parallel": 16,
    "turns": 4,
    "value_lr": 1e-2,
    "epochs": 3,
    "minibatches": 2,
    "updates": 25,
    "optimizer": {"lr": 4e-3},
}
GRPO = {
    "groups": 6, "group_size": 8, "kl_weight": 0.0, "epochs": 2, "minibatches": 1, "updates": 30,
    "optimizer": {"lr": 4e-3}, "filter": True,
}  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("rooms", [BANDIT, CHAIN], ids=["bandit", "chain"])
@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_the_optimum_is_reached(tmp_path, name, rooms):
    env, learner = Corridor(rooms), tiny_learner()
    options = {
        **(PPO if name == "ppo" else GRPO),
        "max_new_tokens": 2,
        "alarms": dict.fromkeys(("entropy", "response_tokens", "cut_off", "unparsed", "kl")),
    }
    reinforced_run(
        tmp_path,
        name,
        env,
        learner,
        num_examples=2000,
        checkpoint_every=1000,
        batch_size=8,
        micro_tokens=4000,
        **options,
    )
    _, best = optimal(rooms)
    prompts = [Prompt(env.prompt(RoomState(room, room), "text"), None) for room in rooms]
    learner.model.to("cpu")
    greedy = {room: found.text.strip() for room, found in zip(rooms, learner.generate(prompts, 2), strict=True)}
    assert greedy == best
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    returns = [line["return"] for line in lines if "return" in line]
    undiscounted, _ = optimal(rooms, 1.0)
    most = sum(undiscounted.values()) / len(rooms)
    assert returns[0] < most - 0.3, "nothing was known before"
    assert sum(returns[-3:]) / 3 > most - 0.08
