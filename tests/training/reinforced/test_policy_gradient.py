"""The loss and the gradient of a turn against plain implementations, on responses that were really generated."""

import dataclasses
import json

import pytest
import torch
from support.acting import play, policy_of, reinforced_run
from support.tiny import nano_task, tiny_learner

from vlmreason.answering.rollout import encode
from vlmreason.models.contract import Sample
from vlmreason.training.reinforced.critic import Judgement, explained
from vlmreason.training.reinforced.ppo import _Played

ENV = nano_task("number_line")
SHAPE = {"ppo": {"parallel": 2, "turns": 2}, "grpo": {"groups": 2}}


class Says:
    """Stands for an engine whose responses are known; the learner gives their log-probabilities."""

    def __init__(self, learner, texts):
        self.processor, self.texts = learner.processor, texts

    def sample(self, prompts, seeds, max_new_tokens, temperature):
        found = []
        for _, text in zip(prompts, self.texts, strict=True):
            ids = [*self.processor._follow(text)[0], self.processor.eos_id]
            found.append(Sample(text, len(ids), True, ids, [0.0] * len(ids)))
        return found


TEXTS = ('{"thoughts": "0 up to 3", "action": "+"}', '{"action": "-"}', "no idea", '{"thoughts": "2", "action": "+"}')


def turns_of(learner, view="text"):
    turns = play(learner, ENV, len(TEXTS), view, engine=Says(learner, TEXTS))
    return turns, [encode(learner.processor, ENV, turn) for turn in turns]


def plain_logprobs(learner, encoded, temperature=1.0):
    """(log-probability, whether it is of the answer) of each response token of one turn, from the logits of all."""
    batch = learner.processor.collate([encoded])
    logits = learner.model(**{key: batch[key] for key in batch if key not in ("labels", "segments")}).logits[0]
    logits = logits / temperature
    never = torch.zeros_like(logits)
    never[:, learner.processor.pictures.placeholder_id] = -torch.inf
    logs = torch.log_softmax(logits + never, dim=1)
    found = []
    for at, (token, segment) in enumerate(zip(encoded.input_ids, encoded.segments, strict=True)):
        if segment:
            found.append((logs[at - 1, token], segment == 3))
    return found


def is_of_answer(learner, encoded):
    """Whether each response token ends behind the last `"action":`, by the text of the tokens alone."""
    ids = [token for token, segment in zip(encoded.input_ids, encoded.segments, strict=True) if segment]
    text = learner.processor.decode(ids)
    start = text.rfind('"action":')
    return [start >= 0 and len(learner.processor.decode(ids[: n + 1])) > start for n in range(len(ids))]


def gradient(learner):
    return {name: p.grad.clone() for name, p in learner.model.named_parameters() if p.grad is not None}


def assert_same_gradient(one, other, atol=2e-6):
    assert one.keys() == other.keys()
    assert one
    for name, value in one.items():
        torch.testing.assert_close(value, other[name], rtol=1e-3, atol=atol, msg=name)


@pytest.mark.parametrize("view", ["text", "image"])
@pytest.mark.parametrize("weight", [1.0, 0.0, 0.5])
def test_log_probability_of_an_action(weight, view):
    learner = tiny_learner()
    module = policy_of("ppo", learner, ENV, view=view, thought_weight=weight, temperature=0.7, minibatches=1)
    _, encoded = turns_of(learner, view)
    with torch.no_grad():
        [(part, batch)] = (
            module.micro_batches(encoded, range(4))
            if view == "text"
            else [([0, 1, 2, 3], learner.processor.collate(encoded))]
        )
        scores = module.scores(batch)
        found = module._action_logprobs(scores, scores.logprobs_N, 4)
        for row, i in enumerate(part):
            tokens = plain_logprobs(learner, encoded[i], 0.7)
            flags = is_of_answer(learner, encoded[i])
            assert [of_answer for _, of_answer in tokens] == flags
            assert any(flags) == ("action" in TEXTS[i])
            expected = sum(float(log) * (1.0 if flag else weight) for (log, _), flag in zip(tokens, flags, strict=True))
            assert float(found[row]) == pytest.approx(expected, abs=2e-4)


@pytest.mark.parametrize("value_trains", ["head", "model"])
def test_gradient_of_ppo(value_trains):
    """One turn: the clipped ratio of its action's log-probability times the advantage, plus the value's error."""
    learner = tiny_learner()
    module = policy_of("ppo", learner, ENV, minibatches=1, value_trains=value_trains)
    _, encoded = turns_of(learner)
    with torch.no_grad():
        module.value_head.layers[-1].weight.normal_(generator=torch.Generator().manual_seed(0))
    now = [log.detach() for log, _ in plain_logprobs(learner, encoded[0])]
    for change, advantage in ((-0.05, 1.5), (0.05, -2.0), (-0.5, 1.5), (-0.5, -1.5)):
        old = torch.stack([*now[:-1], now[-1] + change])  # the end, which belongs to the answer
        learner.model.zero_grad()
        module.value_head.zero_grad()
        played = type("Played", (), {})()
        played.logprobs, played.advantage_B = [old], torch.tensor([advantage])
        played.return_B = torch.tensor([0.7])
        module._step([0], encoded[:1], played)
        found, found_head = gradient(learner), module.value_head.layers[0].weight.grad.clone()
        learner.model.zero_grad()
        module.value_head.zero_grad()
        logprob = sum(log * (1.0 if flag else 0.5) for log, flag in plain_logprobs(learner, encoded[0]))
        before = sum(
            log * (1.0 if flag else 0.5) for log, flag in zip(old, is_of_answer(learner, encoded[0]), strict=True)
        )
        ratio = torch.exp(logprob - float(before))
        policy_loss = -torch.min(ratio * advantage, torch.clamp(ratio, 0.9, 1.1) * advantage)
        num_prompt = encoded[0].segments.count(0)
        hidden = learner.model.model(input_ids=torch.tensor([encoded[0].input_ids[:num_prompt]]))[0][0, -1]
        value = module.value_head((hidden if value_trains == "model" else hidden.detach())[None])[0]
        (policy_loss + 0.5 * (value - 0.7) ** 2).backward()
        assert_same_gradient(found, gradient(learner))
        torch.testing.assert_close(found_head, module.value_head.layers[0].weight.grad, rtol=1e-3, atol=1e-6)


CHANGES = (-0.05, 0.05, -0.5, 0.3)
"""How far the first tokens of a turn are from the policy before: some ratios within the bounds, some beyond."""


@pytest.mark.parametrize(
    ("credit", "weight"), [("response", 0.5), ("response", 0.0), ("token", 1.0)], ids=["half", "answer", "all"]
)
def test_gradient_of_ratios_token_by_token(credit, weight):
    """Each token's ratio is clipped apart; with credit=token the loss is their mean over all turns."""
    learner = tiny_learner()
    changes = {"ratio": "token", "credit": credit, "thought_weight": weight, "value_weight": 0.0}
    module = policy_of("ppo", learner, ENV, minibatches=1, **changes)
    _, encoded = turns_of(learner)
    advantages, olds, num_beyond, num_counted = [1.5, -2.0], [], 0, 0
    for one in encoded[:2]:
        tokens = plain_logprobs(learner, one)
        olds.append(torch.stack([log.detach() - CHANGES[n % 4] for n, (log, _) in enumerate(tokens)]))
    sums, _ = module._step([0, 1], encoded[:2], _Played(olds, torch.tensor(advantages), torch.zeros(2)))
    found = gradient(learner)
    learner.model.zero_grad()
    total = 0.0
    for one, old, advantage in zip(encoded[:2], olds, advantages, strict=True):
        for (log, of_answer), was in zip(plain_logprobs(learner, one), old, strict=True):
            ratio, counts = torch.exp(log - was), 1.0 if of_answer else weight
            total = total - counts * torch.min(ratio * advantage, ratio.clamp(0.9, 1.1) * advantage)
            num_counted += counts > 0
            num_beyond += bool(counts and abs(float(ratio.detach()) - 1) > 0.1)
    total = total / (sum(map(len, olds)) if credit == "token" else 2)
    total.backward()
    assert_same_gradient(found, gradient(learner))
    figures = module.means(sums)
    assert figures["loss"] == pytest.approx(float(total.detach()), rel=1e-4)
    assert figures["clipped"] == pytest.approx(num_beyond / num_counted)
    assert 0 < num_beyond < num_counted


@pytest.mark.parametrize("weight", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_divergence_is_of_all_tokens_alike(name, weight):
    """By hand: half of the tokens became twice as likely, whatever thoughts weigh: (1 - ln 2) / 2 a token."""
    learner = tiny_learner()
    module = policy_of(name, learner, ENV, minibatches=1, thought_weight=weight, **SHAPE[name])
    turns, encoded = turns_of(learner)
    if name == "ppo":
        logprobs, _, _ = module._look(turns, encoded)
        played = _Played(logprobs, torch.tensor([1.0, -1.0, 0.5, 2.0]), torch.zeros(4))
    else:
        played, _ = module._look(turns, encoded, [1.0, -1.0, 0.5, 2.0], range(4))
    num = num_doubled = 0
    for old in played.logprobs:
        doubled = torch.arange(len(old)) % 2 == 0
        old -= doubled * torch.log(torch.tensor(2.0))
        num, num_doubled = num + len(old), num_doubled + int(doubled.sum())
    figures = module.means(module._step(range(4), encoded, played)[0])
    assert figures["kl"] == pytest.approx((2 - 1 - 0.6931472) * num_doubled / num, abs=1e-4)
    assert num_doubled > 0.4 * num


def test_policy_and_value_head_have_bounds_of_their_own():
    """A value head that is far off takes nothing from the policy's step."""
    norms = []
    for far in (0.0, 1e4):
        learner = tiny_learner()
        module = policy_of("ppo", learner, ENV, minibatches=1, value_clip=0.25, optimizer={"lr": 1e-3, "clip": 0.5})
        turns, encoded = turns_of(learner)
        logprobs, _, _ = module._look(turns, encoded)
        played = _Played([old - 0.01 for old in logprobs], torch.tensor([9.0, -9.0, 5.0, 8.0]), torch.full((4,), far))
        module._step(range(4), encoded, played)
        before = module.clip()
        parts = (learner.model.parameters(), module.value_head.parameters())
        policy, head = (
            float(torch.cat([p.grad.flatten() for p in part if p.grad is not None]).norm()) for part in parts
        )
        norms.append((before, policy, head))
    assert norms[0][0] == norms[1][0] > 0.5, "the norm that is logged is the policy's"
    assert norms[0][1] == norms[1][1] == pytest.approx(0.5, rel=1e-3)
    assert norms[1][2] == pytest.approx(0.25, rel=1e-3)


@pytest.mark.parametrize("filtered", [False, True])
def test_dr_grpo_divides_by_a_constant(filtered):
    """The gradient of a heard group is the same whether or not a silent one beside it is left out."""
    learner = tiny_learner()
    module = policy_of(
        "grpo", learner, ENV, normalisation="dr_grpo", filter=filtered, kl_weight=0.0, minibatches=1, epochs=1, groups=2
    )
    module.begin_step = lambda: 1.0
    turns, encoded = turns_of(learner)
    module._groups, module._group_of = {0: [1.0, 0.0], 1: [2.0, 2.0]}, [(0, 0), (0, 1), (1, 0), (1, 1)]
    figures = module.improve(turns, encoded)
    found = gradient(learner)
    learner.model.zero_grad()
    tokens = [plain_logprobs(learner, one) for one in encoded[:2]]
    weighted = [sum(log * (1.0 if flag else 0.5) for log, flag in one) for one in tokens]
    (-(0.5 * weighted[0] - 0.5 * weighted[1]) / (4 * 12)).backward()
    assert_same_gradient(found, gradient(learner))
    assert figures["no_signal"] == 0.5
    assert len(module.trained_on(encoded)) == (2 if filtered else 4)


def test_turns_have_advantages_of_their_own_in_equal_states():
    """Two episodes of two turns from one state. By hand, gamma 0.5: 1 + 0.5 * 2 = 2 against 0 + 0.5 * 4 = 2 at first,
    then in states of their own; another group in the same states is none of theirs."""
    learner = tiny_learner()
    module = policy_of("grpo", learner, ENV, turn_weight=2.0, gamma=0.5, normalisation="dr_grpo", groups=2)
    first, second = (ENV.start("standard", "train", index) for index in (0, 1))
    begin, after = (play(learner, ENV, 1, "text")[0], dataclasses.replace(play(learner, ENV, 2, "text")[1]))
    assert begin.prompt.text != after.prompt.text and first != second
    turns = [dataclasses.replace(turn, reward=reward) for turn, reward in (
        (begin, 1.0), (begin, 0.0), (begin, 7.0), (begin, 1.0), (after, 2.0), (after, 5.0))]  # fmt: skip
    module._group_of = [(0, 0), (0, 1), (1, 0), (1, 1), (0, 0), (0, 1)]
    advantages = [0.0] * 6
    figures = module._add_turns(turns, advantages, 2.0)
    # following: 2, 2.5 | 7, 1 | 2, 5; means 2.25, 4, 3.5
    assert advantages == pytest.approx([-0.5, 0.5, 6.0, -6.0, -3.0, 3.0])
    assert figures == {"shared_states": 1.0}
    module._group_of = [(0, 0), (1, 0), (2, 0), (2, 1), (0, 0), (1, 0)]
    assert module._add_turns(turns, [0.0] * 6, 2.0) == {"shared_states": pytest.approx(2 / 6)}


def test_the_value_head_is_fitted_and_the_policy_stays(tmp_path):
    """It explains what the first rollouts bring before the first step of the policy, which then moves."""
    learner = tiny_learner()
    before = {name: value.clone() for name, value in learner.model.state_dict().items()}
    weights = []
    reinforced_run(
        tmp_path, "ppo", learner=learner, num_examples=0, updates=4, value_updates=3, evaluate_every=1, value_lr=1e-2,
        parallel=8, evaluate=lambda learner: weights.append(learner.model.lm_head.weight.detach().clone()) or {},
    )  # fmt: skip
    lines = [line for line in map(json.loads, (tmp_path / "metrics.jsonl").read_text().splitlines()) if "lr" in line]
    assert [line["lr"] > 0 for line in lines] == [False, False, False, True]
    assert ["kl" in line for line in lines] == [False, False, False, True]
    assert lines[0]["explained_variance"] == pytest.approx(0, abs=1e-6)
    assert all(line["loss_value"] > 0 and line["grad_norm_value"] > 0 for line in lines)
    assert all(torch.equal(one, before["lm_head.weight"]) for one in weights[:4])
    assert not torch.equal(weights[4], before["lm_head.weight"])


def test_what_is_fitted_explains_returns():
    """One update's passes are enough where the value is one of the hidden state's directions."""
    learner = tiny_learner()
    module = policy_of("ppo", learner, ENV, parallel=4, turns=8, value_updates=1, value_lr=1e-2)
    optimizer = torch.optim.AdamW(module.value_head.parameters(), weight_decay=0.0)
    module.all_optimizers = lambda: [optimizer]
    module.optimize = lambda sums: (module.clip(), optimizer.step(), optimizer.zero_grad()) and (sums, 0.0)
    context_BD = torch.randn(
        32, learner.model.config.get_text_config().hidden_size, generator=torch.Generator().manual_seed(0)
    )
    [turn] = play(learner, ENV, 1)
    ended = dataclasses.replace(turn.outcome, done=True)
    turns = [dataclasses.replace(turn, reward=3.0 + float(one[0]), outcome=ended) for one in context_BD]
    judgement = Judgement(turns, context_BD, torch.zeros(4, context_BD.shape[1]), gamma=0.9, decay=0.95)
    found = []
    for _ in range(2):
        advantage_B, value_B = judgement.estimate(module.value_head)
        found.append(explained(value_B, (advantage_B + value_B).float()))
        figures = module._fit_value(judgement)
    assert found[0] == 0
    assert found[1] > 0.9
    assert figures["loss_value"] < 0.1


@pytest.mark.parametrize("normalisation", ["token_mean", "sequence_mean", "dr_grpo"])
def test_gradient_of_grpo(normalisation):
    learner = tiny_learner()
    module = policy_of(
        "grpo", learner, ENV, normalisation=normalisation, max_new_tokens=30, kl_weight=0.3, minibatches=1, groups=2
    )
    _, encoded = turns_of(learner)
    tokens = [plain_logprobs(learner, one) for one in encoded]
    old = [torch.tensor([float(log.detach()) + 0.1 * (n % 9 - 4) for n, (log, _) in enumerate(t)]) for t in tokens]
    reference = [o - 0.1 for o in old]
    advantages = [1.0, -0.5, 2.0, -1.0]
    drawn = type("Drawn", (), {"logprobs": old, "references": reference, "advantages": advantages})()
    sums, _ = module._step([0, 1, 2, 3], encoded, drawn)
    found = gradient(learner)
    learner.model.zero_grad()
    total, num_clipped = 0.0, 0
    num_tokens = sum(map(len, tokens))
    for turn, before, there, advantage in zip(tokens, old, reference, advantages, strict=True):
        scale = {"token_mean": 1 / num_tokens, "sequence_mean": 1 / (4 * len(turn)), "dr_grpo": 1 / (4 * 30)}
        for (log, of_answer), was, other in zip(turn, before, there, strict=True):
            ratio = torch.exp(log - was)
            loss = -torch.min(ratio * advantage, ratio.clamp(0.8, 1.28) * advantage) * (1.0 if of_answer else 0.5)
            loss = loss + 0.3 * (torch.exp(other - log) - (other - log) - 1)
            total = total + loss * scale[normalisation]
            num_clipped += bool(ratio < 0.8 or ratio > 1.28)
    total.backward()
    assert_same_gradient(found, gradient(learner))
    assert float(sums[0, 0]) == pytest.approx(float(total.detach()), rel=1e-4)
    assert float(sums[0, 3]) == num_clipped > 0
    assert sums[1].tolist() == [num_tokens] * 5


def test_imitation_is_supervised_training_on_right_answers():
    """Its gradient is that of the mean log-likelihood of the turns that are right, whatever the others are and however
    far the policy has gone."""
    learner = tiny_learner()
    module = policy_of("grpo", learner, ENV, imitate="right", filter=True, kl_weight=0.0, minibatches=1, epochs=1,
                       groups=2, thought_weight=1.0)  # fmt: skip
    turns, encoded = turns_of(learner)
    right = [i for i, turn in enumerate(turns) if turn.outcome.parts["step_accuracy"] == 1]
    assert 0 < len(right) < len(turns)
    module._groups, module._group_of = {0: [1.0, 1.0], 1: [0.0, 0.0]}, [(0, 0), (0, 1), (1, 0), (1, 1)]
    module.begin_step = lambda: 1.0
    module.improve(turns, encoded)
    found = gradient(learner)
    assert len(module.trained_on(encoded)) == len(right)
    learner.model.zero_grad()
    tokens = [log for i in right for log, _ in plain_logprobs(learner, encoded[i])]
    (-sum(tokens) / len(tokens)).backward()
    assert_same_gradient(found, gradient(learner))
    with pytest.raises(ValueError, match=r"turn_weight=1\.0: has no effect with algorithm\.imitate=right"):
        policy_of("grpo", learner, ENV, imitate="right", turn_weight=1.0)


def test_without_weight_no_divergence_is_computed():
    """Not even one that is no number counts then."""
    learner = tiny_learner()
    module = policy_of("grpo", learner, ENV, max_new_tokens=30, kl_weight=0.0, minibatches=1)
    module.on_fit_start()
    turns, encoded = turns_of(learner)
    drawn, _ = module._look(turns, encoded, [1.0, -0.5, 2.0, -1.0], range(4))
    assert drawn.references is None
    drawn.logprobs = [logprobs + 100.0 for logprobs in drawn.logprobs]
    module._step([0, 1, 2, 3], encoded, drawn)
    assert all(torch.isfinite(value).all() for value in gradient(learner).values())


@pytest.mark.parametrize("name", ["ppo", "grpo"])
@pytest.mark.parametrize("micro_tokens", [40, 100])
def test_micro_batches_change_nothing(name, micro_tokens):
    found = []
    for size in (10_000, micro_tokens):
        learner = tiny_learner()
        module = policy_of(name, learner, ENV, minibatches=1, **SHAPE[name])
        module.micro_tokens = size
        turns, encoded = turns_of(learner)
        num = len(list(module.micro_batches(encoded, range(4))))
        if name == "ppo":
            logprobs, context_BD, _ = module._look(turns, encoded)
            old = [one + change for one, change in zip(logprobs, (0.02, -0.3, 0.05, 0.0), strict=True)]
            assert context_BD.shape[0] == 4
            played = _Played(old, torch.tensor([1.0, -1.0, 0.5, 2.0]), torch.tensor([0.5, 0.0, -1.0, 2.0]))
            sums, _ = module._step([2, 0, 1, 3], encoded, played)
        else:
            drawn, _ = module._look(turns, encoded, [1.0, -1.0, 0.5, 2.0], range(4))
            drawn.logprobs = [logprobs + 0.01 * i for i, logprobs in enumerate(drawn.logprobs)]
            sums, _ = module._step([2, 0, 1, 3], encoded, drawn)
        found.append((num, sums, gradient(learner)))
    assert found[0][0] == 1 < found[1][0]
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-6)
    assert_same_gradient(found[0][2], found[1][2])


@pytest.mark.parametrize("view", ["text", "image"])
@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_a_prompt_is_computed_once_for_all_its_responses(name, view, monkeypatch):
    """Eight turns of two prompts of different length: the same figures and gradient as row by row, of fewer tokens."""
    found = []
    for shares in (False, True):
        learner = tiny_learner()
        monkeypatch.setattr(type(learner), "shares_prompts", shares)
        module = policy_of(name, learner, ENV, view=view, minibatches=1, max_new_tokens=30)
        turns, _ = turns_of(learner, view)
        asked = [dataclasses.replace(turns[0].prompt, text=text) for text in ("Which?", "Which of them is it now?")]
        turns = [dataclasses.replace(turn, prompt=prompt) for prompt in asked for turn in turns]
        turns.append(dataclasses.replace(turns[0], prompt=dataclasses.replace(asked[0], text="Alone.")))
        encoded = [encode(learner.processor, ENV, turn) for turn in turns]
        batches = list(module.micro_batches(encoded, range(9)))
        assert all(("following_ids" in batch) == shares for _, batch in batches)
        assert sorted(i for part, _ in batches for i in part) == list(range(9))
        if name == "ppo":
            logprobs, context_BD, _ = module._look(turns, encoded)
            values = torch.arange(9.0) - 4
            drawn = _Played([old - 0.03 for old in logprobs], values, values)
        else:
            drawn, _ = module._look(turns, encoded, [1.0, -1.0, 0.5, 2.0] * 2 + [3.0], range(9))
            logprobs, context_BD = list(drawn.logprobs), torch.zeros(1)
            drawn.logprobs = [old - 0.03 for old in drawn.logprobs]
        sums = module._step(range(9), encoded, drawn)[0]
        found.append((torch.cat(logprobs), context_BD, sums, gradient(learner)))
    for one, other in zip(found[0][:3], found[1][:3], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    assert_same_gradient(found[0][3], found[1][3])


@pytest.mark.parametrize("name", ["ppo", "grpo"])
def test_the_first_step_of_an_update_is_on_the_policy(name):
    """All ratios are 1: nothing is clipped, no divergence; also with dropout in the model, after a rollout."""
    learner = tiny_learner()
    for module in learner.model.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    layer = learner.model.get_submodule("model.language_model.layers.0.mlp")
    layer.register_module("dropout_of_adapter", torch.nn.Dropout(0.5))
    forward = layer.forward
    layer.forward = lambda hidden: layer.dropout_of_adapter(forward(hidden))
    module = policy_of(name, learner, ENV, minibatches=1, **SHAPE[name])
    turns = play(learner, ENV, 4)
    assert learner.model.training
    encoded = [encode(learner.processor, ENV, turn) for turn in turns]
    if name == "ppo":
        logprobs, _, gap = module._look(turns, encoded)
        played = _Played(logprobs, torch.tensor([1.0, -1.0, 0.5, 2.0]), torch.zeros(4))
        _, _, kl, clipped, _ = module._step([3, 1, 0, 2], encoded, played)[0][0].tolist()
    else:
        drawn, gap = module._look(turns, encoded, [1.0, -1.0, 0.5, 2.0], range(4))
        _, kl, reference, clipped, _ = module._step([3, 1, 0, 2], encoded, drawn)[0][0].tolist()
        assert reference == pytest.approx(0, abs=1e-5)
    assert kl == pytest.approx(0, abs=1e-5)
    assert clipped == 0
    assert gap < 1e-4, "the rollout has no dropout either"


def test_advantages_that_are_all_alike_are_nothing():
    learner = tiny_learner()
    module = policy_of("ppo", learner, ENV, parallel=4, turns=1, minibatches=1)
    turns, encoded = turns_of(learner)
    alike = [dataclasses.replace(turn, reward=0.1) for turn in turns]
    _, context_BD, _ = module._look(alike, encoded)
    found = Judgement(alike, context_BD, torch.zeros_like(context_BD), gamma=0.9, decay=0.95)
    advantage_B, value_B = found.estimate(module.value_head)
    assert not value_B.any()
    assert module._in_units(advantage_B).abs().max() < 1e-6
    torch.testing.assert_close(advantage_B, torch.full((4,), 0.1, dtype=torch.float64))
