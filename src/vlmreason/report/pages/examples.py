"""Right and wrong answers beside the problems that they answer.

A record keeps a few responses of every level and view by the number of the problem; the problem itself, its picture
and the expected response are made again. A few problems per level are chosen so that as many strategies as possible
are seen both right and wrong on them.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from vlmreason.dialogue.build import build_dialogue
from vlmreason.dialogue.compare import details
from vlmreason.envs.episodes import compare_response
from vlmreason.pictures import png_bytes
from vlmreason.segments import ANSWER, Response, Segment
from vlmreason.studies.records import Evaluation, Record
from vlmreason.tasks.base import Problem, Task

NUM_PROBLEMS = 3  # per task and level
MAX_CHARS = 20_000  # of a response that is on a page

LoadTask = Callable[[Record, Evaluation], Task[Any]]
"""The task of a record's evaluation, as it was evaluated. Raises ValueError."""


@dataclass(frozen=True)
class Answer:
    """One response. mark: characters of the first word that the expected response does not have there (None: there is
    none, or the problem could not be made again); missing: the expected word where the response ends too early. said:
    what the verdict holds beside that, the task's own measures."""

    run: str
    strategy: str
    view: str
    right: bool
    response: Response
    mark: tuple[int, int] | None
    missing: str | None
    said: str = ""


@dataclass(frozen=True)
class Example:
    """A problem with the answers to it. `picture` is a PNG, `size` its width and height.

    note: why the problem itself is not there; picture, prompts and expected responses are empty then.
    """

    task: str
    level: str
    id: str
    picture: bytes
    size: tuple[int, int]
    prompts: Mapping[str, str]
    expected: Mapping[str, Response]
    answers: tuple[Answer, ...]
    note: str = ""


@dataclass(frozen=True)
class _Kept:
    """A response as a record keeps it."""

    record: Record
    evaluation: Evaluation
    level: str
    view: str
    index: int
    right: bool
    response: str

    @property
    def strategy(self) -> str:
        return str(self.record.config["supervision"]["name"])


def examples(records: Iterable[Record], load_task: LoadTask) -> list[Example]:
    """Return some problems of every task and level, with what the runs answered; records are one of each task and
    strategy.

    Damaged responses are left out: there is nothing to show of them.
    """
    kept: dict[str, dict[str, list[_Kept]]] = {}
    for evaluation, record in _on_same_problems(records):
        for one in _responses(record, evaluation):
            kept.setdefault(evaluation.task, {}).setdefault(one.level, []).append(one)
    return [
        _example(answers, load_task)
        for levels in kept.values()
        for responses in levels.values()
        for answers in _choose(responses)
    ]


def _on_same_problems(records: Iterable[Record]) -> Iterator[tuple[Evaluation, Record]]:
    """The own evaluations, of each task those on the problems that most were evaluated on."""
    found = [(own, record) for record in records if (own := record.evaluation(None, "auto")) is not None]
    counts = Counter((own.task, _problems(own)) for own, _ in found)
    usual = {task: problems for (task, problems), _ in reversed(counts.most_common())}
    return ((own, record) for own, record in found if usual[own.task] == _problems(own))


def _problems(evaluation: Evaluation) -> str:
    """What decides the problem of an index."""
    identity = {key: evaluation.identity.get(key) for key in ("task_config", "task_version", "split")}
    return json.dumps(identity, sort_keys=True)


def _responses(record: Record, evaluation: Evaluation) -> Iterator[_Kept]:
    for cell in evaluation.cells:
        for one in cell.examples:
            if not isinstance(one, Mapping):
                continue
            index, right, response = one.get("index"), one.get("right"), one.get("response")
            if isinstance(index, int) and index >= 0 and isinstance(right, bool) and isinstance(response, str):
                yield _Kept(record, evaluation, cell.level, cell.view, index, right, response)


def _choose(responses: Sequence[_Kept]) -> Iterator[list[_Kept]]:
    """The responses to each chosen problem: the next one is that which shows most that was not seen before."""
    by_index: dict[int, list[_Kept]] = {}
    for one in responses:
        by_index.setdefault(one.index, []).append(one)
    seen: set[tuple[str, str, bool]] = set()
    for _ in range(NUM_PROBLEMS):
        kinds = {i: {(one.strategy, one.view, one.right) for one in ones} - seen for i, ones in by_index.items()}
        best = max(sorted(kinds), key=lambda index: len(kinds[index]), default=None)
        if best is None or not kinds[best]:
            return
        seen |= kinds[best]
        yield by_index.pop(best)


def _example(kept: Sequence[_Kept], load_task: LoadTask) -> Example:
    first = kept[0]
    try:
        task = load_task(first.record, first.evaluation)
        problem = task.sample(first.level, first.evaluation.split, first.index)
        picture = task.draw(problem.state)
    except (ValueError, TypeError, LookupError, OSError) as error:
        plain = tuple(_plain(one) for one in kept)
        id = f"{first.evaluation.task}-{first.level}-{first.evaluation.split}-{first.index}"
        return Example(first.evaluation.task, first.level, id, b"", (0, 0), {}, {}, plain, f"not made again: {error}")
    views = list(dict.fromkeys(one.view for one in kept))
    dialogues = {view: build_dialogue(task, problem, view) for view in views}
    return Example(
        task=task.name,
        level=problem.level,
        id=problem.id,
        picture=png_bytes(picture),
        size=(picture.shape[1], picture.shape[0]),
        prompts={view: dialogue.prompt for view, dialogue in dialogues.items()},
        expected={view: dialogue.response for view, dialogue in dialogues.items()},
        answers=tuple(_answer(one, task, problem) for one in kept),
    )


def _plain(one: _Kept) -> Answer:
    response = Response((Segment(ANSWER, one.response),))
    return Answer(one.record.run, one.strategy, one.view, one.right, response, None, None)


def answer(
    run: str, strategy: str, view: str, right: bool, task: Task[Any], problem: Problem[Any], text: str
) -> Answer:
    """Hold a response against the expected one; where only its beginning was kept, the verdict is that on the whole."""
    text = text[:MAX_CHARS]
    found, score = compare_response(task, problem, view, text), task.score(problem.state, text)
    said = details(score.parsed, score.parts) if (score.correct and score.parsed) == right else ""
    mark, (wanted, word) = found.difference.response if found.difference else None, found.words
    return Answer(run, strategy, view, right, found.response, mark, wanted if word is None else None, said)


def _answer(one: _Kept, task: Task[Any], problem: Problem[Any]) -> Answer:
    return answer(one.record.run, one.strategy, one.view, one.right, task, problem, one.response)
