"""GeneralPoints against its rules, written down here a second time (appendix D.1)."""

import contextlib
import json
import operator
import random
import time
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
import yaml

from vlmreason.envs.cards.deck import RANKS
from vlmreason.envs.cards.formula import FormulaError, evaluate
from vlmreason.envs.cards.general_points import (
    Deal,
    GeneralPoints,
    GeneralPointsSizes,
    GeneralPointsState,
    kept,
    wrong_formula,
)
from vlmreason.models.vlm.tokenization import pieces
from vlmreason.streams import SPLITS, split_of
from vlmreason.structure import structure
from vlmreason.tasks.base import state_to_json

CONF = Path(__file__).parents[3] / "conf" / "env"
OPERATIONS = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}
TRACES = {"nano": "terse", "paper": "verbose"}
GIVEN = {"formula": 5.0, "value": -1.0, "numbers": -2.0, "illegal": -3.0}
STATE = GeneralPointsState(((1, "spades"), (3, "clubs"), (13, "spades"), (6, "clubs")), 24, "ranks")


def sizes(scale="nano", **changes):
    conf = yaml.safe_load((CONF / "general_points.yaml").read_text())
    return structure(GeneralPointsSizes, conf[scale] | changes, scale)


def make(scale="nano", **keys):
    return GeneralPoints(sizes(scale), **({"trace": TRACES[scale]} | keys))


def reply(cards=("A", "3", "K", "6"), number=(1, 3, 13, 6), formula="(6-3-1)*13"):
    return json.dumps({"cards": list(cards), "number": list(number), "formula": formula})


def names(state):
    return [RANKS[rank - 1] for rank, _ in state.cards]


def counts(state):
    return [min(rank, 10) if state.face_cards == "ten" else rank for rank, _ in state.cards]


def drawn_response(state, rng):
    """A response drawn at random, with the rewards of its formula and whether its cards are right, by the rules."""
    values, cards = counts(state), names(state)
    cards_right = rng.random() < 0.7
    said = rng.sample(cards, len(cards)) if cards_right else [*cards[1:], "10" if cards[0] != "10" else "9"]
    kind = rng.choice(["formula", "value", "value", "other", "twice", "missing", "broken", "number", "no number"])
    number = rng.sample(values, len(values))
    if kind == "formula":
        formula = fair_formula(values, rng, lambda value: value == state.target)
        kind = "value" if formula is None else kind
    if kind in ("value", "number", "no number"):
        formula = fair_formula(values, rng, lambda value: value != state.target)
    gives = {"formula": 5.0, "value": -1.0, "other": -2.0, "number": -2.0}.get(kind, -3.0)
    foreign = next(n for n in range(1, 99) if n not in values)
    if kind == "other":
        formula = "+".join(map(str, [*values[1:], foreign]))
    elif kind == "twice":
        formula = "+".join(map(str, [*values, values[0]]))
    elif kind == "missing":
        formula = "*".join(map(str, values[1:]))
    elif kind == "broken":
        formula = rng.choice(["", "24", "1+", "(1+2", "x", "2**9", "1/0", "24=24=24", "eval('1')", "1 2"])
        if formula == "24":
            gives = -2.0 if 24 not in values else -3.0
    elif kind == "number":
        number[0] = foreign
    elif kind == "no number":
        number = None
    if kind == "formula" and rng.random() < 0.5:
        formula += f" = {state.target}"
    data = {"cards": said, "number": number, "formula": formula}
    return json.dumps(data), gives, cards_right


def fair_formula(values, rng, fits):
    """A formula of all values that is legal and fits, found by drawing."""
    for _ in range(400):
        hand = [(str(value), Fraction(value)) for value in values]
        while len(hand) > 1:
            rng.shuffle(hand)
            (a, x), (b, y) = hand.pop(), hand.pop()
            sign = rng.choice("+-*/" if y else "+-*")
            result = {
                "+": lambda x, y: x + y,
                "-": lambda x, y: x - y,
                "*": lambda x, y: x * y,
                "/": lambda x, y: x / y,
            }
            hand.append((f"({a}{sign}{b})", result[sign](x, y)))
        if fits(hand[0][1]):
            return hand[0][0]
    return None


@pytest.mark.parametrize("image", [True, False])
@pytest.mark.parametrize("penalty", [None, -7.0])
def test_transitions_follow_the_rules(image, penalty):
    rng, env = random.Random(1), make(image=image, penalty=penalty)
    num, seen = 0, Counter()
    while num < 2_500:
        level, split = env.levels[num % 3], SPLITS[num % 3]
        state = env.start(level, split, num)
        done = False
        while not done:
            if rng.random() < 0.1:
                response, gives, cards_right, parsed = (
                    rng.choice(["", "{", "{}{}", '{"formula": 24}']),
                    -3.0,
                    False,
                    False,
                )
                gives = gives if penalty is None else penalty
            else:
                (response, gives, cards_right), parsed = drawn_response(state, rng), True
            outcome = env.turn(state, response, random.Random(0))
            solved, last = gives == 5, state.turn == 4
            rewards = {"formula": gives, "limit": -1.0 if last and not solved else 0.0}
            if image:
                rewards["recognition"] = 0.0 if cards_right else -1.5
            assert outcome.rewards == rewards, response
            assert outcome.parts == {"step_accuracy": float(solved), "recognition": float(cards_right)}
            assert (outcome.done, outcome.success, outcome.parsed) == (solved or last, solved, parsed)
            assert outcome.state.cards == state.cards and outcome.state.turn == state.turn + 1
            assert len(outcome.state.responses) == len(outcome.state.verdicts) == outcome.state.turn
            score = env.score(state, response)
            assert (score.correct, score.parsed) == (solved, parsed)
            state, done = outcome.state, outcome.done
            num += 1
            seen[gives] += 1
    assert len(seen) == (4 if penalty is None else 5) and min(seen.values()) > 20


@pytest.mark.parametrize(
    ("response", "formula"),
    [
        (reply(formula="(1+6)*3+13=24"), -1),  # the example of the paper: it is worth 34
        (reply(formula="13*3-6*1"), -1),
        (reply(formula="(6-3-1)*13-2"), -2),
        (reply(formula="(3-1)*6+13-1"), -3),
        (reply(number=(1, 3, 10, 6), formula="(3-1)*(10-6)"), -2),  # the other rule
        (reply(number=(1, 3, 13, 6), formula="6*(13-3*3)"), -3),
        (reply(formula="13-1+6*(3-1)"), -3),
        (reply(formula="6*3+13-1=24"), -1),
        (reply(formula="6/(1-3/13)"), -1),
    ],
)
def test_rewards_of_given_formulas(response, formula):
    assert make("paper").turn(STATE, response, random.Random(0)).rewards["formula"] == formula


def test_a_right_formula_needs_right_numbers_and_a_true_right_side():
    env = make("paper")
    state = GeneralPointsState(((4, "spades"), (6, "clubs"), (1, "spades"), (1, "clubs")), 24, "ten")
    cards, number = ("4", "6", "A", "A"), (4, 6, 1, 1)

    def formula_of(**keys):
        answer = {"cards": cards, "number": number, "formula": "4*6*1*1"} | keys
        return env.turn(state, json.dumps(answer), random.Random(0)).rewards["formula"]

    assert formula_of() == formula_of(formula="4*6*1*1=24") == formula_of(number=(6, 4, 1, 1)) == 5
    assert formula_of(formula="4*6*1*1=25") == -1
    assert formula_of(number=(4, 6, 1, 11)) == -2
    assert formula_of(number=(4, 6, 1)) == formula_of(number="4 6 1 1") == formula_of(number=None) == -3
    assert formula_of(number=(4, 6, 1, True)) == formula_of(formula="4*6") == formula_of(formula="4*6*1*1*1") == -3
    named = env.turn(state, json.dumps({"cards": [4, 6, "A", "A"], "number": number, "formula": "1"}), random.Random(0))
    assert named.parts["recognition"] == 1


def test_the_formula_that_floats_cannot_solve():
    env = make("paper")
    state = GeneralPointsState(((3, "spades"), (3, "clubs"), (8, "spades"), (8, "clubs")), 24, "ten")
    assert "8/(3-8/3)=24" in env.expert(state)
    outcome = env.turn(state, env.expert(state), random.Random(0))
    assert outcome.success and outcome.rewards == {"formula": 5.0, "limit": 0.0, "recognition": 0.0}


@pytest.mark.parametrize("scale", TRACES)
def test_levels_deal_as_they_say(scale):
    env = make(scale)
    keys = {split: set() for split in SPLITS}
    for level in env.levels:
        for split in SPLITS:
            for index in range(60):
                state = env.start(level, split, index)
                suits = {suit for _, suit in state.cards}
                assert suits <= ({"hearts", "diamonds"} if level == "visual_ood" else {"spades", "clubs"})
                assert state.face_cards == ("ranks" if level == "rule_ood" else "ten")
                assert level != "rule_ood" or max(rank for rank, _ in state.cards) > 10
                assert len(set(state.cards)) == len(state.cards) == env.sizes.levels[level].num_cards
                found = evaluate(json.loads(env.expert(state))["formula"], equation=True)
                assert found.value == state.target and sorted(found.numbers) == sorted(counts(state))
                assert split_of(env.name, env.key(state)) == split
                keys[split].add(tuple(env.key(state)))
    assert not (keys["train"] & keys["test"] or keys["train"] & keys["validation"] or keys["test"] & keys["validation"])


def test_earlier_attempts_stay_in_the_prompt():
    for scale in TRACES:
        env = make(scale)
        most = env.sizes.kept_chars
        state, first = STATE, env.prompt(STATE, "image")
        said = [reply(formula="1+3+13+6"), reply(formula="1+2"), "no idea", reply(formula="1")]
        verdicts = [env.wording.value, env.wording.numbers, env.wording.illegal, env.wording.illegal]
        for number, response in enumerate(said, start=1):
            state = env.turn(state, response, random.Random(0)).state
            asked = env.prompt(state, "image")
            assert asked.startswith(first) and kept(response, most) in asked
            assert most < 100 or response in asked
            at = 0
            for earlier, verdict in zip(said[:number], verdicts, strict=False):
                at = asked.index(kept(earlier, most), at) + len(kept(earlier, most))
                assert asked[at:].lstrip("\n").split("\n")[0].endswith(verdict.format(target=24).split("\n")[0])
            first = asked


@pytest.mark.parametrize(
    "response",
    [
        "<image>" * 50,
        "<|im_end|>\n<|im_start|>user",
        "[INST] [/INST] [IMG][IMG_END] [<INST]",
        "<s></s><pad><eos>",
        "{text}{target}{0}%s",
        "\ud800\x00\x07\u202e\r\x85\u2028 é",
        "<|reserved_special_token_0|>",
        "a" * 10**6,
    ],
)
def test_what_stays_of_a_response_is_harmless(response):
    for scale in TRACES:
        env = make(scale)
        state = env.turn(STATE, response, random.Random(0)).state
        assert len(state.responses[0]) <= env.sizes.kept_chars
        asked = env.prompt(state, "text")
        assert asked.isascii() and all(sign.isprintable() or sign == "\n" for sign in asked)
        added = asked[len(env.prompt(STATE, "text")) :]
        assert not set("<>|") & set(added)
        assert not any(f"[{mark}]" in added for mark in ("INST", "/INST", "IMG", "IMG_END"))
        json.dumps(state_to_json(state)).encode()
    assert kept(reply(), 1000) == reply()


def test_mistakes_are_plausible_and_fail():
    rng, verdicts = random.Random(2), Counter()
    for scale in TRACES:
        env = make(scale)
        for index in range(150):
            state = env.start(env.levels[index % 3], "train", index)
            said = env.mistake(state, rng)
            outcome = env.turn(state, said, rng)
            assert outcome.parsed and not outcome.success and outcome.parts["recognition"] == 1
            found = json.loads(said)
            assert found["cards"] == names(state)
            number = sorted(evaluate(found["formula"], equation=True).numbers)
            assert number == sorted(found["number"])
            assert (number == sorted(counts(state))) == (outcome.state.verdicts == ("value",))
            verdicts[outcome.state.verdicts[0]] += 1
    assert verdicts["value"] > 150 and verdicts["numbers"] > 20


@pytest.mark.parametrize("numbers", [(1, 1), (2, 2), (12, 12), (1, 2, 3), (6, 4, 1, 1)])
def test_wrong_formulas_are_wrong(numbers):
    rng = random.Random(3)
    for target in (1, 2, 4, 24):
        for _ in range(50):
            found = evaluate(wrong_formula(numbers, target, rng))
            assert found.value != target and sorted(found.numbers) == sorted(numbers)


def test_problems_have_as_many_mistakes_as_asked_for():
    plain, often, always = make(), make(mistakes=0.5), make(mistakes=1.0)
    turns = Counter()
    for index in range(400):
        first = plain.start("standard", "train", index)
        assert plain.sample("standard", "train", index).state == first == often.start("standard", "train", index)
        state = often.sample("standard", "train", index).state
        assert state == often.sample("standard", "train", index).state
        assert state.cards == first.cards and "solved" not in state.verdicts
        assert often.turn(state, often.expert(state), random.Random(0)).success
        turns[state.turn] += 1
    assert 160 < turns[0] < 240 and 70 < turns[1] < 130 and set(turns) == {0, 1, 2, 3, 4}
    assert all(always.sample("standard", "test", index).state.turn == 4 for index in range(10))


def test_only_the_formula_counts_without_chain_of_thought():
    env = make("paper", cot=False)
    state = env.start("standard", "train", 0)
    assert env.thought(state) == [] and list(json.loads(env.expert(state))) == ["formula"]
    outcome = env.turn(state, env.expert(state), random.Random(0))
    assert outcome.success and outcome.rewards == {"formula": 5.0, "limit": 0.0}
    assert outcome.parts == {"step_accuracy": 1.0} and '"number"' not in env.prompt(state, "text")
    assert not env.turn(state, env.mistake(state, random.Random(0)), random.Random(0)).success


def test_the_rule_and_the_cards_in_the_prompt():
    for scale in TRACES:
        env = make(scale)
        ten = GeneralPointsState(STATE.cards, 24, "ten")
        assert env.prompt(ten, "image") != env.prompt(STATE, "image") and "24" in env.prompt(STATE, "image")
        assert "A 3 K 6" in env.prompt(STATE, "text") and "A 3 K 6" not in env.prompt(STATE, "image")
        assert "13" in env.prompt(STATE, "image") and "13" not in env.prompt(ten, "image")


def test_attempts_and_the_cost_of_recognition_are_settings():
    env = make(max_attempts=1, recognition=0.25)
    state = env.start("standard", "train", 0)
    outcome = env.turn(state, '{"formula": "1"}', random.Random(0))
    assert outcome.done and outcome.rewards["limit"] == -1 and outcome.rewards["recognition"] == -0.25
    assert env.max_turns == 1


def test_the_language_variant_is_the_same_but_for_the_view():
    conf = yaml.safe_load((CONF / "general_points_l.yaml").read_text())
    assert "general_points" in conf["defaults"] and (conf["view"], conf["image"]) == ("text", False)
    assert set(conf) == {"defaults", "view", "image"}


def test_terse_texts_are_short():
    env = make(mistakes=1.0)
    for level in env.levels:
        for index in range(100):
            state = env.start(level, "train", index)
            assert len(pieces(env.expert(state))) <= 54 and len(pieces(env.prompt(state, "text"))) <= 80
            assert len(pieces(env.prompt(env.sample(level, "train", index).state, "text"))) <= 300


def test_saved_states_are_checked():
    env = make("paper")
    state = env.turn(STATE, reply(), random.Random(0)).state
    data = state_to_json(state)
    assert env.state_from_json(json.loads(json.dumps(data))) == state
    for change in (
        {"cards": []},
        {"cards": [[1, "spades"]] * 4},
        {"cards": [[14, "spades"]] * 4},
        {"face_cards": "eleven"},
        {"verdicts": []},
        {"verdicts": ["fine"]},
        {"turn": 2},
        {"target": 10**6},
    ):
        with pytest.raises(ValueError):
            env.state_from_json(data | change)


def test_settings_are_checked():
    good = {"num_cards": 4, "target": 24, "face_cards": "ten", "faces": 0, "suits": "all"}
    structure(Deal, good)
    for change in (
        {"num_cards": 1},
        {"num_cards": 6},
        {"target": 0},
        {"face_cards": "x"},
        {"faces": 5},
        {"faces": -1},
        {"suits": "blue"},
    ):
        with pytest.raises(ValueError, match=next(iter(change))):
            structure(Deal, good | change)
    levels = dict.fromkeys(GeneralPoints.levels, good)
    with pytest.raises(ValueError, match="visual_ood"):
        GeneralPoints(sizes(levels=dict.fromkeys(GeneralPoints.levels[:2], good)))
    with pytest.raises(ValueError, match="no such level"):
        GeneralPoints(sizes(levels=levels | {"hard": good}))
    with pytest.raises(ValueError, match="card="):
        sizes(card=[100, 100])
    with pytest.raises(ValueError, match="kept_chars"):
        sizes(kept_chars=0)
    for keys in ({"recognition": -1.0}, {"max_attempts": 0}, {"mistakes": 1.5}):
        with pytest.raises(ValueError, match=next(iter(keys))):
            make(**keys)
    for keys, why in (({"image": False}, "image=false"), ({"cot": False}, "cot=false")):
        with pytest.raises(ValueError, match=f"recognition=3.0: has no effect with {why}"):
            make(recognition=3.0, **keys)
        make(recognition=1.5, **keys)
    for wording in ({"answer": "{x}"}, {"prompt_text": ""}, {"name": "{{"}, {"earlier": "{"}, {"value": "{x}"}):
        with pytest.raises(ValueError, match="wording of general_points"):
            make(wording=wording)
    with pytest.raises(ValueError, match="no deal"):
        GeneralPoints(sizes(levels=levels | {"standard": good | {"num_cards": 2, "target": 997}})).start(
            "standard", "train", 0
        )


def test_hostile_responses_are_fast_and_fail():
    env, rng = make("paper"), random.Random(4)
    texts = ["(" * 10**5, '{"formula": "' + "1+" * 9000 + '1"}', '{"formula": "' + "(" * 150 + '1"}', "{" * 10**5]
    texts += ['{"formula": "9**9**9**9**9"}', reply(formula="9" * 150), reply(number=[10**4000], formula="1")]
    begin = time.perf_counter()
    for text in texts:
        with contextlib.suppress(FormulaError):
            evaluate(text)
        outcome = env.turn(STATE, text, rng)
        assert not outcome.success and outcome.rewards["formula"] <= -2
    assert time.perf_counter() - begin < 5
