"""The engines that ALFWorld plays on: TextWorld in text, THOR in pictures."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from vlmreason.files import read_object
from vlmreason.pictures import Picture

GAME_FILE, TASK_FILE = "game.tw-pddl", "traj_data.json"


@dataclass(frozen=True)
class Seen:
    """What an engine tells after an action: `met` are the conditions of the task that hold now, `best` what its
    planner would do next (None: it has none)."""

    observation: str
    admissible: tuple[str, ...]
    inventory: tuple[str, ...] = ()
    met: int = 0
    won: bool = False
    best: str | None = None


class Engine(Protocol):
    """A game that is being played."""

    def reset(self) -> Seen: ...

    def step(self, action: str) -> Seen: ...

    def frame(self) -> Picture | None:
        """Return what is seen, RGB; None where there are no pictures."""

    def close(self) -> None: ...


def conditions_met(kind: str, targets: Mapping[str, str], facts: Collection[tuple[str, ...]]) -> int:
    """Say how many of a task's conditions hold, counted as in ALFRED: for two objects each in the same place; for light
    the object in hand and the lamp switched on; else the object in its place, for clean, hot and cool ones also the
    state of such an object, and both of one.

    `targets` are object_target, parent_target and toggle_target; facts are (name, *arguments) in lower case.
    """
    types = {(name, what): sort.removesuffix("type") for name, what, sort, *_ in (f for f in facts if len(f) > 2)
             if name in ("objecttype", "receptacletype")}  # fmt: skip
    wanted = {what for (name, what), sort in types.items() if name == "objecttype" and sort == targets["object_target"]}
    places = {w for (name, w), sort in types.items() if name == "receptacletype" and sort == targets["parent_target"]}
    there = [(f[1], f[2]) for f in facts if f[0] == "inreceptacle" and f[1] in wanted and f[2] in places]
    if kind == "pick_two_obj_and_place":
        return min(2, max((sum(place == p for _, place in there) for p in places), default=0))
    if kind == "look_at_obj_in_light":
        held = any(f[0] == "holds" and f[2] in wanted for f in facts)
        lamps = {w for (name, w), sort in types.items() if name == "objecttype" and sort == targets["toggle_target"]}
        return held + any(f[0] == "istoggled" and f[1] in lamps for f in facts)
    placed = {what for what, _ in there}
    state = {"clean": "isclean", "heat": "ishot", "cool": "iscool"}.get(kind.split("_")[1])
    if state is None:
        return int(bool(placed))
    changed = {f[1] for f in facts if f[0] == state and f[1] in wanted}
    return bool(placed) + bool(changed) + bool(placed & changed)


class TextEngine:
    """A game of TextWorld, as `alfworld` sets it up."""

    def __init__(self, path: Path, planner: bool) -> None:
        import textworld
        from alfworld.agents.environment.alfred_tw_env import AlfredDemangler

        wanted = textworld.EnvInfos(won=True, admissible_commands=True, facts=True, policy_commands=planner)
        self._env = _undisturbed(textworld.start, str(path), wanted, wrappers=[AlfredDemangler])
        data = read_object(path.parent / TASK_FILE)
        self._kind = data["task_type"]
        self._targets = {k: v.lower() if isinstance(v, str) else "" for k, v in data["pddl_params"].items()}
        self._planner = planner

    def reset(self) -> Seen:
        return self._seen(_undisturbed(self._env.reset))

    def step(self, action: str) -> Seen:
        return self._seen(_undisturbed(self._env.step, action)[0])

    def _seen(self, told: Any) -> Seen:
        facts = [(fact.name.lower(), *(argument.name.strip().lower() for argument in fact.arguments))
                 for fact in told["facts"]]  # fmt: skip
        plan = told["policy_commands"] if self._planner else None
        return Seen(
            observation=told["feedback"].removeprefix("-= Welcome to TextWorld, ALFRED! =-").strip(),
            admissible=tuple(told["admissible_commands"]),
            inventory=tuple(sorted(fact[2] for fact in facts if fact[0] == "holds")),
            met=conditions_met(self._kind, self._targets, facts),
            won=bool(told["won"]),
            best=plan[0] if plan else None,
        )

    def frame(self) -> Picture | None:
        return None

    def close(self) -> None:
        self._env.close()


class ThorEngine:
    """A game in the simulator AI2-THOR, by the parts of `alfworld` that its own environment uses."""

    def __init__(self, path: Path, size: tuple[int, int]) -> None:
        from queue import Queue

        from alfworld.agents.environment.alfred_thor_env import AlfredThorEnv

        self._task = str(path.parent / TASK_FILE)
        self._thor = AlfredThorEnv.Thor(Queue(), train_eval="train")
        self._thor.init_env(
            {
                "general": {"training_method": "dqn"},
                "rl": {"training": {"max_nb_steps_per_episode": 10**9}},
                "controller": {"type": "oracle", "debug": False, "load_receps": True},
                "env": {
                    "goal_desc_human_anns_prob": 0.0,
                    "thor": {
                        "screen_width": max(300, size[0]),
                        "screen_height": max(300, size[1]),
                        "smooth_nav": False,
                        "save_frames_to_disk": False,
                        "save_frames_path": "",
                    },
                },
            }
        )

    def reset(self) -> Seen:
        self._thor._done = False
        _undisturbed(self._thor.reset, self._task)
        return self._seen()

    def step(self, action: str) -> Seen:
        self._thor.step(action)
        return self._seen()

    def _seen(self) -> Seen:
        observation, _, admissible, won, _, plan = self._thor.get_results()
        met = self._thor.env.get_goal_conditions_met()[0]
        inventory = self._thor.env.last_event.metadata["inventoryObjects"]
        return Seen(
            observation=observation.removeprefix("-= Welcome to TextWorld, ALFRED! =-").strip(),
            admissible=tuple(admissible),
            inventory=tuple(sorted(held["objectType"].lower() for held in inventory)),
            met=int(met),
            won=bool(won),
            best=plan[0] if plan else None,
        )

    def frame(self) -> Picture | None:
        frame: Picture = self._thor.get_last_frame()[:, :, ::-1].copy()  # blue comes first there
        return frame

    def close(self) -> None:
        self._thor.env.stop()


def _undisturbed(call: Callable[..., Any], *args: Any, **keys: Any) -> Any:
    """What a call gives that draws words with the global generator and, in its planner, replaces sys.argv: the same
    each time, and both are as before."""
    before, argv = random.getstate(), sys.argv
    random.seed(0)
    try:
        return call(*args, **keys)
    finally:
        random.setstate(before)
        sys.argv = argv
