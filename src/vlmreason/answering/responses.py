"""Responses of a model to problems, written or chosen: single texts, or whole episodes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from vlmreason.answering.choices import choose
from vlmreason.answering.settings import EvaluationSettings
from vlmreason.dialogue.build import ask
from vlmreason.dialogue.parse import kinds_of, split_response
from vlmreason.envs.episodes import Episodes, write_episode
from vlmreason.models.contract import Chooser, Generator, Prompt
from vlmreason.segments import Shown
from vlmreason.tasks.base import Task


class Model(Generator, Chooser, Protocol):
    """What answers problems; what it cannot do it refuses in one sentence."""


@dataclass(frozen=True)
class Answer:
    """A response, or the responses of an episode as one text; `tokens` per segment kind.

    options: what it was chosen from, of each turn of an episode (`Chosen.to_json`); None: it was written.
    """

    text: str
    num_tokens: int
    finished: bool
    tokens: Mapping[str, int]
    options: list[Any] | None = None


def answers(
    model: Model, task: Task[Any], states: Sequence[Any], view: Shown, settings: EvaluationSettings
) -> list[Answer]:
    """Ask a model about some problems together, as `settings.how` says."""
    if isinstance(task, Episodes):
        if settings.length == "given":
            raise ValueError(f"evaluation.length=given: {task.name} has whole episodes, whose turns have no length")
        return _episodes(model, task, states, view, settings)
    forbidden = []
    if view == "image" and settings.conversion == "forbid":
        forbidden.append(_first_word(task.convert(states[0])))
    if settings.condition != "free" and not task.conditions():
        raise ValueError(f"evaluation.condition={settings.condition}: {task.name} says of no problem which kind it is")
    if settings.condition == "forbid":
        forbidden.append(_first_word(task.condition(states[0])))
    return _responses(model, task, states, view, settings, forbidden)


def _responses(
    model: Model, task: Task[Any], states: Sequence[Any], view: Shown, settings: EvaluationSettings,
    forbidden: Sequence[str] = (),
) -> list[Answer]:  # fmt: skip
    """One response to each state, written or chosen."""
    prompts = [_prompt(task, state, view, settings) for state in states]
    if settings.how == "choose":
        chosen = choose(model, task, states, prompts, settings.batch_size)
        return [
            Answer(one.text, one.num_tokens, True, _segment_tokens(model, task, state, one.text), one.to_json())
            for state, one in zip(states, chosen, strict=True)
        ]
    return [
        Answer(g.text, g.num_tokens, g.finished, _segment_tokens(model, task, state, g.text))
        for state, g in zip(states, model.generate(prompts, settings.max_new_tokens, forbidden), strict=True)
    ]


def _episodes(
    model: Model, task: Episodes, firsts: Sequence[Any], view: Shown, settings: EvaluationSettings
) -> list[Answer]:
    """Episodes played side by side to their ends."""
    turns: list[list[Answer]] = [[] for _ in firsts]
    running = dict(enumerate(firsts))
    while running:
        found = _responses(model, task.env, list(running.values()), view, settings)
        for (i, state), answer in zip(list(running.items()), found, strict=True):
            outcome = task.turn(state, answer.text)
            turns[i].append(answer)
            if outcome.done or len(turns[i]) == task.env.max_turns:
                del running[i]
            else:
                running[i] = outcome.state
    return [_whole(played) for played in turns]


def _whole(turns: Sequence[Answer]) -> Answer:
    """The turns of an episode as one answer."""
    return Answer(
        text=write_episode([turn.text for turn in turns]),
        num_tokens=sum(turn.num_tokens for turn in turns),
        finished=all(turn.finished for turn in turns),
        tokens={kind: sum(turn.tokens[kind] for turn in turns) for kind in turns[0].tokens},
        options=None if turns[0].options is None else [turn.options for turn in turns],
    )


def _prompt(task: Task[Any], state: Any, view: Shown, settings: EvaluationSettings) -> Prompt:
    prefill, converts = settings.prefill, view == "image" and settings.conversion in ("force", "gold")
    if converts:
        prefill = _first_word(task.convert(state)) if settings.conversion == "force" else task.conversion(state).text
    if settings.condition == "force":
        prefill = task.condition(state)
    elif settings.condition == "wrong":
        prefill = next(line for line in task.conditions() if line != task.condition(state))
    given = settings.length == "given"
    pattern = task.response(state, "image_via_text" if converts else view) if given else None
    return Prompt(*ask(task, state, view), prefill, pattern, task.kind_of(state))


def _first_word(text: str) -> str:
    return text.split()[0]


def _segment_tokens(model: Model, task: Task[Any], state: Any, text: str) -> dict[str, int]:
    tokens = dict.fromkeys(kinds_of(task), 0)
    for segment in split_response(task, state, text).segments:
        tokens[segment.kind] += model.count_tokens(segment.text)
    return tokens
