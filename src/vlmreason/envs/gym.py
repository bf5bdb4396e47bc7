"""Any environment with Gymnasium's interface: text in, text and picture out.

Training here does not need it (environments are plain functions of states); it is for other libraries.
`vlmreason/gym.py` puts all of them into Gymnasium's registry.
"""

from __future__ import annotations

import random
import string
from typing import Any, get_args

import gymnasium
import numpy as np
from gymnasium import spaces

from vlmreason.dialogue.build import ask
from vlmreason.envs.base import Env
from vlmreason.pictures import Picture
from vlmreason.segments import WITH_PICTURE, Shown
from vlmreason.streams import SPLITS
from vlmreason.structure import check_choice

MAX_CHARS = 65_536
"""Of a prompt, and of a response drawn from the action space."""
_CHARSET = string.ascii_letters + string.digits + string.punctuation + " \n\t"
_NUM_INDICES = 2**31  # episodes among which a seed chooses, where there are unboundedly many


class GymEnv(gymnasium.Env[dict[str, Any], str]):
    """One level and split of an environment; `level` None is the first one, that of training.

    Observations: {"image": uint8 (height, width, 3), "prompt": text}, with modality "text" the prompt alone, with
    "both" the picture beside the prompt that holds its text form. Characters that are not ASCII are shown as "?".
    Actions: responses; any string is taken, also one outside of the action space. The seed of `reset` decides which
    episodes are played and what is explored (equation 4.1); `options={"index": n}` chooses the episode. Episodes that
    are over are `terminated`, never `truncated`: limits of turns are rules of the games. The reward of a step is the
    sum of the environment's rewards.

    `info` holds the "expert"'s response to the observation (None where the episode is over), after `reset` also the
    "index" of the episode, after `step` "rewards" and "parts" by name, "parsed", "action" and "success".
    """

    metadata = {"render_modes": ["rgb_array"], "render_fps": 1}  # noqa: RUF012 (an instance variable in gymnasium)

    def __init__(
        self,
        env: Env[Any],
        level: str | None = None,
        split: str = "train",
        modality: Shown = "image",
        render_mode: str | None = None,
    ) -> None:
        level = env.levels[0] if level is None else level
        for what, value, allowed in (
            ("level", level, env.levels),
            ("split", split, SPLITS),
            ("modality", modality, get_args(Shown)),
            ("render_mode", render_mode, (None, "rgb_array")),
        ):
            check_choice(what, value, allowed)
        self.env, self.level, self.split, self.modality = env, level, split, modality
        self.render_mode = render_mode
        self.state: Any = None
        self.over = True
        text = spaces.Text(MAX_CHARS, min_length=0, charset=_CHARSET)
        parts: dict[str, spaces.Space[Any]] = {"prompt": text}
        if modality in WITH_PICTURE:
            shape = env.draw(env.start(level, split, 0)).shape
            parts["image"] = spaces.Box(0, 255, shape, np.uint8)
        self.observation_space = spaces.Dict(parts)
        self.action_space = spaces.Text(MAX_CHARS, min_length=0, charset=_CHARSET)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        """Raise ValueError where an option is unknown or the index no integer from 0 up."""
        super().reset(seed=seed)
        if unknown := set(options or {}) - {"index"}:
            raise ValueError(f"options={sorted(unknown)}: allowed is index")
        num = self.env.num_problems(self.level, self.split)
        index = int(self.np_random.integers(num or _NUM_INDICES))
        self.rng = random.Random(int(self.np_random.integers(2**63)))
        if options and "index" in options:
            index = options["index"]
            if not isinstance(index, int) or index < 0:
                raise ValueError(f"index={index!r}: an integer of 0 or more is expected")
        self.state = self.env.start(self.level, self.split, index)
        self.over = False
        return self._observation(), {"index": index, "expert": self.env.expert(self.state)}

    def step(self, action: str) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        """Raise gymnasium.error.ResetNeeded where no episode is being played."""
        if self.over:
            raise gymnasium.error.ResetNeeded("no episode is being played: call reset() first")
        outcome = self.env.turn(self.state, action, self.rng)
        self.state, self.over = outcome.state, outcome.done
        info = {
            "rewards": dict(outcome.rewards),
            "parts": dict(outcome.parts),
            "parsed": outcome.parsed,
            "action": outcome.action,
            "success": outcome.success,
            "expert": None if outcome.done else self.env.expert(self.state),
        }
        return self._observation(), float(outcome.reward), outcome.done, False, info

    def render(self) -> Picture | None:
        return None if self.render_mode is None else self.env.draw(self.state)

    def _observation(self) -> dict[str, Any]:
        prompt, picture = ask(self.env, self.state, self.modality)
        prompt = prompt.encode("ascii", "replace").decode()
        if len(prompt) > MAX_CHARS:
            raise ValueError(f"prompt of {self.env.name}: {len(prompt)} characters, allowed are {MAX_CHARS}")
        seen: dict[str, Any] = {"prompt": prompt}
        return seen if picture is None else seen | {"image": picture}
