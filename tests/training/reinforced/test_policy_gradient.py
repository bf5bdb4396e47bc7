"""The loss and the gradient of a turn against plain implementations, on responses that were really generated."""

import dataclasses

import pytest
import torch
from support.acting import play, policy_of
from support.tiny import nano_task, tiny_learner

from vlmreason.answering.rollout import encode
from vlmreason.models.contract import Sample

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
        found = module._action_logprobs(module.scores(batch), 4)
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
    now = sum(log.detach() * (1.0 if flag else 0.5) for log, flag in plain_logprobs(learner, encoded[0]))
    for old, advantage in ((now - 0.05, 1.5), (now + 0.05, -2.0), (now - 0.5, 1.5), (now - 0.5, -1.5)):
        learner.model.zero_grad()
        module.value_head.zero_grad()
        played = type("Played", (), {})()
        played.logprob_B, played.advantage_B = torch.tensor([float(old)]), torch.tensor([advantage])
        played.return_B = torch.tensor([0.7])
        module._step([0], encoded[:1], played)
        found, found_head = gradient(learner), module.value_head.layers[0].weight.grad.clone()
        learner.model.zero_grad()
        module.value_head.zero_grad()
        logprob = sum(log * (1.0 if flag else 0.5) for log, flag in plain_logprobs(learner, encoded[0]))
        ratio = torch.exp(logprob - float(old))
        policy_loss = -torch.min(ratio * advantage, torch.clamp(ratio, 0.9, 1.1) * advantage)
        num_prompt = encoded[0].segments.count(0)
        hidden = learner.model.model(input_ids=torch.tensor([encoded[0].input_ids[:num_prompt]]))[0][0, -1]
        value = module.value_head((hidden if value_trains == "model" else hidden.detach())[None])[0]
        (policy_loss + 0.5 * (value - 0.7) ** 2).backward()
        assert_same_gradient(found, gradient(learner))
        torch.testing.assert_close(found_head, module.value_head.layers[0].weight.grad, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("normalisation", ["token_mean", "sequence_mean", "dr_grpo"])
def test_gradient_of_grpo(normalisation):
    learner = tiny_learner()
    module = policy_of(
        "grpo", learner, ENV, normalisation=normalisation, max_new_tokens=30, kl_weight=0.3, minibatches=1
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
    assert float(sums[0]) == pytest.approx(float(total.detach()), rel=1e-4)
    assert float(sums[3]) == num_clipped > 0
    assert float(sums[5]) == num_tokens


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
            played, _ = module._look(turns, encoded, torch.zeros(2))
            played.logprob_B += torch.tensor([0.02, -0.3, 0.05, 0.0])
            sums, _ = module._step([2, 0, 1, 3], encoded, played)
        else:
            drawn, _ = module._look(turns, encoded, [1.0, -1.0, 0.5, 2.0], range(4))
            drawn.logprobs = [logprobs + 0.01 * i for i, logprobs in enumerate(drawn.logprobs)]
            sums, _ = module._step([2, 0, 1, 3], encoded, drawn)
        found.append((num, sums, gradient(learner)))
    assert found[0][0] == 1 < found[1][0]
    torch.testing.assert_close(found[0][1], found[1][1], rtol=1e-4, atol=1e-6)
    assert_same_gradient(found[0][2], found[1][2])


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
        played, gap = module._look(turns, encoded, torch.zeros(2))
        _, _, kl, clipped, _, _ = module._step([3, 1, 0, 2], encoded, played)[0].tolist()
    else:
        drawn, gap = module._look(turns, encoded, [1.0, -1.0, 0.5, 2.0], range(4))
        _, kl, reference, clipped, _, _ = module._step([3, 1, 0, 2], encoded, drawn)[0].tolist()
        assert reference == pytest.approx(0, abs=1e-5)
    assert kl == pytest.approx(0, abs=1e-5)
    assert clipped == 0
    assert gap < 1e-4, "the rollout has no dropout either"


def test_advantages_that_are_all_alike_are_nothing():
    learner = tiny_learner()
    module = policy_of("ppo", learner, ENV, parallel=4, turns=1, minibatches=1)
    turns, encoded = turns_of(learner)
    alike = [dataclasses.replace(turn, reward=0.1) for turn in turns]
    played, _ = module._look(alike, encoded, torch.zeros(4))
    assert played.advantage_B.abs().max() < 1e-6
    torch.testing.assert_close(played.return_B, torch.full((4,), 0.1))
