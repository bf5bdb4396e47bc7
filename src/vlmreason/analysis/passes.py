"""How often a model has a problem right when it may answer several times: pass@k of drawn first answers.

Each problem is answered anew `samples` times, without what was said before. pass@1 is the mean of single answers, and
pass@k the chance that one of k is right, estimated without bias from all of them (Chen et al., arXiv 2107.03374). Where
pass@k is far above pass@1 right answers are there to be found, and reinforcement learning has something to find.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from vlmreason.analysis.subjects import Over, Weights
from vlmreason.analysis.text_tables import Data, _align, _percents
from vlmreason.answering.rollout import Rollouts
from vlmreason.envs.base import Env
from vlmreason.envs.revision import Revision
from vlmreason.intervals import Mean, mean, wilson_interval
from vlmreason.models.vlm.learner import Learner
from vlmreason.segments import Shown
from vlmreason.streams import SPLITS
from vlmreason.structure import check_choice, check_positive
from vlmreason.tasks.base import Score

OVER: Over = "model"

MEANING = {
    "pass@1": "share of answers that are right",
    "unread": "answers that cannot be read, in %",
}
"""What the columns of the table are."""


@dataclass(frozen=True)
class Settings:
    """Which answers.

    view, max_new_tokens: how problems are shown, and how long an answer may be (tokens). levels: None: all. num: the
    first problems of the split. samples: answers to each. batch_size: problems at once. temperature: of sampling. seed:
    of what is drawn.
    """

    view: Shown
    max_new_tokens: int
    levels: tuple[str, ...] | None = None
    num: int = 500
    samples: int = 8
    split: str = "test"
    batch_size: int = 64
    temperature: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        check_choice("split", self.split, SPLITS)
        check_positive(self, "num", "samples", "batch_size")
        if self.temperature <= 0:
            raise ValueError(f"temperature={self.temperature}: more than 0 is expected")


@dataclass(frozen=True)
class Passes:
    """One level. at: pass@k by k; parts: of the task's score. Means over problems, with intervals over them."""

    level: str
    num: int
    samples: int
    at: dict[str, Mean]
    unread: Mean
    parts: dict[str, Mean]


def run(subject: Weights, settings: Settings) -> list[Passes]:
    """Return pass@k of a run's model, in its environment on the first turn of episodes. Raises ValueError."""
    task = subject.task
    env = task if isinstance(task, Env) else Revision(task)
    for level in settings.levels or ():
        check_choice("levels", level, env.levels)
    return measure(subject.learner, env, settings)


def measure(learner: Learner, env: Env[Any], settings: Settings) -> list[Passes]:
    """Return pass@k of a learner on each level. Raises ValueError for a model that writes no text of its own."""
    if not isinstance(learner, Learner):
        raise ValueError("what=passes: needs a model that is here and writes its answers as text")
    return [_passes(learner, env, level, settings) for level in settings.levels or env.levels]


def _passes(learner: Learner, env: Env[Any], level: str, settings: Settings) -> Passes:
    s, scores = settings, list[list[Score]]()
    rollouts = Rollouts(env, (level,), s.view, {}, s.max_new_tokens, s.temperature, s.seed, s.batch_size, s.split)
    numbers = env.first(level, s.split, s.num)
    for first in range(0, len(numbers), s.batch_size):
        part = numbers[first : first + s.batch_size]
        of_part: dict[int, list[Score]] = {number: [] for number in part}
        for answer in range(s.samples):
            turns = rollouts.play(learner, {number: rollouts.begin(number) for number in part}, answer)
            for number, turn in turns.items():
                of_part[number].append(env.score(turn.state, turn.sample.text))
        scores += of_part.values()
    num_right = [sum(score.correct for score in of_problem) for of_problem in scores]
    ks = [k for k in (2**power for power in range(s.samples.bit_length())) if k < s.samples] + [s.samples]
    names = dict.fromkeys(name for of_problem in scores for score in of_problem for name in score.parts)
    return Passes(
        level, len(scores), s.samples,
        {str(k): _mean([pass_at(k, num, s.samples) for num in num_right]) for k in ks},
        _mean([sum(not score.parsed for score in of_problem) / s.samples for of_problem in scores]),
        {name: _mean([sum(one.parts.get(name, 0.0) for one in each) / s.samples for each in scores]) for name in names},
    )  # fmt: skip


def pass_at(k: int, num_right: int, num: int) -> float:
    """Return the chance that of `k` answers, drawn from `num` of which `num_right` are right, one or more is right."""
    return 1.0 - math.comb(num - num_right, k) / math.comb(num, k)


def _mean(values: Sequence[float]) -> Mean:
    """The mean of shares; where all are 0 or all are 1 the interval is Wilson's, as theirs would be a point."""
    if len({*values}) == 1 and values[0] in (0.0, 1.0):
        return Mean(len(values), values[0], *wilson_interval(int(sum(values)), len(values)))
    return mean(values)


def table(results: Sequence[Data]) -> str:
    """Return one row per level, in percent with the 95 % interval."""
    ks = list(dict.fromkeys(k for one in results for k in one["at"]))
    rows = [["level", "problems", *(f"pass@{k}" for k in ks), "unread"]]
    for one in results:
        rows.append([one["level"], str(one["num"]), *(_shown(one["at"][k]) for k in ks), _shown(one["unread"])])
    return _align(rows)


def _shown(found: Data) -> str:
    return "-" if found["mean"] is None else _percents(found["mean"], found["ci_low"], found["ci_high"])
