"""Responses of a model to problems: single texts, or whole episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmreason.answering.settings import EvaluationSettings
from vlmreason.dialogue.parse import kinds_of, split_response
from vlmreason.envs.episodes import Episodes, write_episode
from vlmreason.models.contract import Prompt
from vlmreason.models.vlm.learner import Learner
from vlmreason.tasks.base import Modality, Task


@dataclass(frozen=True)
class _Answer:
    """A response, or the responses of an episode as one text; `tokens` per segment kind."""

    text: str
    num_tokens: int
    finished: bool
    tokens: Mapping[str, int]


def _answers(
    learner: Learner, task: Task[Any], states: Sequence[Any], view: Modality, settings: EvaluationSettings
) -> list[_Answer]:
    """The learner's answers to some problems, generated together."""
    if isinstance(task, Episodes):
        return _episodes(learner, task, states, view, settings)
    forbidden = None
    if view == "image" and settings.conversion == "forbid":
        forbidden = _first_word(task, states[0])
    prompts = [_prompt(task, state, view, settings) for state in states]
    generations = learner.generate(prompts, settings.max_new_tokens, forbidden)
    return [
        _Answer(g.text, g.num_tokens, g.finished, _segment_tokens(learner, task, state, g.text))
        for state, g in zip(states, generations, strict=True)
    ]


def _episodes(
    learner: Learner, task: Episodes, firsts: Sequence[Any], view: Modality, settings: EvaluationSettings
) -> list[_Answer]:
    """Episodes played side by side to their ends."""
    responses: list[list[str]] = [[] for _ in firsts]
    num_tokens, finished = [0] * len(firsts), [True] * len(firsts)
    tokens = [dict.fromkeys(kinds_of(task.env), 0) for _ in firsts]
    running = dict(enumerate(firsts))
    while running:
        prompts = [_prompt(task.env, state, view, settings) for state in running.values()]
        for (i, state), found in zip(
            list(running.items()), learner.generate(prompts, settings.max_new_tokens), strict=True
        ):
            outcome = task.turn(state, found.text)
            responses[i].append(found.text)
            num_tokens[i] += found.num_tokens
            finished[i] = finished[i] and found.finished
            for kind, count in _segment_tokens(learner, task.env, state, found.text).items():
                tokens[i][kind] += count
            if outcome.done or len(responses[i]) == task.env.max_turns:
                del running[i]
            else:
                running[i] = outcome.state
    rows = zip(responses, num_tokens, finished, tokens, strict=True)
    return [_Answer(write_episode(texts), num, whole, counts) for texts, num, whole, counts in rows]


def _prompt(task: Task[Any], state: Any, view: Modality, settings: EvaluationSettings) -> Prompt:
    forced = view == "image" and settings.conversion == "force"
    return Prompt(
        text=task.prompt(state, view),
        image=task.draw(state) if view == "image" else None,
        prefill=_first_word(task, state) if forced else settings.prefill,
    )


def _first_word(task: Task[Any], state: Any) -> str:
    return task.convert(state).split()[0]


def _segment_tokens(learner: Learner, task: Task[Any], state: Any, text: str) -> dict[str, int]:
    tokens = dict.fromkeys(kinds_of(task), 0)
    for segment in split_response(task, state, text).segments:
        tokens[segment.kind] += learner.count_tokens(segment.text)
    return tokens
