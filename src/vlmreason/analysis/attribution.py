"""Which pixels a trace is written from: gradient times input (appendix J).

The score of pixel j for token k is <d l_k / d x_j, x_j>, x being the picture as it enters the model (normalised),
summed over its colors and averaged over the tokens of a stretch of the gold trace; the mean over tokens of the
scores is the score of their mean loss. As in the paper a pixel counts where its score is positive, and the top 1 %
are the ones shown; the share of the magnitude is given beside it.

A share says how much of the attribution falls on a region. It stands against two others: the region's share of the
picture, which scores without any order would give; and its share of the input's magnitude, which a gradient without
any order would give, as gradient times input is small where the input is (a picture's background).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vlmreason.analysis.gradients import only
from vlmreason.analysis.subjects import Over, Weights
from vlmreason.analysis.text_tables import Data, _align, _percents
from vlmreason.analysis.tokens import Piece, encode_pieces, piece_losses, to_device
from vlmreason.dialogue.build import build_dialogue
from vlmreason.intervals import Mean, mean
from vlmreason.models.vlm.learner import Learner
from vlmreason.streams import SPLITS
from vlmreason.structure import check_choice, nearest
from vlmreason.tasks.base import Task
from vlmreason.tasks.regions import Mask, Regions

OVER: Over = "model"


MEANING = {
    "area": "share of the picture that is the region, in %",
    "attribution": "share of the positive attribution that falls on it, in %",
    "over area": "attribution less area, in points: more than 0 where the model looks at it more than by chance",
    "over input": "attribution less its share of what the picture holds at all, in points",
    "top pixels": "share of the pixels with the highest attribution that lie in it, in %",
}
"""What the columns of the table are."""


@dataclass(frozen=True)
class Settings:
    """levels: None: all of the task's. num: problems of each, the first ones of the split. top_percent: pixels that
    are listed of the first `num_examples` problems. batch_size changes the speed only."""

    levels: tuple[str, ...] | None = None
    num: int = 64
    split: str = "validation"
    batch_size: int = 8
    top_percent: float = 1.0
    num_examples: int = 2

    def __post_init__(self) -> None:
        check_choice("split", self.split, SPLITS)
        for name, least in (("num", 1), ("batch_size", 1), ("num_examples", 0)):
            if getattr(self, name) < least:
                raise ValueError(f"{name}={getattr(self, name)}: {least} or more is expected")
        if not 0 < self.top_percent <= 100:
            raise ValueError(f"top_percent={self.top_percent}: more than 0 and at most 100 is expected")


@dataclass(frozen=True)
class Focus:
    """How much attribution falls on a region, over problems; None of a problem counts whose scores are all zero.

    area: the region's share of the picture; input: of the pixels' norms; share: of the positive scores; over_area,
    over_input: share less these, problem by problem; magnitude: share of the absolute scores; top: of the top pixels.
    """

    area: Mean
    input: Mean
    share: Mean
    over_area: Mean
    over_input: Mean
    magnitude: Mean
    top: Mean


@dataclass(frozen=True)
class Example:
    """The top pixels of a problem by stretch of its trace, highest first, as row * width + column."""

    id: str
    height: int
    width: int
    top: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Attribution:
    """One level. regions: the scores of the whole trace on a region of the picture. stretches: those of a stretch on
    what it is about; `own`: the mean of these over the stretches of a problem."""

    level: str
    num: int
    regions: Mapping[str, Focus]
    own: Focus
    stretches: Mapping[str, Focus]
    examples: tuple[Example, ...]


Array = np.ndarray[Any, Any]
Shares = tuple[float, float, float, float, float]
"""Of one problem that fall on a region: area, input, positive scores, absolute scores, top pixels."""


def run(subject: Weights, settings: Settings) -> list[Attribution]:
    """Return the attribution of a run's model. Raises ValueError."""
    return attribute(subject.learner, subject.task, settings)


def attribute(learner: Learner, task: Task[Any], settings: Settings) -> list[Attribution]:
    """Return the attribution of a learner on each level of a task. Raises ValueError."""
    levels = task.levels if settings.levels is None else settings.levels
    for level in levels:
        if level not in task.levels:
            hint = nearest(level, task.levels)
            raise ValueError(f"levels: {level!r}: {task.name} has {', '.join(task.levels)}{hint}")
    with only(learner, []):
        return [_attribute(learner, task, level, settings) for level in levels]


def pixel_scores(learner: Learner, batch: Mapping[str, Tensor], num_pieces: int) -> Tensor:
    """Return scores (B, K, H, W) of the pixels for pieces 1 to K of each row; 0 for pieces that a row has not.

    Raises ValueError for a model whose pictures do not enter as they are: of their pixels it is not known where
    they were.
    """
    batch = dict(batch)
    names = _pixel_names(batch)
    for name in names:
        batch[name] = batch[name].detach().requires_grad_()
    pixels = [batch[name] for name in names]
    losses_BK = piece_losses(learner, batch, num_pieces)
    found = []
    for k in range(num_pieces):
        gradients = torch.autograd.grad(losses_BK[:, k].nansum(), pixels, retain_graph=k < num_pieces - 1)
        scores = [(g * p.detach()).sum(1) for g, p in zip(gradients, pixels, strict=True)]
        found.append(torch.stack(scores).sum(0).float())
    return torch.stack(found, dim=1)


def shares(scores: Array, pixels: Array, mask: Mask, num_top: int) -> Shares | None:
    """Say how much falls on a region, of scores (H, W) and of pixels' norms (H, W); None where no score is positive."""
    positive, magnitude = np.clip(scores, 0, None), np.abs(scores)
    if not positive.any():
        return None
    top = _top(scores, num_top)
    return (
        float(mask.mean()),
        float(pixels[mask].sum() / pixels.sum()),
        float(positive[mask].sum() / positive.sum()),
        float(magnitude[mask].sum() / magnitude.sum()),
        float(mask.reshape(-1)[top].mean()),
    )


def _attribute(learner: Learner, task: Task[Any], level: str, settings: Settings) -> Attribution:
    whole: dict[str, list[Shares]] = {}
    own: list[Shares] = []
    stretches: dict[str, list[Shares]] = {}
    examples: list[Example] = []
    for id, places, pixels_HW, scores_KHW in _problems(learner, task, level, settings):
        height, width = scores_KHW.shape[1:]
        num_top = math.ceil(height * width * settings.top_percent / 100)
        trace = scores_KHW.mean(0)
        for name, mask in places.masks.items():
            if found := shares(trace, pixels_HW, mask, num_top):
                whole.setdefault(name, []).append(found)
        mine = []
        for stretch, scores in zip(places.stretches, scores_KHW, strict=True):
            if found := shares(scores, pixels_HW, stretch.mask, num_top):
                stretches.setdefault(stretch.name, []).append(found)
                mine.append(found)
        if mine:
            area, inputs, positive, magnitude, top = (float(np.mean(values)) for values in zip(*mine, strict=True))
            own.append((area, inputs, positive, magnitude, top))
        if len(examples) < settings.num_examples:
            pairs = zip(places.stretches, scores_KHW, strict=True)
            top_pixels = {stretch.name: tuple(map(int, _top(scores, num_top))) for stretch, scores in pairs}
            examples.append(Example(id, height, width, top_pixels))
    return Attribution(
        level,
        len(task.first(level, settings.split, settings.num)),
        {name: _focus(values) for name, values in whole.items()},
        _focus(own),
        {name: _focus(values) for name, values in stretches.items()},
        tuple(examples),
    )


def _problems(
    learner: Learner, task: Task[Any], level: str, settings: Settings
) -> Iterator[tuple[str, Regions, Array, Array]]:
    """Problem by problem its id, regions, norms of its pixels (H, W) and scores (K, H, W) of its K stretches."""
    numbers = task.first(level, settings.split, settings.num)
    for start in range(0, len(numbers), settings.batch_size):
        indices = numbers[start : start + settings.batch_size]
        problems = [task.sample(level, settings.split, index) for index in indices]
        places = [task.regions(problem.state) for problem in problems]
        encoded = []
        for problem, found in zip(problems, places, strict=True):
            pieces = [Piece(stretch.text, number) for number, stretch in enumerate(found.stretches, start=1)]
            pieces.append(Piece(task.answer(problem.state), 0))
            encoded.append(encode_pieces(learner.processor, build_dialogue(task, problem, "image"), pieces))
        batch = to_device(learner, learner.processor.collate(encoded))
        image = encoded[0].image
        assert image is not None
        _check_pixels(batch, image.shape[:2])
        scores_BKHW = pixel_scores(learner, batch, max(len(found.stretches) for found in places)).cpu().numpy()
        entered = [batch[name].float().square().sum(1) for name in _pixel_names(batch)]
        pixels_BHW = torch.stack(entered).sum(0).sqrt().cpu().numpy()
        for problem, found, pixels_HW, scores_KHW in zip(problems, places, pixels_BHW, scores_BKHW, strict=True):
            yield problem.id, found, pixels_HW, scores_KHW[: len(found.stretches)]


def _check_pixels(batch: Mapping[str, Tensor], size: Sequence[int]) -> None:
    num = len(batch["input_ids"])
    shapes = [tuple(batch[name].shape) for name in _pixel_names(batch)]
    for shape in shapes:
        if len(shape) != 4 or shape[0] != num or shape[-2:] != tuple(size):
            raise ValueError(
                f"model: its processor tiles or resizes pictures ({' x '.join(map(str, shape))} numbers for {num} of "
                f"{size[0]} x {size[1]} px): pixels cannot be followed back; choose a model that takes them as they are"
            )
    assert shapes, "a prompt with a picture has pixels"


def _pixel_names(batch: Mapping[str, Tensor]) -> list[str]:
    """Where pictures enter, whatever the model: one tensor for each of its towers."""
    return [name for name, tensor in batch.items() if name.startswith("pixel_values") and tensor.is_floating_point()]


def _top(scores: Array, num: int) -> Array:
    """The places of the highest scores, highest first."""
    return np.argsort(-scores.reshape(-1), kind="stable")[:num]


def _focus(found: Sequence[Shares]) -> Focus:
    areas, inputs, positive, magnitude, top = ([values[i] for values in found] for i in range(5))
    over = [[share - other for share, other in zip(positive, others, strict=True)] for others in (areas, inputs)]
    return Focus(mean(areas), mean(inputs), mean(positive), mean(over[0]), mean(over[1]), mean(magnitude), mean(top))


def table(results: Sequence[Data]) -> str:
    """Return one row per level and region: shares in %."""
    rows = [["level", "region", "area", "attribution", "over area (95 %)", "over input (95 %)", "top pixels"]]
    for one in results:
        focuses = {**one["regions"], "own part of each stretch": one["own"]}
        for name, focus in focuses.items():
            area, share, top = (_mean_percent(focus[key]) for key in ("area", "share", "top"))
            over = (_mean_percents(focus[key]) for key in ("over_area", "over_input"))
            rows.append([one["level"], name.replace("_", " "), area, share, *over, top])
    return _align(rows)


def _mean_percent(one: Data) -> str:
    return "-" if one["mean"] is None else f"{100 * one['mean']:.1f}"


def _mean_percents(one: Data) -> str:
    return "-" if one["mean"] is None else _percents(one["mean"], one["ci_low"], one["ci_high"])
