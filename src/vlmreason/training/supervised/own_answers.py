"""Self-training without labels: responses of the model itself, kept where its picture and its text answers agree.

The problems of a step are asked twice, as pictures and as text, with the weights as they are at this step. Where both
responses end by themselves with an answer, and their thoughts or their answers are the same word by word, the response
to the picture is trained on: tasks score what a thought found as they score the answer, and a small model that reads
well may copy badly. No gold answer is looked at. What is written depends on the weights and the problems of the step
alone, so a resumed run writes the same.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from vlmreason.answering.responses import answers
from vlmreason.answering.settings import EvaluationSettings
from vlmreason.data.mixture import ExampleRef
from vlmreason.dialogue.build import Dialogue, ask
from vlmreason.dialogue.parse import split_response
from vlmreason.models.vlm.learner import Learner
from vlmreason.segments import ANSWER, THOUGHT, Response
from vlmreason.tasks.base import Task


class OwnAnswers:
    """What a model answers to problems of a phase; `most`: tokens of a response, by task and level."""

    def __init__(self, learner: Learner, tasks: Mapping[str, Task[Any]], most: Mapping[tuple[str, str], int]) -> None:
        self.learner, self.tasks, self.most = learner, tasks, most

    def __call__(self, refs: Sequence[ExampleRef]) -> list[Dialogue]:
        """Return dialogues of pictures with the responses that are kept."""
        kept = []
        for (name, level), same in itertools.groupby(sorted(refs, key=_place), key=_place):
            task, most = self.tasks[name], self.most[name, level]
            problems = [task.sample(level, ref.split, ref.index) for ref in same]
            states = [problem.state for problem in problems]
            directly = EvaluationSettings(views=("image",), max_new_tokens=most, conversion="forbid")
            of_pictures = answers(self.learner, task, states, "image", directly)
            of_texts = answers(self.learner, task, states, "text", EvaluationSettings(max_new_tokens=most))
            for problem, picture, text in zip(problems, of_pictures, of_texts, strict=True):
                responses = [split_response(task, problem.state, one.text) for one in (picture, text)]
                if picture.finished and text.finished and _agree(*responses):
                    asked = ask(task, problem.state, "image")
                    kept.append(Dialogue(problem.id, "image", *asked, responses[0], task.kind_of(problem.state)))
        return kept


def _agree(first: Response, second: Response) -> bool:
    """Whether both have an answer, and the same one or the same thought."""
    if not (first.text_of(ANSWER).strip() and second.text_of(ANSWER).strip()):
        return False
    words = [(first.text_of(kind).split(), second.text_of(kind).split()) for kind in (THOUGHT, ANSWER)]
    return any(one and one == other for one, other in words)


def _place(ref: ExampleRef) -> tuple[str, str]:
    return ref.task, ref.level
