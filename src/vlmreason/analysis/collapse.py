"""What becomes of the classes that a network no longer sees: its rows, its features, and what a restricted head knows.

After section 2.6 of Zhai's dissertation: classes without samples only push their last-layer rows down, which then come
together (minority collapse), so that they cannot be told apart. Whether this is the head or the features is asked
twice: of the head among the classes of one half alone, and of a linear probe of the features, learned anew.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor, nn
from torch.nn import functional as F

from vlmreason.analysis.layer_peeled import frame_distance, mean_cosine
from vlmreason.analysis.probing import probe
from vlmreason.analysis.subjects import Over, Weights
from vlmreason.analysis.text_tables import Data, _align
from vlmreason.dialogue.build import ask
from vlmreason.models.contract import Prompt
from vlmreason.structure import check_positive
from vlmreason.tasks.images.base import PictureTask

OVER: Over = "checkpoints"

HALVES = ("first_half", "second_half")

MEANING = {
    "cosine": "mean cosine between the last-layer rows of two classes of a half",
    "between": "mean cosine between a row of one half and one of the other",
    "frame": "distance of all rows to an equiangular tight frame, 0 to 2",
    "own": "accuracy of the half (%), among all classes",
    "restricted": "the same head among the classes of the half alone",
    "probe": "a linear probe of the features, learned for the half",
}
"""What the columns of the table are."""


@dataclass(frozen=True)
class Settings:
    """num: problems of each half that are asked, and three times as many for the probe; batch_size: at once."""

    num: int = 200
    batch_size: int = 64

    def __post_init__(self) -> None:
        check_positive(self, "num", "batch_size")


@dataclass(frozen=True)
class Half:
    """One half of the classes at one checkpoint; num: problems behind the shares, norm: mean of its rows."""

    cosine: float
    norm: float
    own: float
    restricted: float
    probe: float
    num: int


@dataclass(frozen=True)
class Collapse:
    """A checkpoint."""

    checkpoint: str
    between: float
    frame: float
    halves: dict[str, Half]


def run(subject: Weights, settings: Settings) -> list[Collapse]:
    """Return rows and accuracies at every checkpoint of a network over the labels of pictures. Raises ValueError."""
    task = subject.task
    if not isinstance(task, PictureTask):
        raise ValueError(f"what=collapse: task={task.name} has no halves of classes; a set of labelled pictures has")
    return [_collapse(name, subject.load(name), task, settings) for name in subject.names]


def _collapse(name: str, learner: Any, task: PictureTask[Any], settings: Settings) -> Collapse:
    head = getattr(learner.model, "head", None)
    if not isinstance(head, nn.Linear):
        raise ValueError("what=collapse: a network with a linear head is expected, as model=picture_net")
    at = {option: row for row, option in enumerate(learner.kept.options)}
    rows_KD = head.weight.detach().float().cpu()
    places = {half: [at[task.option(label)] for label in task.of_level(half)] for half in HALVES}
    first, second = (F.normalize(rows_KD[places[half]], dim=1) for half in HALVES)
    halves = {half: _half(learner, task, half, rows_KD[places[half]], settings) for half in HALVES}
    return Collapse(name, float((first @ second.T).mean()), frame_distance(rows_KD), halves)


def _half(learner: Any, task: PictureTask[Any], half: str, rows_KD: Tensor, settings: Settings) -> Half:
    shown, fresh = (
        [task.sample(half, split, index).state for index in task.first(half, split, num)]
        for split, num in (("test", settings.num), ("train", 3 * settings.num))
    )
    options = tuple(learner.kept.options)
    own_half = [options.index(task.option(label)) for label in task.of_level(half)]
    size, own, restricted = settings.batch_size, 0, 0
    vectors: dict[str, list[Any]] = {"test": [], "train": []}
    for split, states in (("test", shown), ("train", fresh)):
        for some in (states[start : start + size] for start in range(0, len(states), size)):
            prompts = [Prompt(*ask(task, state, "image")) for state in some]
            vectors[split].append(learner.embed(prompts).cpu().numpy())
            if split == "train":
                continue
            wanted = np.array([options.index(task.answer(state)) for state in some])
            scores = np.array([[one.logprob for one in row] for row in learner.choose(prompts, [options] * len(some))])
            own += int((scores.argmax(axis=1) == wanted).sum())
            restricted += int((np.array(own_half)[scores[:, own_half].argmax(axis=1)] == wanted).sum())
    train, test = (np.concatenate(vectors[split]).astype(np.float32) for split in ("train", "test"))
    told = probe((train, [state.label for state in fresh]), (test, [state.label for state in shown]))
    num = len(shown)
    norm = float(rows_KD.norm(dim=1).mean())
    return Half(mean_cosine(rows_KD), norm, own / num, restricted / num, told, num)


def table(results: Sequence[Data]) -> str:
    """Return two rows per checkpoint, one for each half of the classes."""
    rows = [["checkpoint", "half", "cosine", "norm", "between", "frame", "own", "restricted", "probe"]]
    for one in results:
        for name, half in one["halves"].items():
            shares = [f"{100 * half[key]:.1f}" for key in ("own", "restricted", "probe")]
            figures = [f"{value:.2f}" for value in (half["cosine"], half["norm"], one["between"], one["frame"])]
            rows.append([one["checkpoint"], name, *figures, *shares])
    return _align(rows)
