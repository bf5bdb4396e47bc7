"""How likely a model's own responses are, their thoughts and their actions apart (table 4.1 of Zhai's dissertation).

Episodes are played to their ends, each turn with a response drawn from the model; the log-probability of a response is
the sum of those of the tokens that were drawn. Thought is all before the answer, as equation 4.3 has it: with lambda 1
the thoughts decide log pi(action) almost alone, as theirs is the far larger part of the sum.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlmreason.analysis.subjects import Over, Weights
from vlmreason.analysis.text_tables import Data, _align, _mean, _percent
from vlmreason.answering.rollout import Episode, Rollouts, Turn, encode
from vlmreason.envs.base import Env
from vlmreason.envs.revision import Revision
from vlmreason.intervals import Mean, Share, clustered_mean, clustered_share
from vlmreason.models.vlm.learner import Learner
from vlmreason.segments import ACTING, Shown
from vlmreason.streams import SPLITS
from vlmreason.structure import check_choice, check_positive, nearest

OVER: Over = "model"


MEANING = {
    "log p thought": "log-probability (nats) of all tokens before the answer, mean over responses",
    "log p answer": "of the answer's tokens, an agent's action",
    "tokens": "how many these are",
    "no action": "responses without an action that could be read, in %",
}
"""What the columns of the table are."""


@dataclass(frozen=True)
class Settings:
    """Which responses.

    view, max_new_tokens: how the environment is shown, and how long a response may be (tokens). levels: None: all of
    the environment's. num: responses of each, or some more: of the first episodes of the split, which are played to
    their ends. batch_size: episodes side by side. temperature: of sampling, and of the probabilities. seed: of what is
    drawn, which depends on batch_size too.
    """

    view: Shown
    max_new_tokens: int
    levels: tuple[str, ...] | None = None
    num: int = 1000
    split: str = "test"
    batch_size: int = 32
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("split", self.split, SPLITS)
        check_positive(self, "num", "batch_size")
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature}: more than 0 is expected")


@dataclass(frozen=True)
class Part:
    """Of the responses that have such tokens: the sum of their log-probabilities (nats), and their number."""

    logprob: Mean
    num_tokens: Mean


@dataclass(frozen=True)
class Likelihood:
    """One level. num: responses; unread: those without an action that could be read. Intervals are over episodes."""

    level: str
    num: int
    num_episodes: int
    thought: Part
    answer: Part
    unread: Share


def run(subject: Weights, settings: Settings) -> list[Likelihood]:
    """Return the likelihood of a run's model: in its environment, or on its task with one turn. Raises ValueError."""
    task = subject.task
    env = task if isinstance(task, Env) else Revision(task)
    for level in settings.levels or ():
        if level not in env.levels:
            raise ValueError(f"level={level}: {env.name} has {', '.join(env.levels)}{nearest(level, env.levels)}")
    return measure(subject.learner, env, settings)


def measure(learner: Learner, env: Env[Any], settings: Settings) -> list[Likelihood]:
    """Return the likelihood of a learner's responses on each level of an environment.

    A response that holds no action leads to what it leads to in training (equation 4.1, or the environment's
    penalty). Raises ValueError for a model that writes no text of its own, and as `Learner.sample` and `Rollouts.play`.
    """
    if not isinstance(learner, Learner):
        raise ValueError("what=likelihood: needs a model that is here and writes its thoughts and actions as text")
    return [_likelihood(learner, env, level, settings) for level in settings.levels or env.levels]


def play(learner: Learner, rollouts: Rollouts, num: int, num_episodes: int | None = None) -> list[list[Turn]]:
    """Return the turns of whole episodes, with `num` or more in all, of `num_episodes` at most.

    A further episode begins as long as those that did will not have as many turns at their next one. How long an
    episode is has no say in whether it counts: long ones are neither left out nor preferred.
    """
    most = num if num_episodes is None else num_episodes
    turns: list[list[Turn]] = []
    running: dict[int, Episode] = {}
    while True:
        while len(running) < rollouts.batch_size and len(turns) < most and sum(map(len, turns)) + len(running) < num:
            running[len(turns)] = rollouts.begin(len(turns))
            turns.append([])
        if not running:
            return turns
        for number, turn in rollouts.play(learner, running).items():
            turns[number].append(turn)
            if turn.outcome.done:
                del running[number]


def _likelihood(learner: Learner, env: Env[Any], level: str, settings: Settings) -> Likelihood:
    s = settings
    rollouts = Rollouts(env, (level,), s.view, {}, s.max_new_tokens, s.temperature, s.seed, s.batch_size, s.split)
    there = env.num_problems(level, s.split)
    episodes = play(learner, rollouts, s.num, there if there is None else len(env.first(level, s.split, there)))
    if len(episodes) == there and sum(map(len, episodes)) < s.num:
        told = f"level {level}: all {there} episodes of the split {s.split} are played, fewer than {s.num} responses"
        warnings.warn(told, stacklevel=1)
    logprobs = [[_by_part(learner, env, turn) for turn in turns] for turns in episodes]
    thoughts, answers = ([[parts[is_answer] for parts in of_turns] for of_turns in logprobs] for is_answer in (0, 1))
    unread = clustered_share([[not turn.outcome.parsed for turn in turns] for turns in episodes])
    return Likelihood(level, unread.num, len(episodes), _part(thoughts), _part(answers), unread)


def _by_part(learner: Learner, env: Env[Any], turn: Turn) -> tuple[list[float], list[float]]:
    """The log-probabilities of the tokens before the answer (of all kinds that do not act), and of those in it."""
    parts: tuple[list[float], list[float]] = ([], [])
    segments = encode(learner.processor, env, turn).segments[-len(turn.sample.ids) :]
    for segment, logprob in zip(segments, turn.sample.logprobs, strict=True):
        parts[segment in ACTING].append(logprob)
    return parts


def _part(episodes: Sequence[Sequence[Sequence[float]]]) -> Part:
    """Of log-probabilities by episode, turn and token."""
    sums = [[sum(tokens) for tokens in turns if tokens] for turns in episodes]
    counts = [[float(len(tokens)) for tokens in turns if tokens] for turns in episodes]
    return Part(clustered_mean(sums), clustered_mean(counts))


def table(results: Sequence[Data]) -> str:
    """Return one row per level: means per response, log-probabilities as sums over tokens, with the 95 % interval."""
    rows = [["level", "responses", "episodes", "log p thought", "tokens", "log p answer", "tokens", "no action"]]
    for one in results:
        parts = (_mean(one[part][key]) for part in ("thought", "answer") for key in ("logprob", "num_tokens"))
        rows.append([one["level"], str(one["num"]), str(one["num_episodes"]), *parts, _percent(one["unread"])])
    return _align(rows)
