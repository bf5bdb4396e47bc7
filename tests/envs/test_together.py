"""Several tasks as one environment: each problem is what it is alone, in turn, under the rewards of its own task."""

import json
import random
from types import SimpleNamespace

import pytest
from support.tiny import nano_task

from vlmreason.answering.rollout import Rollouts
from vlmreason.envs.revision import Revision
from vlmreason.envs.rewards import further
from vlmreason.envs.together import Together, TogetherState
from vlmreason.tasks.base import state_to_json

NAMES = ("shape_area", "grid_position")
ALONE = {name: Revision(nano_task(name)) for name in NAMES}
BOTH = Together(list(ALONE.values()))
TERMS = ("format", "progress", "caption")


class Expert:
    """Answers every prompt as the expert of whichever task asks it."""

    def __init__(self, episodes):
        self.episodes = episodes

    def sample(self, prompts, seeds, max_new_tokens, temperature):
        return [SimpleNamespace(text=BOTH.expert(episode.state)) for episode in self.episodes.values()]


def test_levels_are_those_of_all_and_the_first_of_each_is_played():
    assert BOTH.played == ("shape_area/total", "grid_position/nearest")
    assert len(BOTH.levels) == 6 and BOTH.name == "shape_area+grid_position"


def test_problems_come_in_turn_and_are_those_of_the_tasks():
    rollouts = Rollouts(BOTH, BOTH.played, "image", {"progress": 1.0}, 12, 1.0, 0, 8)
    episodes = {number: rollouts.begin(number) for number in range(6)}
    for number, episode in episodes.items():
        name = NAMES[number % 2]
        alone = ALONE[name].start(ALONE[name].levels[0], "train", number // 2)
        assert episode.state == TogetherState(name, alone)
        for modality in ("text", "image"):
            assert BOTH.prompt(episode.state, modality) == ALONE[name].prompt(alone, modality)
        assert (BOTH.draw(episode.state) == ALONE[name].draw(alone)).all()
    turns = rollouts.play(Expert(episodes), episodes, 0)
    assert [turn.reward for turn in turns.values()] == [2.0] * 6
    assert all(turn.outcome.done and turn.outcome.success for turn in turns.values())


@pytest.mark.parametrize("name", NAMES)
def test_rewards_are_those_of_the_task_alone(name):
    env = ALONE[name]
    for index in range(5):
        alone = env.start(env.levels[0], "train", index)
        state, expert = TogetherState(name, alone), env.expert(alone)
        for response in (expert, expert[: len(expert) // 2], "Answer: 1", "nothing"):
            one, both = (e.turn(s, response, random.Random(0)) for e, s in ((env, alone), (BOTH, state)))
            assert both.rewards == one.rewards
            assert further(BOTH, TERMS, state, response, both) == further(env, TERMS, alone, response, one)


def test_states_survive_json():
    state = BOTH.turn(BOTH.start("grid_position/nearest", "train", 3), "x", random.Random(0)).state
    assert BOTH.state_from_json(json.loads(json.dumps(state_to_json(state)))) == state
    with pytest.raises(ValueError, match="task='shape_grid', allowed are shape_area, grid_position"):
        BOTH.state_from_json({"task": "shape_grid", "state": {}})


def test_tasks_that_do_not_go_together_are_refused():
    with pytest.raises(ValueError, match="table_readout do not begin their answers or captions as those of shape_area"):
        Together([ALONE["shape_area"], Revision(nano_task("table_readout"))])
    with pytest.raises(ValueError, match="different ones"):
        Together([ALONE["shape_area"], ALONE["shape_area"]])
