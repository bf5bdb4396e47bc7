"""GeneralPoints against its rules, written down here a second time (appendix D.1)."""

import contextlib
import json
import operator
import random
import time
from collections import Counter
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import pytest
import yaml

from vlmreason.envs.cards.attempts import kept, mistake, wrong_formula
from vlmreason.envs.cards.deck import RANKS
from vlmreason.envs.cards.formula import FormulaError, evaluate
from vlmreason.envs.cards.general_points import (
    Deal,
    GeneralPoints,
    GeneralPointsSizes,
    GeneralPointsState,
)
from vlmreason.envs.replies import read_object
from vlmreason.envs.rewards import further
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
    """A response drawn at random, with the reward of its formula and whether its lists are right, by the rules."""
    values, cards = counts(state), names(state)
    cards_right = rng.random() < 0.7
    said = rng.sample(cards, len(cards)) if cards_right else [*cards[1:], "10" if cards[0] != "10" else "9"]
    kind = rng.choice(["formula", "value", "value", "other", "twice", "missing", "broken", "sign"])
    number = rng.choice([rng.sample(values, len(values)), [values[0] + 1, *values[1:]], values[1:], None, "1 2 3"])
    if kind == "formula":
        formula = fair_formula(values, rng, state.operators, lambda value: value == state.target)
        kind = "value" if formula is None else kind
    if kind == "value":
        formula = fair_formula(values, rng, state.operators, lambda value: value != state.target)
    gives = {"formula": 5.0, "value": -1.0, "other": -2.0}.get(kind, -3.0)
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
    elif kind == "sign":
        formula = "*".join(map(str, values))  # no sign of these deals
    if kind == "formula" and rng.random() < 0.5:
        formula += f" = {state.target}"
    data = {"cards": said, "number": number, "formula": formula}
    numbers_right = isinstance(number, list) and sorted(number) == sorted(values)
    return json.dumps(data), gives, cards_right, numbers_right


def fair_formula(values, rng, operators, fits):
    """A formula of all values that is legal and fits, found by drawing."""
    for _ in range(400):
        hand = [(str(value), Fraction(value)) for value in values]
        while len(hand) > 1:
            rng.shuffle(hand)
            (a, x), (b, y) = hand.pop(), hand.pop()
            sign = rng.choice(operators if y else operators.replace("/", ""))
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
                response = rng.choice(["", "{", "{}{}", '{"formula": 24}'])
                gives, cards_right, numbers_right, parsed = -3.0 if penalty is None else penalty, False, False, False
            else:
                (response, gives, cards_right, numbers_right), parsed = drawn_response(state, rng), True
            outcome = env.turn(state, response, random.Random(0))
            solved, last = gives == 5, state.turn == 4
            rewards = {"formula": gives, "limit": -1.0 if last and not solved else 0.0}
            if image:
                rewards["recognition"] = 0.0 if cards_right else -1.5
            assert outcome.rewards == rewards, response
            valid = float(parsed and gives in (5, -1))
            read = {"recognition": float(cards_right), "numbers": float(numbers_right), "valid": valid}
            assert outcome.parts == {"step_accuracy": float(solved), **read}
            assert further(env, ["cards", "numbers", "formula"], state, response, outcome) == {
                "cards": float(cards_right),
                "numbers": float(numbers_right),
            }
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
        (reply(number=(1, 3, 10, 6), formula="(6-3-1)*13-0"), -2),
        (reply(formula="13-1+6*(3-1)"), -3),
        (reply(formula="6*3+13-1=24"), -1),
        (reply(formula="6/(1-3/13)"), -1),
    ],
)
def test_rewards_of_given_formulas(response, formula):
    assert make("paper").turn(STATE, response, random.Random(0)).rewards["formula"] == formula


def test_the_formula_alone_decides():
    env = make("paper")
    state = GeneralPointsState(((4, "spades"), (6, "clubs"), (1, "spades"), (1, "clubs")), 24, "ten")
    right = {"cards": ("4", "6", "A", "A"), "number": (4, 6, 1, 1), "formula": "4*6*1*1"}

    def outcome_of(**keys):
        return env.turn(state, json.dumps(right | keys), random.Random(0))

    for number in ((6, 4, 1, 1), (4, 6, 1, 11), (4, 6, 1), "4 6 1 1", None, (4, 6, 1, True), [], ["4", "6", "1", "1"]):
        outcome = outcome_of(number=number)
        assert outcome.success and outcome.rewards == {"formula": 5.0, "limit": 0.0, "recognition": 0.0}
        assert outcome.parts["numbers"] == float(number == (6, 4, 1, 1))
        assert env.score(state, json.dumps(right | {"number": number})).correct
    misread = outcome_of(cards=["K"])
    assert misread.success and misread.rewards == {"formula": 5.0, "limit": 0.0, "recognition": -1.5}
    assert outcome_of(cards=[4, 6, "A", "A"], formula="1").parts["recognition"] == 1
    assert outcome_of(formula="4*6*1*1=24").success and outcome_of(formula="4*6*1*1=25").rewards["formula"] == -1
    assert outcome_of(formula="4*6").rewards["formula"] == outcome_of(formula="4*6*1*1*1").rewards["formula"] == -3


def test_only_the_operators_of_the_deal_are_legal():
    env = make()
    state = env.start("standard", "train", 0)
    assert state.operators == "+-" and set(json.loads(env.expert(state))["formula"]) <= set("0123456789+-()")
    cards = ((2, "spades"), (3, "clubs"), (1, "spades"))
    timely = GeneralPointsState(cards, 6, "ten", "+-")
    product = reply(cards=("2", "3", "A"), number=(2, 3, 1), formula="2*3*1")
    assert env.turn(timely, product, random.Random(0)).rewards["formula"] == -3
    assert env.turn(GeneralPointsState(cards, 6, "ten", "+*"), product, random.Random(0)).success
    assert env.turn(timely, product.replace("2*3*1", "2+3+1"), random.Random(0)).success
    assert "by + -," in env.prompt(timely, "image") and "+ - * /" in make("paper").prompt(STATE, "image")


def test_targets_are_drawn_from_their_range():
    env = make()
    targets = Counter(env.start("standard", "train", index).target for index in range(600))
    assert set(targets) <= set(range(1, 31)) and len(targets) > 25
    problems = {
        (tuple(sorted(counts(state))), state.target)
        for split in SPLITS
        for state in (env.start("standard", split, index) for index in range(400))
    }
    assert len(problems) > 350  # of 727; with the one target 12 there were 45 sets to train on


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


def test_earlier_attempts_stay_in_the_prompt_whole():
    for scale in TRACES:
        env = make(scale)
        state, first = STATE, env.prompt(STATE, "image")
        said = [reply(formula="1+3+13+6"), reply(formula="1+2"), "no idea", reply(formula="1")]
        shown = [said[0], said[1], env.wording.unread, said[3]]
        verdicts = [env.wording.value, env.wording.numbers, env.wording.illegal, env.wording.illegal]
        for number, response in enumerate(said, start=1):
            state = env.turn(state, response, random.Random(0)).state
            asked = env.prompt(state, "image")
            assert asked.startswith(first) and "no idea" not in asked
            at = 0
            for earlier, verdict in zip(shown[:number], verdicts, strict=False):
                at = asked.index(earlier, at) + len(earlier)
                assert asked[at:].lstrip("\n").split("\n")[0].endswith(verdict.format(target=24).split("\n")[0])
            first = asked


@pytest.mark.parametrize("scale", TRACES)
def test_late_attempts_are_as_complete_as_the_first(scale):
    """Every answer of ten attempts is there as it was given, by an expert that errs and by a model that rambles."""
    env, rng = make(scale, max_attempts=10, mistakes=1.0), random.Random(7)
    for index in range(20):
        state, said = env.start("standard", "train", index), []
        for _ in range(9):
            attempt = env.mistake(state, rng)
            ramble = "x" * 300 + attempt if rng.random() < 0.2 and scale == "nano" else attempt
            state = env.turn(state, ramble, rng).state
            said.append(attempt if read_object(attempt, "formula") is not None else env.wording.unread)
        asked = env.prompt(state, "text")
        at = [asked.index(said[0])]
        for attempt in said[1:]:
            at.append(asked.index(attempt, at[-1] + 1))
        assert len(at) == 9 and "x" * 10 not in asked
        for shown in env.sample("standard", "train", index).state.responses:
            assert shown == "" or read_object(shown, "formula").keys() == {"cards", "number", "formula"}


def test_an_object_that_is_too_long_is_left_out_and_text_around_one_is_dropped():
    assert kept(reply(), "formula", 1000) == reply() and kept("so " * 400 + reply(), "formula", 200) == reply()
    assert kept(reply(), "formula", 20) == kept("no idea", "formula", 200) == kept('{"x": 1}', "formula", 200) == ""


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
        inside = json.dumps({"n": response}).replace("\\n", "\n")[:-1] + ', "formula": "1"}'
        assert kept(inside, "formula", 10**7) or len(response) > 10**5 or "\n" in response
        state = env.turn(STATE, inside if len(response) < 150 else response, random.Random(0)).state
        assert len(state.responses[0]) <= env.sizes.kept_chars
        asked = env.prompt(state, "text")
        assert asked.isascii() and all(sign.isprintable() or sign == "\n" for sign in asked)
        added = asked[len(env.prompt(STATE, "text")) :]
        assert not set("<>|") & set(added)
        assert not any(f"[{mark}]" in added for mark in ("INST", "/INST", "IMG", "IMG_END"))
        json.dumps(state_to_json(state)).encode()


def test_mistakes_are_those_of_models_and_fail():
    rng, verdicts, kinds = random.Random(2), Counter(), Counter()
    for scale in TRACES:
        env = make(scale)
        for index in range(200):
            state = env.start(env.levels[index % 3], "train", index)
            said = env.mistake(state, rng)
            outcome = env.turn(state, said, rng)
            assert not outcome.success and outcome.parsed == (read_object(said, "formula") is not None)
            verdicts[outcome.state.verdicts[0]] += 1
            kinds["unread"] += not outcome.parsed
            kinds["misread"] += outcome.parsed and not outcome.parts["recognition"]
            kinds["counted otherwise"] += bool(outcome.parts["recognition"] and not outcome.parts["numbers"])
    assert verdicts["value"] > 150 and verdicts["numbers"] > 60 and verdicts["illegal"] > 60
    assert kinds["unread"] > 20 and kinds["misread"] > 40 and kinds["counted otherwise"] > 15


def test_mistakes_where_every_formula_is_right():
    rng, cards = random.Random(5), ((2, "spades"), (3, "clubs"))
    for _ in range(50):
        seen, _, formula = mistake(cards, "ten", 5, "+", rng)
        assert tuple(seen) != cards or formula != "2+3"
    assert wrong_formula((2, 3), 5, rng, "+") is None


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
    assert outcome.parts == {"step_accuracy": 1.0, "valid": 1.0} and '"number"' not in env.prompt(state, "text")
    assert not env.turn(state, env.mistake(state, random.Random(0)), random.Random(0)).success


def test_the_rule_and_the_cards_in_the_prompt():
    for scale in TRACES:
        env = make(scale)
        ten = GeneralPointsState(STATE.cards, 24, "ten")
        assert env.prompt(ten, "image") != env.prompt(STATE, "image") and "24" in env.prompt(STATE, "image")
        named = '["A", "3", "K", "6"]'
        assert named in env.prompt(STATE, "text") and named not in env.prompt(STATE, "image")
        assert named in env.expert(STATE)
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
    good = {"num_cards": 4, "targets": [24, 24], "operators": "+-*/", "face_cards": "ten", "faces": 0, "suits": "all"}
    structure(Deal, good)
    for change in (
        {"num_cards": 1},
        {"num_cards": 6},
        {"targets": [0, 5]},
        {"targets": [9, 5]},
        {"operators": ""},
        {"operators": "+x"},
        {"operators": "++"},
        {"operators": "-"},
        {"operators": "+/"},
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
        GeneralPoints(sizes(levels=levels | {"standard": good | {"num_cards": 2, "targets": [997, 997]}})).start(
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


def test_a_false_rule_is_stated_and_does_not_count():
    """Who ignores the rule solves the deal; who obeys it fails, validly or not, and is told apart."""
    env = make(image=False)
    for index in range(20):
        state = env.start("rule_false", "test", index)
        assert (state.face_cards, state.told) == ("ten", "ranks") and any(rank > 10 for rank, _ in state.cards)
        stated = env.prompt(state, "text")
        assert stated == env.prompt(replace(state, face_cards="ranks", told=""), "text")
        assert stated != env.prompt(replace(state, told=""), "text")
        obeying = env.expert(replace(state, face_cards="ranks"))
        trained, obeyed = (env.score(state, response) for response in (env.expert(state), obeying))
        assert trained.correct and trained.parts["valid"] == 1 and trained.parts["as_told"] == 0
        assert not obeyed.correct and obeyed.parts["as_told"] == 1 and obeyed.parts["valid"] == 0
    assert "as_told" not in env.score(env.start("standard", "test", 0), "").parts


@pytest.mark.parametrize("scale", ["nano", "paper"])
def test_words_of_the_rule_vary_in_supervision_alone(scale):
    one, many = make(scale, image=False), make(scale, image=False, rule_words="many")
    for level in ("standard", "rule_ood"):
        states = [one.start(level, "train", index) for index in range(60)]
        plain = [one.prompt(state, "text") for state in states]
        assert [one.asked_in("supervised").prompt(state, "text") for state in states] == plain
        assert [many.asked_in("reinforced").prompt(state, "text") for state in states] == plain
        assert [many.prompt(state, "text") for state in states] == plain
        varied = [many.asked_in("supervised").prompt(state, "text") for state in states]
        assert varied == [many.asked_in("supervised").prompt(state, "text") for state in states], (
            "each deal has its own"
        )
        words = [one._rules[states[0].face_cards], *many._otherwise[states[0].face_cards]]
        found = {next(word for word in words if word in prompt) for prompt in varied}
        assert found == set(words)
    with pytest.raises(ValueError, match="rule_words"):
        make(scale, rule_words="some")
