"""Problems answered by choosing: a model says how likely each of a task's options is, the likeliest is the response.

What decides is the log-probability of the whole response. Per token it would favour long options, of which a model is
sure once they have begun; both are kept with the response, so that either can be judged later.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from vlmreason.answering.settings import EvaluationSettings
from vlmreason.models.contract import Choice, Chooser, Prompt
from vlmreason.tasks.base import Task


@dataclass(frozen=True)
class Chosen:
    """The likeliest of a problem's options (`text`), and the scores of all in their order."""

    text: str
    num_tokens: int
    options: tuple[tuple[str, Choice], ...]

    def to_json(self) -> list[dict[str, Any]]:
        """Return one object per option, as it stands in a line of predictions; 6 digits."""
        return [
            {"text": text, "logprob": float(f"{one.logprob:.6g}"), "num_tokens": one.num_tokens}
            for text, one in self.options
        ]


def choose(
    model: Chooser, task: Task[Any], states: Sequence[Any], prompts: Sequence[Prompt], batch_size: int
) -> list[Chosen]:
    """Choose among the options of problems, of which at most about `batch_size` are scored together.

    Raises ValueError where a problem has none, or the model cannot choose.
    """
    options = [_options(task, state) for state in states]
    found: list[Chosen] = []
    for first, end in _batches([len(some) for some in options], batch_size):
        scores = model.choose(prompts[first:end], options[first:end])
        for texts, row in zip(options[first:end], scores, strict=True):
            best = max(range(len(row)), key=lambda i: row[i].logprob)
            found.append(Chosen(texts[best], row[best].num_tokens, tuple(zip(texts, row, strict=True))))
    return found


def check_options(task: Task[Any], settings: EvaluationSettings) -> None:
    """Raise ValueError where a task is asked to be answered by choosing and has nothing to choose from."""
    if settings.how == "choose":
        known = [level for level in settings.levels or () if level in task.levels]
        for level in known or task.levels:
            _options(task, task.sample(level, settings.split, 0).state)


def _options(task: Task[Any], state: Any) -> tuple[str, ...]:
    found = task.options(state)
    if not found:
        raise ValueError(
            f"evaluation.how=choose: {task.name} offers no options to choose from; evaluation.how=generate"
        )
    return found


def _batches(sizes: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """First and last (exclusive) of each batch of problems; those of a batch have `most` options, or it is one."""
    first, num = 0, 0
    for end, size in enumerate(sizes):
        if end > first and num + size > most:
            yield first, end
            first, num = end, 0
        num += size
    if sizes:
        yield first, len(sizes)
