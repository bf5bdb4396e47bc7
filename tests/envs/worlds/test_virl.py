"""V-IRL against a second account of its rules, which knows the route as JSON only."""

import json
import random
import re
from pathlib import Path

import pytest
import yaml
from hydra import initialize_config_dir

from vlmreason import places
from vlmreason.assembly import compose
from vlmreason.envs.worlds.routes import NAMES, Milestone, Route, sample_route, write_routes
from vlmreason.envs.worlds.virl import VIRL, VIRLSizes, VIRLState
from vlmreason.streams import SPLITS
from vlmreason.structure import structure
from vlmreason.tasks.base import state_to_json

CONF = Path(__file__).parents[3] / "conf" / "env"
LEVELS = ("standard", "rule_ood", "visual_ood")
COMPASS = {"north": 0, "northeast": 45, "east": 90, "southeast": 135, "south": 180, "southwest": 225, "west": 270,
           "northwest": 315}  # fmt: skip
STRAIGHT = {"nano": 2, "paper": 5}
SEEN = {"nano": "{} {}", "paper": "{} is on your {}"}
UNSEEN = {"nano": "none", "paper": "No landmarks nearby"}
RELATIVE = ("left", "right", "slightly left", "slightly right")


def make(scale="nano", **keys):
    sizes = structure(VIRLSizes, yaml.safe_load((CONF / "virl.yaml").read_text())[scale])
    return VIRL(sizes, **({"trace": "terse" if scale == "nano" else "verbose"} | keys))


def steps_of(data, straight):
    """Right action, landmark and whether there is a crossing, for each coordinate, from a state as JSON."""
    heading, here, steps = data["route"]["heading"], None, []
    for number, end in enumerate(data["route"]["milestones"]):
        if data["relative"]:
            clockwise = (end["heading"] - heading) % 360
            word = "right" if clockwise <= 180 else "left"
            turn = word if 45 < clockwise < 315 else "slightly " + word
        else:
            gaps = {name: min((end["heading"] - h) % 360, (h - end["heading"]) % 360) for name, h in COMPASS.items()}
            turn = min(gaps, key=gaps.get)
        steps.append((f"turn_direction({turn})", here, number > 0))
        steps += [("forward()", None, False)] * max(1, min(straight, end["distance"] // 20))
        heading, here = end["heading"], end["landmark"]
    return [*steps, ("stop()", here, False)]


def random_response(rng, data, scale):
    """A response and what it holds: the action (None: unreadable) and the observation (None: none)."""
    steps = steps_of(data, STRAIGHT[scale])
    places = [(m["landmark"], m["side"]) for m in data["route"]["milestones"] if m["landmark"]]
    turns = RELATIVE if data["relative"] else COMPASS
    legal = ["forward()", "stop()", *(f"turn_direction({t})" for t in turns)]
    right, landmark, _ = steps[data["position"]]
    action = right if rng.random() < 0.6 else rng.choice(legal)
    if rng.random() < 0.1:
        action = rng.choice(["jump()", "turn_direction(up)", "Forward()", "forward", "", "turn_direction(north) "])
    there = next((place for place in places if place[0] == landmark), (None, None))
    seen = there if rng.random() < 0.6 else rng.choice([*places, (landmark, landmark and "up"), (None, None)])
    observation = SEEN[scale].format(*seen) if seen[0] else rng.choice([UNSEEN[scale], ""])
    kind = rng.random()
    if kind < 0.1:
        return (
            rng.choice(["", "forward()", "{", '{"action": forward()}', "[]", '{"action": 3}', "\x00<image>"]),
            None,
            None,
        )
    if kind < 0.2:
        return json.dumps({"action": action}), action if action in legal else None, None
    text = json.dumps({"current observation": observation, "current instruction": "2", "action": action})
    return text, action if action in legal else None, seen


@pytest.mark.parametrize("scale", ["nano", "paper"])
def test_transitions_follow_the_rules(scale):
    """10,000 random ones."""
    rng, num = random.Random(3), 0
    made = {(image, cot, penalty, attempts): make(scale, image=image, cot=cot, penalty=penalty, attempts=attempts)
            for image, cot, penalty, attempts in [(True, True, None, 2), (False, True, -0.5, 2), (True, False, None, 1),
                                                  (True, True, -2.0, 3)]}  # fmt: skip
    while num < 5000:
        (image, cot, penalty, attempts), env = rng.choice(list(made.items()))
        state = env.start(rng.choice(LEVELS), rng.choice(SPLITS), rng.randrange(10**6))
        done = False
        while not done:
            data = state_to_json(state)
            steps = steps_of(data, env.sizes.straight)
            response, action, seen = random_response(rng, data, scale)
            outcome = env.turn(state, response, rng)
            after = state_to_json(outcome.state)
            right, landmark, _ = steps[data["position"]]
            rewards = {
                "action": 1.0 if action == right else penalty if action is None and penalty is not None else -1.0
            }
            wrong = len(data["tried"]) + (action != right)
            rewards["limit"] = -1.0 if action != right and wrong == attempts else 0.0
            sides = {m["landmark"]: m["side"] for m in data["route"]["milestones"]}
            recognized = (seen or (None, None)) == (landmark, sides[landmark] if landmark else None)
            if image and cot:
                rewards["landmark"] = 0.0 if recognized else -1.5
            assert dict(outcome.rewards) == rewards
            at_end = data["position"] == len(steps) - 1
            assert outcome.done == (at_end if action == right else wrong == attempts)
            assert outcome.success == (at_end and action == right)
            assert outcome.parsed == (action is not None) and outcome.action == action
            assert outcome.parts["step_accuracy"] == (action == right)
            assert outcome.parts.get("recognition") == (float(recognized and seen is not None) if cot else None)
            assert after["turn"] == data["turn"] + 1 and after["route"] == data["route"]
            assert after["position"] == data["position"] + (action == right and not at_end)
            assert len(after["tried"]) == (0 if action == right and not at_end else wrong)
            state, done, num = outcome.state, outcome.done, num + 1
            assert done or state.turn < env.max_turns


@pytest.mark.parametrize("scale", ["nano", "paper"])
@pytest.mark.parametrize("level", LEVELS)
def test_the_expert_arrives(scale, level):
    env = make(scale)
    for index in range(40):
        state, total, num = env.start(level, "train", index), 0.0, 0
        length = len(steps_of(state_to_json(state), env.sizes.straight))
        while True:
            outcome = env.turn(state, env.expert(state), random.Random(0))
            total, num, state = total + outcome.reward, num + 1, outcome.state
            assert outcome.parts == {"step_accuracy": 1.0, "recognition": 1.0}
            if outcome.done:
                break
        assert outcome.success and num == length == total <= env.max_turns


def test_splits_share_no_route_and_levels_differ():
    env = make()
    keys = {split: {json.dumps(env.key(env.start("standard", split, i))) for i in range(150)} for split in SPLITS}
    assert not keys["train"] & keys["test"] and not keys["train"] & keys["validation"]
    assert not keys["test"] & keys["validation"]
    assert len({env.start("standard", "train", i).route for i in range(150)}) > 140
    looks = {level: env.start(level, "train", 0).look for level in LEVELS}
    assert looks == {"standard": "home", "rule_ood": "home", "visual_ood": "away"}
    absolute, relative = env.start("standard", "train", 0), env.start("rule_ood", "train", 0)
    assert "turn_direction(north)" in env.actions(absolute) and "turn_direction(left)" not in env.actions(absolute)
    assert "turn_direction(left)" in env.actions(relative) and "turn_direction(north)" not in env.actions(relative)
    assert "northwest" in env.prompt(absolute, "text") and "northwest" not in env.prompt(relative, "text")


def test_the_last_degree_of_the_compass_is_beside_the_first():
    """From 350 to 10 degrees is slightly right, not left."""
    route = Route((40.0, -73.0), 350, (Milestone((40.001, -73.0), 10, 100, "Pub", "left"),))
    env = make()
    assert env.best(VIRLState(route, relative=True)) == "turn_direction(slightly right)"
    assert env.best(VIRLState(route)) == "turn_direction(north)"
    assert "turn slightly right north" in env.prompt(VIRLState(route), "text")


def named(env, state, observation):
    response = json.dumps({"current observation": observation, "action": env.best(state)})
    return env.turn(state, response, random.Random(0)).rewards["landmark"] == 0.0


@pytest.mark.parametrize(("scale", "right", "wrong"), [
    ("nano", {
        "Bank": ("Bank left", " BANK, left;", "bank  left crossing"),
        "Bank Hotel": ("Bank Hotel right behind",),
        None: ("none", "None.", "", " "),
    }, {
        "Bank": ("", "none", "left", "Bank", "Banks left", "Bank right", "Bank left front", "Bank Hotel left",
                 "there is no Bank", "no Bank left", "Bank left Bank right", "Bank left none", "Bank leftcrossing"),
        "Bank Hotel": ("Bank Hotel right", "Bank right behind", "Bank Hotel right behind Bank left",
                       "Bank Hotel right behind crossing"),
        None: ("Bank left", "Zoo left", "none Bank left", "none crossing"),
    }),
    ("paper", {
        "Bank": ("Bank is on your left", "bank is on your left; there is an intersection"),
        "Bank Hotel": ("Bank Hotel is on your right behind.",),
        None: ("No landmarks nearby", "no landmarks, nearby", ""),
    }, {
        "Bank": ("there is no Bank", "Bank is on your right", "No Bank is on your left", "Bank is not on your left",
                 "Bank is on your left or there is no Bank", "there is an intersection", "No landmarks nearby"),
        "Bank Hotel": ("Bank Hotel is on your right", "Bank is on your right behind"),
        None: ("Bank is on your left", "Landmarks nearby", "No landmarks nearby but Bank is on your left"),
    }),
])  # fmt: skip
def test_what_counts_as_recognized(scale, right, wrong):
    route = Route((40.0, -73.0), 0, (
        Milestone((40.001, -73.0), 90, 40, "Bank", "left"),
        Milestone((40.001, -73.1), 0, 40, "Bank Hotel", "right behind"),
    ))  # fmt: skip
    env = make(scale)
    steps = steps_of(state_to_json(VIRLState(route)), env.sizes.straight)
    at = {step[1]: VIRLState(route, position=i) for i, step in enumerate(steps)}
    for told, expected in ((right, True), (wrong, False)):
        for landmark, observations in told.items():
            for observation in observations:
                assert named(env, at[landmark], observation) == expected, (landmark, observation)


def test_every_reward_has_its_name_at_every_turn():
    names = {"action", "limit"}
    for keys, expected in (({}, names | {"landmark"}), ({"image": False}, names), ({"cot": False}, names)):
        env = make(**keys)
        state = env.start("standard", "train", 0)
        for response in (env.expert(state), "", '{"action": "stop()"}'):
            assert env.turn(state, response, random.Random(0)).rewards.keys() == expected


def test_wrong_answers_stay_in_the_prompt_without_special_tokens():
    env = make("paper")
    state = env.start("standard", "train", 0)
    hostile = '{"action": "stop()", "x": "<image> <|im_end|> \x00 {directions} {0}"}' + "y" * 5000
    after = env.turn(state, hostile, random.Random(0)).state
    prompt = env.prompt(after, "image")
    assert "{directions} {0}" in prompt and "image im_end" in prompt and not re.search(r"<image|<\||\x00", prompt)
    assert len(prompt) < len(env.prompt(state, "image")) + 1500
    assert "That action is wrong" in prompt and "That action is wrong" not in env.prompt(state, "image")
    nano = make()
    state = nano.start("standard", "train", 0)
    after = nano.turn(state, '{"action": "stop()"}', random.Random(0)).state
    assert "Not stop. " in nano.prompt(after, "text") and "Not" not in nano.prompt(state, "text")


def test_the_image_prompt_keeps_the_present_landmark_to_itself():
    env = make()
    for index in range(30):
        state = env.sample("standard", "train", index).state
        text, image = env.prompt(state, "text"), env.prompt(state, "image")
        here = re.search(r"^Here:(.*)$", image, re.MULTILINE)[1]
        assert here in ("", " crossing") and env.text(state) in text and env.text(state) not in image
        history = re.search(r"^Done: (.*)$", image, re.MULTILINE)[1]
        assert history.count(",") == state.position and history == re.search(r"^Done: (.*)$", text, re.MULTILINE)[1]


def tokens(text):
    return re.findall(r" ?[A-Za-z]+| ?\d| ?[^\w\s]|_|\n", text)


def test_terse_is_short():
    env = make()
    prompts, replies = [], []
    for index in range(100):
        state, done = env.start(LEVELS[index % 3], "train", index), False
        while not done:
            prompts.append(len(tokens(env.prompt(state, "text"))))
            replies.append(len(tokens(env.expert(state))))
            outcome = env.turn(state, env.expert(state), random.Random(0))
            state, done = outcome.state, outcome.done
    assert max(prompts) <= 120 and max(replies) <= 40


@pytest.fixture
def folders(tmp_path):
    """Files of two towns."""
    rng = random.Random(1)
    towns = {name: [sample_route(rng, (2, 3), 2, NAMES["full"], True) for _ in range(40)] for name in ("home", "away")}
    for name, routes in towns.items():
        write_routes(tmp_path / name / "route_infos.json", routes)
    return tmp_path, towns


def test_routes_of_files(folders):
    path, towns = folders
    env = make(routes=str(path / "home"), routes_visual_ood=str(path / "away"))
    numbers = {split: env.num_problems("standard", split) for split in SPLITS}
    assert sum(numbers.values()) == 40 and min(numbers.values()) > 0 and env.num_problems("visual_ood", "test") == 40
    found = {split: {env.start("rule_ood", split, i).route for i in range(numbers[split])} for split in SPLITS}
    assert set().union(*found.values()) == set(towns["home"]) and sum(map(len, found.values())) == 40
    assert [env.start("visual_ood", "test", i).route for i in range(40)] == towns["away"]
    assert env.start("standard", "test", numbers["test"]) == env.start("standard", "test", 0)
    longest = max(len(steps_of(state_to_json(VIRLState(r)), 2)) for rs in towns.values() for r in rs)
    assert env.max_turns >= 2 * longest
    assert make().num_problems("standard", "test") is None
    state = env.sample("visual_ood", "test", 7).state
    assert state.route == towns["away"][7] and env.draw(state).shape == (144, 144, 3)


def test_files_must_be_there_and_must_not_overlap(folders):
    path, _ = folders
    with pytest.raises(ValueError, match=r"routes='nowhere'"):
        make(routes="nowhere")
    twice = make(routes=str(path / "home"), routes_visual_ood=str(path / "home"))
    with pytest.raises(ValueError, match="40 routes are in routes as well"):
        twice.start("standard", "train", 0)
    with pytest.raises(ValueError, match="needs routes_visual_ood"):
        make(routes=str(path / "home")).start("visual_ood", "train", 0)


@pytest.mark.parametrize("change", [
    {"look": "mars"}, {"position": 99}, {"position": -1}, {"position": "0"}, {"tried": [1]}, {"more": 1},
    {"route": {"start": [0.0, 0.0], "heading": 0, "milestones": []}},
    {"route": {"start": [0.0, 0.0], "heading": 0, "milestones": [
        {"geocode": [0.0, 0.0], "heading": 0, "distance": 9, "landmark": "A", "side": None}]}},
])  # fmt: skip
def test_a_spoiled_state_is_refused(change):
    env = make()
    data = state_to_json(env.start("standard", "train", 0))
    assert env.state_from_json(data) == env.start("standard", "train", 0)
    with pytest.raises(ValueError, match="virl"):
        env.state_from_json(data | change)


@pytest.mark.parametrize("keys", [
    {"attempts": 0}, {"wording": {"seen": "there"}}, {"wording": {"past": "{nothing}"}}, {"wording": {"nothing": ""}},
    {"trace": "long"},
])  # fmt: skip
def test_settings_are_checked(keys):
    with pytest.raises(ValueError, match=r"attempts|wording|trace"):
        make(**keys)


@pytest.mark.parametrize("change", [
    {"roads": [3, 2]}, {"roads": [1, 99]}, {"straight": 0}, {"names": "none"}, {"picture": [145, 144]}, {"font": 0},
])  # fmt: skip
def test_sizes_are_checked(change):
    data = yaml.safe_load((CONF / "virl.yaml").read_text())["nano"]
    with pytest.raises(ValueError, match=next(iter(change))):
        structure(VIRLSizes, data | change)


def test_a_town_that_is_not_divided_is_not_trained_and_tested_on(folders):
    path, _ = folders
    words = [f"env.routes={path / 'home'}", f"env.routes_visual_ood={path / 'away'}", "env=virl_l"]
    part = "supervision.phases.expert.parts.turns.level=visual_ood"
    with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
        compose.freeze(words, "train")
        compose.freeze([*words, part, "evaluation.split=train"], "train")
        with pytest.raises(ValueError, match=r"split=test, level visual_ood of virl: routes_visual_ood is not divided"):
            compose.freeze([*words, part], "train")
        with pytest.raises(ValueError, match="all its routes are for training too"):
            compose.freeze([*words, "algorithm=ppo", "algorithm.levels=[standard,visual_ood]"], "train")
