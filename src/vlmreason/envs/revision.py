"""Any task as an environment: one turn, or several in which a wrong answer is told and can be revised.

Sequential revision (section 5.3, figure D.1): the prompt of a turn is the task's, followed by every earlier response
and what the verifier said to it; the episode ends with a right answer or when the attempts are used up.
"""

from __future__ import annotations

import functools
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from vlmreason.envs.base import Env, Outcome, Reward, given
from vlmreason.pictures import Picture
from vlmreason.segments import Response
from vlmreason.streams import SPLITS
from vlmreason.structure import structure
from vlmreason.tasks.base import Belongs, Modality, Score, Task, choose_wording

KEPT_CHARS = 4000
"""Of an earlier response in a prompt: its end, where the answer is."""


@dataclass(frozen=True)
class RevisionState:
    """`problem` is the task's own state; the others hold one entry for each turn so far."""

    problem: Any
    responses: tuple[str, ...] = ()
    verdicts: tuple[Literal["right", "wrong", "unread"], ...] = ()
    turn: int = 0


@dataclass(frozen=True)
class RevisionWording:
    """Templates: `earlier` stands for each earlier response and may use {number}, {response} and {verdict}."""

    earlier: str
    right: str
    wrong: str
    unread: str


WORDINGS: Mapping[str, RevisionWording] = {
    "terse": RevisionWording(
        earlier="\nTry {number}: {response}\n{verdict}",
        right="Right.",
        wrong="Wrong.",
        unread="No answer found.",
    ),
    "verbose": RevisionWording(
        earlier="\n\nYour reply number {number} was:\n{response}\nVerdict: {verdict}",
        right="the answer is right.",
        wrong="the answer is wrong. Look for the mistake and solve the problem again.",
        unread="no answer was found in the reply. Solve the problem and give the answer in the form asked for.",
    ),
}


class Revision(Env[RevisionState]):
    """The task's problems, by its name, levels, splits and indices, with `attempts` (1 or more) turns for each.

    The answer is rewarded; what else is known of it (whether it could be read, the parts of the task's score) counts
    where the user gives it a weight. The expert answers rightly at the first turn. `trace` and `wording` are of the
    texts between the attempts. Raises ValueError.
    """

    state_type = RevisionState

    def __init__(
        self,
        task: Task[Any],
        attempts: int = 1,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
    ) -> None:
        if attempts < 1:
            raise ValueError(f"attempts={attempts}: 1 or more is expected")
        self.task, self.attempts = task, attempts
        self.name, self.version, self.levels = task.name, task.version, task.levels  # type: ignore[misc]
        self.reads_files, self.splits_of = task.reads_files, task.splits_of  # type: ignore[misc]
        self.converted_as = task.converted_as  # type: ignore[misc]
        self.wording: RevisionWording = choose_wording(WORDINGS, trace, wording or {})
        try:
            self._earlier(1, "", "wrong")
        except (LookupError, ValueError, AttributeError):
            raise ValueError(
                f"wording.earlier={self.wording.earlier!r}: in braces may be {{number}}, {{response}}, {{verdict}}"
            ) from None

    @functools.cached_property
    def rewards(self) -> tuple[Reward, ...]:
        state = self.task.sample(self.levels[0], SPLITS[0], 0).state
        parts = self.task.score(state, self.task.response(state, "image").text).parts
        return (
            *(given(name, "part of the task's score", 0.0) for name in parts),
            given("correct", "whether the answer is right"),
            given("parsed", "whether there is an answer", 0.0),
        )

    @property
    def max_turns(self) -> int:
        return self.attempts

    def start(self, level: str, split: str, index: int) -> RevisionState:
        """Return problem number `index` of the task, before any attempt."""
        return RevisionState(self.task.sample(level, split, index).state)

    def turn(self, state: RevisionState, response: str, rng: random.Random) -> Outcome[RevisionState]:
        score = self.task.score(state.problem, response)
        after = replace(
            state,
            responses=(*state.responses, _kept(response)),
            verdicts=(*state.verdicts, "right" if score.correct else "wrong" if score.parsed else "unread"),
            turn=state.turn + 1,
        )
        correct, parsed = float(score.correct), float(score.parsed)
        return Outcome(
            after,
            rewards={**score.parts, "correct": correct, "parsed": parsed},
            done=score.correct or after.turn >= self.attempts,
            success=score.correct,
            parsed=score.parsed,
            parts={"step_accuracy": correct, **score.parts},
        )

    def prompt(self, state: RevisionState, modality: Modality) -> str:
        tries = zip(state.responses, state.verdicts, strict=True)
        return self.task.prompt(state.problem, modality) + "".join(
            self._earlier(number, response, verdict) for number, (response, verdict) in enumerate(tries, start=1)
        )

    def _earlier(self, number: int, response: str, verdict: str) -> str:
        message = getattr(self.wording, verdict)
        return self.wording.earlier.format(number=number, response=response, verdict=message)

    def state_from_json(self, data: object) -> RevisionState:
        state = structure(RevisionState, data, f"problem of {self.name}")
        if not len(state.responses) == len(state.verdicts) == state.turn:
            raise ValueError(
                f"problem of {self.name}: a response and a verdict for each of {state.turn} turns expected"
            )
        return replace(state, problem=self.task.state_from_json(state.problem))

    # What follows is the task's.

    def num_problems(self, level: str, split: str) -> int | None:
        return self.task.num_problems(level, split)

    def _state(self, level: str, split: str, index: int) -> RevisionState:
        return self.start(level, split, index)

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> RevisionState:
        return RevisionState(self.task._sample(level, rng, belongs))

    def key(self, state: RevisionState) -> object:
        return self.task.key(state.problem)

    def draw(self, state: RevisionState) -> Picture:
        return self.task.draw(state.problem)

    def text(self, state: RevisionState) -> str:
        return self.task.text(state.problem)

    def convert(self, state: RevisionState) -> str:
        return self.task.convert(state.problem)

    def condition(self, state: RevisionState) -> str:
        return self.task.condition(state.problem)

    def conditions(self) -> tuple[str, ...]:
        return self.task.conditions()

    def conversion_end(self, response: str, start: int) -> int | None:
        return self.task.conversion_end(response, start)

    def facts(self, state: RevisionState, kind: str, text: str) -> Mapping[object, object] | None:
        return self.task.facts(state.problem, kind, text)

    def thought(self, state: RevisionState) -> list[str]:
        return self.task.thought(state.problem)

    def answer(self, state: RevisionState) -> str:
        return self.task.answer(state.problem)

    def response(self, state: RevisionState, view: str) -> Response:
        return self.task.response(state.problem, view)

    def markers(self) -> Mapping[str, re.Pattern[str]]:
        return self.task.markers()

    def groups(self, state: RevisionState) -> Mapping[str, str]:
        return self.task.groups(state.problem)

    def options(self, state: RevisionState) -> tuple[str, ...] | None:
        return self.task.options(state.problem)

    def answer_marker(self) -> re.Pattern[str]:
        return self.task.answer_marker()

    def answer_start(self, response: str, after: int) -> int:
        return self.task.answer_start(response, after)

    def score(self, state: RevisionState, response: str) -> Score:
        return self.task.score(state.problem, response)


def _kept(response: str) -> str:
    """What of a response is shown again: at most KEPT_CHARS of its end, without what is no character of Unicode."""
    end = response if len(response) <= KEPT_CHARS else "..." + response[3 - KEPT_CHARS :]
    return end.encode("utf-8", "replace").decode("utf-8")
