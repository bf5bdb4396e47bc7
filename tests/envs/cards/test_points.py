"""EZPoints and Points24 against their rules, written down here a second time (appendix C.1)."""

import itertools
import json
import random
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import yaml

from vlmreason.envs.cards.deck import RANKS
from vlmreason.envs.cards.ez_points import EZPoints
from vlmreason.envs.cards.points import PointsSizes, PointsState
from vlmreason.envs.cards.points24 import Points24
from vlmreason.models.vlm.tokenization import pieces
from vlmreason.streams import SPLITS
from vlmreason.structure import structure
from vlmreason.tasks.base import state_to_json

TRACES = {"nano": "terse", "paper": "verbose"}
GAMES = {EZPoints: (2, 12, 5, "+*="), Points24: (4, 24, 20, "+-*/()=")}
BROKEN = ("", "=", "{}", '{"action": 5}', '{"action": "5 "}', '{"action": "14"}', '{"action": "**"}', '{"Action": "5"}')


def sizes(kind, scale="nano", **changes):
    conf = yaml.safe_load((Path(__file__).parents[3] / "conf" / "env" / f"{kind.name}.yaml").read_text())
    return structure(PointsSizes, conf[scale] | changes, scale)


def make(kind, scale="nano", **keys):
    return kind(sizes(kind, scale), **({"trace": TRACES[scale]} | keys))


def counts(cards, face_cards="ten"):
    return [min(rank, 10) if face_cards == "ten" else rank for rank, _ in cards]


def is_right(formula, values, target):
    """By Python's own arithmetic on formulas of known pieces, put together as they are."""
    if any(one.isdigit() and other.isdigit() for one, other in itertools.pairwise(formula)):
        return False
    if any(one + other in ("**", "//", "()") for one, other in itertools.pairwise(formula)):
        return False
    if any(a in ("", "(", "+", "-", "*", "/") and b in "+-" for a, b in itertools.pairwise(("", *formula))):
        return False  # no signs before numbers
    text = "".join(f"Fraction({piece})" if piece.isdigit() else piece for piece in formula)
    if ")(" in text or ")F" in text.replace("Fraction", "F"):
        return False
    try:
        found = eval(text, {"Fraction": Fraction})
    except (SyntaxError, ZeroDivisionError, TypeError):
        return False
    used = sorted(int(piece) for piece in formula if piece.isdigit())
    return found == target and used == sorted(values)


def expected(kind, state, action, face_cards="ten"):
    """(formula, reward, done, success) by the rules; `action` None: the turn passes."""
    _, target, turns, _ = GAMES[kind]
    values = counts(state.cards, face_cards)
    over = state.turn + 1 == turns
    if action is None:
        return state.formula, 0.0, over, False
    if action == "=":
        right = is_right(state.formula, values, target)
        return state.formula, 10.0 if right else -1.0, True, right
    if action.isdigit() and state.formula.count(action) >= values.count(int(action)):
        return state.formula, -1.0, over, False
    return (*state.formula, action), 0.0, over, False


@pytest.mark.parametrize("penalty", [None, -0.5])
@pytest.mark.parametrize(("kind", "face_cards"), [(EZPoints, "ten"), (Points24, "ten"), (Points24, "ranks")])
def test_transitions_follow_the_rules(kind, face_cards, penalty):
    rng = random.Random(1)
    env = make(kind, penalty=penalty, **({"face_cards": face_cards} if kind is Points24 else {}))
    numbers = [str(number) for number in range(1, 11 if face_cards == "ten" else 14)]
    assert list(env.actions(env.start("standard", "train", 0))) == [*numbers, *GAMES[kind][3]]
    num, seen = 0, set()
    while num < 2_000:
        state = env.start("standard", SPLITS[num % 3], num)
        done = False
        while not done:
            chance = rng.random()
            if chance < 0.6:
                said = json.loads(env.expert(state))["action"]
            else:
                said = rng.choice([*numbers, *GAMES[kind][3]]) if chance < 0.9 else None
            response = rng.choice(BROKEN) if said is None else f'So {{"thoughts": "", "action": "{said}"}}.'
            good = said is not None and said in env.best(state)
            outcome = env.turn(state, response, random.Random(rng.random()))
            assert outcome.parsed == (said is not None)
            if said is None and penalty is None:
                assert outcome.action in env.legal(state)
            else:
                assert outcome.action == said
            formula, reward, done, success = expected(kind, state, outcome.action, face_cards)
            assert outcome.state == PointsState(state.cards, formula, state.turn + 1)
            assert outcome.rewards == {"env": penalty if said is None and penalty is not None else reward}
            assert (outcome.done, outcome.success) == (done, success)
            assert outcome.parts == {"step_accuracy": float(good)}
            seen.add((reward, success))
            state = outcome.state
            num += 1
    assert seen == {(0.0, False), (-1.0, False), (10.0, True)}


@pytest.mark.parametrize("kind", GAMES)
def test_legal_actions_are_those_that_change_the_formula_or_end_it(kind):
    env, rng = make(kind), random.Random(2)
    for index in range(60):
        state = env.start("standard", "train", index)
        for _ in range(4):
            for action in env.actions(state):
                outcome = env.act(state, action)
                refused = outcome.state.formula == state.formula and action != "="
                assert refused == (action not in env.legal(state))
            state = env.act(state, rng.choice([a for a in env.legal(state) if a != "="])).state


@pytest.mark.parametrize("scale", TRACES)
@pytest.mark.parametrize("kind", GAMES)
def test_the_expert_wins(kind, scale):
    env = make(kind, scale)
    for index in range(60):
        state, total = env.start("standard", SPLITS[index % 3], index), 0.0
        while True:
            assert env.answer(state).split('"')[3] in env.best(state)
            outcome = env.turn(state, env.expert(state), random.Random(0))
            total += outcome.reward
            state = outcome.state
            if outcome.done:
                break
        assert outcome.success and total == 10 and state.turn <= min(12, GAMES[kind][2])


def test_every_best_action_leads_to_a_win_in_time():
    env, rng = make(Points24), random.Random(3)
    for index in range(100):
        state = env.start("standard", "train", index)
        while True:
            if rng.random() < 0.35 and state.turn < 17:
                state = env.act(state, rng.choice([*env.legal(state)[:-1], "("])).state
                continue
            best = env.best(state)
            assert best
            if env._plan(state) is None:
                assert set(best) == {"="}
                break
            outcome = env.act(state, rng.choice(sorted(best)))
            assert outcome.reward in (0, 10)
            assert outcome.done or env._plan(outcome.state) is not None
            state = outcome.state
            if outcome.done:
                assert outcome.success
                break


@pytest.mark.parametrize(
    ("formula", "turn"),
    [(("3", "+"), 4), (("(", "("), 13), ((")",), 1), (("3", "3", "8"), 3), (("8", "/", "(", "3", "-", "8", "/"), 18)],
)
def test_the_expert_ends_what_can_no_longer_be_solved(formula, turn):
    env = make(Points24, "paper")
    state = PointsState(((3, "spades"), (3, "hearts"), (8, "spades"), (8, "clubs")), formula, turn)
    assert env.best(state) == ("=",) and json.loads(env.expert(state))["action"] == "="
    assert "no longer" in env.expert(state)


def test_the_deal_that_floats_cannot_solve_is_won():
    env = make(Points24)
    state = PointsState(((3, "spades"), (3, "hearts"), (8, "spades"), (8, "clubs")))
    for piece in "8/(3-8/3)=":
        assert piece in env.best(state)
        outcome = env.act(state, piece)
        state = outcome.state
    assert outcome.success and outcome.reward == 10


def test_a_right_value_without_every_card_does_not_win():
    env = make(Points24)
    cards = ((4, "spades"), (6, "hearts"), (1, "spades"), (1, "clubs"))
    assert env.act(PointsState(cards, ("4", "*", "6")), "=").reward == -1
    assert env.act(PointsState(cards, ("4", "*", "6", "*", "1", "*", "1")), "=").reward == 10
    two = make(EZPoints)
    assert two.act(PointsState(((6, "spades"), (2, "hearts")), ("6", "*", "2")), "=").success


def test_deals_of_two_cards():
    """All ten pairs of ranks that can be solved come up, in every split, and no others."""
    solvable = {
        (a, b)
        for a, b in itertools.combinations_with_replacement(range(1, 14), 2)
        if min(a, 10) + min(b, 10) == 12 or min(a, 10) * min(b, 10) == 12
    }
    env = make(EZPoints)
    assert len(solvable) == 10
    for split in SPLITS:
        starts = (env.start("standard", split, index) for index in range(300))
        dealt = {tuple(sorted(rank for rank, _ in state.cards)) for state in starts}
        assert dealt == solvable


def test_deals_of_four_cards():
    env, open_env = make(Points24), make(Points24, solvable=False)
    keys = {split: set() for split in SPLITS}
    can = 0
    for split in SPLITS:
        for index in range(120):
            state = env.start("standard", split, index)
            assert len(set(state.cards)) == 4 and env._plan(state)
            keys[split].add(tuple(env.key(state)))
            can += open_env._plan(open_env.start("standard", split, index)) is not None
    assert not keys["train"] & keys["test"] and not keys["train"] & keys["validation"]
    assert 0.65 < can / 360 < 0.85  # 74.6 %


def test_face_cards_by_rank():
    env = make(Points24, "paper", face_cards="ranks")
    state = PointsState(((13, "spades"), (11, "hearts"), (1, "spades"), (1, "clubs")))
    assert env.values(state) == [13, 11, 1, 1] and "Q counts 12" in env.prompt(state, "image")
    assert "13" in env.legal(state) and "10" not in env.legal(state)
    with pytest.raises(ValueError, match="face_cards='eleven'"):
        make(Points24, face_cards="eleven")


@pytest.mark.parametrize("scale", TRACES)
@pytest.mark.parametrize("kind", GAMES)
def test_prompts_show_the_formula_and_the_cards_only_as_text(kind, scale):
    env = make(kind, scale)
    names = ("J", "9", "7", "5")[: env.num_cards]
    cards = tuple((RANKS.index(name) + 1, "clubs") for name in names)
    state = PointsState(cards, ("9", "+"), 2)
    text, asked = env.prompt(state, "text"), env.prompt(state, "image")
    assert " ".join(names) in text and " ".join(names) not in asked
    assert "9+" in text and "9+" in asked and str(env.target) in asked
    silent = make(kind, scale, cot=False)
    assert "thoughts" in asked and "thoughts" not in silent.prompt(state, "image")
    assert silent.thought(state) == [] and list(json.loads(silent.expert(state))) == ["action"]
    keys = list(json.loads(env.expert(state)))
    assert keys == (["cards", "thoughts", "action"] if scale == "nano" else ["cards", "formula", "thoughts", "action"])


def test_verbose_thoughts_say_what_the_expert_aims_at():
    env = make(Points24, "paper")
    state = PointsState(((1, "spades"), (2, "hearts"), (13, "spades"), (1, "clubs")), ("(", "2"), 2)
    found = json.loads(env.expert(state))
    assert found["cards"] == [1, 2, 10, 1] and found["formula"] == "(2"
    assert "(2+10)*(1+1)" in found["thoughts"] and "'+'" in found["thoughts"] and found["action"] == "+"
    done = PointsState(state.cards, ("2", "*", "(", "10", "+", "1", "+", "1", ")"), 9)
    assert "is complete" in json.loads(env.expert(done))["thoughts"]


@pytest.mark.parametrize("kind", GAMES)
def test_terse_texts_are_short(kind):
    env = make(kind)
    for index in range(200):
        state = env.sample("standard", "train", index).state
        assert len(pieces(env.expert(state))) <= 45 and len(pieces(env.prompt(state, "text"))) <= 80


@pytest.mark.parametrize("kind", GAMES)
def test_the_formula_is_seen(kind):
    for scale in TRACES:
        env = make(kind, scale)
        first = env.start("standard", "train", 0)
        pictures = []
        for formula in ((), ("1",), ("1", "1"), ("1", "0"), ("10",), ("+",), ("*",)):
            pictures.append(env.draw(PointsState(first.cards, formula)).tobytes())
        assert len(set(pictures)) == len(pictures)
        top = env.sizes.area[1]
        empty, long = env.draw(first), env.draw(PointsState(first.cards, ("10",) * 20, 20))
        assert (empty[:top] == long[:top]).all() and (empty[top:] != long[top:]).any()
        other = env.start("standard", "train", 1)
        assert other.cards != first.cards and (env.draw(other)[:top] != empty[:top]).any()
        assert np.array_equal(env.draw(other)[top:], empty[top:])


def test_saved_states_are_checked():
    env = make(EZPoints)
    state = PointsState(((6, "spades"), (13, "hearts")), ("10", "+"), 3)
    data = state_to_json(state)
    assert env.state_from_json(json.loads(json.dumps(data))) == state
    for change in (
        {"cards": [[6, "spades"]]},
        {"cards": [[6, "spades"], [14, "spades"]]},
        {"cards": [[6, "spades"], [2, "stars"]]},
        {"formula": ["6", "6"]},
        {"formula": ["__import__"]},
        {"formula": ["-"]},
        {"turn": 6},
        {"turn": -1},
    ):
        with pytest.raises(ValueError):
            env.state_from_json(data | change)


def test_sizes_and_templates_are_checked():
    for change in ({"rows": 0}, {"sign": [2, 24]}, {"label": "x" * 12}):
        with pytest.raises(ValueError):
            sizes(EZPoints, **change)
    with pytest.raises(ValueError, match="card="):
        EZPoints(sizes(EZPoints, card=[100, 100]))
    for wording in (
        {"go_on": "{nothing}"},
        {"read": "{"},
        {"prompt_text": "Make {target}:"},
        {"done": '"thoughts": "done" '},
        {"stuck": "{x}"},
    ):
        with pytest.raises(ValueError, match="wording of ez_points"):
            make(EZPoints, wording=wording)
    with pytest.raises(ValueError, match="no such template"):
        make(EZPoints, wording={"thougths": ""})
