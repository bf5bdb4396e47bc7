"""Rewards as entries: what each says of a response, which there are, and that those by default are what they were."""

import copy
import dataclasses
import functools
import random
import re
from types import SimpleNamespace

import pytest
from support.tiny import nano_task

from vlmreason.answering.rollout import Rollouts
from vlmreason.envs.base import Env, Outcome
from vlmreason.envs.revision import Revision
from vlmreason.envs.rewards import GENERAL, further, offered
from vlmreason.segments import Response, Segment


@functools.cache
def env_of(name):
    task = nano_task(name)
    return task if isinstance(task, Env) else Revision(task, attempts=4)


class Script:
    """Says what it is told to, whatever it is asked."""

    def __init__(self, text):
        self.text = text

    def sample(self, prompts, seeds, max_new_tokens, temperature):
        return [SimpleNamespace(text=self.text) for _ in prompts]


def table_of(env, /, **weights):
    return Rollouts(env, env.levels[:1], "text", weights, 12, 1.0, 0, 1)


SCRIPTS = {3: "unread half other expert", 4: "other expert half unread"}


def played(name):
    """Rewards of two episodes, weighted as they are where the user gives no weight."""
    env, found = env_of(name), []
    table = table_of(env)
    for number, script in SCRIPTS.items():
        episode = {0: table.begin(number)}
        for place, kind in enumerate(script.split()):
            expert, other = env.expert(episode[0].state), env.expert(table.begin(7).state)
            text = {"unread": "nothing", "half": expert[: len(expert) // 2], "other": other, "expert": expert}[kind]
            turn = table.play(Script(text), episode, number, place)[0]
            found.append(round(turn.reward, 9))
            if turn.outcome.done:
                break
    return found


BY_DEFAULT = {
    "blackjack": [-1, -1],
    "ez_points": [-1, -1, 0, 0, 0],
    "general_points": [-4.5, -4.5, -3.5, 5, -3.5, 5],
    "general_points_l": [-3, -3, -2, 5, -2, 5],
    "number_line": [-1, -1, 0, 0, 0, 0, 1],
    "points24": [0, 0, -1, -1, 0, 0, 0, 0],
    "virl": [-1, -2, -1, 1, -1, -2],
    "virl_l": [-1, -2, -1, 1, -1, -2],
    "consecutive_table_readout": [0, 0, 0, 1, 0, 1],
    "grid_navigation": [0, 0, 0, 1, 0, 1],
    "table_readout": [0, 0, 0, 1, 0, 1],
    "visual_analogy": [0, 0, 0, 1, 0, 1],
}
"""What these episodes gave before rewards were entries."""


@pytest.mark.parametrize("name", BY_DEFAULT)
def test_rewards_without_weights_of_the_users(name):
    assert played(name) == BY_DEFAULT[name]


def value(name, env, state, response):
    """Of one general reward, as rollouts have it."""
    outcome = env.turn(state, response, random.Random(0))
    return further(env, [name], state, response, outcome).get(name)


@pytest.mark.parametrize("name", BY_DEFAULT)
def test_the_experts_response_has_every_general_reward(name):
    env = env_of(name)
    state = env.start(env.levels[0], "train", 3)
    outcome = env.turn(state, env.expert(state), random.Random(0))
    asked = {reward.name for reward in GENERAL}
    found = {**further(env, asked, state, env.expert(state), outcome), **outcome.rewards}
    assert all(found[key] == 1 for key in ("correct", "parsed", "format", "progress", "length"))
    assert "conversion" not in found and "caption" not in found, "it writes none"
    assert found.keys() <= offered(env).keys()
    hopeless = env.turn(state, "nothing", random.Random(0))
    lost = {**further(env, asked, state, "nothing", hopeless), **hopeless.rewards}
    assert lost["correct"] == lost["parsed"] == lost["format"] == lost["progress"] == 0
    assert lost.keys() <= offered(env).keys()


def test_progress_counts_steps_before_the_first_wrong_one():
    env = env_of("table_readout")
    state = env.start("simple", "train", 0)
    steps, answer = env.thought(state), env.answer(state)
    assert len(steps) > 2
    for num in range(len(steps)):
        response = "".join(steps[:num]) + "nonsense " + "".join(steps[num:]) + answer
        assert value("progress", env, state, response) == pytest.approx(num / len(steps))
    assert value("progress", env, state, answer) == 0


def test_format_wants_all_segments_in_order():
    env = env_of("table_readout")
    state = env.start("simple", "train", 0)
    thought, answer = "".join(env.thought(state)), env.answer(state)
    assert value("format", env, state, thought + answer) == 1
    assert value("format", env, state, answer) == value("format", env, state, thought) == 0
    converted = env.convert(state) + "\n" + env.text(state) + "\n" + thought + answer
    assert value("format", env, state, converted) == 1, "more than is asked for does no harm"


def test_conversions_are_exact_or_not():
    env = env_of("grid_navigation")
    state = env.start("simple", "train", 0)
    response = env.convert(state) + "\n" + env.text(state) + "\n" + env.expert(state)
    assert value("conversion", env, state, response) == 1
    wrong = response.replace(env.text(state), env.text(state)[1:] + "x")
    assert value("conversion", env, state, wrong) == 0
    assert value("conversion", env, state, env.expert(state)) is None


class Captioned(type(nano_task())):
    """Tables whose responses begin with what the picture shows."""

    def response(self, state, view):
        return Response((Segment("caption", "Caption: a table. "), *super().response(state, view).segments))

    def markers(self):
        return {"caption": re.compile("Caption:"), "thought": re.compile(r"(?<=\. )(?=\()")}


def test_a_caption_is_the_tasks_or_not():
    task = copy.copy(nano_task())
    task.__class__ = Captioned
    env = Revision(task)
    state = env.start("simple", "train", 0)
    expert = env.response(state, "image").text
    assert value("caption", env, state, expert) == value("format", env, state, expert) == 1
    assert value("caption", env, state, expert.replace("table", "chair")) == 0
    assert value("format", env, state, expert.replace("Caption", "Title")) == 0


def test_statements_of_a_matrix_are_paid_by_their_share():
    env = env_of("raven")
    state = env.start("center", "train", 0)
    response = env.response(state, "image").text
    whole, less, none = (
        env.turn(state, text, random.Random(0)).rewards["statements"]
        for text in (response, response.split("\n", 2)[2], "?")
    )
    assert whole == 1 > less > 0 == none
    assert "statements" in offered(env) and "statements" not in offered(env_of("table_readout"))


def test_length_is_bounded_by_the_tasks_response():
    env = env_of("number_line")
    state = env.start("standard", "train", 0)
    expert = env.expert(state)
    assert value("length", env, state, expert[:3]) == 1
    assert value("length", env, state, expert + " " * (len(expert) // 2)) == pytest.approx(0.5, abs=0.05)
    assert value("length", env, state, expert * 3) == 0


def test_weights_count_and_are_logged_by_name():
    env = env_of("number_line")
    table = table_of(env, format=0.5, progress=-0.25, env=0.0)
    episode = {0: table.begin(0)}
    turn = table.play(Script(env.expert(episode[0].state)), episode, 0)[0]
    assert turn.outcome.rewards.keys() == {"env", "format", "progress"}
    assert turn.reward == 0.25


@pytest.mark.parametrize(
    ("name", "weight", "message"),
    [
        ("number_line", "fromat", r"algorithm.rewards.fromat: number_line has no such reward; .*did you mean 'format'"),
        ("table_readout", "answer_lst", "did you mean 'answer_list'"),
        ("general_points_l", "recognition", "general_points has no such reward"),
    ],
)
def test_a_weight_of_nothing_is_refused(name, weight, message):
    with pytest.raises(ValueError, match=message):
        table_of(env_of(name), **{weight: 1.0})


def test_a_reward_without_an_entry_is_refused():
    env = copy.copy(env_of("number_line"))
    env.turn = lambda state, response, rng: Outcome(state, {"env": 1.0, "bonus": 1.0}, done=True)
    table = table_of(env)
    with pytest.raises(ValueError, match="number_line, level standard, episode 0, turn 0: gives bonus, no entry"):
        table.play(Script("x"), {0: table.begin(0)}, 0)


SKILLS = {"shape_area": "total", "grid_position": "nearest", "shape_grid": "nearest_sum"}
TERMS = ("format", "correct", "progress", "recall", "caption")


def terms(name, spoil=lambda text: text, caption=True):
    """All terms of the task's own response, with its caption, after it has been spoiled."""
    env = env_of(name)
    found = []
    for index in range(20):
        state = env.start(SKILLS[name], "train", index)
        response = spoil(env.response(state, "image_via_text" if caption else "image").text)
        outcome = env.turn(state, response, random.Random(0))
        both = {**further(env, TERMS, state, response, outcome), **outcome.rewards}
        found.append({term: both.get(term) for term in TERMS})
    return found


def lost(name, spoil):
    """The terms that a spoiled response loses, which must be the same ones of every problem."""
    found = {tuple(term for term, value in one.items() if value != 1) for one in terms(name, spoil)}
    assert len(found) == 1, found
    return set(found.pop())


@pytest.mark.parametrize("name", SKILLS)
def test_the_own_response_to_a_scene_has_all_terms(name):
    assert lost(name, lambda text: text) == set()


def thought_of(text):
    """The end of a caption's last line, behind which the thought begins."""
    return text.rindex("\n") + 1


@pytest.mark.parametrize("name", SKILLS)
def test_a_spoiled_caption_loses_its_term_alone(name):
    assert lost(name, lambda text: text.replace("\n(", "\n(9,9) red square 1\n(", 1)) == {"caption"}
    assert lost(name, lambda text: text[thought_of(text) :]) == {"caption"}


def test_a_spoiled_distance_or_factor_loses_progress_alone():
    def spoiled(pattern, write):
        return lambda text: text[: thought_of(text)] + re.sub(pattern, write, text[thought_of(text) :], count=1)

    longer = spoiled(r"distance (\d)", lambda found: f"distance {int(found[1]) + 1}")
    assert lost("grid_position", longer) == {"progress", "recall"}
    doubled = spoiled(r"area (\d+)", lambda found: f"area {int(found[1]) * 2}")
    for name in ("shape_area", "shape_grid"):
        assert lost(name, doubled) == {"progress", "recall"}


def test_a_wrong_answer_loses_correct_alone_and_an_empty_one_its_format_too():
    assert lost("shape_area", lambda text: text + "1") == {"correct"}
    assert lost("shape_area", lambda text: text[: text.index("Answer:") + 7]) == {"correct", "format"}


def test_an_unasked_fact_costs_f1_and_no_recall():
    assert lost("shape_area", lambda text: text.replace("Answer:", "pink square 3 area 9 Answer:")) == {"progress"}


def test_a_caption_may_repeat_and_may_not_contradict_itself():
    def with_line(text, line):
        return text[: thought_of(text)] + line + "\n" + text[thought_of(text) :]

    def other(text):
        cell, color, *_ = text.splitlines()[2].split()
        return f"{cell} {color} trapezoid 7 8 9"

    assert lost("shape_grid", lambda text: with_line(text, text.splitlines()[2])) == set()
    assert lost("shape_grid", lambda text: with_line(text, other(text))) == {"caption"}


def test_a_format_with_captions_wants_one():
    env = env_of("shape_area")
    task = copy.copy(env.task)
    task.sizes = dataclasses.replace(task.sizes, caption=True)
    asking = Revision(task)
    state = asking.start("total", "train", 0)
    plain, captioned = (env.response(state, view).text for view in ("image", "image_via_text"))
    assert asking.response(state, "image").text == captioned and asking.response(state, "text").text == plain
    assert value("format", asking, state, captioned) == 1 and value("format", asking, state, plain) == 0
    assert value("format", asking, state, "Caption:\n" + plain) == 0, "it is empty"
    assert value("format", env, state, "Caption:\n" + plain) == 1


@pytest.mark.parametrize("name", SKILLS)
def test_nothing_is_gained_by_listing_everything(name):
    """All values of every slot, every cell with one value, every answer: less than a term is worth, or nothing."""
    env = env_of(name)
    task = env.task
    names = [f"{color} {kind}" for color in task.sizes.colors for kind in task.sizes.kinds]
    cells = [f"({r},{c})" for r in range(1, 6) for c in range(1, 6)]
    all_areas = "".join(f"{one} 1 area {area} " for one in names for area in range(1, 37))
    all_distances = "".join(f"{names[0]} {cell} distance {away} " for cell in cells for away in range(1, 9))
    same_areas = "".join(f"{one} 1 area 4 " for one in names)
    same_distances = "".join(f"{names[0]} {cell} distance 2 " for cell in cells)
    sides = [one for a in range(1, 7) for one in (f" {a}", *(f" {a} {b}" for b in range(1, 7)))]
    all_shapes = "".join(f"{cell} {one}{side}\n" for cell in cells for one in names for side in sides)
    answers = " ".join(f"Answer: {number}" for number in (*range(1, 145), *cells))
    found = {"all": [], "same": []}
    for index in range(30):
        state = env.start(SKILLS[name], "train", index)
        for kind, thought in (("all", all_areas + all_distances), ("same", same_areas + same_distances)):
            response = f"Caption:\n{all_shapes}{thought}{answers}"
            outcome = env.turn(state, response, random.Random(0))
            found[kind].append({**further(env, TERMS, state, response, outcome), **outcome.rewards})
    mean = {kind: {term: sum(one[term] for one in values) / 30 for term in TERMS} for kind, values in found.items()}
    assert mean["all"]["progress"] == mean["all"]["recall"] == mean["all"]["caption"] == 0
    assert mean["same"]["progress"] < 0.1 and mean["same"]["recall"] < 0.4 and mean["same"]["caption"] == 0
    assert mean["all"]["correct"] < 0.15 and mean["same"]["correct"] < 0.15
