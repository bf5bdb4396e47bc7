"""The objectives of reinforcement learning against plain loops and exact sums."""

import math
import random

import pytest
import torch

from vlmreason.segments import SEGMENT_IDS
from vlmreason.training.reinforced.objectives import (
    clipped_loss,
    generalised_advantages,
    group_advantages,
    kl_to_reference,
    returns_from,
    sum_rows,
    token_scales,
    token_weights,
    turn_advantages,
)


def plain_advantages(rewards, values, done, last_value, gamma, decay):
    """Of one environment: the sum of discounted errors up to the end of the episode, each written out."""
    num = len(rewards)
    following = [*values[1:], last_value]
    errors = [rewards[t] + (0 if done[t] else gamma * following[t]) - values[t] for t in range(num)]
    found = []
    for t in range(num):
        total = 0.0
        for k in range(t, num):
            total += (gamma * decay) ** (k - t) * errors[k]
            if done[k]:
                break
        found.append(total)
    return found


@pytest.mark.parametrize(("gamma", "decay"), [(0.9, 0.95), (1.0, 1.0), (0.5, 0.0), (0.0, 0.9)])
def test_generalised_advantages(gamma, decay):
    rng = random.Random(1)
    rows = [
        ([rng.gauss(0, 1) for _ in range(7)], [rng.gauss(0, 1) for _ in range(7)],
         [rng.random() < 0.3 for _ in range(7)], rng.gauss(0, 1))
        for _ in range(20)
    ]  # fmt: skip
    assert any(done[-1] for _, _, done, _ in rows)
    assert not all(done[-1] for _, _, done, _ in rows)
    rewards, values, done, last = (list(column) for column in zip(*rows, strict=True))
    found = generalised_advantages(
        torch.tensor(rewards, dtype=torch.float64), torch.tensor(values, dtype=torch.float64), torch.tensor(done),
        torch.tensor(last, dtype=torch.float64), gamma, decay,
    )  # fmt: skip
    expected = [plain_advantages(*row, gamma, decay) for row in rows]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


def test_advantages_without_a_critic_are_discounted_returns():
    rewards = torch.tensor([[1.0, 2.0, 4.0]])
    zeros = torch.zeros_like(rewards)
    found = generalised_advantages(rewards, zeros, torch.tensor([[False, True, False]]), torch.tensor([8.0]), 0.5, 1.0)
    assert found.tolist() == [[2.0, 2.0, 8.0]]


@pytest.mark.parametrize("normalisation", ["token_mean", "sequence_mean", "dr_grpo"])
def test_group_advantages(normalisation):
    returns = torch.tensor([[1.0, 0.0, 0.0, 1.0], [2.0, 2.0, 2.0, 2.0], [-3.0, 5.0, 1.0, 1.0], [0.1, 0.1, 0.1, 0.1]])
    found = group_advantages(returns.double(), normalisation)
    for row, advantages in zip(returns.tolist(), found.tolist(), strict=True):
        mean = sum(row) / 4
        spread = math.sqrt(sum((value - mean) ** 2 for value in row) / 4)
        unit = 1.0 if normalisation == "dr_grpo" else spread
        expected = [0.0] * 4 if max(row) == min(row) else [(value - mean) / unit for value in row]
        assert advantages == pytest.approx(expected, abs=1e-9)
    assert not found[1].any()


def test_returns_from_each_turn():
    assert returns_from([0.0, -1.0, 4.0], 0.5) == [0.5, 1.0, 4.0]
    assert returns_from([1.0, 2.0, 4.0], 1.0) == [7.0, 6.0, 4.0]
    assert returns_from([], 0.9) == []


@pytest.mark.parametrize("normalisation", ["token_mean", "dr_grpo"])
def test_advantages_of_turns_in_equal_states(normalisation):
    """By hand: a is met by three turns (mean 2, deviation sqrt(8/3)), b by two of equal returns, c by one alone."""
    found, num_shared = turn_advantages([0.0, 5.0, 4.0, 5.0, 2.0, 9.0], ["a", "b", "a", "b", "a", "c"], normalisation)
    unit = 1.0 if normalisation == "dr_grpo" else math.sqrt(8 / 3)
    assert found == pytest.approx([-2 / unit, 0.0, 2 / unit, 0.0, 0.0, 0.0])
    assert num_shared == 5


@pytest.mark.parametrize("advantage", [-2.0, 0.0, 3.0])
@pytest.mark.parametrize("ratio", [0.5, 0.79, 0.9, 1.0, 1.1, 1.29, 3.0])
def test_clipped_loss(ratio, advantage):
    low, high = 0.2, 0.28
    logratio = torch.tensor(math.log(ratio), requires_grad=True, dtype=torch.float64)
    loss = clipped_loss(logratio, torch.tensor(advantage, dtype=torch.float64), low, high)
    bounded = min(max(ratio, 1 - low), 1 + high)
    assert float(loss.detach()) == pytest.approx(-min(ratio * advantage, bounded * advantage))
    loss.backward()
    beyond = (advantage > 0 and ratio > 1 + high) or (advantage < 0 and ratio < 1 - low)
    assert float(logratio.grad) == pytest.approx(0.0 if beyond else -ratio * advantage), "it goes on only inwards"


def test_divergence_is_estimated_without_bias():
    generator = torch.Generator().manual_seed(0)
    for _ in range(10):
        policy, reference = torch.randn(2, 6, generator=generator, dtype=torch.float64).log_softmax(dim=1)
        estimates = kl_to_reference(policy, reference)
        assert (estimates >= 0).all()
        exact = (policy.exp() * (policy - reference)).sum()
        torch.testing.assert_close((policy.exp() * estimates).sum(), exact)
    assert not kl_to_reference(policy, policy).any()


LENGTHS = (3, 1, 5)
ROWS = torch.tensor([row for row, length in enumerate(LENGTHS) for _ in range(length)])
LOSSES = torch.arange(1.0, 10.0)


@pytest.mark.parametrize(
    ("normalisation", "expected"),
    [
        ("token_mean", 45 / 9),
        ("sequence_mean", (6 / 3 + 4 / 1 + 35 / 5) / 3),
        ("dr_grpo", 45 / (3 * 7)),
    ],
)
def test_normalisations(normalisation, expected):
    scales = token_scales(ROWS, 3, normalisation, 9.0, 3.0, most=21.0)
    assert float((LOSSES * scales).sum()) == pytest.approx(expected)
    parts = [(0, 4), (4, 9)]  # rows 0 and 1, then row 2: a batch in pieces is the batch
    pieces = [
        token_scales(ROWS[a:b] - ROWS[a], int(ROWS[b - 1] - ROWS[a]) + 1, normalisation, 9.0, 3.0, 21.0)
        for a, b in parts
    ]
    torch.testing.assert_close(torch.cat(pieces), scales)


def test_token_weights_and_sums_of_rows():
    segments = torch.tensor([SEGMENT_IDS[kind] for kind in ("convert", "thought", "answer", "answer")])
    assert token_weights(segments, 0.25).tolist() == [0.25, 0.25, 1.0, 1.0]
    assert token_weights(segments, 0.0).tolist() == [0.0, 0.0, 1.0, 1.0]
    assert sum_rows(LOSSES, ROWS, 4).tolist() == [6.0, 4.0, 35.0, 0.0]
