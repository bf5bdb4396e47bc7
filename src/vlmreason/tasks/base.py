"""What every task is: sample a problem, write it, draw it, solve it, score a response.

A task knows nothing of models or training. Sampling is stateless: problem (level, split, index) is a
function of those three, the task's name and version, and its sizes, so it can be made anywhere, in any
order, by any number of processes.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib.util
import json
import random
import re
import typing
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from string import Formatter
from typing import Any, ClassVar, Generic, Literal, Self, TypeVar

from vlmreason.answers import AnswerSpace
from vlmreason.pictures import Box, Picture
from vlmreason.segments import ANSWER, CONVERT, THOUGHT, Response, Segment, in_steps
from vlmreason.streams import SPLITS, split_of, stream
from vlmreason.structure import check_choice, nearest, structure
from vlmreason.tasks.findings import Finding, Trace, trace_of
from vlmreason.tasks.regions import Regions

Modality = Literal["text", "image"]
Purpose = Literal["supervised", "reinforced", "evaluated"]
"""What a prompt is for."""


class AskedByPurpose:
    """What tasks share whose prompts differ by what they are for: `purpose` says it, `Task.asked_in` sets it."""

    purpose: Purpose = "evaluated"

    def asked_in(self, purpose: Purpose) -> Self:
        """Return the task with the prompts of a purpose."""
        found = copy.copy(self)
        found.purpose = purpose
        return found


MAX_ATTEMPTS = 20_000
ANSWER_MARKER = re.compile(r"answer\s{0,8}:", re.IGNORECASE)
MAX_RESPONSE_CHARS = 200_000  # a longer response is not read further: it counts as unparsed

State = TypeVar("State")
Belongs = Callable[[object], bool]


@dataclass(frozen=True)
class Problem(Generic[State]):
    """One instance of a task. `state` is the task's own frozen dataclass."""

    task: str
    level: str
    split: str
    index: int
    state: State

    @property
    def id(self) -> str:
        return f"{self.task}-{self.level}-{self.split}-{self.index}"


@dataclass(frozen=True)
class Score:
    """The verdict on one response; the evaluation metric and the reward.

    `correct` is the paper's figure of the task, `parsed` whether an answer was found at all (an
    unparsed response is never correct), `parts` the task's own measures in [0, 1].
    """

    correct: bool
    parsed: bool
    parts: Mapping[str, float] = field(default_factory=dict)


class Task(ABC, Generic[State]):
    """A task at given sizes and wording.

    Subclasses set `name`, `version` (raised when the problems of an index change), `levels` and
    `state_type`, and are constructed with their sizes, the name of a trace wording and single templates
    that replace the ones of that wording.
    """

    name: ClassVar[str]
    version: ClassVar[int]
    levels: ClassVar[tuple[str, ...]]
    state_type: ClassVar[type]
    explained: ClassVar[bool] = False  # its family's modules `failures` and `regions` know its responses and pictures
    text_only: ClassVar[tuple[str, ...]] = ()  # levels that have no picture: a view with one is refused
    splits_of: ClassVar[str] = ""  # shared by tasks on the same things: what one tests, none trains; "": its name
    converted_as: ClassVar[str] = CONVERT  # the kind of the segment in which the text form is written first
    own_file: ClassVar[str] = ""  # name of the list of records in sets of its family on disk; "": there are none
    reads_files: ClassVar[bool] = False  # problems are a file of the user's: there are none without one
    followed: ClassVar[tuple[str, ...]] = ()  # kinds of its groups that evaluations while training tell apart
    undivided: ClassVar[str] = ""  # why all splits have the same problems, where these are too few to be divided

    def shown(self, level: str, views: tuple[str, ...]) -> tuple[str, ...]:
        """Return those of the views in which a level can be shown: text alone where it has no picture."""
        return ("text",) if level in self.text_only else views

    def sample(self, level: str, split: str, index: int) -> Problem[State]:
        """Return problem number `index` (>= 0, unbounded) of a level and split; the same one on every call."""
        if level not in self.levels:
            raise ValueError(f"level={level!r}: {self.name} has {', '.join(self.levels)}")
        check_choice("split", split, SPLITS)
        if index < 0:
            raise ValueError(f"index={index}: an index is 0 or more")
        return Problem(self.name, level, split, index, self._state(level, split, index))

    def num_problems(self, level: str, split: str) -> int | None:
        """Count the different problems of a level and split where they are read from a file; None: without bound.

        `sample` gives the first ones again after the last.
        """
        return None

    def first(self, level: str, split: str, num: int) -> range:
        """Return number the first `num` problems of a level and split, or those that there are, which is said once.

        Training goes round and round; whoever counts problems asks here. Raises ValueError where there is none.
        """
        there = self.num_problems(level, split)
        where = f"task={self.name} level={level} split={split}"
        if there == 0:
            raise ValueError(f"{where}: there is no problem")
        if there is not None and there < num:
            warnings.warn(f"{where}: there are {there} problems, so not {num} but these are used", stacklevel=1)
        return range(num if there is None else min(num, there))

    def met_in_training(self, trained: Collection[str], level: str, split: str) -> str:
        """Say which problems of a level and split training on the levels `trained` meets; "": none, as they are divided
        by their keys. Replaced by tasks whose problems are divided otherwise."""
        return ""

    def _state(self, level: str, split: str, index: int) -> State:
        """The state of a problem; replaced by tasks that do not draw their problems."""
        rng = stream(self.name, self.version, level, split, index)
        return self._sample(level, rng, lambda key: self.split_of(key) == split)

    def split_of(self, key: object) -> str:
        """Say which split a key belongs to."""
        return split_of(self.splits_of or self.name, key)

    @abstractmethod
    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> State:
        """Draw a state of the level whose `key` belongs to the wanted split (`belongs(key)`).

        Raises ValueError through `unreachable` when the sizes do not allow the level.
        """

    @abstractmethod
    def key(self, state: State) -> object:
        """Return the problem in substance, JSON-able: what is left of it without names, looks and order. It decides the
        split, so problems that are the same in substance must have one key; further ones may share it.

        Of cards the values, of tables and grids the content, of routes the way.
        """

    @abstractmethod
    def draw(self, state: State) -> Picture:
        """Return the problem as a picture."""

    @abstractmethod
    def text(self, state: State) -> str:
        """Return the problem as text, x(t) in the paper."""

    @abstractmethod
    def prompt(self, state: State, modality: Modality) -> str:
        """Return the question; with modality "text" it holds `text(state)`, with "image" nothing of the picture."""

    def asked_in(self, purpose: Purpose) -> Task[State]:
        """Return the task as it is asked for a purpose, where its prompts differ by it; here itself.

        By itself a task is asked as in its evaluation.
        """
        return self

    @abstractmethod
    def convert(self, state: State) -> str:
        """Return the sentence that announces the text form (P_convert); its first word begins no other response."""

    def options(self, state: State) -> tuple[str, ...] | None:
        """Give the answers to choose from, as whole responses that `score` reads; None: an answer is written freely."""
        return None

    def option_boxes(self) -> tuple[Box, ...]:
        """Say where every picture shows the options, in their order; (): not at places of their own."""
        return ()

    @abstractmethod
    def thought(self, state: State) -> list[str]:
        """Return the chain of thought as its steps, in order; they are concatenated as they are."""

    @abstractmethod
    def answer(self, state: State) -> str:
        """Return the final answer."""

    def response(self, state: State, view: str) -> Response:
        """Write the response that is learned, in segments of any kinds (`view` is one of VIEWS).

        Here: the conversion where the text form is to be written first, the thought, the answer. A task that writes
        further kinds, or several of one, says by `markers` how they are found again.
        """
        segments = [Segment(ANSWER, self.answer(state))]
        if steps := self.thought(state):
            segments.insert(0, in_steps(THOUGHT, steps))
        if view == "image_via_text":
            segments.insert(0, self.conversion(state))
        return Response(tuple(segments))

    def conversion(self, state: State) -> Segment:
        """Write the segment in which the text form comes first: the sentence that announces it, and the form."""
        return Segment(self.converted_as, f"{self.convert(state)}\n{self.text(state)}\n")

    @abstractmethod
    def score(self, state: State, response: str) -> Score:
        """Judge a response. `response` is untrusted text of any content and length."""

    def conversion_end(self, response: str, start: int) -> int | None:
        """Say where a text form that was begun at `start` ends, by its own lines; None: where the problem's own ends,
        or as many lines further on as it has."""
        return None

    def condition(self, state: State) -> str:
        """Write the line that says of which kind a problem is, with which a response may begin; "": there is none."""
        return ""

    def conditions(self) -> tuple[str, ...]:
        """Give the lines of all kinds, those of other tasks too. They share a first word that begins nothing else."""
        return ()

    def facts(self, state: State, kind: str, text: str) -> Mapping[object, object] | None:
        """Read what a segment of a kind states, a value for each slot; None where the task reads none of that kind.

        `text` is untrusted. A slot that is stated with two values has to lose by it, or listing all of them would pay.
        """
        return None

    def own_record(self, problem: Problem[State], folder: Path) -> Mapping[str, Any]:
        """Return a problem as sets of its family on disk hold it, for `own_file`; what lies beside goes to the folder.

        Raises ValueError where there are no such sets.
        """
        raise ValueError(f"task={self.name}: there are no sets on disk of its kind to be written")

    def kinds(self) -> Mapping[str, AnswerSpace]:
        """Name the kinds of problems with what their answers can be, for models with outputs for each; {}: there are
        none, and options are all that such a model may know."""
        return {}

    def kind_of(self, state: State) -> str:
        """Name the kind of a problem, one of `kinds`; "": there are none."""
        return ""

    def groups(self, state: State) -> Mapping[str, str]:
        """Name the groups that a problem belongs to, as {"pair": "17", "skill": "sum"}: a value for each kind.

        Evaluations say how each value fares and how often all problems of one are right. Must not change with the
        wording; problems that are alike because they share something should share a value.
        """
        return {}

    def floors(self, state: State) -> Mapping[str, float]:
        """Say how likely an answer is right that knows less than the problem asks, by what it does instead.

        As {"random": 0.5}: what figures draw as lines. {}: no such answer is known.
        """
        return {}

    def answer_marker(self) -> re.Pattern[str]:
        """Return what an answer begins with; in a response the last one counts."""
        return ANSWER_MARKER

    def markers(self) -> Mapping[str, re.Pattern[str]]:
        """Return what a segment of a kind begins with, between the conversion and the answer of a response; the group
        `label` of a match is its label. What comes before the first such marker is thought."""
        return {}

    def answer_start(self, response: str, after: int) -> int:
        """Say where the answer of a response begins whose conversion ends at `after`; its length where it has none."""
        start = len(response)
        for marker in self.answer_marker().finditer(response, after):
            start = marker.start()
        return start

    def answer_text(self, response: str) -> str | None:
        """Return what stands behind the last marker of an answer, as far as a response is read; None: it has none."""
        response = response[:MAX_RESPONSE_CHARS]
        marker = self.answer_marker().match(response, self.answer_start(response, 0))
        return response[marker.end() :] if marker else None

    def finding(self, state: State, response: str, thought: str) -> Finding:
        """Say what went wrong in a response whose trace is `thought` (appendix K).

        By `find` in its module of `failures` (`family`). Raises ValueError where there is none.
        """
        found: Finding = self.family("failures").find(self, state, response, thought)
        return found

    def trace(self, state: State, thought: str) -> Trace | None:
        """Hold the thought of a response against the steps that are learned; None where none are."""
        segments = [one for one in self.response(state, "image").segments if one.kind == THOUGHT]
        steps = [step for one in segments for step in one.steps or (one.text,)]
        return trace_of(steps, thought) if steps else None

    def regions(self, state: State) -> Regions:
        """Say where in the picture the things are that the trace speaks of.

        By `regions` in its module of `regions` (`family`). Raises ValueError where there is none.
        """
        found: Regions = self.family("regions").regions(self, state)
        return found

    @classmethod
    def family(cls, name: str) -> Any:
        """Import the module `name` of a task: `<module>_<name>` beside that of its class, which is about it alone, else
        `name` in the folder of the class that is `explained`, or of one below it.

        So a family keeps what is its own in its folder, and no list elsewhere names it. Raises ValueError.
        """
        kinds = [kind for kind in cls.__mro__ if issubclass(kind, Task) and kind is not Task]
        modules = [f"{kind.__module__}_{name}" for kind in kinds]
        modules += [f"{kind.__module__.rpartition('.')[0]}.{name}" for kind in kinds if cls.explained]
        for module in modules:
            if module != f"{__package__}.{name}" and importlib.util.find_spec(module) is not None:
                return importlib.import_module(module)
        raise ValueError(f"task={cls.name}: its family has no {name}")

    def unreachable(self, level: str, why: str) -> ValueError:
        return ValueError(f"task={self.name} level={level}: {why}")

    def state_from_json(self, data: object) -> State:
        """Rebuild a state from `state_to_json` output read from a file. Raises ValueError when malformed."""
        return typing.cast(State, structure(self.state_type, data, f"problem of {self.name}"))


def state_to_json(state: Any) -> dict[str, Any]:
    """Return a state as plain JSON types (tuples become lists)."""
    return typing.cast(dict[str, Any], json.loads(json.dumps(dataclasses.asdict(state))))


def choose_wording(wordings: Mapping[str, Any], trace: str, changes: Mapping[str, str]) -> Any:
    """Return the named wording (a frozen dataclass of templates) with single templates replaced."""
    check_choice("task.trace", trace, wordings)
    wording = wordings[trace]
    names = [f.name for f in dataclasses.fields(wording)]
    for name in changes:
        if name not in names:
            raise ValueError(
                f"task.wording.{name}: no such template; there are {', '.join(names)}{nearest(name, names)}"
            )
    return dataclasses.replace(wording, **changes)


def check_fields(wording: Any, names: Iterable[str]) -> None:
    """Raise ValueError where a template of a wording holds fields of other names."""
    fields = dict.fromkeys(names, "")
    for f in dataclasses.fields(wording):
        template = getattr(wording, f.name)
        try:
            template.format(**fields)
        except (KeyError, IndexError, ValueError, AttributeError) as error:
            raise ValueError(
                f"task.wording.{f.name}={template!r}: a template with {{fields}} that do not exist"
            ) from error


def pattern_of(template: str, fields: Mapping[str, str]) -> str:
    """Return a regular expression for what a template writes; each field is matched by its own the first time."""
    pieces, seen = [], set[str]()
    for literal, field_name, _, _ in Formatter().parse(template):
        pieces.append(re.escape(literal))
        if field_name:
            pattern = fields[field_name]
            pieces.append(re.sub(r"\?P<\w+>", "?:", pattern) if field_name in seen else pattern)
            seen.add(field_name)
    return "".join(pieces)
