"""Measures: what an experiment can show of a run. Each is one entry of MEASURES, and all else is read off it.

A new measure is an entry with a reader (`readings`): its name, its words on an axis, its unit, what it is over, what
makes it and what reads it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from vlmreason.segments import KINDS
from vlmreason.structure import structure
from vlmreason.studies import readings
from vlmreason.studies.estimates import Sample, of_run
from vlmreason.studies.readings import Asked, Curve, NotThereError, Numbers
from vlmreason.studies.records import RIGHT, WRONG, Record

Words = tuple[str, ...]


@dataclass(frozen=True)
class Entry:
    """A measure, or with `<kind>:*` a family of them.

    words: as the label of an axis; {name} is what stands for the star. unit: behind them; "%": a share from 0 to 1,
    which is shown times 100. over: what it has a value of: every problem (0 to 1), a run (a value, and the number of
    responses behind it; 0: not known), every checkpoint of a run by its name. source: what makes it: an `evaluation`
    (training makes its own), `analyze what=<source>`, the problems alone, without any model (`problems`), or nobody
    here (`imported`). read: off a record; None: of the last two.
    while_training: the evaluations while training have it too.
    """

    name: str
    words: str
    over: Literal["problems", "run", "checkpoints"]
    read: Callable[[Record, Asked], Any] | None
    unit: str = ""
    source: str = "evaluation"
    while_training: bool = False


_PART = Entry("part:*", "{name}", "run", readings.summary("{name}"), while_training=True)

MEASURES: tuple[Entry, ...] = (
    Entry("accuracy", "accuracy", "problems", readings.right(), "%", while_training=True),
    Entry("unparsed", "responses without an answer", "run", readings.summary("unparsed", count=True), "%"),
    Entry("cut_off", "responses cut off", "run", readings.summary("cut_off", count=True), "%"),
    Entry("converted", "responses that convert", "run", readings.summary("converted", count=True), "%"),
    Entry("conversion_exact", "exact conversions", "run", readings.summary("conversion_exact", "converted"), "%"),
    # what an oracle needs to tell reading from stopping (evaluation/scoring.py: Cell)
    Entry("stopped_early", "right but ended too soon", "run", readings.summary("stopped_early", count=True), "%"),
    Entry("prefix_right", "thought right from its beginning", "run", readings.summary("prefix_right"), "%"),
    Entry("tokens", "generated tokens", "run", readings.summary("mean_tokens")),
    Entry("accuracy_conversion_exact", "accuracy after an exact conversion", "problems", readings.right(RIGHT), "%"),
    Entry("accuracy_conversion_wrong", "accuracy after a wrong conversion", "problems", readings.right(WRONG), "%"),
    _PART,
    # what environments measure in percent
    *(
        replace(_PART, name=f"part:{name}", unit="%")
        for name in ("step_accuracy", "recognition", "parsed_share", "valid", "as_told")
    ),
    *(
        Entry(f"length:{kind.name}", f"tokens of {kind.name}", "run", readings.summary(f"tokens_{kind.name}"))
        for kind in KINDS
    ),
    Entry("all_of:*", "all of a {name} right", "problems", readings.all_of, "%"),  # a value per group
    Entry("by:*", "accuracy, {name}", "problems", readings.by, "%", while_training=True),
    Entry("floor:*", "right by the answer: {name}", "problems", None, "%", source="problems"),  # Task.floors
    Entry("part_by:*", "{name}", "run", readings.part_by),  # of a group, as skill:counting:option
    Entry("weighted:*", "accuracy weighted by {name}", "problems", readings.weighted, "%"),
    Entry("failures:*", "{name}", "run", readings.failures, source="failures"),
    *(
        Entry(f"gradients:{name}", words, "checkpoints", readings.gradients(*path), source="gradients")
        for name, words, path in (
            ("alignment", "gradient alignment score", ("alignment", "alignment")),  # equation 3
            ("cosine", "gradient cosine similarity", ("alignment", "cosine")),  # equation 7
            ("adam", "Adam update alignment", ("alignment", "adam")),  # equation 8
            ("norm", "gradient norm, simple images", ("alignment", "simple", "example_norm")),
            ("loss_conversion", "conversion loss", ("losses", "text_given_image", "mean")),  # equation 4
            ("loss_given_both", "solution loss given image and text",
             ("losses", "solution_given_image_and_text", "mean")),  # equation 5
            ("loss_given_image", "solution loss given image", ("losses", "solution_given_image", "mean")),  # equation 2
        )
    ),
    Entry("attribution:*", "attribution: {name}", "run", readings.attribution, source="attribution"),
    *(
        Entry(f"likelihood:{name}", words, "run", readings.likelihood(*path), unit, "likelihood")
        for name, words, unit, path in (
            ("thought", "log-probability of the thoughts", "nats", ("thought", "logprob", "mean")),
            ("answer", "log-probability of the action", "nats", ("answer", "logprob", "mean")),
            ("thought_tokens", "tokens of the thoughts", "", ("thought", "num_tokens", "mean")),
            ("answer_tokens", "tokens of the action", "", ("answer", "num_tokens", "mean")),
            ("unread", "drawn responses without an action", "%", ("unread", "share")),
        )
    ),
    Entry("passes:*", "pass@{name}", "run", readings.passes, "%", "passes"),
    Entry("passes:unread", "drawn answers that cannot be read", "run", readings.passes, "%", "passes"),
    *(
        Entry(f"collapse:{name}", words, "run", readings.collapse, unit, "collapse")
        for name, words, unit in (
            ("cosine", "mean cosine of rows within a half", ""),
            ("between", "mean cosine of rows of two halves", ""),
            ("norm", "mean norm of rows", ""),
            ("frame", "distance to a tight frame", ""),
            ("own", "accuracy among all classes", "%"),
            ("restricted", "accuracy among the classes of the half", "%"),
            ("probe", "accuracy of a linear probe of the features", "%"),
        )
    ),
    Entry("imported:*", "{name}", "run", None, source="imported"),
)  # fmt: skip


@dataclass(frozen=True)
class Place:
    """A choice of `along`: where along a run a value is, over all phases.

    over: checkpoints, or the evaluations while the last phase trained.
    """

    name: str
    words: str
    over: Literal["checkpoints", "training"]
    read: Callable[[Record, Sequence[int]], Numbers]


PLACES: tuple[Place, ...] = (
    Place("step", "optimizer steps", "checkpoints", readings.steps),
    Place("examples", "training examples", "checkpoints", readings.examples),
    Place("updates", "updates", "training", readings.steps),  # steps of the phase, of reinforcement learning updates
    Place("env_steps", "environment steps", "training", readings.env_steps),
    Place("compute", "training compute (GFLOP)", "training", readings.compute),
)

WITHOUT_RUNS = ("problems", "imported")
"""Sources that no run is made for."""

_ENTRIES = {entry.name: entry for entry in MEASURES}
_PLACES = {place.name: place for place in PLACES}
TIMES = tuple(_PLACES)


def find(what: str) -> Entry:
    """Return the entry of a measure. Raises ValueError."""
    kind, colon, name = what.partition(":")
    entry = _ENTRIES.get(what) or (_ENTRIES.get(f"{kind}:*") if name else None)
    if entry is not None and what[-1] != "*":
        return entry
    names = of_kind(kind) if colon else []
    if name and names:
        raise ValueError(f"measure.what={what}: there are {', '.join(names)}")
    kinds = dict.fromkeys(f"{known.partition(':')[0]}:NAME" if ":" in known else known for known in _ENTRIES)
    raise ValueError(f"measure.what={what}: allowed are {', '.join(kinds)}")


def of_kind(kind: str) -> list[str]:
    """Return names behind `<kind>:` that have entries of their own."""
    return [name.removeprefix(f"{kind}:") for name in _ENTRIES if name.startswith(f"{kind}:") and name[-1] != "*"]


@dataclass(frozen=True)
class Measure(Asked):
    """What is read off a run: a figure (`what`: a name of MEASURES) of some problems, and how it is shown.

    training: of accuracy, parts and groups, what the evaluations while the last phase trained have instead of the one
        at the end: `curve`, or `best`, its highest point.
    along: for curves, what is on the horizontal axis: a name of PLACES, of checkpoints also one of the gradients'; of
        training also `<name>@<level>`: what the same evaluations have of it, as `accuracy@standard`.
    at: for curves, one place along the run instead of all: share of the last phase's steps, 0 to 1.
    percent: whether it is shown in percent; None: shares are.
    """

    training: Literal["curve", "best"] | None = None
    along: str = "examples"
    at: float | None = None
    percent: bool | None = None

    def __post_init__(self) -> None:
        entry = find(self.what)
        if self.training and (not entry.while_training or self.task):
            raise ValueError(
                f"measure.training={self.training}: of what=accuracy, part:NAME, by:KIND:VALUE on its own task"
            )
        if self.how == "choose" and self.conversion != "auto":
            raise ValueError(f"measure.conversion={self.conversion}: has no effect with measure.how=choose")
        if self.length != "auto" and (entry.source != "evaluation" or self.how == "choose" or self.training):
            raise ValueError(f"measure.length={self.length}: of what an evaluation at the end has that writes")
        if self.condition != "auto" and (entry.source != "evaluation" or self.how == "choose" or self.training):
            raise ValueError(f"measure.condition={self.condition}: of what an evaluation at the end has that writes")
        over = "training" if self.training == "curve" else "checkpoints"
        allowed = [place.name for place in PLACES if place.over == over]
        if over == "training":
            if self.along not in allowed and not re.fullmatch(r"\w+@\w+", self.along):
                raise ValueError(f"measure.along={self.along}: allowed are {', '.join(allowed)}, NAME@LEVEL")
        elif self.along not in (allowed := [*allowed, *of_kind("gradients")]):
            raise ValueError(f"measure.along={self.along}: allowed are {', '.join(allowed)}")
        if self.at is not None and (entry.over != "checkpoints" or not 0 <= self.at <= 1):
            raise ValueError(f"measure.at={self.at}: a share from 0 to 1 is expected, of what=gradients:NAME")

    @property
    def entry(self) -> Entry:
        return find(self.what)

    @property
    def source(self) -> str:
        """Return what makes it, as Entry.source; `training` where the evaluations while training do."""
        return "training" if self.training else self.entry.source

    @property
    def is_curve(self) -> bool:
        return self.training == "curve" or (self.entry.over == "checkpoints" and self.at is None)

    @property
    def unit(self) -> str:
        if self.percent is None:
            return self.entry.unit
        return "%" if self.percent else self.entry.unit.replace("%", "")

    @property
    def in_percent(self) -> bool:
        return self.unit == "%"


def read_measure(data: Mapping[str, Any]) -> Measure:
    """Raise ValueError."""
    return structure(Measure, data, "measure")


# Making


def follow_up(measure: Measure, analyses: Mapping[str, Mapping[str, Any]], own_task: str | None = None) -> Words | None:
    """Return the command that makes what a measure reads off a finished run, without `run=`; None: training makes it.

    `analyses`: those of the study (`StudyScale`). `own_task`: of the run, which training evaluates.
    """
    if measure.source in (*WITHOUT_RUNS, "training"):
        return None
    if measure.source != "evaluation":
        return ("analyze", f"what={measure.source}", *_words(analyses.get(measure.source, {})))
    other_task = measure.task not in (None, own_task)
    if measure.conversion == measure.how == measure.length == measure.condition == "auto" and not other_task:
        return None
    task: Words = ()
    if other_task:
        task = (f"task={measure.task}", *_words(_of_other(measure.task, analyses)))
    elif measure.condition != "auto":
        task = _words(analyses.get("condition", {}))
    how = () if measure.conversion == "auto" else (
        f"evaluation.conversion={measure.conversion}", "evaluation.views=[image]",
    )  # fmt: skip
    chosen = {"how": measure.how, "length": measure.length, "condition": measure.condition}
    asked = tuple(f"evaluation.{key}={value}" for key, value in chosen.items() if value != "auto")
    return ("evaluate", *task, *how, *asked)


def _of_other(task: str | None, analyses: Mapping[str, Mapping[str, Any]]) -> Mapping[str, Any]:
    return {**analyses.get("evaluation", {}), **analyses.get(f"evaluation:{task}", {})}


def is_made(record: Record, measure: Measure) -> bool:
    """Tell whether training and its follow-up have done what they can for a measure; what is not in there never will
    be."""
    if measure.source == "training":
        return record.evaluation(None, "auto") is not None
    if measure.source == "evaluation":
        asked = (measure.task, measure.conversion, measure.how, measure.length, measure.condition)
        return record.evaluation(*asked) is not None
    return measure.source in record.analyses


def _words(settings: Mapping[str, Any]) -> Words:
    return tuple(f"{key}={_short(value)}" for key, value in settings.items())


def _short(value: Any) -> str:
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(map(_short, value)) + "]"
    return str(value).lower() if isinstance(value, bool) or value is None else str(value)


# Reading


def sample(record: Record, measure: Measure, seed: int) -> Sample:
    """Return what a run gave. Raises NotThereError."""
    entry = measure.entry
    if measure.training:
        along = _training_curve(record, measure, seed)
        value, num = max(along.y), along.num
    elif entry.over == "checkpoints":
        value, num = _value_at(record, measure, seed), 0
    elif entry.read is None:
        raise NotThereError(f"{measure.what}: no value of a run")
    elif entry.over == "problems":
        groups = readings.drawn_with(record, measure) if entry.name in ("by:*", "weighted:*") else None
        return Sample(seed, tuple(entry.read(record, measure)), by_problem=True, groups=groups)
    else:
        value, num = entry.read(record, measure)
    return of_run(seed, value, num if measure.in_percent else 0)


def curve(record: Record, measure: Measure, seed: int) -> Curve:
    """Return a measure along a run: over its checkpoints or the evaluations while it trained. Raises NotThereError."""
    return _training_curve(record, measure, seed) if measure.training else _checkpoint_curve(record, measure, seed)


def _value_at(record: Record, measure: Measure, seed: int) -> float:
    """Of the checkpoint nearest to the wanted share of the last phase."""
    along = _checkpoint_curve(record, replace(measure, along="step"), seed)
    before = readings.last_phase_start(record)
    wanted = before + (sum(record.steps.values()) - before) * (measure.at or 0.0)
    return along.y[min(range(len(along.x)), key=lambda i: abs(along.x[i] - wanted))]


def _checkpoint_curve(record: Record, measure: Measure, seed: int) -> Curve:
    assert measure.entry.read is not None
    ys = measure.entry.read(record, measure)
    steps = readings.checkpoint_steps(record, list(ys))
    if measure.along in _PLACES:
        places = list(steps.values())
        xs = dict(zip(steps, _PLACES[measure.along].read(record, places), strict=True))
    else:
        reader = find(f"gradients:{measure.along}").read
        assert reader is not None
        xs = reader(record, measure)
    ordered = sorted({(step, xs[name], ys[name]) for name, step in steps.items()}, key=lambda point: point[0])
    whole = [(x, y) for _, x, y in ordered if x is not None and y is not None]
    if not whole:
        raise NotThereError(f"{measure.what} along {measure.along}: not in the analysis")
    first = sum(
        step <= readings.last_phase_start(record) and None not in (x, y) for step, x, y in ordered
    )  # of the last phase
    return Curve(record.run, seed, tuple(x for x, _ in whole), tuple(y for _, y in whole), first)


def _training_curve(record: Record, measure: Measure, seed: int) -> Curve:
    """A measure over the evaluations while the last phase trained, and the last one before it where the phase does not
    begin with one."""
    if not record.training:
        raise NotThereError("no evaluation while training")
    columns = record.training["columns"]
    phases, steps = columns["phase"], columns["step"]
    y = readings.column(record, measure.name or measure.what, measure.level, measure.view)
    name, _, level = measure.along.partition("@")
    if measure.training == "best":
        x: Numbers = steps
    else:
        x = readings.column(record, name, level, measure.view) if level else _PLACES[name].read(record, steps)
    start = phases.index(phases[-1])
    if start and steps[start]:  # the end of the phase before is where this one begins
        start -= 1
        steps = [0 if place == start else step for place, step in enumerate(steps)]
    points = [
        (float(a), float(b), step)
        for a, b, step in zip(x[start:], y[start:], steps[start:], strict=True)
        if a is not None and b is not None
    ]
    if not points:
        raise NotThereError(f"{measure.what} along {measure.along}: not among the evaluations while training")
    xs, ys, places = zip(*points, strict=True)
    num = readings.num_while_training(record, measure)
    return Curve(record.run, seed, xs, ys, 0, places, num)


# Words


def factor(measure: Measure) -> float:
    """Return the factor from a measure's value to what is shown."""
    return 100.0 if measure.in_percent else 1.0


_CONDITIONS = {
    "force": "told the right kind",
    "wrong": "told a wrong kind",
    "forbid": "kept from naming the kind",
}


def measure_words(measure: Measure) -> str:
    """Return what is measured, as the label of an axis."""
    words = measure.entry.words.format(name=_named(measure.name))
    if measure.training == "best":
        words = f"best {words} while training"
    if measure.length == "given":
        words = f"{words} when the length is given"
    if measure.condition in _CONDITIONS:
        words = f"{words}, {_CONDITIONS[measure.condition]}"
    where = " ".join(word for word in (measure.level, measure.view) if word)
    shown = f"{words} ({measure.unit})" if measure.unit else words
    of_problems = measure.entry.over != "checkpoints" and measure.source != "imported"
    return f"{where}: {shown}" if where and of_problems else shown


def _named(name: str) -> str:
    return name.replace("_", " ").replace(".", ", ").replace(":", ": ")


def along_words(along: str) -> str:
    """Say where a checkpoint or an evaluation is, as the label of an axis."""
    if "@" in along:
        measure = _figure_along(along)
        return measure_words(measure)
    return _PLACES[along].words if along in _PLACES else find(f"gradients:{along}").words


def along_factor(along: str) -> float:
    """Return the factor from what is along a curve to what is shown."""
    return factor(_figure_along(along)) if "@" in along else 1.0


def _figure_along(along: str) -> Measure:
    """The measure that `<name>@<level>` stands for."""
    name, _, level = along.partition("@")
    return Measure(name if name in _ENTRIES else f"part:{name}", level)
