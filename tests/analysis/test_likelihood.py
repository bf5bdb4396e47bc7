"""Likelihood of thoughts and actions: sums by hand, whole episodes, intervals over them."""

import itertools
import json
import math
from typing import Any

import pytest
import torch
from support.tiny import nano_task, shared_learner, tiny_learner

from vlmreason.analysis.likelihood import Settings, measure, play
from vlmreason.answering.rollout import Rollouts
from vlmreason.envs.revision import Revision
from vlmreason.intervals import clustered_mean, clustered_share, wilson_interval
from vlmreason.models.contract import Sample
from vlmreason.models.networks.actions import ActionLearner
from vlmreason.models.vlm.learner import Learner

ENV: Any = nano_task("number_line")


class Says(Learner):
    """A learner that answers as it is told; its tokens have log-probabilities of -1, -2, -3, ..."""

    def __init__(self, *answers: str) -> None:
        learner = shared_learner()
        super().__init__(learner.model, learner.processor)
        self.answers, self.asked = answers, 0

    def sample(self, prompts: Any, seeds: Any, max_new_tokens: int, temperature: float) -> list[Sample]:
        found = []
        for _ in prompts:
            text = self.answers[self.asked % len(self.answers)]
            ids = [*self.processor._follow(text)[0], self.processor.eos_id]
            found.append(Sample(text, len(ids), True, ids, [-1.0 - i for i in range(len(ids))]))
            self.asked += 1
        return found


def settings(**changes: Any) -> Settings:
    return Settings(**{"view": "text", "max_new_tokens": 12, "num": 8, "batch_size": 4, **changes})


def test_sums_are_those_of_the_tokens_before_the_answer_and_in_it() -> None:
    thought, answer = '{"thoughts": "0 up to 3", ', '"action": "+"}'
    learner = Says(thought + answer)
    [found] = measure(learner, ENV, settings())
    ids = learner.processor._follow(thought + answer)[0]
    whole = len(ids)
    before = sum(len(learner.processor.decode(ids[: i + 1])) <= len(thought) for i in range(whole))
    assert 0 < before < whole
    assert found.thought.num_tokens.mean == before
    assert found.answer.num_tokens.mean == whole + 1 - before, "with the end"
    assert found.thought.logprob.mean == -sum(range(1, before + 1))
    assert found.answer.logprob.mean == -sum(range(before + 1, whole + 2))
    assert found.unread.count == 0 and found.unread.num == found.num == learner.asked >= 8


def test_a_sample_of_a_model_by_its_own_probabilities() -> None:
    """One response, whose tokens are read again: a pass over the prompt and what was drawn, without a cache."""
    learner = tiny_learner()
    with torch.no_grad():
        learner.model.get_output_embeddings().weight.mul_(3.0)  # not all tokens alike
    [found] = measure(learner, Revision(nano_task()), settings(num=1, levels=("simple",), temperature=0.7, seed=3))
    torch.manual_seed(3)
    table = Rollouts(Revision(nano_task()), ("simple",), "text", {}, 12, 0.7, 3, 4, "test")
    [[turn]] = play(learner, table, 1)
    prompt = learner.processor.prompt_ids(turn.prompt.text, None)
    with torch.no_grad():
        logits_LV = learner.model(input_ids=torch.tensor([prompt + turn.sample.ids])).logits[0].float()
    logits_LV[:, learner.processor.pictures.placeholder_id] = -math.inf
    logs_LV = (logits_LV[len(prompt) - 1 : -1] / 0.7).log_softmax(-1)
    total = sum(float(logs_V[token]) for logs_V, token in zip(logs_LV, turn.sample.ids, strict=True))
    assert turn.state.problem == nano_task().sample("simple", "test", 0).state
    assert (found.level, found.num, found.num_episodes) == ("simple", 1, 1)
    assert found.thought.logprob.mean == pytest.approx(total, abs=1e-3), "no answer: all is thought"
    assert found.thought.num_tokens.mean == 12 and found.answer.logprob.num == 0 and found.answer.logprob.mean is None


def test_responses_without_an_action_are_counted_and_have_no_answer() -> None:
    [found] = measure(Says("no action at all", '{"action": "+"}'), ENV, settings(num=20))
    assert found.unread.count + found.answer.logprob.num == found.num >= 20
    assert found.unread.count in (found.num // 2, (found.num + 1) // 2) and found.thought.logprob.num == found.num


@pytest.mark.parametrize("batch_size", [1, 3, 50])
def test_episodes_are_played_to_their_ends(batch_size: int) -> None:
    table = Rollouts(ENV, ENV.levels, "text", {}, 12, 1.0, 0, batch_size, "validation")
    learner = Says(json.dumps({"action": "+"}), json.dumps({"action": "-"}))
    episodes = play(learner, table, 30)
    assert sum(map(len, episodes)) >= 30
    for number, turns in enumerate(episodes):
        assert turns[0].state == ENV.start("standard", "validation", number)
        assert [turn.outcome.done for turn in turns] == [False] * (len(turns) - 1) + [True]
        for turn, after in itertools.pairwise(turns):
            assert after.state == turn.outcome.state
    assert len(episodes) <= 30 and (batch_size > 1 or sum(map(len, episodes[:-1])) < 30), "no more than are needed"


def test_the_same_again_and_each_level_for_itself() -> None:
    env, learner = nano_task("general_points"), tiny_learner()
    assert env.levels[0] != env.levels[1]
    first = measure(learner, env, settings(levels=env.levels[:2], view="image"))  # type: ignore[arg-type]
    assert [one.level for one in first] == list(env.levels[:2])
    assert measure(learner, env, settings(levels=env.levels[1:2], view="image")) == first[1:]  # type: ignore[arg-type]
    assert measure(learner, env, settings(levels=env.levels[1:2], view="image", seed=1)) != first[1:]  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"split": "tset"}, "did you mean 'test'?"),
        ({"num": 0}, "num=0: 1 or more"),
        ({"batch_size": 0}, "batch_size=0: 1 or more"),
        ({"temperature": 0.0}, r"temperature=0\.0: more than 0"),
    ],
)
def test_what_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")):
        settings(**changes)


def test_a_policy_without_text_has_no_thoughts() -> None:
    actor: Any = ActionLearner.__new__(ActionLearner)
    with pytest.raises(ValueError, match="writes its thoughts and actions as text"):
        measure(actor, ENV, settings())


def test_intervals_over_groups() -> None:
    """As the means of the groups where these are of one size; wider where values of a group are alike."""
    groups = [[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]]
    found = clustered_mean([*groups, []])
    assert (found.num, found.mean) == (6, 4.0)
    spread = (((1.5 - 4) ** 2 + (3.5 - 4) ** 2 + (7 - 4) ** 2) / 2 / 3) ** 0.5
    assert found.ci_high == pytest.approx(4 + 4.302653 * spread) and found.ci_low == pytest.approx(
        4 - 4.302653 * spread
    )
    assert clustered_mean([]).mean is None and clustered_mean([[], [2.0, 4.0]]).ci_low is None
    assert clustered_mean([[2.0, 4.0]]).mean == 3.0


def test_shares_over_groups() -> None:
    alike = clustered_share([[True] * 10, [False] * 10] * 5)
    assert (alike.count, alike.num, alike.share) == (50, 100, 0.5)
    low, high = wilson_interval(5, 10)
    assert alike.ci_low == pytest.approx(low, abs=0.02) and alike.ci_high == pytest.approx(high, abs=0.02)
    mixed = clustered_share([[True, False] * 5] * 10)
    assert (mixed.ci_low, mixed.ci_high) == pytest.approx(wilson_interval(50, 100)), "no better than independent ones"
    none = clustered_share([[False] * 10] * 10)
    assert none.share == 0 and (none.ci_low, none.ci_high) == pytest.approx(wilson_interval(0, 10))
    assert clustered_share([]).share is None
