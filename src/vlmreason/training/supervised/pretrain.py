"""Making the nano base: vocabulary, untrained model, and how well each generic skill is learned."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from vlmreason.dialogue.build import build_dialogue
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.tokenization import pieces
from vlmreason.tasks.base import Task
from vlmreason.training.supervised.marks import first_dialogues, token_counts

NUM_VOCABULARY_PROBLEMS = 100


def vocabulary_texts(tasks: Iterable[Task[Any]]) -> Iterator[str]:
    """Return prompts and responses from which the closed vocabulary is read: words of every task and wording.

    Only the set of words is kept, in order of appearance.
    """
    for task in tasks:
        for level in task.levels:
            for index in range(NUM_VOCABULARY_PROBLEMS):
                problem = task.sample(level, "train", index)
                for view in task.shown(level, ("text", "image_via_text")):
                    dialogue = build_dialogue(task, problem, view)
                    yield dialogue.prompt
                    yield dialogue.response.text


def check_untrained(model: Mapping[str, Any]) -> None:
    """Raise ValueError where a group of the model names weights: none are read."""
    name, checkpoint = model["name"], model.get("checkpoint")
    if name != "nano" or checkpoint:
        named = f"model.checkpoint={checkpoint}" if checkpoint else f"model={name}"
        raise ValueError(
            f"{named}: has no effect, a pretraining begins with an untrained nano model; a base is continued by "
            "vlmreason train with the same supervision"
        )


def check_vocabulary(learner: Learner, tasks: Iterable[Task[Any]]) -> None:
    """Raise ValueError where a task writes a word that the closed vocabulary spells out at best."""
    known = set(learner.processor.tokenizer.get_vocab())
    for task in tasks:
        for text in vocabulary_texts([task]):
            if unknown := set(pieces(text)) - known:
                raise ValueError(
                    f"task={task.name}: the vocabulary has no {sorted(unknown)[0]!r}; `vlmreason pretrain` "
                    "makes a base that has the words of its skills, model=nano has those of reading skills"
                )


def skill_accuracy(learner: Learner, tasks: Mapping[str, Task[Any]], num: int = 32) -> dict[str, float]:
    """Return share of response tokens right, given the gold ones before them, per skill and modality.

    On `num` validation problems each; keys are `<task>/<skill>/<modality>`.
    """
    shares = {}
    for task in tasks.values():
        for level in task.levels:
            for view in task.shown(level, ("text", "image")):
                counts = token_counts(learner, first_dialogues(task, level, view, num))
                num_right, num_tokens = map(sum, zip(*counts.values(), strict=True))
                shares[f"{task.name}/{level}/{view}"] = round(num_right / num_tokens, 4)
    return shares
