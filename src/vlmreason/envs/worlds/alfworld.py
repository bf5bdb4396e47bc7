"""ALFWorld: household tasks in text or in a simulator's pictures, through the package `alfworld` (section 4.5, C.1).

Rewards by name: "goal" 50 when the task is done, "subgoal" 1 for each condition of the task that holds for the first
time, "inadmissible" -1 for an action that is not admissible, in place of which one is taken at random (equation 4.1).

The package has a live engine for each episode. Here a state holds the game and the actions so far: an engine that
stands there is kept, and one that is asked for a state it does not stand at begins again and repeats the actions.

Install `pip install vlmreason[alfworld]`, then `alfworld-download` puts the games into $ALFWORLD_DATA (else
~/.cache/alfworld): json_2.1.1/{train,valid_seen,valid_unseen}/<task>/<trial>/game.tw-pddl. The engine `text`
(TextWorld) shows no pictures: `draw` gives its text on a panel. The engine `thor` shows its frames; it needs
`alfworld[full]` and a display.
"""

from __future__ import annotations

import importlib.util
import json
import os
import random
import re
import textwrap
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from vlmreason.envs.base import ActionEnv, Outcome, Reward, given
from vlmreason.envs.worlds.alfworld_engines import GAME_FILE, Engine, Seen, TextEngine, ThorEngine
from vlmreason.files import read_object
from vlmreason.pictures import Picture, font
from vlmreason.streams import stream
from vlmreason.structure import check_choice
from vlmreason.tasks.base import Belongs, Modality, choose_wording

TASK_TYPES = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
ENGINES = ("text", "thor")


_FOLDERS = {"train": "train", "seen": "valid_seen", "unseen": "valid_unseen"}
_MAX_ENGINES = 64  # live ones that are kept
HINT = (
    "ALFWorld is an optional package: pip install 'vlmreason[alfworld]', then alfworld-download fetches its games into "
    "the folder that the variable ALFWORLD_DATA names (else ~/.cache/alfworld)"
)


@dataclass(frozen=True)
class ALFWorldSizes:
    """`turns` until an episode ends. Pixels: `picture` (width, height) and the `font` of text on a panel."""

    turns: int
    picture: tuple[int, int]
    font: int

    def __post_init__(self) -> None:
        for name, value, least in (("turns", self.turns, 1), ("font", self.font, 1), ("picture", min(self.picture), 8)):
            if value < least:
                raise ValueError(f"{name}={value}: {least} or more is expected")


@dataclass(frozen=True)
class ALFWorldState:
    """`game`: path below the data; `met`: most conditions that held so far; the rest is what the engine told last."""

    game: str
    task: str
    observation: str
    admissible: tuple[str, ...]
    inventory: tuple[str, ...] = ()
    met: int = 0
    best: str | None = None
    actions: tuple[str, ...] = ()
    turn: int = 0


@dataclass(frozen=True)
class ALFWorldWording:
    """Templates. The prompts may use {task}, {observation}, {inventory}, {admissible} and {reply}; `thought` may use
    {task}, {inventory} and {action}."""

    prompt_text: str
    prompt_image: str
    reply: str
    reply_action: str
    convert: str
    thought: str


WORDINGS: Mapping[str, ALFWorldWording] = {
    "terse": ALFWorldWording(
        prompt_text="{observation}\nTask: {task}\nHolding: {inventory}\nActions: {admissible}\n{reply}",
        prompt_image="{observation}\nTask: {task}\nHolding: {inventory}\nActions: {admissible}\n{reply}",
        reply="JSON: thoughts, action",
        reply_action="JSON: action",
        convert="Convert the picture to text:",
        thought="{task}, next {action}",
    ),
    "verbose": ALFWorldWording(
        prompt_text="You do household tasks in a house. This is what you see: {observation}\nYour task is to "
        "{task}. You are holding: {inventory}. These actions are admissible now: {admissible}.\n{reply}",
        prompt_image="You do household tasks in a house. The picture shows what you see, in words: {observation}\n"
        "Your task is to {task}. You are holding: {inventory}. These actions are admissible now: {admissible}.\n"
        "{reply}",
        reply='Reply with one JSON object of this form:\n{{\n  "thoughts": "<what you see, then what brings the task '
        'forward>",\n  "action": "<one admissible action, letter by letter>"\n}}',
        reply_action='Reply with one JSON object of this form:\n{{"action": "<one admissible action, letter by '
        'letter>"}}',
        convert="Convert the picture to text, what is to be seen:",
        thought="My task is to {task}, and I am holding {inventory}. What brings me closer is to {action}.",
    ),
}


class ALFWorld(ActionEnv[ALFWorldState]):
    """Games of the package's data. Levels: standard, rooms that are trained in (for validation and test other games in
    them), and unseen rooms, which have no train split. The picture's prompt names the observation in words too, as the
    paper's does (figure C.10). `planner`: whether the text engine plans the expert's next action each turn (10 ms or
    more); without it there is no expert.
    """

    name = "alfworld"
    version = 1
    levels = ("standard", "unseen")
    state_type = ALFWorldState
    sizes_type = ALFWorldSizes
    reads_files = True
    followed = ("kind",)

    def __init__(
        self,
        sizes: ALFWorldSizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        cot: bool = True,
        penalty: float | None = None,
        engine: str = "text",
        data: str | None = None,
        planner: bool = True,
    ) -> None:
        check_choice("engine", engine, ENGINES)
        if data is not None and not Path(data).is_dir():
            raise ValueError(f"data={data!r}: there is no such folder; {HINT}")
        self.sizes = sizes
        self.wording: ALFWorldWording = choose_wording(WORDINGS, trace, wording or {})
        self.cot, self.penalty, self.engine, self.planner = cot, penalty, engine, planner
        self._data = data
        self._live: OrderedDict[tuple[str, tuple[str, ...]], Engine] = OrderedDict()
        self.open: Callable[[Path], Engine] = self._open_package

    # Games and engines

    @cached_property
    def root(self) -> Path:
        """Return the folder of the data. Raises ValueError where there is none."""
        root = Path(self._data or os.environ.get("ALFWORLD_DATA") or Path.home() / ".cache" / "alfworld")
        if not (root / "json_2.1.1").is_dir():
            raise ValueError(f"{root}: there is no folder json_2.1.1 of games; {HINT}")
        return root.resolve()

    @cached_property
    def _games(self) -> dict[str, tuple[str, ...]]:
        """Paths of games by folder, in an order of their own that no name decides."""
        found = {}
        for rooms, folder in _FOLDERS.items():
            files = (self.root / "json_2.1.1" / folder).glob(f"*/*/{GAME_FILE}")
            games = [file.relative_to(self.root).as_posix() for file in files]
            games = [game for game in games if not re.search("movable|Sliced", game)]  # which the package leaves out
            found[rooms] = tuple(sorted(games, key=lambda game: stream(game).random()))
        return found

    def games(self, level: str, split: str) -> tuple[str, ...]:
        """Return the games of a level and split; none for training in unseen rooms."""
        if split == "train":
            return self._games["train"] if level == "standard" else ()
        rooms = self._games["unseen" if level == "unseen" else "seen"]
        return tuple(g for g in rooms if (stream(g, "half").random() < 0.5) == (split == "test"))

    def num_problems(self, level: str, split: str) -> int | None:
        return len(self.games(level, split))

    def start(self, level: str, split: str, index: int) -> ALFWorldState:
        games = self.games(level, split)
        for offset in range(len(games)):
            game = games[(index + offset) % len(games)]
            if _solvable(self.root / game):
                return self._first(game)
        raise self.unreachable(level, f"{self.root} has no solvable game for the split {split}")

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> ALFWorldState:
        raise self.unreachable(level, "games are chosen by their number")

    def _first(self, game: str) -> ALFWorldState:
        engine = self.open(self._path(game))
        seen = engine.reset()
        state = _told(ALFWorldState(game, read_task(seen.observation), "", ()), seen)
        self._keep(state, engine)
        return state

    def _path(self, game: str) -> Path:
        path = (self.root / game).resolve()
        if not path.is_relative_to(self.root) or path.name != GAME_FILE or not path.is_file():
            raise ValueError(f"game={game!r}: there is no such game below {self.root}")
        return path

    def _keep(self, state: ALFWorldState, engine: Engine) -> None:
        old = self._live.pop((state.game, state.actions), None)
        self._live[state.game, state.actions] = engine
        if old is not None and old is not engine:
            old.close()
        while len(self._live) > _MAX_ENGINES:
            self._live.popitem(last=False)[1].close()

    def _take(self, state: ALFWorldState) -> Engine:
        """An engine that stands at a state, for the caller alone. Raises ValueError where the game is another one."""
        engine = self._live.pop((state.game, state.actions), None)
        if engine is not None:
            return engine
        engine = self.open(self._path(state.game))
        seen = engine.reset()
        for action in state.actions:
            seen = engine.step(action)
        if seen.observation != state.observation or seen.admissible != state.admissible:
            engine.close()
            raise ValueError(f"game={state.game!r}: its actions do not lead to the state; is it another version of it?")
        return engine

    def _open_package(self, path: Path) -> Engine:
        if importlib.util.find_spec("alfworld") is None:
            raise ValueError(HINT)
        return TextEngine(path, self.planner) if self.engine == "text" else ThorEngine(path, self.sizes.picture)

    # Turns

    @property
    def max_turns(self) -> int:
        return self.sizes.turns

    def key(self, state: ALFWorldState) -> object:
        return state.game

    def groups(self, state: ALFWorldState) -> Mapping[str, str]:
        kind = _kind(state.game)
        return {} if kind is None else {"kind": kind}

    def actions(self, state: ALFWorldState) -> Sequence[str]:
        return state.admissible

    def best(self, state: ALFWorldState) -> Collection[str]:
        return () if state.best is None else (state.best,)

    def act(self, state: ALFWorldState, action: str) -> Outcome[ALFWorldState]:
        engine = self._take(state)
        seen = engine.step(action)
        moved = replace(state, actions=(*state.actions, action), turn=state.turn + 1)
        after = _told(moved, seen)
        self._keep(after, engine)
        rewards = {"goal": 50.0 * seen.won, "subgoal": float(after.met - state.met), "inadmissible": 0.0}
        return Outcome(after, rewards, done=seen.won or after.turn >= self.max_turns, success=seen.won)

    @property
    def rewards(self) -> tuple[Reward, ...]:
        return (
            given("goal", "50 where the game is won"),
            given("subgoal", "subgoals met for the first time"),
            given("inadmissible", "-1, or the penalty, for a response without an action that is possible"),
        )

    def wait(self, state: ALFWorldState) -> Outcome[ALFWorldState]:
        after = replace(state, turn=state.turn + 1)
        return Outcome(after, {"inadmissible": 0.0}, done=after.turn >= self.max_turns)

    def turn(self, state: ALFWorldState, response: str, rng: random.Random) -> Outcome[ALFWorldState]:
        outcome = super().turn(state, response, rng)
        if outcome.parsed:
            return outcome
        lost = -1.0 if self.penalty is None else self.penalty
        rewards = {"goal": 0.0, "subgoal": 0.0, **outcome.rewards, "inadmissible": lost}
        rewards.pop("env", None)
        return replace(outcome, rewards=rewards)

    # Prompt, picture, expert

    def text(self, state: ALFWorldState) -> str:
        return state.observation

    def prompt(self, state: ALFWorldState, modality: Modality) -> str:
        words = self.wording
        reply = (words.reply if self.cot else words.reply_action).format()
        template = words.prompt_text if modality == "text" else words.prompt_image
        return template.format(
            task=state.task,
            observation=state.observation,
            inventory=_held(state),
            admissible=", ".join(f'"{action}"' for action in state.admissible),
            reply=reply,
        )

    def convert(self, state: ALFWorldState) -> str:
        return self.wording.convert

    def draw(self, state: ALFWorldState) -> Picture:
        """Return the engine's frame, or what it told as text where it has none."""
        frame = None
        if self.engine == "thor":
            engine = self._take(state)
            frame = engine.frame()
            self._keep(state, engine)
        if frame is None:
            return _panel(state.observation, self.sizes)
        return np.array(Image.fromarray(frame).resize(self.sizes.picture, Image.Resampling.BILINEAR))

    def thought(self, state: ALFWorldState) -> list[str]:
        if not self.cot:
            return []
        said = self.wording.thought.format(task=state.task, inventory=_held(state), action=self._planned(state))
        return [f'{{"thoughts": {json.dumps(said)}, ']

    def answer(self, state: ALFWorldState) -> str:
        return self.write_answer(self._planned(state))

    def _planned(self, state: ALFWorldState) -> str:
        if state.best is None:
            raise ValueError(f"game={state.game!r}: there is no expert without planner=true, or the engine has no plan")
        return state.best


def task_type(state: ALFWorldState) -> str:
    """Return which of the six types of tasks a game is of, from its path. Raises ValueError where it names none."""
    kind = _kind(state.game)
    if kind is None:
        raise ValueError(f"game={state.game!r}: its path names none of {', '.join(TASK_TYPES)}")
    return kind


def _kind(game: str) -> str | None:
    folders = game.split("/")
    return next((kind for kind in TASK_TYPES if any(folder.startswith(f"{kind}-") for folder in folders)), None)


def read_task(observation: str) -> str:
    """Return what is to be done, from the text with which a game begins. Raises ValueError where it is not there."""
    found = re.search(r"Your task is to: ([^\n]{1,500}?)\.?\s*$", observation)
    if found is None:
        raise ValueError(f'a game is to begin with "Your task is to: ", not with {observation[:200]!r}')
    return found[1]


def _told(state: ALFWorldState, seen: Seen) -> ALFWorldState:
    return replace(
        state,
        observation=seen.observation,
        admissible=seen.admissible,
        inventory=seen.inventory,
        met=max(state.met, seen.met),
        best=seen.best,
    )


def _held(state: ALFWorldState) -> str:
    return ", ".join(state.inventory) or "nothing"


def _solvable(path: Path) -> bool:
    """Whether the package's own check found that a game can be won."""
    return read_object(path).get("solvable") is True


def _panel(text: str, sizes: ALFWorldSizes) -> Picture:
    """Black text on white, as many lines as fit."""
    image = Image.new("RGB", sizes.picture, (255, 255, 255))
    face = font(sizes.font)
    letters = max(1, int(sizes.picture[0] / face.getlength("n")))
    lines = textwrap.wrap(text, letters)
    ImageDraw.Draw(image).multiline_text((2, 2), "\n".join(lines), font=face, fill=(0, 0, 0))
    return np.array(image)
