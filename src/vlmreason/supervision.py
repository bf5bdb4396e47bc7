"""Supervision as data: which problems, in which views and order, each phase of training shows.

A strategy (sections 2.4, 4 and 4.3) is one or more phases, one after the other; a phase is a mix of parts;
a part is a level of a task in one or more views. Everything here is plain data from `conf/supervision/`;
`data/mixture.py` turns a phase into its examples. No strategy, level or task is known to this file.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction
from types import MappingProxyType
from typing import Any, Literal

from vlmreason.segments import View
from vlmreason.structure import check_choice, nearest

Order = Literal["shuffle", "interleave"]
ThoughtSchedule = Literal["keep", "remove", "internalize"]
ModelPart = Literal["vision_tower", "projector", "language_model"]

TOKEN_KINDS = ("cell", "digit", "mark", "word", "end")
"""Coordinates of a cell; a single digit; one of a marked cell in LaTeX; all else that is written; the end."""

CAPTION_MEASURES = ("places", "pictures", "bits", "own place")
"""Places right in all slots, pictures right in all places, places right in all bits, tokens that tell their own place.
A slot's name is a measure too, of where something is."""

INTERNALIZE = (0.3, 0.4, 0.3)
"""Shares of a phase with the whole chain of thought, with ever less of it, with none (appendix I.7.2)."""


@dataclass(frozen=True)
class Part:
    """One level of a task in one or more views; each of its instances is shown in all of the views.

    The part gets `weight / (sum of weights)` of the phase's examples. How many distinct instances they are
    made of is given by `distinct`, or by `epochs`: examples / (epochs * number of views), which is
    algorithm 1's N_simple^u (epochs 1.5 for two views and 3 for one view both mean a third of the examples)
    and, for hard examples, the repetitions of appendix I.9. `begins` moves texts to positions drawn at random: a
    model that learns absolute positions otherwise ties what it reads to where prompts happen to stand. With `own` no
    gold response is shown: the model writes its own to each picture, and is trained on it where it gives the problem as
    text the same thought or answer.
    """

    level: str
    views: tuple[View, ...]
    weight: float = 1.0
    epochs: float | None = None  # times each (instance, view) pair is shown, 1 or more; null: 1
    distinct: int | None = None  # number of distinct instances; null: from epochs
    task: str | None = None  # null: the phase's tasks, else the run's task
    first: int | None = None  # first instance; null: after the phase's earlier parts of the same task and level
    thought_kept: float = 1.0  # share of the chain of thought's steps, 0 to 1, beside the phase's schedule
    begins: tuple[int, int] | None = None  # first and last position at which a text may begin; null: 0
    own: int | None = None  # most tokens of responses that the model writes itself; null: responses are gold


@dataclass(frozen=True)
class Mark:
    """What a model must have learned before the next phase begins: a share of what it is asked, from 0 to 1.

    With `most` also what it must not have learned yet: a start that solves everything leaves nothing to be found.
    `measure` is `exact`, whole responses written greedily, by the task's own score, or a kind of token (TOKEN_KINDS),
    told the right ones before it; in a phase of captions what the readers say of the pictures (CAPTION_MEASURES, or
    the name of a slot of the task's captions). Asked are the first `num` validation problems.
    """

    measure: str
    share: float
    task: str | None = None  # null: the task of the run
    level: str | None = None  # of a phase of captions: none
    view: View | None = None  # of a phase of captions: none
    num: int = 64
    most: float = 1.0


@dataclass(frozen=True)
class Choice:
    """Which examples of a step are trained on: all of the parts `toward`, and the `share` of the others that scores
    most.

    By `alignment`, of an example's gradient with the mean one of the parts `toward` (equation 3, for each example), or
    by `chance`: what choosing is to be held against. A phase's `num_examples` are those to choose from.
    """

    toward: tuple[str, ...]
    share: float = 0.5
    by: Literal["alignment", "chance"] = "alignment"


@dataclass(frozen=True)
class Phase:
    """One stretch of training with its own data, trained parts of the model, optimizer and schedule.

    A phase of `captions` has no parts: the vision tower alone learns to say what every patch of pictures shows, and
    `num_examples` counts pictures; by `keep` its tokens stay near those of before, as a trained decoder expects them.
    With `match` the next tokens of every picture that is answered directly are pulled to those that the model itself
    gives the same problem as text; with `kl_weight` those of every response stay near what the model that the phase
    began with gives them (as by `algorithm.kl_weight`, here over the whole vocabulary). With `marks` a phase ends as
    soon as all are reached, and where it ends without them the next one does not begin (`trainer.marks`). With `even`
    the decoder's matrices are brought to this root mean square at the end, while it computes the same
    (`models.vlm.evenness`).
    """

    num_examples: int
    parts: dict[str, Part] = field(default_factory=dict)
    weights: dict[str, float] = field(default_factory=dict)  # of parts of the supervision, which come first
    captions: dict[str, int] = field(default_factory=dict)  # pictures of an optimizer step, by task
    keep: float = 0.0  # weight of the change of image tokens in the loss of captions, as a share of their variance
    marks: dict[str, Mark] = field(default_factory=dict)
    mark_every: int | None = None  # examples between two looks at the marks; null: at the end alone
    train: Literal["all"] | tuple[ModelPart, ...] = "all"
    order: Order | None = None  # null: the supervision's
    thought: ThoughtSchedule | None = None  # null: the supervision's
    thought_shares: tuple[float, float, float] | None = None  # for thought=internalize; null: 0.3, 0.4, 0.3
    tasks: tuple[str, ...] | None = None  # for parts that name none, in equal shares; null: the supervision's
    pool: str | None = None  # phases of one pool share their instances; null: a pool of its own, by its name
    condition: bool = False  # whether responses begin with the line on the kind of the problem, of tasks that have one
    choose: Choice | None = None  # which examples of a step are trained on; null: all
    match: float = 0.0  # weight of how far answers to pictures are from those to the same problems as text
    kl_weight: float = 0.0  # of the divergence from the phase's start (nats per response token) beside the loss
    even: float | None = None  # root mean square of the decoder's matrices at the end; null: as they are trained
    batch_size: int | None = None  # examples of one optimizer step; null: the scale's
    optimizer: dict[str, Any] = field(default_factory=dict)  # keys of the optimizer that differ in this phase


@dataclass(frozen=True)
class Supervision:
    """A strategy: phases by name, trained in the order of the mapping. Without one the model stays as it is.

    `parts` are those that phases name in their `weights`, where several phases show the same in other shares. `order`,
    `thought` and `tasks` hold for every phase that does not set its own. `order=shuffle` is
    algorithm 1; `order=interleave` shuffles each view by itself and deals them out in a fixed cycle
    (appendix F), so that every run of examples as long as the cycle holds an image. Raises ValueError.
    """

    name: str
    phases: dict[str, Phase]
    order: Order = "shuffle"
    thought: ThoughtSchedule = "keep"
    tasks: tuple[str, ...] = ()
    parts: dict[str, Part] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_tasks("supervision.tasks", self.tasks)
        _check_shared(self)
        object.__setattr__(self, "phases", {name: self._whole(phase) for name, phase in self.phases.items()})
        object.__setattr__(self, "parts", {})
        for name, phase in self.phases.items():
            _check_phase(self, f"supervision.phases.{name}", phase)
        if self.tasks and not any(_uses_tasks(phase) and phase.tasks is None for phase in self.phases.values()):
            raise ValueError("supervision.tasks: has no effect, every phase or part names its own task")

    @property
    def num_examples(self) -> int:
        """Return examples of all phases together."""
        return sum(phase.num_examples for phase in self.phases.values())

    def _whole(self, phase: Phase) -> Phase:
        """The phase with the parts that it names by `weights` among its own."""
        shared = {name: replace(self.parts[name], weight=weight) for name, weight in phase.weights.items()}
        return replace(phase, parts={**shared, **phase.parts}, weights={})

    def phase(self, name: str) -> Phase:
        if name not in self.phases:
            raise ValueError(f"phase={name!r}: there are {', '.join(self.phases)}{nearest(name, self.phases)}")
        return self.phases[name]

    def phase_tasks(self, name: str, run_task: str | None) -> tuple[str, ...]:
        """Return tasks of the phase's parts that name none; `run_task` is the task of the run, if it has one."""
        phase = self.phase(name)
        tasks = self.tasks if phase.tasks is None else phase.tasks
        return tasks or ((run_task,) if run_task else ())

    def task_names(self, run_task: str | None) -> tuple[str, ...]:
        """Return every task that the data of this supervision needs, without repetition, in order of appearance."""
        names: dict[str, None] = {}
        for phase_name, phase in self.phases.items():
            where = f"supervision.phases.{phase_name}"
            for part_name, part in phase.parts.items():
                tasks = (part.task,) if part.task else self.phase_tasks(phase_name, run_task)
                if not tasks:
                    raise ValueError(f"{where}.parts.{part_name}.task: missing, and the run names no task either")
                names.update(dict.fromkeys(tasks))
            names.update(dict.fromkeys(phase.captions))
            for mark_name, mark in phase.marks.items():
                if not (found := mark.task or run_task):
                    raise ValueError(f"{where}.marks.{mark_name}.task: missing, and the run names no task either")
                names[found] = None
        return tuple(names)

    def phase_order(self, name: str) -> Order:
        return self.phase(name).order or self.order

    def phase_thought(self, name: str) -> ThoughtSchedule:
        return self.phase(name).thought or self.thought

    def check_levels(
        self,
        run_task: str | None,
        levels: Mapping[str, Sequence[str]],
        text_only: Mapping[str, Sequence[str]] = MappingProxyType({}),
    ) -> None:
        """Raise ValueError where a part's level is none of its task's, or has no picture to show; both by task name."""
        for name in self.task_names(run_task):
            if name not in levels:
                raise ValueError(f"task={name!r}: there are {', '.join(levels)}{nearest(name, levels)}")
        for phase_name, phase in self.phases.items():
            for part_name, part in phase.parts.items():
                for task in (part.task,) if part.task else self.phase_tasks(phase_name, run_task):
                    if part.level not in levels[task]:
                        raise ValueError(
                            f"supervision.phases.{phase_name}.parts.{part_name}.level={part.level!r}: {task} has "
                            f"{', '.join(levels[task])}{nearest(part.level, levels[task])}"
                        )
                    if part.level in text_only.get(task, ()) and part.views != ("text",):
                        raise ValueError(
                            f"supervision.phases.{phase_name}.parts.{part_name}.views={list(part.views)}: {part.level} "
                            f"of {task} has no picture, only text is allowed"
                        )
            for mark_name, mark in phase.marks.items():
                task, where = mark.task or str(run_task), f"supervision.phases.{phase_name}.marks.{mark_name}"
                if mark.level is not None:
                    check_choice(f"{where}.level", mark.level, levels[task])
                    if mark.level in text_only.get(task, ()) and mark.view != "text":
                        raise ValueError(f"{where}.view={mark.view}: {mark.level} of {task} has no picture")

    def check_conditions(self, run_task: str | None, silent: Collection[str]) -> None:
        """Raise ValueError where a phase's condition has no effect: `silent` tasks name no problem's kind."""
        for name, phase in self.phases.items():
            tasks = {
                task
                for part in phase.parts.values()
                for task in ((part.task,) if part.task else self.phase_tasks(name, run_task))
            }
            if phase.condition and tasks <= set(silent):
                raise ValueError(
                    f"supervision.phases.{name}.condition=true: has no effect, {', '.join(sorted(tasks))} says of no "
                    "problem which kind it is"
                )


def _check_shared(supervision: Supervision) -> None:
    """Raise ValueError for a phase that names a part twice, or one that is not there."""
    for name, phase in supervision.phases.items():
        for part in phase.weights:
            where = f"supervision.phases.{name}.weights.{part}"
            if part not in supervision.parts:
                known = ", ".join(supervision.parts) or "none"
                raise ValueError(f"{where}: no such part in supervision.parts; there are {known}")
            if part in phase.parts:
                raise ValueError(f"{where}: the phase has a part of its own with this name")
    for part, shared in supervision.parts.items():
        if shared.weight != 1:
            raise ValueError(f"supervision.parts.{part}.weight={shared.weight}: has no effect, phases give the weights")


def _check_phase(supervision: Supervision, where: str, phase: Phase) -> None:
    if phase.batch_size is not None and phase.batch_size < 1:
        raise ValueError(f"{where}.batch_size={phase.batch_size}: 1 or more is expected")
    if phase.num_examples < 1:
        raise ValueError(f"{where}.num_examples={phase.num_examples}: 1 or more is expected")
    if not phase.parts and not phase.captions:
        raise ValueError(f"{where}.parts={{}}: one part or more is expected")
    if phase.captions:
        _check_captions(where, phase)
    elif phase.keep:
        raise ValueError(f"{where}.keep={phase.keep}: has no effect without captions")
    if not 0 <= phase.match < math.inf:
        raise ValueError(f"{where}.match={phase.match}: 0 or more is expected")
    if phase.match and not any("image" in part.views for part in phase.parts.values()):
        raise ValueError(f"{where}.match={phase.match}: has no effect, no part shows pictures in the view image")
    if not 0 <= phase.kl_weight < math.inf:
        raise ValueError(f"{where}.kl_weight={phase.kl_weight}: 0 or more is expected")
    if phase.even is not None and not 0 < phase.even < math.inf:
        raise ValueError(f"{where}.even={phase.even}: more than 0 is expected")
    if phase.match and phase.kl_weight:
        raise ValueError(f"{where}: match and kl_weight exclude each other in a phase")
    if phase.choose is not None:
        _check_choice(f"{where}.choose", phase.choose, phase)
    if phase.parts and all(part.own is not None for part in phase.parts.values()):
        raise ValueError(f"{where}: a part with gold responses is expected beside those with the model's own")
    if phase.mark_every is not None and (not phase.marks or phase.mark_every < 1):
        raise ValueError(f"{where}.mark_every={phase.mark_every}: 1 or more is expected, in a phase with marks")
    for name, mark in phase.marks.items():
        _check_mark(f"{where}.marks.{name}", mark, phase)
    if phase.train != "all" and (not phase.train or len(set(phase.train)) < len(phase.train)):
        raise ValueError(f"{where}.train={list(phase.train)}: 'all' or a list of distinct parts is expected")
    if phase.thought_shares is not None:
        if (phase.thought or supervision.thought) != "internalize":
            raise ValueError(f"{where}.thought_shares: has no effect unless thought=internalize")
        if min(phase.thought_shares) < 0 or abs(sum(phase.thought_shares) - 1) > 1e-6:
            raise ValueError(f"{where}.thought_shares={list(phase.thought_shares)}: three shares of sum 1 are expected")
    if phase.tasks is not None:
        _check_tasks(f"{where}.tasks", phase.tasks)
        if not _uses_tasks(phase):
            raise ValueError(f"{where}.tasks: has no effect, every part names its own task")
    for name, part in phase.parts.items():
        _check_part(f"{where}.parts.{name}", part)


def _check_captions(where: str, phase: Phase) -> None:
    if phase.parts:
        raise ValueError(f"{where}: parts and captions exclude each other, a phase of captions reads patches alone")
    if min(phase.captions.values()) < 1:
        raise ValueError(f"{where}.captions={phase.captions}: 1 or more pictures of a step are expected for each task")
    if phase.kl_weight:
        raise ValueError(f"{where}.kl_weight={phase.kl_weight}: has no effect on captions; keep has")
    if phase.batch_size is not None:
        raise ValueError(f"{where}.batch_size={phase.batch_size}: has no effect, captions says what a step holds")
    if phase.even is not None:
        raise ValueError(f"{where}.even={phase.even}: has no effect on captions, the decoder does not train")
    if phase.train == "all" or "language_model" in phase.train:
        raise ValueError(f"{where}.train: vision_tower, projector or both are expected, captions reach no more")
    if not 0 <= phase.keep < math.inf:
        raise ValueError(f"{where}.keep={phase.keep}: 0 or more is expected")


def _check_choice(where: str, choice: Choice, phase: Phase) -> None:
    if not 0 < choice.share < 1:
        raise ValueError(f"{where}.share={choice.share}: more than 0 and less than 1 is expected")
    for part in choice.toward:
        check_choice(f"{where}.toward", part, phase.parts)
        if phase.parts[part].own is not None:
            raise ValueError(f"{where}.toward: {part} has no gold responses, nothing can be held against it")
    if not choice.toward or {*choice.toward} == {*phase.parts}:
        raise ValueError(
            f"{where}.toward={list(choice.toward)}: some parts of the phase are expected, not none, not all"
        )
    if phase.match:
        raise ValueError(f"{where}: match and choose exclude each other in a phase")


def _check_mark(where: str, mark: Mark, phase: Phase) -> None:
    if not 0 < mark.share <= 1:
        raise ValueError(f"{where}.share={mark.share}: more than 0 and at most 1 is expected")
    if not mark.share <= mark.most <= 1:
        raise ValueError(f"{where}.most={mark.most}: from share={mark.share} to 1 is expected")
    if mark.num < 1:
        raise ValueError(f"{where}.num={mark.num}: 1 or more is expected")
    if phase.captions:
        if mark.level is not None or mark.view is not None:
            raise ValueError(f"{where}: level and view have no effect in a phase of captions")
        if mark.most < 1:
            raise ValueError(f"{where}.most={mark.most}: has no effect in a phase of captions")
        if mark.task not in phase.captions:
            raise ValueError(f"{where}.task={mark.task}: a task of captions is expected, {', '.join(phase.captions)}")
        return
    if mark.level is None or mark.view is None:
        raise ValueError(f"{where}: level and view are expected")
    check_choice(f"{where}.measure", mark.measure, ("exact", *TOKEN_KINDS))


def _check_part(where: str, part: Part) -> None:
    if not part.views or len(set(part.views)) < len(part.views):
        raise ValueError(
            f"{where}.views={list(part.views)}: distinct views are expected (for unequal shares: parts with weights)"
        )
    if not 0 < part.weight < float("inf"):
        raise ValueError(f"{where}.weight={part.weight}: more than 0 is expected (to leave a part out, delete it)")
    if part.epochs is not None and part.distinct is not None:
        raise ValueError(
            f"{where}: epochs={part.epochs} and distinct={part.distinct} exclude each other: one must be null"
        )
    if part.epochs is not None and not 1 <= part.epochs < float("inf"):
        raise ValueError(f"{where}.epochs={part.epochs}: 1 or more is expected")
    if part.distinct is not None and part.distinct < 1:
        raise ValueError(f"{where}.distinct={part.distinct}: 1 or more is expected")
    if part.first is not None and part.first < 0:
        raise ValueError(f"{where}.first={part.first}: 0 or more is expected")
    if part.begins is not None:
        if part.views != ("text",):
            raise ValueError(f"{where}.begins: of views=[text] alone, a picture keeps its places")
        if not 0 <= part.begins[0] <= part.begins[1]:
            raise ValueError(f"{where}.begins={list(part.begins)}: first and last position are expected, 0 or more")
    if part.own is not None:
        if part.own < 1:
            raise ValueError(f"{where}.own={part.own}: 1 or more tokens are expected")
        if part.views != ("image",):
            raise ValueError(f"{where}.own={part.own}: of views=[image] alone, whose answers are held against text")
        if part.thought_kept != 1:
            raise ValueError(f"{where}.thought_kept={part.thought_kept}: has no effect on responses of the model's own")
    if not 0 <= part.thought_kept <= 1:
        raise ValueError(f"{where}.thought_kept={part.thought_kept}: allowed is 0 to 1")


def _check_tasks(where: str, tasks: tuple[str, ...]) -> None:
    if len(set(tasks)) < len(tasks):
        raise ValueError(f"{where}={list(tasks)}: a task is named twice (for unequal shares: parts with weights)")


def _uses_tasks(phase: Phase) -> bool:
    return any(part.task is None for part in phase.parts.values())


def exact(number: float) -> Fraction:
    """Return a number of a configuration as the fraction its decimals say (0.1 is 1/10)."""
    return Fraction(str(number))
