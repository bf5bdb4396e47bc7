"""Tasks as environments, over two shipped tasks at nano sizes."""

import functools
import json
import random
from pathlib import Path

import numpy as np
import pytest
import yaml
from gymnasium.utils.env_checker import check_env

from vlmreason.dialogue.build import build_dialogue
from vlmreason.envs.gym import GymEnv
from vlmreason.envs.revision import KEPT_CHARS, Revision, RevisionState
from vlmreason.streams import SPLITS
from vlmreason.structure import structure
from vlmreason.tasks.base import state_to_json
from vlmreason.tasks.grids.grid_navigation import GridNavigation
from vlmreason.tasks.tables.base import TableSizes
from vlmreason.tasks.tables.table_readout import TableReadout

TASKS = {"table_readout": TableReadout, "grid_navigation": GridNavigation}


@functools.cache
def task_of(name):
    kind = TASKS[name]
    data = yaml.safe_load((Path(__file__).parents[2] / "conf" / "task" / f"{name}.yaml").read_text())
    return kind(structure(getattr(kind, "sizes_type", TableSizes), data["nano"]))


def cases(num=6):
    for name in TASKS:
        task = task_of(name)
        for level in task.levels:
            for index in range(num):
                yield task, level, SPLITS[index % 3], index


def test_problems_are_the_tasks_own():
    for task, level, split, index in cases():
        env = Revision(task, attempts=3)
        assert (env.name, env.version, env.levels, env.max_turns) == (task.name, task.version, task.levels, 3)
        problem, own = env.sample(level, split, index), task.sample(level, split, index)
        assert problem.state == env.start(level, split, index) and problem.id == own.id
        state, inner = problem.state, own.state
        assert state == RevisionState(inner)
        for view in ("text", "image", "image_via_text"):
            mine, theirs = build_dialogue(env, problem, view), build_dialogue(task, own, view)
            assert (mine.prompt, mine.response) == (theirs.prompt, theirs.response)
            assert (mine.image is None and theirs.image is None) or np.array_equal(mine.image, theirs.image)
        assert env.key(state) == task.key(inner) and env.answer_marker() == task.answer_marker()
        assert env.score(state, env.expert(state)) == task.score(inner, env.expert(state))


def test_the_expert_wins_at_once():
    for task, level, split, index in cases():
        for attempts in (1, 4):
            env = Revision(task, attempts)
            state = env.start(level, split, index)
            outcome = env.turn(state, env.expert(state), random.Random(0))
            parts = task.score(state.problem, env.expert(state)).parts
            assert outcome.done and outcome.success and outcome.parsed and outcome.state.verdicts == ("right",)
            assert outcome.rewards == {**parts, "correct": 1.0, "parsed": 1.0}
            assert outcome.parts == {**parts, "step_accuracy": 1.0}


def test_one_attempt_ends_with_any_answer():
    for task, level, split, index in cases(2):
        env = Revision(task)
        outcome = env.turn(env.start(level, split, index), "nothing", random.Random(0))
        assert outcome.done and not outcome.success and not outcome.parsed
        assert outcome.rewards["correct"] == outcome.rewards["parsed"] == 0


def test_wrong_answers_can_be_revised():
    for task, level, split, index in cases():
        env = Revision(task, attempts=5)
        first = env.start(level, split, index)
        other = env.start(level, split, index + 1)
        wrong = env.expert(other)
        if task.score(first.problem, wrong).correct:
            continue
        state, prompts = first, [env.prompt(first, "image")]
        for response, verdict in ((wrong, "Wrong."), ("hm", "No answer found."), (wrong, "Wrong.")):
            outcome = env.turn(state, response, random.Random(0))
            assert not outcome.done and not outcome.success and outcome.rewards["correct"] == 0
            assert outcome.parsed == bool(outcome.rewards["parsed"]) == (response != "hm")
            state = outcome.state
            prompts.append(env.prompt(state, "image"))
            assert prompts[-1] == prompts[-2] + f"\nTry {state.turn}: {response}\n{verdict}"
            assert env.prompt(state, "text") == env.prompt(first, "text") + prompts[-1][len(prompts[0]) :]
            assert np.array_equal(env.draw(state), env.draw(first))
        again = env.state_from_json(json.loads(json.dumps(state_to_json(state))))
        assert again == state
        for going in (state, again):
            outcome = env.turn(going, env.expert(going), random.Random(0))
            assert outcome.done and outcome.success and outcome.state.verdicts == ("wrong", "unread", "wrong", "right")
            last = env.turn(env.turn(going, wrong, random.Random(0)).state, wrong, random.Random(0))
            assert last.done and not last.success and last.state.turn == 5


def test_prompts_stay_bounded_and_clean():
    task = task_of("table_readout")
    env = Revision(task, attempts=4)
    state = env.start("simple", "train", 0)
    plain = len(env.prompt(state, "image"))
    for response in ("\ud800 {0} %s {response}", "x" * 1_000_000 + " the end", "é" * KEPT_CHARS):
        state = env.turn(state, response, random.Random(0)).state
    prompt = env.prompt(state, "image")
    assert len(prompt) < plain + 3 * (KEPT_CHARS + 50) and prompt.encode()
    assert "? {0} %s {response}" in prompt and "x the end\n" in prompt and "é" * KEPT_CHARS in prompt
    assert env.state_from_json(json.loads(json.dumps(state_to_json(state)))) == state


@pytest.mark.filterwarnings("ignore:.*Not able to test alternative render modes")
@pytest.mark.filterwarnings("error")
def test_gymnasiums_checker_passes():
    for name in TASKS:
        gym = GymEnv(Revision(task_of(name), attempts=2), level=task_of(name).levels[-1], render_mode="rgb_array")
        check_env(gym)
        gym.reset(seed=0)
        assert gym.step("é")[1:4] == (0.0, False, False)
        seen, _, terminated, truncated, info = gym.step("no")
        assert gym.observation_space.contains(seen) and "Try 1: ?" in seen["prompt"]
        assert (terminated, truncated, info["success"]) == (True, False, False)


def test_verbose_texts_and_own_templates():
    task = task_of("table_readout")
    for keys, said in (
        ({"trace": "verbose"}, "no answer was found"),
        ({"wording": {"earlier": "|{number} {response} {verdict}|", "unread": "eh?"}}, "|1 hm eh?|"),
    ):
        env = Revision(task, 2, **keys)
        state = env.turn(env.start("hard", "test", 0), "hm", random.Random(0)).state
        assert said in env.prompt(state, "text")


def test_wrong_settings_are_named():
    task = task_of("table_readout")
    with pytest.raises(ValueError, match="attempts=0"):
        Revision(task, 0)
    with pytest.raises(ValueError, match=r"wording\.earlier"):
        Revision(task, 2, wording={"earlier": "{nonsense}"})
    env = Revision(task, 2)
    data = state_to_json(env.start("simple", "train", 0))
    for broken in ({}, {"problem": {}}, data | {"turn": 1}, data | {"responses": [1]}, data | {"verdicts": ["maybe"]}):
        with pytest.raises(ValueError, match="problem of table_readout"):
            env.state_from_json(broken)
    with pytest.raises(ValueError, match="level='nonsense'"):
        env.start("nonsense", "train", 0)
