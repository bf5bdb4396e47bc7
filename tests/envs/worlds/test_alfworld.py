"""ALFWorld on hand-made games and the package's own text engine; where it is not installed, on a recording of one."""

import importlib.util
import json
import os
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from support.alfworld_games import GAMES, MISSING, RECORDED, WHY, write_game, write_games

from vlmreason.envs.episodes import Episodes
from vlmreason.envs.worlds import alfworld
from vlmreason.envs.worlds.alfworld import ALFWorld, ALFWorldSizes, read_task, task_type
from vlmreason.envs.worlds.alfworld_engines import Seen, conditions_met
from vlmreason.streams import SPLITS
from vlmreason.structure import structure
from vlmreason.tasks.base import state_to_json

RECORD = json.loads(Path(__file__).with_name("alfworld_session.json").read_text())
CONF = yaml.safe_load((Path(__file__).parents[3] / "conf" / "env" / "alfworld.yaml").read_text())
GAME = RECORD["game"]


DOWNLOADED = Path(os.environ.get("ALFWORLD_DATA") or Path.home() / ".cache" / "alfworld")
with_package = pytest.mark.skipif(bool(MISSING), reason=WHY)


class Recorded:
    """Plays the game; what was not recorded changes nothing."""

    def __init__(self):
        self.actions = []

    def seen(self):
        node = RECORD["nodes"][json.dumps(self.actions)]
        return Seen(**{**node, "admissible": tuple(node["admissible"]), "inventory": tuple(node["inventory"])})

    def reset(self):
        self.actions = []
        return self.seen()

    def step(self, action):
        if json.dumps([*self.actions, action]) in RECORD["nodes"]:
            self.actions.append(action)
        return self.seen()

    def frame(self):
        return np.full((40, 60, 3), 7 * len(self.actions), dtype=np.uint8)

    def close(self):
        pass


class Counted:
    """An engine that tells how many are opened and closed."""

    opened = 0
    closed = 0

    def __init__(self, engine):
        type(self).opened += 1
        self.engine = engine
        self.reset, self.step, self.frame = engine.reset, engine.step, engine.frame

    def close(self):
        type(self).closed += 1
        self.engine.close()


def sizes(scale="paper"):
    return structure(ALFWorldSizes, CONF[scale])


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """The package makes the folder of its games when it is imported."""
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "home"))


@pytest.fixture
def data(tmp_path):
    for folder in ("train", "valid_seen", "valid_unseen"):
        for number in range(12):
            name = GAME.split("/")[2] if number else "pick_two_obj_and_place-Pen-None-Desk-300"
            trial = tmp_path / "json_2.1.1" / folder / f"{name}{number}" / "trial_T1"
            write_game(trial, RECORDED, solvable=number != 5)
    for name in ("pick_and_place_with_movable_recep-A-B-C-1", "look_at_obj_in_light-AppleSliced-None-Lamp-1"):
        write_game(tmp_path / "json_2.1.1" / "train" / name / "trial_T1", RECORDED)
    return tmp_path


def make(data, recorded=bool(MISSING), **keys):
    """The environment on the engine of the package, or where it is not installed on the recording."""
    env = ALFWorld(sizes(), **({"trace": "verbose", "data": str(data)} | keys))
    env.open = lambda path: Counted(Recorded() if recorded else env._open_package(path))
    return env


def play(env, state, rng=None):
    """The expert's episode."""
    while True:
        outcome = env.turn(state, env.expert(state), rng or random.Random(0))
        yield state, outcome
        state = outcome.state
        if outcome.done:
            return


@pytest.mark.parametrize("cot", [True, False])
def test_the_expert_does_the_task(data, cot):
    env = make(data, cot=cot)
    turns = list(play(env, env.start("standard", "train", 0)))
    outcomes = [outcome for _, outcome in turns]
    assert [outcome.action for outcome in outcomes] == [
        "go to countertop 1", "take mug 1 from countertop 1", "go to microwave 1", "heat mug 1 with microwave 1",
        "go to cabinet 1", "open cabinet 1", "move mug 1 to cabinet 1",
    ]  # fmt: skip
    assert outcomes[-1].success and not any(outcome.success for outcome in outcomes[:-1])
    assert sum(outcome.reward for outcome in outcomes) == 50 + 3
    assert [outcome.rewards["subgoal"] for outcome in outcomes] == [0, 0, 0, 1, 0, 0, 2]
    assert all(outcome.parsed and outcome.parts["step_accuracy"] == 1 for outcome in outcomes)
    assert bool(env.thought(turns[0][0])) == cot
    assert env.score(turns[0][0], env.expert(turns[0][0])).correct


def test_one_engine_serves_an_episode_and_another_one_repeats_it(data):
    env = make(data)
    before = Counted.opened
    turns = list(play(env, env.start("standard", "train", 0)))
    assert Counted.opened == before + 1
    for state, outcome in turns:  # all over again, in an order that no live engine stands at
        assert env.turn(state, env.expert(state), random.Random(0)) == outcome
    fresh = make(data)
    for state, outcome in reversed(turns):
        saved = env.state_from_json(json.loads(json.dumps(state_to_json(state))))
        assert saved == state and fresh.turn(saved, env.expert(state), random.Random(0)) == outcome


def test_not_more_than_so_many_engines_are_kept(data, monkeypatch):
    monkeypatch.setattr(alfworld, "_MAX_ENGINES", 3)
    env = make(data)
    opened, closed = Counted.opened, Counted.closed
    states = [env.start("standard", "train", index) for index in range(8)]
    assert len(env._live) == 3 and Counted.opened - opened == 8 and Counted.closed - closed == 5
    assert env.turn(states[0], env.expert(states[0]), random.Random(0)).parsed


@pytest.mark.parametrize("response", [
    "", '{"action": "fly"}', '{"action": 1}', "look", '{"action": "Look"}', '{"action": "look", "action": "look"}',
])  # fmt: skip
def test_what_is_not_admissible_costs_one_and_a_random_action_is_taken(data, response):
    env = make(data)
    state = env.start("standard", "train", 0)
    taken = set()
    for seed in range(30):
        outcome = env.turn(state, response, random.Random(seed))
        assert not outcome.parsed and outcome.rewards == {"goal": 0.0, "subgoal": 0.0, "inadmissible": -1.0}
        assert outcome.action in state.admissible and outcome.state.actions == (outcome.action,)
        taken.add(outcome.action)
    assert len(taken) > 3
    outcome = make(data, penalty=-0.5).turn(state, response, random.Random(0))
    assert outcome.action is None and outcome.reward == -0.5
    assert outcome.state.actions == () and outcome.state.turn == 1 and not outcome.done


def test_subgoals_count_once(data):
    """What was reached, lost and reached again is no new reward."""
    env = make(data)
    state = list(play(env, env.start("standard", "train", 0)))[4][0]
    assert state.met == 1
    again = env.turn(state, '{"action": "look"}', random.Random(0))
    assert again.rewards["subgoal"] == 0 and again.state.met == 1


def test_an_episode_ends_in_time(data):
    env = make(data)
    state = env.start("standard", "train", 0)
    for turn in range(env.max_turns):
        outcome = env.turn(state, '{"action": "look"}', random.Random(0))
        assert outcome.done == (turn == env.max_turns - 1) and not outcome.success
        state = outcome.state


def test_prompts_hold_task_observation_and_admissible_actions(data):
    for trace in ("terse", "verbose"):
        for cot in (True, False):
            env = make(data, trace=trace, cot=cot)
            for state, _ in play(env, env.start("standard", "train", 0)):
                for modality in ("text", "image"):
                    prompt = env.prompt(state, modality)
                    assert env.text(state) in prompt and "put a hot mug in cabinet" in prompt
                    assert all(f'"{action}"' in prompt for action in state.admissible)
                    assert ("thoughts" in prompt) == cot


def test_pictures(data):
    env = make(data)
    state = env.start("standard", "train", 0)
    after = env.turn(state, env.expert(state), random.Random(0)).state
    panel = env.draw(state)
    assert panel.shape == (300, 300, 3) and (panel != env.draw(after)).any()
    thor = make(data, recorded=True, engine="thor")
    assert (thor.draw(state) == 0).all() and (thor.draw(after) == 7).all() and thor.draw(after).shape == (300, 300, 3)
    assert thor.turn(state, env.expert(state), random.Random(0)).state == after


def test_splits_share_no_game(data):
    env = make(data)
    found = {(level, split): set(env.games(level, split)) for level in env.levels for split in SPLITS}
    assert len(found["standard", "train"]) == 12 and not found["unseen", "train"]
    for level, folder in (("standard", "valid_seen"), ("unseen", "valid_unseen")):
        halves = found[level, "validation"], found[level, "test"]
        assert not halves[0] & halves[1] and len(halves[0] | halves[1]) == 12 and all(halves)
        assert all(f"/{folder}/" in game for game in halves[0] | halves[1])
    starts = {env.start("standard", "train", index).game for index in range(12)}
    assert len(starts) == 11 and not any(game.split("/")[2].endswith("15") for game in starts)  # number 5: no solution
    assert env.start("standard", "train", 3) == make(data).start("standard", "train", 3)
    with pytest.raises(ValueError, match="no solvable game for the split train"):
        env.start("unseen", "train", 0)
    assert {task_type(env.start("standard", "train", i)) for i in range(12)} == {
        "pick_heat_then_place_in_recep", "pick_two_obj_and_place",
    }  # fmt: skip


@pytest.mark.parametrize("change", [
    {"game": "../../etc/passwd"}, {"game": "/etc/passwd"}, {"game": "json_2.1.1"}, {"observation": "elsewhere"},
])  # fmt: skip
def test_a_state_of_another_game_is_refused(data, change):
    env = make(data)
    state = env.state_from_json(state_to_json(env.start("standard", "train", 0)) | change)
    with pytest.raises(ValueError, match="game="):
        make(data).turn(state, '{"action": "look"}', random.Random(0))


def test_what_is_missing_is_said(tmp_path, monkeypatch, data):
    with pytest.raises(ValueError, match=r"vlmreason\[alfworld\].*alfworld-download"):
        ALFWorld(sizes(), data=str(tmp_path / "nowhere"))
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path / "json_2.1.1"))
    with pytest.raises(ValueError, match="alfworld-download"):
        ALFWorld(sizes()).start("standard", "train", 0)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install 'vlmreason\[alfworld\]'"):
        ALFWorld(sizes(), data=str(data)).start("standard", "train", 0)
    with pytest.raises(ValueError, match="engine='film'"):
        ALFWorld(sizes(), engine="film")


def test_the_task_is_read_off_the_beginning():
    assert read_task("You are in a room.\n\nYour task is to: put a pen in desk.") == "put a pen in desk"
    with pytest.raises(ValueError, match="Your task is to"):
        read_task("You are in a room.")


TARGETS = {"object_target": "mug", "parent_target": "desk", "toggle_target": "desklamp", "mrecep_target": ""}
TYPES = [("objecttype", "mug 1", "mugtype"), ("objecttype", "mug 2", "mugtype"), ("objecttype", "pen 1", "pentype"),
         ("objecttype", "desklamp 1", "desklamptype"), ("receptacletype", "desk 1", "desktype"),
         ("receptacletype", "desk 2", "desktype"), ("receptacletype", "bed 1", "bedtype")]  # fmt: skip


@pytest.mark.parametrize(("kind", "facts", "met"), [
    ("pick_and_place_simple", [("inreceptacle", "mug 1", "bed 1"), ("inreceptacle", "pen 1", "desk 1")], 0),
    ("pick_and_place_simple", [("inreceptacle", "mug 1", "desk 1")], 1),
    ("pick_two_obj_and_place", [("inreceptacle", "mug 1", "desk 1"), ("inreceptacle", "mug 2", "desk 2")], 1),
    ("pick_two_obj_and_place", [("inreceptacle", "mug 1", "desk 1"), ("inreceptacle", "mug 2", "desk 1")], 2),
    ("look_at_obj_in_light", [("holds", "agent1", "pen 1")], 0),
    ("look_at_obj_in_light", [("holds", "agent1", "mug 2")], 1),
    ("look_at_obj_in_light", [("holds", "agent1", "mug 2"), ("istoggled", "desklamp 1")], 2),
    ("pick_heat_then_place_in_recep", [("ishot", "pen 1"), ("iscool", "mug 1")], 0),
    ("pick_heat_then_place_in_recep", [("ishot", "mug 1"), ("inreceptacle", "mug 2", "desk 1")], 2),
    ("pick_heat_then_place_in_recep", [("ishot", "mug 1"), ("inreceptacle", "mug 1", "desk 1")], 3),
    ("pick_cool_then_place_in_recep", [("iscool", "mug 1"), ("inreceptacle", "mug 1", "desk 1")], 3),
    ("pick_clean_then_place_in_recep", [("isclean", "mug 1")], 1),
])  # fmt: skip
def test_conditions_of_tasks(kind, facts, met):
    assert conditions_met(kind, TARGETS, TYPES + facts) == met


@with_package
def test_the_recording_is_what_the_engine_tells(data):
    """But for what the planner would do next where several plans are as short as each other."""
    engine, recorded = make(data)._open_package(data / GAME.replace("-1/", "-11/")), Recorded()
    for actions in map(json.loads, RECORD["nodes"]):
        seen, known = engine.reset(), recorded.reset()
        assert seen == known
        for action in actions:
            seen, known = engine.step(action), recorded.step(action)
        assert replace(seen, best=None) == replace(known, best=None)
        assert (seen.best is None) == (known.best is None)


@with_package
def test_the_expert_wins_a_game_of_each_kind(tmp_path):
    env = ALFWorld(sizes(), data=str(write_games(tmp_path, num=1)))
    goals, kinds = {"pick_and_place_simple": 1, "look_at_obj_in_light": 2, "pick_two_obj_and_place": 2}, set()
    for index in range(len(GAMES)):
        turns = list(play(env, env.start("standard", "train", index)))
        kind = task_type(turns[0][0])
        outcomes = [outcome for _, outcome in turns]
        assert outcomes[-1].success and sum(outcome.reward for outcome in outcomes) == 50 + goals.get(kind, 3)
        assert all(outcome.rewards["inadmissible"] == 0 for outcome in outcomes) and 3 < len(turns) < 15
        score = Episodes(env).score(turns[0][0], Episodes(env).answer(turns[0][0]))
        assert score.correct and score.parts["step_accuracy"] == 1
        kinds.add(kind)
    assert kinds == set(alfworld.TASK_TYPES)


@with_package
def test_without_the_planner_there_is_no_expert_and_the_same_game(tmp_path):
    write_games(tmp_path, num=1)
    env, plain = ALFWorld(sizes(), data=str(tmp_path)), ALFWorld(sizes(), data=str(tmp_path), planner=False)
    state, same = (one.start("unseen", "test", 0) for one in (env, plain))
    assert same.best is None and same.admissible == state.admissible and same.observation == state.observation
    with pytest.raises(ValueError, match="planner=true"):
        plain.expert(same)


def test_with_downloaded_games():
    """An expert's episode of a downloaded game, and the same one repeated by another object."""
    if MISSING:
        pytest.skip(WHY)
    if not (DOWNLOADED / "json_2.1.1" / "train").is_dir():
        pytest.skip("the games of alfworld are not downloaded")
    env, other = (ALFWorld(sizes(), data=str(DOWNLOADED)) for _ in range(2))
    turns = list(play(env, env.start("standard", "train", 0)))
    assert turns[-1][1].success and turns[-1][1].rewards["goal"] == 50
    state, outcome = turns[len(turns) // 2]
    assert other.turn(state, other.expert(state), random.Random(0)) == outcome
