"""Rollouts: exact prompts, the very tokens, episodes by number, and what goes wrong in an environment named."""

import dataclasses
import json

import pytest
import torch
from support.acting import play
from support.tiny import nano_task, tiny_learner

from vlmreason.answering.rollout import Rollouts, Slots, encode
from vlmreason.envs.base import Outcome, given
from vlmreason.models.contract import Sample
from vlmreason.segments import SEGMENT_IDS

ENV = nano_task("number_line")
POINTS = nano_task("ez_points")
UNREAD = "nothing that could be read"


class Says:
    """An engine that answers each prompt as a function says, in the learner's tokens."""

    def __init__(self, learner, answer, finished=True):
        self.processor, self.answer, self.finished = learner.processor, answer, finished
        self.asked = []

    def sample(self, prompts, seeds, max_new_tokens, temperature):
        self.asked += prompts
        found = []
        for prompt in prompts:
            text = self.answer(prompt.text)
            ids = self.processor._follow(text)[0] + ([self.processor.eos_id] if self.finished else [])
            found.append(Sample(text, len(ids), self.finished, ids, [0.0] * len(ids)))
        return found


@pytest.fixture(scope="module")
def learner():
    return tiny_learner()


def table_of(env, view="text", **changes):
    keys = {
        "levels": env.levels[:1],
        "weights": {},
        "max_new_tokens": 12,
        "temperature": 1.0,
        "seed": 0,
        "batch_size": 2,
    }
    return Rollouts(env, view=view, **(keys | changes))


def test_an_unknown_view_is_refused():
    with pytest.raises(ValueError, match=r"view='image_via_text'.*text, image, both"):
        table_of(ENV, "image_via_text")


@pytest.mark.parametrize("view", ["text", "image", "both"])
@pytest.mark.parametrize("temperature", [1.0, 0.3])
def test_log_probabilities_of_rollout_and_trainer(view, temperature):
    """Of all tokens, also the end and those of responses that are cut off."""
    learner = tiny_learner()
    with torch.no_grad():
        learner.model.get_output_embeddings().weight.mul_(3.0)  # not all tokens alike
    learner.processor.eos_ids = [*learner.processor.eos_ids, *range(100, 140)]  # some responses end by themselves
    table = table_of(ENV, view, temperature=temperature, max_new_tokens=15, batch_size=16)
    prompt, state = table.prompt(table.begin(0).state), table.begin(0).state
    assert (ENV.text(state) in prompt.text, prompt.image is not None) == (view != "image", view != "text")
    turns = list(table.play(learner, {slot: table.begin(slot) for slot in range(16)}, 0).values())
    finished = [turn.sample.finished for turn in turns]
    assert any(finished)
    assert not all(finished)
    for turn in turns:
        sample, ends = turn.sample, [i for i, t in enumerate(turn.sample.ids) if t in learner.processor.eos_ids]
        assert ends == ([sample.num_tokens - 1] if sample.finished else []), "the end is the last token and only there"
        assert len(sample.ids) == len(sample.logprobs) == sample.num_tokens
        assert sample.finished or sample.num_tokens == 15
        assert learner.processor.pictures.placeholder_id not in sample.ids
    encoded = [encode(learner.processor, ENV, turn) for turn in turns]
    with torch.no_grad():
        scores = learner.token_scores(learner.processor.collate(encoded), temperature)
        contexts = learner.context([turn.prompt for turn in turns])
    drawn = torch.tensor([value for turn in turns for value in turn.sample.logprobs])
    torch.testing.assert_close(scores.logprobs_N, drawn, rtol=0, atol=1e-4)
    torch.testing.assert_close(scores.context_BD, contexts, rtol=0, atol=1e-5)
    assert torch.isfinite(scores.entropies_N).all()
    rows = [row for row, turn in enumerate(turns) for _ in turn.sample.ids]
    assert scores.rows_N.tolist() == rows


def test_what_is_drawn_depends_on_no_batch_and_no_process(learner):
    def drawn(batch_size, num_processes, update=0):
        found = {}
        for rank in range(num_processes):
            slots = Slots(table_of(ENV, batch_size=batch_size), 6)
            slots.place(rank, num_processes)
            torch.manual_seed(rank)
            for slot, turns in slots.collect(learner, 2, update).items():
                found[slot] = [turn.sample.ids for turn in turns]
        return found

    first = drawn(6, 1)
    assert len({tuple(ids) for turns in first.values() for ids in turns}) == 12, "slots and turns have their own"
    assert first == drawn(1, 1) == drawn(4, 2)
    assert first != drawn(6, 1, update=1)


@pytest.mark.parametrize("view", ["text", "image"])
@pytest.mark.parametrize("name", ["ez_points", "general_points"])
def test_prompt_of_each_step_is_kept(learner, name, view):
    """It changes with the formula, or with earlier answers; what is trained on has it, not the first one."""
    env = nano_task(name)
    replies = iter(["*"] * 4 + [UNREAD] * 4 + ["+"] * 100)
    engine = Says(learner, lambda prompt: json.dumps({env.answer_key: next(replies)}))
    table = table_of(env, view)
    episodes = {slot: table.begin(slot) for slot in range(4)}
    prompts = {slot: [] for slot in episodes}
    for number in range(3):
        for slot, turn in table.play(engine, episodes, 0, number).items():
            assert turn.prompt.text == env.prompt(turn.state, view)
            picture = env.draw(turn.state)
            assert (turn.prompt.image is None) == (view == "text")
            assert view == "text" or (turn.prompt.image == picture).all()
            encoded = encode(learner.processor, env, turn)
            num = encoded.segments.count(0)
            assert encoded.input_ids[:num] == learner.processor.prompt_ids(turn.prompt.text, turn.prompt.image)
            assert encoded.input_ids[num:] == turn.sample.ids
            batch = learner.processor.collate_prompts([turn.prompt])
            assert batch["input_ids"][0].tolist() == encoded.input_ids[:num], "what it was generated from"
            prompts[slot].append(turn.prompt.text)
        episodes = {slot: e for slot, e in episodes.items() if e.turn < 3}
    assert all(len(set(texts)) > 1 for texts in prompts.values())


@pytest.mark.parametrize(
    ("response", "thought"),
    [
        ('{"thoughts": "0 up to 3", "action": "+"}', '{"thoughts": "0 up to 3", '),
        ('{"action": "-"}', "{"),
        ('"action": "x" no, "action": "+"}', '"action": "x" no, '),
        ("no action at all", "no action at all"),
        ('so: two words "action": "+"', "so: two words "),
        ("", ""),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_segments_are_of_characters(learner, response, thought, finished):
    [turn] = play(learner, ENV, 1, engine=Says(learner, lambda _: response, finished))
    encoded = encode(learner.processor, ENV, turn)
    num = encoded.segments.count(0)
    ids, segments = encoded.input_ids[num:], encoded.segments[num:]
    assert len(ids) == len(turn.sample.ids)
    for number, segment in enumerate(segments):
        text = learner.processor.decode(ids[: number + 1])
        expected = "answer" if len(text) > len(thought) or not response else "thought"
        assert segment == SEGMENT_IDS[expected], text
    if finished and '"action"' in response:
        assert segments[-1] == SEGMENT_IDS["answer"], "the end belongs to the answer"


def test_episodes_are_numbered_without_gaps_or_repeats(learner):
    env = nano_task("general_points")
    table = table_of(env, levels=env.levels[:2])
    begun = []
    start = table.begin
    table.begin = lambda number: begun.append(number) or start(number)
    engine = Says(learner, lambda prompt: UNREAD)
    slots = [Slots(table, 5) for _ in range(2)]
    for rank, one in enumerate(slots):
        one.place(rank, 2)
        for update in range(4):
            one.collect(engine, 3, update)
        one.episodes()
    assert len(set(begun)) == len(begun), "no episode twice"
    for slot in range(5):
        own = sorted(number for number in begun if number % 5 == slot)
        assert own == list(range(slot, slot + 5 * len(own), 5)), "none left out"
    assert min(sum(number % 5 == slot for number in begun) for slot in range(5)) >= 3
    found = [(start(number).level, start(number).index) for number in range(6)]
    assert found == [(level, index) for index in range(3) for level in env.levels[:2]]


@pytest.mark.parametrize(
    "env", [ENV, POINTS, nano_task("general_points"), nano_task("blackjack")], ids=lambda e: e.name
)
def test_slots_go_on_where_they_were(env):
    learner = tiny_learner()
    engine = Says(learner, lambda prompt: UNREAD)

    def turns(slots, updates):
        found = []
        for update in updates:
            for slot, of_slot in slots.collect(engine, 3, update).items():
                found += [(slot, t.state, t.outcome, t.reward, t.gained, t.prompt.text) for t in of_slot]
        return found

    unbroken = Slots(table_of(env), 4)
    expected = turns(unbroken, range(5))
    broken = Slots(table_of(env), 4)
    first = turns(broken, range(2))
    broken.episodes()
    saved = json.loads(json.dumps(broken.state()))
    others = [Slots(table_of(env), 4) for _ in range(2)]
    again = Slots(table_of(env), 4)
    again.restore(saved)
    assert again.state() == broken.state()
    assert first + turns(again, range(2, 5)) == expected
    for rank, one in enumerate(others):  # by another number of processes
        one.place(rank, 2)
        one.restore(saved)
    assert others[0].state() | others[1].state() == saved


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_reward_that_is_no_number(learner, monkeypatch, value):
    def turn(self, state, response, rng):
        return Outcome(state, {"env": value}, done=False)

    monkeypatch.setattr(type(ENV), "turn", turn)
    with pytest.raises(
        ValueError, match=r"number_line, level standard, episode 0, turn 0: rewards \{'env': (nan|inf)\}"
    ):
        play(learner, ENV, 1, engine=Says(learner, lambda _: "x"))


@pytest.mark.parametrize("method", ["start", "draw", "prompt", "turn"])
def test_environment_that_raises(learner, monkeypatch, method):
    def fails(self, *args):
        raise RuntimeError("a broken\nworld")

    monkeypatch.setattr(type(ENV), method, fails)
    with pytest.raises(ValueError, match=r"number_line, level standard, episode 0, turn 0: .*a broken") as raised:
        play(learner, ENV, 1, "image", engine=Says(learner, lambda _: "x"))
    assert "\n" not in str(raised.value)


def test_episode_that_never_ends(learner, monkeypatch):
    monkeypatch.setattr(type(ENV), "turn", lambda self, state, response, rng: Outcome(state, {"env": 0.0}, done=False))
    with pytest.raises(ValueError, match=rf"episode 0, turn {ENV.max_turns}: the episode goes on after max_turns="):
        Slots(table_of(ENV), 1).collect(Says(learner, lambda _: "x"), ENV.max_turns + 1, 0)


def test_unreadable_actions_are_explored(learner):
    """A random legal action is taken (equation 4.1): another one in other places, the same in the same."""
    table = table_of(ENV)
    engine = Says(learner, lambda _: UNREAD)
    actions = [
        [turn.outcome.action for turn in table.play(engine, {s: table.begin(s) for s in range(40)}, *where).values()]
        for where in ((0, 0), (0, 0), (1, 0), (0, 1))
    ]
    assert actions[0] == actions[1]
    assert len({tuple(one) for one in actions}) == 3
    assert all(10 < one.count("+") < 30 for one in actions)
    outcome = table.play(engine, {0: table.begin(0)}, 0)[0].outcome
    assert not outcome.parsed
    read = table.play(Says(learner, lambda _: '{"action": "+"}'), {0: table.begin(0)}, 0)[0].outcome
    assert read.parsed
    assert read.action == "+"


def test_weights_of_rewards(learner, monkeypatch):
    def turn(self, state, response, rng):
        return Outcome(
            dataclasses.replace(state, turn=state.turn + 1), {"a": 2.0, "b": 3.0, "c": 5}, done=state.turn > 0
        )

    monkeypatch.setattr(type(ENV), "turn", turn)
    monkeypatch.setattr(type(ENV), "rewards", tuple(given(name, "", 1.0) for name in "abc"))
    table = table_of(ENV, weights={"a": 0.5, "b": 0.0})
    episodes = {0: table.begin(0)}
    engine = Says(learner, lambda _: "x")
    first, second = (table.play(engine, episodes, 0, number)[0] for number in range(2))
    assert (first.reward, first.gained, first.outcome.done) == (6.0, 6.0, False)
    assert (second.reward, second.gained, second.outcome.done) == (6.0, 12.0, True)
