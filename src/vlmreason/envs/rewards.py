"""Rewards of any environment and any task: entries of GENERAL, beside those that an environment has of its own.

They read the response alone and count where the user gives them a weight (`algorithm.rewards.progress=0.5`). A new one
is an entry; one of a single environment stands beside it, in `Env.rewards`, as the same type.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from vlmreason.dialogue.parse import conversion_exact, split_response
from vlmreason.envs.base import Env, Outcome, Reward
from vlmreason.segments import THOUGHT, Response
from vlmreason.structure import nearest
from vlmreason.tasks.findings import right_steps


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
    found = iter([(one.kind, one.label) for one in split_response(env, state, response).segments])
    return float(all((gold.kind, gold.label) in found for gold in _gold(env, state).segments))  # `in` consumes


def _progress(env: Env[Any], state: Any, response: str, outcome: Outcome[Any]) -> float | None:
    steps = [step for one in _gold(env, state).segments if one.kind == THOUGHT for step in one.steps or (one.text,)]
    if not steps:
        return None
    found = right_steps(steps, _text_of(split_response(env, state, response), THOUGHT))
    return 0.0 if found is None else found[0] / found[1]


def _caption(env: Env[Any], state: Any, response: str, outcome: Outcome[Any]) -> float | None:
    wanted = _text_of(_gold(env, state), "caption").strip()
    return float(_text_of(split_response(env, state, response), "caption").strip() == wanted) if wanted else None


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
    Reward("progress", "share of the trace's steps that are right before the first wrong one", 0.0, _progress),
    Reward("caption", "1 where the caption is the task's, letter by letter", 0.0, _caption),
    Reward("conversion", "of responses that convert: 1 where the text form is exact", 0.0, _conversion),
    Reward("length", "1 up to the length of the task's response, falling to 0 at twice that", 0.0, _length),
)
