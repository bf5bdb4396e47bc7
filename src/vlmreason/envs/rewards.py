"""Rewards of any environment and any task: entries of GENERAL, beside those that an environment has of its own.

They read the response alone and count where the user gives them a weight (`algorithm.rewards.progress=0.5`). A new one
is an entry; one of a single environment stands beside it, in `Env.rewards`, as the same type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vlmreason.dialogue.parse import conversion_exact, split_response
from vlmreason.envs.base import Env, Outcome, Reward
from vlmreason.segments import ANSWER, CAPTION, THOUGHT, Response, Segment
from vlmreason.structure import nearest

Facts = Mapping[object, object]
"""A value for each slot, as `Task.facts` reads them."""


def offered(env: Env[Any]) -> dict[str, Reward]:
    """Return the rewards of an environment by name, its own first; of the general ones those that it does not give
    itself."""
    return {reward.name: reward for reward in (*GENERAL, *env.rewards)}


def check(env: Env[Any], names: Iterable[str], where: str = "algorithm.rewards") -> None:
    """Raise ValueError where one is not offered, naming the nearest that is."""
    known = list(offered(env))
    for name in names:
        if name not in known:
            raise ValueError(
                f"{where}.{name}: {env.name} has no such reward; there are {', '.join(known)}{nearest(name, known)}"
            )


def further(
    env: Env[Any], names: Iterable[str], state: Any, response: str, outcome: Outcome[Any]
) -> Mapping[str, float]:
    """Return what a turn has of the rewards of these names that the environment has not given with its outcome."""
    entries = {name: reward for name, reward in offered(env).items() if name in names and name not in outcome.rewards}
    found = {name: reward.value(env, state, response, outcome) for name, reward in entries.items()}
    return {name: value for name, value in found.items() if value is not None}


def _correct(env: Env[Any], state: Any, response: str, outcome: Outcome[Any]) -> float:
    return float(env.score(state, response).correct)


def _parsed(env: Env[Any], state: Any, response: str, outcome: Outcome[Any]) -> float:
    return float(outcome.parsed)


def _format(env: Env[Any], state: Any, response: str, outcome: Outcome[Any]) -> float:
    segments = split_response(env, state, response).segments
    found = iter([(one.kind, one.label) for one in segments if not _is_empty(env, state, one)])
    return float(all((gold.kind, gold.label) in found for gold in _gold(env, state).segments))  # `in` consumes


def _is_empty(env: Env[Any], state: Any, segment: Segment) -> bool:
    """Whether a segment is nothing beside what announces it."""
    text = segment.text.strip()
    if segment.kind == env.converted_as:
        text = text.removeprefix(env.convert(state))
    elif segment.kind == ANSWER and (marker := env.answer_marker().match(text)):
        text = text[marker.end() :]
    return not text.strip()


def _progress(env: Env[Any], state: Any, response: str, outcome: Outcome[Any]) -> float | None:
    gold = env.facts(state, THOUGHT, _text_of(_gold(env, state), THOUGHT))
    if gold is not None:
        return f1(_stated(env, state, response, THOUGHT), gold)
    found = env.trace(state, _text_of(split_response(env, state, response), THOUGHT))
    return None if found is None else found.right / found.wanted


def _recall(env: Env[Any], state: Any, response: str, outcome: Outcome[Any]) -> float | None:
    gold = env.facts(state, THOUGHT, _text_of(_gold(env, state), THOUGHT))
    return recall(_stated(env, state, response, THOUGHT), gold) if gold else None


def _caption(env: Env[Any], state: Any, response: str, outcome: Outcome[Any]) -> float | None:
    wanted = _text_of(env.response(state, "image_via_text"), CAPTION).strip()
    gold = env.facts(state, CAPTION, wanted)
    if gold is not None:
        return f1(_stated(env, state, response, CAPTION), gold)
    return float(_text_of(split_response(env, state, response), CAPTION).strip() == wanted) if wanted else None


def _stated(env: Env[Any], state: Any, response: str, kind: str) -> Facts:
    return env.facts(state, kind, _text_of(split_response(env, state, response), kind)) or {}


def recall(stated: Facts, gold: Facts) -> float | None:
    """Return the share of the gold facts that are stated; None where there are none. What else is stated is free, but
    a slot has one value: naming all that it may have is none."""
    return sum(stated.get(slot) == value for slot, value in gold.items()) / len(gold) if gold else None


def f1(stated: Facts, gold: Facts) -> float | None:
    """Return twice the facts that are stated rightly over those that are stated and those that should be; None where
    there are none to state."""
    if not gold:
        return None
    return 2 * sum(stated.get(slot) == value for slot, value in gold.items()) / (len(stated) + len(gold))


def _conversion(env: Env[Any], state: Any, response: str, outcome: Outcome[Any]) -> float | None:
    exact = conversion_exact(env, state, response)
    return None if exact is None else float(exact)


def _length(env: Env[Any], state: Any, response: str, outcome: Outcome[Any]) -> float:
    longest = max(1, len(_gold(env, state).text))
    return min(1.0, max(0.0, 2.0 - len(response) / longest))


def _gold(env: Env[Any], state: Any) -> Response:
    return env.response(state, "image")


def _text_of(response: Response, kind: str) -> str:
    return "".join(segment.text for segment in response.segments if segment.kind == kind)


GENERAL: tuple[Reward, ...] = (
    Reward("correct", "1 where the task's score says that the response is right", 0.0, _correct),
    Reward("parsed", "1 where an answer or action could be read", 0.0, _parsed),
    Reward("format", "1 where all segments of the task's response are there, in order", 0.0, _format),
    Reward("progress", "F1 of the facts of the thought; where a task has none, its right steps' share", 0.0, _progress),
    Reward("recall", "share of the trace's facts that the thought states, whatever else it states", 0.0, _recall),
    Reward("caption", "F1 of the facts of the caption; where a task has none, 1 where it is the task's", 0.0, _caption),
    Reward("conversion", "of responses that convert: 1 where the text form is exact", 0.0, _conversion),
    Reward("length", "1 up to the length of the task's response, falling to 0 at twice that", 0.0, _length),
)
