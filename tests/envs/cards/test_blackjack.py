"""Blackjack against its rules, written down here a second time (appendix C.1 and Gymnasium's Blackjack-v1)."""

import itertools
import json
import random
import statistics
from pathlib import Path

import numpy as np
import pytest
import yaml

from vlmreason.envs.cards import blackjack
from vlmreason.envs.cards.blackjack import Blackjack, BlackjackSizes, BlackjackState
from vlmreason.envs.cards.deck import SIGNS
from vlmreason.models.vlm.tokenization import pieces
from vlmreason.streams import SPLITS, split_of
from vlmreason.structure import structure
from vlmreason.tasks.base import state_to_json

CONF = yaml.safe_load((Path(__file__).parents[3] / "conf" / "env" / "blackjack.yaml").read_text())
SIZES = {scale: structure(BlackjackSizes, CONF[scale], scale) for scale in ("nano", "paper")}
TRACES = {"nano": "terse", "paper": "verbose"}
NUM = blackjack.NUM_CARDS
BROKEN = ("", "hit", "{}", '{"action": "Hit"}', '{"action": "hit or stand"}', '{"action": "hit", "action": "stand"}')
COUNTS = {1: 1, 11: 10, 12: 10, 13: 10} | {rank: rank for rank in range(2, 11)}


def make(scale="nano", **keys):
    return Blackjack(SIZES[scale], **({"trace": TRACES[scale]} | keys))


def dealt(*ranks, **keys):
    """A state whose deck begins with these ranks: player, player, dealer's open card, hidden card, then the rest."""
    return BlackjackState(tuple((rank, "spades") for rank in (*ranks, *[10] * NUM)[:NUM]), **keys)


def best_sum(ranks):
    """The highest sum up to 21 over all ways to count the aces, else the lowest of all."""
    ways = [
        sum(way)
        for way in itertools.product(*((1, 11) if rank == 1 else (COUNTS[rank],) for rank in ranks if rank != 1))
    ]
    aces = ranks.count(1)
    sums = [way + aces + 10 * num for way in ways for num in range(aces + 1)]
    return max((s for s in sums if s <= 21), default=min(sums))


def expected(state, action, natural):
    """(reward, done) by the rules."""
    ranks = [rank for rank, _ in state.deck]
    hand, dealer = ranks[:2] + ranks[4 : 4 + state.hits], ranks[2:4]
    rest = ranks[4 + state.hits :]
    if action == "hit":
        over = best_sum([*hand, rest[0]]) > 21
        return -1.0 if over else 0.0, over or state.turn + 1 == 20
    while best_sum(dealer) < 17:
        dealer.append(rest.pop(0))
    mine, theirs = best_sum(hand), best_sum(dealer)
    if theirs > 21 or mine > theirs:
        blackjack_dealt = len(hand) == 2 and 1 in hand and any(COUNTS[rank] == 10 for rank in hand)
        return 1.5 if natural and blackjack_dealt else 1.0, True
    return (0.0 if mine == theirs else -1.0), True


@pytest.mark.parametrize(("natural", "penalty"), [(False, None), (True, -0.5)])
def test_transitions_follow_the_rules(natural, penalty):
    rng, env, seen = random.Random(2), make(natural=natural, penalty=penalty), set()
    num, index = 0, 0
    while num < 5000:
        state, done = env.start("standard", SPLITS[index % 3], index), False
        index += 1
        while not done:
            num += 1
            said = rng.choice(["hit", "hit", "stand", None])
            response = rng.choice(BROKEN) if said is None else f'{{"thoughts": "", "action": "{said}"}}'
            best = env.best(state)
            outcome = env.turn(state, response, rng)
            assert outcome.parsed == (said is not None)
            if said is None and penalty is not None:
                assert outcome.action is None and outcome.rewards == {"env": penalty}
                assert outcome.state == BlackjackState(state.deck, state.hits, False, state.turn + 1)
                assert outcome.done == (state.turn == 19)
            else:
                assert outcome.action == said if said else outcome.action in ("hit", "stand")
                reward, over = expected(state, outcome.action, natural)
                assert (outcome.rewards, outcome.done) == ({"env": reward}, over)
                assert outcome.success == (reward > 0)
                hit = outcome.action == "hit"
                assert outcome.state == BlackjackState(state.deck, state.hits + hit, not hit, state.turn + 1)
                seen.add(reward)
            assert outcome.parts == {"step_accuracy": float(said in best)}
            state, done = outcome.state, outcome.done
    assert seen == {-1.0, 0.0, 1.0} | ({1.5} if natural else set())


def test_hands_are_counted_like_every_way_to_count_aces():
    rng = random.Random(3)
    for _ in range(3000):
        ranks = rng.choices((1, 1, *range(1, 14)), k=rng.randint(2, 8))
        if best_sum(ranks[:-1]) <= 21:
            total, soft = blackjack.count((rank, "clubs") for rank in ranks)
            assert total == best_sum(ranks) and soft == (total > sum(COUNTS[rank] for rank in ranks))


def test_single_hands():
    env = make(natural=True)

    def end(state, action):
        return env.turn(state, json.dumps({"action": action}), random.Random(0))

    assert end(dealt(1, 13, 10, 9), "stand").rewards == {"env": 1.5}
    assert end(dealt(1, 13, 1, 12), "stand").rewards == {"env": 0.0}  # the dealer has one too
    assert make().turn(dealt(1, 13, 10, 9), '{"action": "stand"}', random.Random(0)).rewards == {"env": 1.0}
    assert end(dealt(7, 7, 10, 9, 7, hits=1), "stand").rewards == {"env": 1.0}  # 21 with three cards
    assert end(dealt(10, 8, 6, 1), "stand").state.dealer == ((6, "spades"), (1, "spades"))  # soft 17: stands
    assert end(dealt(10, 7, 6, 1), "stand").rewards == {"env": 0.0}
    drawn = end(dealt(10, 9, 2, 3, 4, 5, 6), "stand")
    assert [rank for rank, _ in drawn.state.dealer] == [2, 3, 4, 5, 6] and drawn.rewards == {"env": -1.0}
    assert end(dealt(10, 5, 10, 9, 7), "hit").rewards == {"env": -1.0}
    assert end(dealt(10, 5, 10, 9, 6), "hit").done is False  # 21 is not over yet, as in the paper's figure


def test_cards_are_enough_for_every_hand():
    aces = BlackjackState(((1, "hearts"),) * NUM)
    env, state, done = make(), aces, False
    while not done:
        outcome = env.turn(state, '{"action": "hit"}', random.Random(0))
        state, done = outcome.state, outcome.done
    assert outcome.rewards == {"env": -1.0} and state.turn == env.max_turns == 20 and len(state.player) == 22
    late = BlackjackState(((1, "hearts"),) * NUM, hits=19, turn=19)
    assert len(env.turn(late, '{"action": "stand"}', random.Random(0)).state.dealer) == 7

    def longest(hand, num):
        """Cards of the longest hand that a dealer draws from this one."""
        if hand[0] >= 17:
            return num
        return max(longest(blackjack.add(hand, card), num + 1) for card in range(1, 11))

    assert longest((0, False), 0) <= 12 and NUM == 2 + 20 + 12


@pytest.mark.parametrize("soft", [False, True])
def test_the_policy_is_known_basic_strategy(soft):
    """Infinite deck, the dealer stands on all 17s, no doubling: the tables that are printed everywhere."""
    for opened in range(1, 11):
        for total in range(12 if soft else 4, 22):
            if soft:
                hit = total < 18 or (total == 18 and opened in (1, 9, 10))
            elif total >= 17:
                hit = False
            elif total >= 13:
                hit = opened in (1, 7, 8, 9, 10)
            else:
                hit = total < 12 or opened not in (4, 5, 6)
            assert blackjack.best_actions((total, soft), opened) == ("hit" if hit else "stand",), (total, opened)


def test_the_value_of_the_game():
    hands = itertools.product(COUNTS, COUNTS, COUNTS)
    values = [
        blackjack._value(blackjack.count([(first, ""), (second, "")]), COUNTS[opened])
        for first, second, opened in hands
    ]
    mean = statistics.fmean(values)
    assert -0.048 < mean < -0.045
    env, rewards, wins = make(cot=False), [], 0
    for index in range(8000):
        state, done = env.start("standard", "train", index), False
        while not done:
            outcome = env.act(state, env.answer(state)[12:-2])
            state, done = outcome.state, outcome.done
        rewards.append(outcome.reward)
        wins += outcome.success
    assert abs(statistics.fmean(rewards) - mean) < 3.5 * statistics.stdev(rewards) / 8000**0.5
    assert 0.41 < wins / 8000 < 0.46


def test_values_are_what_hands_bring_when_played_out():
    """Four hands, both actions, the best play behind them."""
    rng = random.Random(5)
    for first, second, opened in ((10, 6, 10), (1, 7, 9), (10, 2, 4), (5, 6, 1)):
        hand = blackjack.count([(first, ""), (second, "")])
        for action, value in (
            ("stand", blackjack.stand_value(hand[0], opened)),
            ("hit", blackjack.hit_value(hand, opened)),
        ):
            env, rewards = make(), []
            for _ in range(2500):
                ranks = [first, second, opened, *rng.choices(range(1, 14), k=NUM)]
                outcome = env.act(dealt(*ranks), action)
                while not outcome.done:
                    outcome = env.act(outcome.state, next(iter(env.best(outcome.state))))
                rewards.append(outcome.reward)
            assert abs(statistics.fmean(rewards) - value) < 4 * statistics.pstdev(rewards) / 50 + 1e-9


def test_splits_and_indices():
    env, keys = make(), {}
    for split in SPLITS:
        states = [env.start("standard", split, index) for index in range(80)]
        assert states == [env.start("standard", split, index) for index in range(80)]
        assert {split_of("blackjack", env.key(state)) for state in states} == {split}
        keys[split] = {json.dumps(env.key(state)) for state in states}
        assert len(keys[split]) == 80
    ranks = [rank for index in range(150) for rank, _ in env.start("standard", "train", index).deck]
    assert all(0.06 < ranks.count(rank) / len(ranks) < 0.095 for rank in range(1, 14))


@pytest.mark.parametrize("scale", SIZES)
def test_pictures_show_the_cards_that_lie_open(scale):
    env = make(scale)
    width, height = SIZES[scale].picture
    card_w, card_h = SIZES[scale].card
    state = dealt(5, 9, 7, 2, 4, 8)
    picture = env.draw(state)
    assert picture.shape == (height, width, 3) and picture.dtype == np.uint8
    assert (picture == env.draw(dealt(5, 9, 7, 13, 6, 6))).all()  # neither the hidden card nor the deck
    hand = (*state.deck[:2], state.deck[2])
    looks = {
        env.draw(BlackjackState((*cards[:2], cards[2], *state.deck[3:]))).tobytes()
        for position in range(3)
        for rank in range(1, 14)
        for suit in SIGNS
        for cards in [[(rank, suit) if i == position else card for i, card in enumerate(hand)]]
    }
    assert len(looks) == 3 * 52 - 2
    hit = env.draw(BlackjackState(state.deck, hits=1, turn=1))
    changed = np.argwhere((hit != picture).any(axis=2))
    top = height - 2 * card_h
    assert changed.min(axis=0)[0] >= top and changed.max(axis=0)[0] < top + card_h
    assert changed.min(axis=0)[1] >= 2 * card_w and changed.max(axis=0)[1] < 3 * card_w
    stood = env.draw(BlackjackState(state.deck, stood=True, turn=1))
    assert (stood[:card_h, card_w:] != picture[:card_h, card_w:]).any() and (stood[top:] == picture[top:]).all()
    for hits in range(21):
        for over in (False, True):
            shown = BlackjackState(((1, "hearts"),) * NUM, hits=hits, turn=hits, stood=over)
            assert env.draw(shown).shape == picture.shape


def test_crowded_hands_keep_their_ranks_in_sight():
    area = (144, 96)
    for num in range(1, 16):
        places = blackjack._places(num, (48, 48), area, 48)
        assert len(set(places)) == num and all(x % 24 == y % 24 == 0 for x, y in places)
        assert all(0 <= x <= 96 and 48 <= y <= 96 for x, y in places)
        assert num > 6 or all(x % 48 == y % 48 == 0 for x, y in places)


@pytest.mark.parametrize("cot", [True, False])
@pytest.mark.parametrize("scale", SIZES)
def test_prompts_and_responses(scale, cot):
    env = make(scale, cot=cot)
    state = dealt(10, 3, 8, 5)
    assert env.text(state) == "Dealer: 8 ?\nPlayer: 10 3"
    assert env.text(BlackjackState(state.deck, stood=True)) == "Dealer: 8 5 10\nPlayer: 10 3"
    assert env.text(dealt(1, 12, 11, 5)) == "Dealer: J ?\nPlayer: A Q"
    assert env.text(state) in env.prompt(state, "text")
    assert env.prompt(state, "image") == env.prompt(dealt(2, 2, 2, 2), "image")
    said = json.loads(env.expert(state))
    assert list(said) == (["thoughts", "action"] if cot else ["action"]) and said["action"] == "hit"
    if cot:
        assert "13" in said["thoughts"] and "8" in said["thoughts"] and "soft" not in said["thoughts"]
        assert "soft 18" in json.loads(env.expert(dealt(1, 7, 1, 5)))["thoughts"]
        assert env.answer_marker().match(env.answer(state))
    else:
        assert env.thought(state) == [] and env.answer(state) == '{"action": "hit"}'
    if scale == "nano":
        states = [env.sample("standard", "train", index).state for index in range(200)]
        assert max(len(pieces(env.expert(state))) for state in states) <= 45
        assert max(len(pieces(env.prompt(state, "text"))) for state in states) <= 40


def test_states_survive_json_and_broken_ones_are_named():
    env = make()
    state = env.sample("standard", "train", 7).state
    data = json.loads(json.dumps(state_to_json(state)))
    assert env.state_from_json(data) == state
    for change in ({"deck": data["deck"][:-1]}, {"hits": 21}, {"hits": -1}, {"deck": [[0, "spades"]] * NUM}):
        with pytest.raises(ValueError, match="card"):
            env.state_from_json(data | change)


def test_wrong_settings_are_named():
    for card in ([49, 48], [48, 49], [10, 48]):
        with pytest.raises(ValueError, match=rf"card=\[{card[0]}, {card[1]}\]"):
            structure(BlackjackSizes, {"picture": [144, 144], "card": card})
    for wording in ({"read": "{nonsense}"}, {"prompt_text": ""}, {"decide": "no quote"}):
        with pytest.raises(ValueError, match="wording of blackjack"):
            make(wording=wording)
    with pytest.raises(ValueError, match=r"wording\.nonsense"):
        make(wording={"nonsense": ""})
