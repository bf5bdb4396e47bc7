"""Gymnasium's registry: an id for every environment, checked by Gymnasium itself."""

import re
import subprocess
import sys
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from vlmreason import gym
from vlmreason.assembly import catalog

ROOT = Path(__file__).parents[1]
IDS = gym.ids()


def test_every_environment_has_an_id_but_those_that_need_data() -> None:
    assert IDS.keys() == {*catalog.groups()["env"]} - {"alfworld"}
    assert IDS["number_line"] == "vlmreason/NumberLine-v0" and len({*IDS.values()}) == len(IDS)
    assert {*IDS.values()} == {id for id in gymnasium.registry if id.startswith("vlmreason/")}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", IDS)
def test_gymnasiums_checker_has_nothing_to_say(name: str) -> None:
    check_env(gymnasium.make(IDS[name], render_mode="rgb_array").unwrapped)


@pytest.mark.parametrize("name", IDS)
def test_the_expert_ends_an_episode_as_its_file_shows_it(name: str) -> None:
    env = gymnasium.make(IDS[name], split="test")
    seen, info = env.reset(seed=3)
    view = catalog.tree_of(f"env/{name}")["view"]
    assert ("image" in seen) == (view == "image") and env.observation_space.contains(seen)
    over, num = False, 0
    while not over:
        seen, _, over, truncated, info = env.step(info["expert"])
        assert env.observation_space.contains(seen) and info["parsed"] and not truncated
        num += 1
    assert num <= env.unwrapped.env.max_turns


def test_settings_of_the_file_and_of_the_interface() -> None:
    env = gymnasium.make("vlmreason/NumberLine-v0", modality="both", penalty=-0.5, cot=False, sizes={"max_number": 9})
    seen, info = env.reset(seed=0)
    inner = env.unwrapped.env
    assert inner.max_turns == 18 and inner.text(env.unwrapped.state) in seen["prompt"]
    assert np.array_equal(seen["image"], inner.draw(env.unwrapped.state)) and info["expert"].startswith('{"action"')
    assert env.step("nothing")[1] == -0.5
    assert gymnasium.make("vlmreason/NumberLine-v0", scale="paper").reset(seed=0)[0]["image"].shape == (300, 300, 3)
    made = gymnasium.make_vec("vlmreason/NumberLine-v0", num_envs=2, vectorization_mode="sync")
    assert made.reset(seed=0)[0]["image"].shape == (2, 144, 144, 3)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"scale": "huge"}, "scale='huge': allowed are nano, paper"),
        ({"penalti": -1}, "setting='penalti'.*did you mean 'penalty'"),
        ({"sizes": {"max": 3}}, "task.nano.max: no such key; there are max_number"),
        ({"modality": "sound"}, "modality='sound': allowed are text, image, both"),
        ({"level": "easy"}, "level='easy': allowed are standard"),
        ({"split": "dev"}, "split='dev'"),
    ],
)
def test_mistakes_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        gymnasium.make("vlmreason/NumberLine-v0", **settings)


def test_what_is_recognized_is_seen_in_a_picture() -> None:
    with pytest.raises(ValueError, match="choose env=general_points or env=general_points_l"):
        gymnasium.make("vlmreason/GeneralPoints-v1", modality="text")
    assert "image" not in gymnasium.make("vlmreason/GeneralPoints-v1", modality="text", image=False).observation_space


def test_the_page_says_it_as_it_is() -> None:
    """Without PyTorch, and without this process's registry."""
    [block] = re.findall(r"```python\n(import gymnasium\n.*?)```", (ROOT / "docs" / "rl.md").read_text(), re.DOTALL)
    code = block + "assert reward == 0 and not over and 'expert' in info and seen['image'].shape == (144, 144, 3)\n"
    code += "import sys\nassert 'torch' not in sys.modules\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
