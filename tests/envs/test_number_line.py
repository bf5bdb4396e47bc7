"""NumberLine against its rules, written down here a second time (appendix C.1)."""

import json
import random
from pathlib import Path

import numpy as np
import pytest
import yaml

from vlmreason.envs.number_line import NumberLine, NumberLineSizes, NumberLineState
from vlmreason.models.vlm.tokenization import pieces
from vlmreason.streams import SPLITS
from vlmreason.structure import structure
from vlmreason.tasks.base import state_to_json

CONF = yaml.safe_load((Path(__file__).parents[2] / "conf" / "env" / "number_line.yaml").read_text())
SIZES = {scale: structure(NumberLineSizes, CONF[scale], scale) for scale in ("nano", "paper")}
TRACES = {"nano": "terse", "paper": "verbose"}
BROKEN = ("", "+", "{}", '{"action": "up"}', '{"action": "+ "}', '{"action": "+", "action": "-"}', '{"action": ["+"]}')


def make(scale="nano", **keys):
    return NumberLine(SIZES[scale], **({"trace": TRACES[scale]} | keys))


def expected(last, state, action):
    """(current, reward, done, success) by the rules; `action` None: the turn passes."""
    where = {"+": state.current + 1, "-": state.current - 1, None: state.current}[action]
    where = 0 if where < 0 else last if where > last else where
    over = state.turn + 1 == 2 * last
    if action is None:
        return where, 0.0, over, False
    if where == state.target:
        return where, 1.0, True, True
    return where, 0.0 if abs(state.target - where) < abs(state.target - state.current) else -1.0, over, False


@pytest.mark.parametrize("penalty", [None, -0.5])
def test_transitions_follow_the_rules(penalty):
    rng, last = random.Random(1), 5
    env = make(penalty=penalty)
    for _ in range(5000):
        target, current = rng.sample(range(last + 1), 2)
        state = NumberLineState(target, current, rng.randrange(2 * last))
        said = rng.choice(["+", "-", None])
        response = rng.choice(BROKEN) if said is None else f'I think {{"thoughts": "", "action": "{said}"}}.'
        outcome = env.turn(state, response, random.Random(rng.random()))
        assert outcome.parsed == (said is not None)
        assert outcome.action in ("+", "-") if said is None and penalty is None else outcome.action == said
        where, reward, done, success = expected(last, state, outcome.action)
        assert outcome.state == NumberLineState(target, where, state.turn + 1)
        assert outcome.rewards == {"env": penalty if said is None and penalty is not None else reward}
        assert (outcome.done, outcome.success) == (done, success)
        good = said is not None and (said == "+") == (current < target)
        assert outcome.parts == {"step_accuracy": float(good)}
        assert env.score(state, response).correct == good and env.score(state, response).parsed == outcome.parsed


@pytest.mark.parametrize("cot", [True, False])
@pytest.mark.parametrize("scale", SIZES)
def test_the_expert_wins_on_the_shortest_way(scale, cot):
    env = make(scale, cot=cot)
    for index in range(40):
        state = env.start("standard", SPLITS[index % 3], index)
        distance, rewards = abs(state.target - state.current), []
        assert distance > 0
        while True:
            outcome = env.turn(state, env.expert(state), random.Random(0))
            rewards.append(outcome.reward)
            assert outcome.parsed and outcome.parts["step_accuracy"] == 1
            state = outcome.state
            if outcome.done:
                break
        assert outcome.success and rewards == [0.0] * (distance - 1) + [1.0]


def test_every_split_has_every_episode():
    env = make()
    for split in SPLITS:
        starts = [env.start("standard", split, index) for index in range(400)]
        assert {(s.target, s.current) for s in starts} == {(a, b) for a in range(6) for b in range(6) if a != b}
        assert starts == [env.start("standard", split, index) for index in range(400)]


def test_states_of_problems_are_turns_of_the_expert():
    env = make()
    states = [env.sample("standard", "train", index).state for index in range(100)]
    assert {state.turn for state in states} >= {0, 1, 2, 3}
    assert all(state.current != state.target for state in states)
    assert all(env.state_from_json(json.loads(json.dumps(state_to_json(state)))) == state for state in states)


@pytest.mark.parametrize("scale", SIZES)
def test_pictures_show_the_two_numbers_and_nothing_else(scale):
    env = make(scale)
    width, height = SIZES[scale].picture
    pictures = {}
    for target in range(6):
        for current in range(6):
            picture = env.draw(NumberLineState(target, current))
            assert picture.shape == (height, width, 3) and picture.dtype == np.uint8
            assert (picture == env.draw(NumberLineState(target, current, turn=3))).all()
            pictures[target, current] = picture
    assert len({picture.tobytes() for picture in pictures.values()}) == 36
    cell = width // 6
    for row in (1, 3):
        digits = [
            pictures[(n, 0) if row == 1 else (0, n)][row * cell : (row + 1) * cell, 4 * cell : 5 * cell]
            for n in range(6)
        ]
        assert len({digit.tobytes() for digit in digits}) == 6 and all(digit.min() < 60 for digit in digits)
    picture = pictures[2, 3].copy()
    picture[cell : 2 * cell], picture[3 * cell : 4 * cell] = 255, 255
    assert picture.min() == 255


@pytest.mark.parametrize("cot", [True, False])
@pytest.mark.parametrize("scale", SIZES)
def test_prompts_and_responses(scale, cot):
    env = make(scale, cot=cot)
    state = NumberLineState(target=3, current=0)
    assert env.text(state) == "Target: 3\nCurrent: 0"
    assert env.text(state) in env.prompt(state, "text")
    assert env.prompt(state, "image") == env.prompt(NumberLineState(1, 4), "image")
    said = json.loads(env.expert(state))
    keys = {"terse": ["thoughts", "action"], "verbose": ["current number", "target number", "thoughts", "action"]}
    assert list(said) == (keys[TRACES[scale]] if cot else ["action"]) and said["action"] == "+"
    marker = env.answer_marker().search(env.expert(state))
    if cot:
        assert env.answer_marker().match(env.answer(state)) and marker.start() == len("".join(env.thought(state)))
    else:
        assert env.thought(state) == [] and env.answer(state) == '{"action": "+"}'
    if scale == "nano":
        assert len(pieces(env.expert(state))) <= 25 and len(pieces(env.prompt(state, "text"))) <= 40


def test_wrong_settings_are_named():
    for change, said in (
        ({"max_number": 0}, "max_number=0"),
        ({"picture": [40, 144]}, r"picture=\[40, 144\]"),
        ({"font": 0}, "font=0"),
    ):
        with pytest.raises(ValueError, match=said):
            structure(NumberLineSizes, CONF["nano"] | change)
    for wording in ({"read": "{nonsense}"}, {"read": "{"}, {"prompt_text": ""}, {"decide": "no quote"}):
        with pytest.raises(ValueError, match="wording of number_line"):
            make(wording=wording)
    assert make(wording={"decide": '", '}).expert(NumberLineState(3, 0)) == '{"thoughts": "0", "action": "+"}'
    with pytest.raises(ValueError, match=r"wording\.nonsense"):
        make(wording={"nonsense": ""})
