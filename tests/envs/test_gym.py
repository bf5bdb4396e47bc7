"""Gymnasium's interface over the number line; tests/envs/test_all_envs.py checks it for every environment."""

import subprocess
import sys

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from vlmreason.envs.gym import GymEnv
from vlmreason.envs.number_line import NumberLine, NumberLineSizes


def make(**keys):
    env = NumberLine(NumberLineSizes(5, (144, 144), 20), penalty=keys.pop("penalty", None))
    return GymEnv(env, **keys)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("modality", ["text", "image"])
def test_gymnasiums_checker_has_nothing_to_say(modality):
    gymnasium.register("NumberLineForTest-v0", entry_point=make)
    made = gymnasium.make("NumberLineForTest-v0", modality=modality, render_mode="rgb_array")
    gymnasium.registry.pop("NumberLineForTest-v0")
    check_env(made.unwrapped)


def test_an_episode_of_the_expert():
    env = make(render_mode="rgb_array")
    seen, info = env.reset(seed=3)
    assert env.observation_space.contains(seen) and (env.render() == seen["image"]).all()
    rewards = []
    while True:
        seen, reward, terminated, truncated, info = env.step(info["expert"])
        assert env.observation_space.contains(seen) and (env.render() == seen["image"]).all()
        assert info["parsed"] and info["rewards"] == {"env": reward} and info["parts"] == {"step_accuracy": 1.0}
        rewards.append(reward)
        if terminated:
            break
    assert info["success"] and info["expert"] is None and not truncated and rewards[-1] == sum(rewards) == 1
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step("")


def test_the_limit_of_turns_is_a_rule_of_the_game():
    env = make(penalty=-0.25)
    env.reset(seed=0)
    ends = [env.step("no JSON")[1:4] for _ in range(10)]
    assert ends == [(-0.25, False, False)] * 9 + [(-0.25, True, False)]


def test_a_seed_decides_episodes_and_exploration():
    def play(seed):
        env = make()
        _, info = env.reset(seed=seed)
        indices, moves = [], []
        for _ in range(5):
            indices.append(info["index"])
            _, _, terminated, truncated, info = env.step("no JSON")
            moves.append(info["action"])
            while not (terminated or truncated):
                _, _, terminated, truncated, info = env.step("no JSON")
                moves.append(info["action"])
            _, info = env.reset()
        return indices, moves

    assert play(1) == play(1)
    assert play(1)[0] != play(2)[0]
    assert len(set(play(1)[0])) == 5 and set(play(1)[1]) == {"+", "-"}


def test_an_index_chooses_the_episode():
    env = make()
    first, info = env.reset(options={"index": 7})
    assert info["index"] == 7
    again, _ = env.reset(seed=5, options={"index": 7})
    assert np.array_equal(first["image"], again["image"]) and first["prompt"] == again["prompt"]
    for wrong in (-1, 1.5, "7"):
        with pytest.raises(ValueError, match="index="):
            env.reset(options={"index": wrong})
    with pytest.raises(ValueError, match="nonsense"):
        env.reset(options={"nonsense": 1})


def test_wrong_settings_are_named():
    for key in ("level", "split", "modality", "render_mode"):
        with pytest.raises(ValueError, match=f"{key}='nonsense'"):
            make(**{key: "nonsense"})


def test_only_this_module_needs_gymnasium():
    code = (
        "import pkgutil, importlib, sys, vlmreason.envs as envs\n"
        "for module in pkgutil.iter_modules(envs.__path__):\n"
        "    module.name == 'gym' or importlib.import_module('vlmreason.envs.' + module.name)\n"
        "assert 'gymnasium' not in sys.modules and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
