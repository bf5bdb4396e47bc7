"""What holds for every environment in conf/env, at both sizes; a new one is checked without a change here."""

import functools
import importlib
import json
import random
import re
import string
import time
from pathlib import Path

import numpy as np
import pytest
import yaml
from gymnasium.utils.env_checker import check_env

from vlmreason.dialogue.build import build_dialogue
from vlmreason.dialogue.parse import split_response
from vlmreason.envs.base import ActionEnv
from vlmreason.envs.episodes import Episodes
from vlmreason.envs.gym import GymEnv
from vlmreason.envs.replies import MAX_CHARS, read_action, read_object
from vlmreason.segments import VIEWS
from vlmreason.streams import SPLITS
from vlmreason.structure import structure
from vlmreason.tasks.base import state_to_json

CONF = Path(__file__).parents[2] / "conf" / "env"
TRACES = {"nano": "terse", "paper": "verbose"}
NAMES = sorted(path.stem for path in CONF.glob("*.yaml") if path.stem != "alfworld")  # it plays games of the user's
CASES = [(name, scale) for name in NAMES for scale in TRACES]
OF_COMMANDS = {"_target_", "name", "view", "start", "defaults", "trace", *TRACES}
NUM_HOSTILE = 1_000_000


def settings_of(name):
    """The keys of a file over those of the files of this folder that it names."""
    own = yaml.safe_load((CONF / f"{name}.yaml").read_text())
    merged = {}
    for entry in own.get("defaults", []):
        if isinstance(entry, str) and entry != "_self_":
            merged = merge(merged, settings_of(entry.lstrip("/").removeprefix("env/").partition("@")[0]))
    return merge(merged, own)


def merge(base, over):
    both = {key: merge(base[key], over[key]) for key in base.keys() & over.keys() if isinstance(base[key], dict)}
    return {**base, **over, **{key: value for key, value in both.items() if isinstance(over[key], dict)}}


@functools.cache
def shipped(name, scale, cot=True):
    data = settings_of(name)
    module, _, kind = data["_target_"].rpartition(".")
    made = getattr(importlib.import_module(module), kind)
    keys = {key: value for key, value in data.items() if key not in OF_COMMANDS}
    sizes = structure(made.sizes_type, data[scale], f"{name}.{scale}")
    trace = data["trace"] or TRACES[scale]
    return made(sizes, **(keys | {"trace": trace, "cot": keys["cot"] and cot}))


def starts(env, num):
    for level in env.levels:
        for index in range(num):
            yield env.start(level, SPLITS[index % 3], index)


def names_actions(env):
    """Whether an answer is one of a few actions in words."""
    return hasattr(env, "actions")


def responses(env, rng):
    """What an agent of mixed quality says: the expert's, actions that can be named, nonsense."""

    def respond(state):
        chance = rng.random()
        if chance < 0.4:
            return env.expert(state)
        if chance < 0.8 and names_actions(env):
            return json.dumps({env.answer_key: rng.choice(list(env.actions(state)))})
        return env.expert(state)[: rng.randrange(40)]

    return respond


def play(env, state, respond, rng):
    """Outcomes of an episode from a state on; it must end in time."""
    while True:
        outcome = env.turn(state, respond(state), rng)
        yield outcome
        state = outcome.state
        assert outcome.done or state.turn < env.max_turns
        if outcome.done:
            return


def test_there_are_environments():
    assert "number_line" in NAMES


@pytest.mark.parametrize("zero", ["\u0660", "\uff10"])
@pytest.mark.parametrize(("name", "scale"), CASES)
def test_digits_of_other_scripts_do_not_count(name, scale, zero):
    env = shipped(name, scale)
    digits = str.maketrans(string.digits, "".join(chr(ord(zero) + digit) for digit in range(10)))
    for state in starts(env, 3):
        expert, rng = env.expert(state), random.Random(1)
        response = expert.translate(digits)
        if response == expert or (
            names_actions(env) and not set(read_object(expert, env.answer_key)[env.answer_key]) & set(string.digits)
        ):
            continue
        assert not env.score(state, response).correct
        assert env.turn(state, expert, rng).parsed and not env.turn(state, response, rng).parts.get("step_accuracy")


@pytest.mark.filterwarnings("ignore:.*Not able to test alternative render modes")  # only what gymnasium.make made
@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("modality", ["image", "text"])
@pytest.mark.parametrize(("name", "scale"), CASES)
def test_gymnasiums_checker_passes(name, scale, modality):
    env = shipped(name, scale)
    for level in env.levels:
        gym = GymEnv(env, level=level, modality=modality, render_mode="rgb_array")
        check_env(gym)
        for index in range(3):
            seen, info = gym.reset(options={"index": index})
            over = False
            while not over:
                assert gym.observation_space.contains(seen)
                seen, reward, over, truncated, info = gym.step(info["expert"])
                assert not truncated and reward == sum(info["rewards"].values())
            assert gym.observation_space.contains(seen) and info["expert"] is None


@pytest.mark.parametrize(("name", "scale"), CASES)
def test_the_same_index_is_the_same_episode(name, scale):
    env = shipped(name, scale)
    shipped.cache_clear()
    again = shipped(name, scale)
    assert again is not env
    for one, other in zip(starts(env, 4), starts(again, 4), strict=True):
        assert one == other and env.draw(one).tobytes() == again.draw(other).tobytes()
        assert env.expert(one) == again.expert(other)
        assert env.prompt(one, "text") == again.prompt(other, "text")
        runs = []
        for made, state in ((env, one), (again, other)):
            rng = random.Random(1)
            runs.append(list(play(made, state, responses(made, random.Random(2)), rng)))
        assert runs[0] == runs[1]
    assert len({json.dumps(state_to_json(state)) for state in starts(env, 12)}) > 6


@pytest.mark.parametrize(("name", "scale"), CASES)
def test_pictures_and_prompts(name, scale):
    env = shipped(name, scale)
    width, height = env.sizes.picture
    pictures = set()
    for state in starts(env, 6):
        picture = env.draw(state)
        assert picture.shape == (height, width, 3) and picture.dtype == np.uint8
        pictures.add(picture.tobytes())
        before = picture.copy()
        for outcome in play(env, state, responses(env, random.Random(0)), random.Random(0)):
            env.draw(outcome.state)
        assert (picture == before).all()
        text, asked = env.prompt(state, "text"), env.prompt(state, "image")
        assert env.text(state) in text and env.text(state) not in asked
        assert (text + asked + env.convert(state) + env.expert(state)).isascii()
        assert env.convert(state).startswith("Convert")
    assert len(pictures) > 3
    assert scale != "nano" or (width, height) == (144, 144)


@pytest.mark.parametrize(("name", "scale"), CASES)
def test_an_episode_goes_on_from_saved_states(name, scale):
    env = shipped(name, scale)
    for number, first in enumerate(starts(env, 4)):
        whole = list(play(env, first, responses(env, random.Random(number)), random.Random(number)))
        rng, respond, state = random.Random(number), responses(env, random.Random(number)), first
        for outcome in whole:
            saved = json.dumps(state_to_json(state))
            again = env.state_from_json(json.loads(saved))
            assert again == state and hash(again) == hash(state) and json.dumps(state_to_json(again)) == saved
            assert env.draw(again).tobytes() == env.draw(state).tobytes()
            went = env.turn(again, respond(again), rng)
            assert went == outcome
            state = went.state


@pytest.mark.parametrize("cot", [True, False])
@pytest.mark.parametrize(("name", "scale"), CASES)
def test_the_expert_acts_in_time(name, scale, cot):
    env = shipped(name, scale, cot)
    for first in starts(env, 6):
        state = first
        for outcome in play(env, first, env.expert, random.Random(0)):
            expert, thought, answer = env.expert(state), "".join(env.thought(state)), env.answer(state)
            assert outcome.parsed and outcome.parts["step_accuracy"] == 1
            assert read_object(expert, env.answer_key) is not None
            assert env.score(state, expert).correct and outcome.state.turn == state.turn + 1
            assert all(0 <= value <= 1 for value in outcome.parts.values())
            marks = list(env.answer_marker().finditer(expert))
            assert len(marks) == 1
            if cot:
                assert thought and marks[0].start() == len(thought)
            else:
                assert not thought and expert == answer and list(json.loads(expert)) == [env.answer_key]
            if isinstance(env, ActionEnv):
                assert outcome.action in env.best(state) and set(env.best(state)) <= set(env.legal(state))
                assert set(env.legal(state)) <= set(env.actions(state))
            state = outcome.state
        assert outcome.done


@pytest.mark.parametrize("cot", [True, False])
@pytest.mark.parametrize(("name", "scale"), CASES)
def test_options_are_the_actions_as_they_are_read(name, scale, cot):
    env = shipped(name, scale, cot)
    for state in starts(env, 3):
        options = env.options(state)
        if not isinstance(env, ActionEnv):
            assert options is None
            continue
        assert [read_action(option, env.actions(state), env.answer_key) for option in options] == [*env.actions(state)]
        assert {env.score(state, option).correct for option in options} == {True, False}
        assert Episodes(env).options(state) == options


@pytest.mark.parametrize(("name", "scale"), CASES)
def test_sampled_problems_are_turns_of_the_expert(name, scale):
    env = shipped(name, scale)
    for level in env.levels:
        for index in range(6):
            problem = env.sample(level, SPLITS[index % 3], index)
            assert problem == env.sample(level, SPLITS[index % 3], index)
            assert env.score(problem.state, env.expert(problem.state)).correct
            assert not env.score(problem.state, "").parsed


@pytest.mark.parametrize("cot", [True, False])
@pytest.mark.parametrize(("name", "scale"), CASES)
def test_segments_of_the_expert_are_found_in_its_text(name, scale, cot):
    env = shipped(name, scale, cot)
    for level in env.levels:
        for index in range(4):
            problem = env.sample(level, "train", index)
            for view in VIEWS:
                response = build_dialogue(env, problem, view).response
                assert split_response(env, problem.state, response.text) == response


@pytest.mark.parametrize("name", NAMES)
def test_the_answer_begins_where_it_is_read(name):
    env = shipped(name, "nano")
    state = env.start(env.levels[0], "train", 0)
    key, value = env.answer_key, json.loads(env.expert(state))[env.answer_key]
    thought, answer = f'{{"x": {{"y": "\\"{key}\\": 1"}}, "{key}s": [[1, "}}"]],\n', f'"{key}": "{value}", "z": 1}}'
    escaped = answer.replace(key[0], f"\\u{ord(key[0]):04x}", 1)
    convert = f"{env.convert(state)}\n1\n"
    for head, tail in (
        (thought, answer),
        (thought, answer + f' and then "{key}": nothing'),
        (f'"{key}": "1" ' + thought, answer),
        (thought, escaped),
        (thought, answer.replace(":", " \n" * 9 + ":", 1)),
    ):
        for before in ("", convert):
            whole = before + head + tail + f"\n{env.text(state).splitlines()[-1]}\n"
            assert read_object(whole, key)[key] == value
            segments = split_response(env, state, whole).segments
            assert segments[-1].kind == "answer" and segments[-1].text.startswith(tail)
            assert "".join(segment.text for segment in segments) == whole


@pytest.mark.parametrize("name", NAMES)
def test_responses_that_cannot_be_read_are_cut_at_the_last_marker(name):
    env = shipped(name, "nano")
    key = env.answer_key
    for response, answer in (
        (f'{{"x": 1, "{key}": "cut', f'"{key}": "cut'),
        (f'{{"x": "{key}": 1}} so "{key}": 2}}', f'"{key}": 2}}'),
        (f'{{"x": {{"{key}": 1}}, "{key}": 2}}', f'"{key}": 2}}'),
        (f'{{"x": 1}} "{key}": 1', f'"{key}": 1'),
    ):
        assert env.answer_start(response, 0) == len(response) - len(answer)
    assert env.answer_start("nothing", 0) == 7


@pytest.mark.parametrize("name", NAMES)
def test_the_key_of_the_answer_comes_once(name):
    env = shipped(name, "nano")
    state = env.start(env.levels[0], "train", 0)
    key, said = env.answer_key, json.loads(env.expert(state))
    other = {"n": [1, {"m": {key: "1"}}]}
    for twice in (said | other, other | said, {"n": {key: said[key]}} | said):
        response = json.dumps(twice)
        assert read_object(response, key) is None and not env.score(state, response).parsed
        assert not env.turn(state, response, random.Random(0)).parsed
    assert env.turn(state, json.dumps({"n": {f"{key}s": key}, "m": [key]} | said), random.Random(0)).parsed


@pytest.mark.parametrize("name", NAMES)
def test_hostile_responses_are_cut_in_linear_time(name):
    env = shipped(name, "nano")
    state, key = env.start(env.levels[0], "train", 0), env.answer_key
    size = 200_000
    filled = [f'{{"{key}" {" " * size}: 1}}', f'{{"n": "{"x" * (MAX_CHARS - 50)}", "{key}": "1"}}', "{" + " " * size]
    for sign in (f'"{key}":', f'"{key}"', "{", "{}", '{"a":', '"', "\\", f'{{"{key}":1}}', "[", '{"a":1,'):
        filled.append((sign * size)[:size])
    pairs = ", ".join(f'"{number}": [{{}}]' for number in range(1200))
    filled += [f'{{{pairs}, "{key}": "1"}}', "{" + '"a":[' * 3000 + "]" * 3000 + "}"]
    for text in filled:
        for response in (text, env.convert(state) + "\n" + text):
            begin = time.process_time()
            segments = split_response(env, state, response).segments
            assert time.process_time() - begin < 1
            assert "".join(segment.text for segment in segments) == response


LOOK_ALIKES = str.maketrans("-+*/=aeiopct0123", "‐＋∗／＝аеіορсτ𝟎１２３")
CONTROLS = "\x00\x01\x07\x1b\u200b\u202e\ufeff\ud800\r\x85\u2028"

HOSTILE_ANSWERS = (
    *("", "1+1", "1/0", "9**9**9", "(" * 500, "1" * 5000, "1/(3-3)", "1e9", "0x10+2", "1_0+2", "-1", "+", "=24"),
    *("９+１", "1\u00d72", "1 2", "()", "1;2", "1#", "lambda: 1", "__import__('os').abort()", "True+1", "1,2", "nan"),
)
"""Instead of a formula."""


NESTS = ("{{{}}}", "[{{{}}}]", '{{"n": [1, {{{}}}]}}', "{{{}, 1: 1}}")


def quote(text, rng):
    """A string of JSON, some signs of which are escaped."""
    return '"' + "".join(f"\\u{ord(sign):04x}" if rng.random() < 0.1 else sign for sign in text) + '"'


def mutate(rng, response, other, actions, key):
    """One of many ways to spoil a response."""
    at = rng.randrange(len(response) + 1)
    action = rng.choice(actions)
    quoted = json.dumps(action)
    kind = rng.randrange(29)
    if kind == 0:
        return response.swapcase()
    if kind == 1:
        return response.translate(LOOK_ALIKES)
    if kind == 2:
        return response + other
    if kind == 3:
        return response.replace(f'"{key}"', f'"{key}": {quoted}, "{key}"')
    if kind == 4:
        return re.sub(r'[{}"]', "", response)
    if kind == 5:
        return f'{{"answer": {response}}}'
    if kind == 6:
        return response.replace("{", '{"n": ' + "9" * rng.choice((30, 400, 5000)) + ", ", 1)
    if kind == 7:
        return response[:at]
    if kind == 8:
        return response[:at] + rng.choice(CONTROLS) + response[at:]
    if kind == 9:
        return f'{{"{key}": [{quoted}]}}'
    if kind == 10:
        return f'{{"{key}": {quoted.replace(" ", "")[:-1]} "}}'
    if kind == 11:
        return f'{{"{key}": {rng.choice(("null", "true", "NaN", "-Infinity", "1e999", "0", "{}", "12", "-1"))}}}'
    if kind == 12:
        return f'{{"{key.upper()}": {quoted}}}'
    if kind == 13:
        return f'{{"{key}": {quoted[:-1]}{rng.choice(CONTROLS.replace(chr(0xD800), ""))}"}}'
    if kind == 14:
        return f"I choose {action}, {key}: {action}"
    if kind == 15:
        return "{" * rng.choice((2, 9, 300)) + response
    if kind == 16:
        return response + "}" * rng.choice((1, 2, 300))
    if kind == 17:
        return f'[{{"{key}": {quoted}}}]'
    if kind == 18:
        return f"{{'{key}': '{action}'}}"
    if kind == 19:
        return f'{{"{key}": {json.dumps(action + rng.choice(actions))}}}'
    if kind == 20:
        return "".join(rng.choices(string.printable, k=rng.randrange(60)))
    if kind == 21:
        return f'{{"{key}": {quoted}}} or {{"{key}": {json.dumps(rng.choice(actions))}}}'
    if kind == 22:
        return response[:at] + response[at + 1 :]
    if kind == 23:
        return response.replace("{", f'{{"n": {rng.choice(NESTS).format(f"{quote(key, rng)}: {quoted}")}, ', 1)
    if kind == 24:
        return f'{response.rstrip("}")}, "n": {rng.choice(NESTS).format(f"{quote(key, rng)}: {quoted}")}}}'
    if kind == 25:
        return response.replace(f'"{key}":', f"{quote(key, rng)}{' ' * rng.randrange(20)}:")
    if kind == 26:
        return f'{response} and then "{key}": {quoted}'
    if kind == 27:
        return f'"{key}": {quoted} or {response.replace("{", f"{{{quote(action, rng)}: 1, ", 1)}'
    return f'```json\n{{"{key}": {quoted}}}\n```'


def reference_action(response, actions, key):
    """The action by the letter, found in another way: exactly one object, no key twice in one or the answer's twice
    in all, the value an exact string."""
    found = [match.start() for match in re.finditer(r"\{", response)]
    if not found:
        return None
    pairs = []

    def keep(items):
        pairs.append(items)
        return dict(items)

    try:
        value, end = json.JSONDecoder(object_pairs_hook=keep).raw_decode(response, found[0])
    except (ValueError, RecursionError):
        return None
    if "}" in response[end:] or any(len({name for name, _ in items}) != len(items) for items in pairs):
        return None
    if sum(key in dict(items) for items in pairs) > 1:
        return None
    return value.get(key) if isinstance(value.get(key), str) and value[key] in actions else None


def answered(env, state, response):
    """What the answer segment of a response begins with: a key and its value."""
    segments = split_response(env, state, response).segments
    assert "".join(segment.text for segment in segments) == response
    assert [segment.kind for segment in segments][-1] == "answer"
    pairs, _ = json.JSONDecoder(object_pairs_hook=list).raw_decode("{" + segments[-1].text.removeprefix("{"))
    return dict(pairs[:1])


@functools.cache
def action_envs():
    return [env for env in (shipped(name, "nano") for name in NAMES) if names_actions(env)]


def situations(env, rng, num):
    """States of episodes at all turns, with the expert's responses and the actions that can be named."""
    found, index = [], 0
    while len(found) < num:
        state = env.start(env.levels[index % len(env.levels)], "train", index)
        for outcome in play(env, state, responses(env, rng), rng):
            found.append(state)
            state = outcome.state
        index += 1
    return [(state, env.expert(state), list(env.actions(state))) for state in found[:num]]


@pytest.mark.slow
def test_hostile_outputs_never_act():
    """A million of them, and that no more are read than those whose action is there by the letter."""
    rng, num_done, num_read = random.Random(0), 0, 0
    envs = action_envs()
    each = NUM_HOSTILE // len(envs) + 1
    for env in envs:
        seen = situations(env, rng, 60)
        for _ in range(each):
            _, response, actions = seen[int(rng.random() * 60)]
            text = mutate(rng, response, seen[int(rng.random() * 60)][1], actions, env.answer_key)
            action = read_action(text, actions, env.answer_key)
            num_done += 1
            if action is not None:
                num_read += 1
                assert action in actions and action == reference_action(text, actions, env.answer_key), text
                assert num_read % 16 or answered(env, seen[0][0], text) == {env.answer_key: action}, text
    print(f"{num_done} outputs, {num_read} actions read")
    assert num_done >= NUM_HOSTILE and 0 < num_read < num_done / 3


@pytest.mark.parametrize("name", NAMES)
def test_hostile_turns_never_fail(name):
    """Whole turns: never an exception, no action but the one that is read, exploration among what is legal."""
    env, rng = shipped(name, "nano"), random.Random(1)
    index = num_read = num_won = 0
    for number in range(3000):
        if number % 8 == 0:
            index += 1
            state = env.start(env.levels[index % len(env.levels)], "train", index)
        if names_actions(env):
            text = mutate(rng, env.expert(state), env.expert(state), list(env.actions(state)), env.answer_key)
            action = read_action(text, env.actions(state), env.answer_key)
            outcome = env.turn(state, text, rng)
            assert outcome.parsed == (action is not None)
            num_read += outcome.parsed
            explored = env.legal(state) if isinstance(env, ActionEnv) else ()
            assert outcome.action == action if outcome.parsed else outcome.action in (None, *explored)
        else:
            text = mutate(rng, env.expert(state), env.expert(state), HOSTILE_ANSWERS, env.answer_key)
            outcome, score = env.turn(state, text, rng), env.score(state, text)
            assert score.parsed == outcome.parsed and float(score.correct) == outcome.parts["step_accuracy"]
            assert outcome.parsed or not outcome.success
            num_read += outcome.parsed
            num_won += outcome.success
        assert np.isfinite(outcome.reward) and outcome.state.turn == state.turn + 1
        json.dumps(state_to_json(outcome.state)).encode()
        env.prompt(outcome.state, "text")
        if outcome.done:
            index += 1
            state = env.start(env.levels[index % len(env.levels)], "train", index)
        else:
            state = outcome.state
    assert 0 < num_read < 2000 and num_won < 1000
