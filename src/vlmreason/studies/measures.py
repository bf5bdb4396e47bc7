"""Measures: what an experiment can show of a run, in which words, and what makes it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vlmreason.structure import structure

Words = tuple[str, ...]

GRADIENTS = ("alignment", "cosine", "adam", "norm", "loss_conversion", "loss_given_both", "loss_given_image")
"""What `what=gradients` measures at every checkpoint: equations 3, 7, 8, the mean norm on simple examples, and the
losses of equations 4, 5, 2."""

LIKELIHOODS = ("thought", "answer", "thought_tokens", "answer_tokens", "unread")
"""What `what=likelihood` measures of responses: sums of log-probabilities before the answer and in it (nats), tokens of
both, and the share without a readable action."""

WHERE = ("step", "examples")
"""Where along a run a checkpoint is: optimizer steps, or examples seen, both over all phases."""

TRAINING = ("updates", "env_steps", "compute")
"""Where an evaluation while training is: steps of its phase (of reinforcement learning: updates), turns played, and
GFLOP of training and of the rollouts over all phases."""

TIMES = (*WHERE, *TRAINING)
SHARES = ("accuracy", "step_accuracy", "recognition", "parsed_share")  # what environments measure in percent


@dataclass(frozen=True)
class Measure:
    """What is read off a run.

    what: `accuracy` | `unparsed` | `cut_off` | `converted` | `conversion_exact` (shares of responses), `tokens`
        (generated), `accuracy_conversion_exact` | `accuracy_conversion_wrong` (among responses with such a conversion),
        `part:<name>` (a task's own measure in summary.json), `failures:<name>` (of `analyze what=failures`),
        `gradients:<name>` (one of GRADIENTS: a curve over checkpoints), `attribution:<name>`,
        `likelihood:<name>` (one of LIKELIHOODS), `imported:<name>` (a column of the experiment's file of numbers from
        elsewhere), `length:<segment>` (generated tokens of a kind).
    training: of accuracy and parts, what the evaluations while the last phase trained have instead of the one at the
        end: `curve`, or `best`, its highest point.
    level, view: of the problems. conversion: auto (that of the run's own evaluation), or another one, which is
        evaluated for it. task: on which it is evaluated; None: the run's own.
    along: for curves, what is on the horizontal axis: `step`, `examples` or one of GRADIENTS; of training one of
        TRAINING, or `<name>@<level>`: what the same evaluations have of it, as `accuracy@standard`.
    at: for curves, one place along the run instead of all: share of the last phase's steps, 0 to 1.
    percent: whether it is shown in percent; None: shares of responses are.
    """

    what: str = "accuracy"
    level: str | None = None
    view: str | None = None
    conversion: Literal["auto", "free", "force", "forbid"] = "auto"
    task: str | None = None
    training: Literal["curve", "best"] | None = None
    along: str = "examples"
    at: float | None = None
    percent: bool | None = None

    def __post_init__(self) -> None:
        kind, _, name = self.what.partition(":")
        plain = (
            "accuracy", "unparsed", "cut_off", "converted", "conversion_exact", "tokens",
            "accuracy_conversion_exact", "accuracy_conversion_wrong",
        )  # fmt: skip
        named = ("part", "failures", "gradients", "attribution", "likelihood", "imported", "length")
        if self.what not in plain and not (kind in named and name):
            raise ValueError(f"measure.what={self.what}: allowed are {', '.join(plain)}, {':NAME, '.join(named)}:NAME")
        for known, names in (("gradients", GRADIENTS), ("likelihood", LIKELIHOODS)):
            if kind == known and name not in names:
                raise ValueError(f"measure.what={self.what}: there are {', '.join(names)}")
        if self.training and ((self.what != "accuracy" and kind != "part") or self.task):
            raise ValueError(f"measure.training={self.training}: of what=accuracy or part:NAME on the run's own task")
        if self.training == "curve":
            if self.along not in TRAINING and not re.fullmatch(r"\w+@\w+", self.along):
                raise ValueError(f"measure.along={self.along}: allowed are {', '.join(TRAINING)}, NAME@LEVEL")
        elif self.along not in (*WHERE, *GRADIENTS):
            raise ValueError(f"measure.along={self.along}: allowed are {', '.join((*WHERE, *GRADIENTS))}")
        if self.at is not None and (kind != "gradients" or not 0 <= self.at <= 1):
            raise ValueError(f"measure.at={self.at}: a share from 0 to 1 is expected, of what=gradients:NAME")

    @property
    def kind(self) -> str:
        """What it is read from: evaluation | training | failures | gradients | attribution | likelihood | imported."""
        if self.training:
            return "training"
        kind = self.what.partition(":")[0]
        return kind if kind in ("failures", "gradients", "attribution", "likelihood", "imported") else "evaluation"

    @property
    def is_curve(self) -> bool:
        return self.training == "curve" or (self.kind == "gradients" and self.at is None)

    @property
    def in_percent(self) -> bool:
        if self.percent is not None:
            return self.percent
        shares = ("accuracy", "unparsed", "cut_off", "converted", "conversion_exact", "likelihood:unread")
        kind, _, name = self.what.partition(":")
        return self.what in shares or self.what.startswith("accuracy_") or (kind == "part" and name in SHARES)


def read_measure(data: Mapping[str, Any]) -> Measure:
    """Raises ValueError."""
    return structure(Measure, data, "measure")


def follow_up(measure: Measure, analyses: Mapping[str, Mapping[str, Any]], own_task: str | None = None) -> Words | None:
    """The command that makes what a measure reads off a finished run, without `run=`; None: training makes it.

    `analyses`: the study's settings of each `analyze what=`. `own_task`: of the run, which training evaluates.
    """
    if measure.kind in ("imported", "training"):
        return None
    if measure.kind != "evaluation":
        return ("analyze", f"what={measure.kind}", *_words(analyses.get(measure.kind, {})))
    other_task = measure.task not in (None, own_task)
    if measure.conversion == "auto" and not other_task:
        return None
    task = () if not other_task else (f"task={measure.task}",)
    how = () if measure.conversion == "auto" else (
        f"evaluation.conversion={measure.conversion}", "evaluation.views=[image]",
    )  # fmt: skip
    return ("evaluate", *task, *how)


def _words(settings: Mapping[str, Any]) -> Words:
    return tuple(f"{key}={_short(value)}" for key, value in settings.items())


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_short, value)) + "]"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


_WORDS = {
    "accuracy": "accuracy",
    "unparsed": "responses without an answer",
    "cut_off": "responses cut off",
    "converted": "responses that convert",
    "conversion_exact": "exact conversions",
    "tokens": "generated tokens",
    "accuracy_conversion_exact": "accuracy after an exact conversion",
    "accuracy_conversion_wrong": "accuracy after a wrong conversion",
    "gradients:alignment": "gradient alignment score",
    "gradients:cosine": "gradient cosine similarity",
    "gradients:adam": "Adam update alignment",
    "gradients:norm": "gradient norm, simple images",
    "gradients:loss_conversion": "conversion loss",
    "gradients:loss_given_both": "solution loss given image and text",
    "gradients:loss_given_image": "solution loss given image",
    "likelihood:thought": "log-probability of the thoughts",
    "likelihood:answer": "log-probability of the action",
    "likelihood:thought_tokens": "tokens of the thoughts",
    "likelihood:answer_tokens": "tokens of the action",
    "likelihood:unread": "drawn responses without an action",
}
_ALONG = {
    "step": "optimizer steps",
    "examples": "training examples",
    "updates": "updates",
    "env_steps": "environment steps",
    "compute": "training compute (GFLOP)",
}


def factor(measure: Measure) -> float:
    """From a measure's value to what is shown."""
    return 100.0 if measure.in_percent else 1.0


def measure_words(measure: Measure) -> str:
    """What is measured, as the label of an axis."""
    kind, _, name = measure.what.partition(":")
    words = _WORDS.get(measure.what)
    if words is None:
        named = _named(name)
        words = {"part": named, "failures": named, "imported": named, "length": f"tokens of {named}"}.get(
            kind, f"{kind}: {named}"
        )
    if measure.training == "best":
        words = f"best {words} while training"
    where = " ".join(word for word in (measure.level, measure.view) if word)
    unit = " (%)" if measure.in_percent else ""
    return f"{where}: {words}{unit}" if where and kind not in ("gradients", "imported") else words + unit


def _named(name: str) -> str:
    return name.replace("_", " ").replace(".", ", ")


def along_words(along: str) -> str:
    """Where a checkpoint is, as the label of an axis."""
    if "@" in along:
        name, _, level = along.partition("@")
        return f"{level}: {_named(name)}{' (%)' if name in SHARES else ''}"
    return _ALONG.get(along) or _WORDS[f"gradients:{along}"]
