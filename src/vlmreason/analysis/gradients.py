"""How far training on simple problems lowers the loss on hard ones: section 5 and appendix H.

With l(x) the mean loss over the solution's tokens of one example, s and h the mean gradients on simple and hard
examples, m and v the means of the gradient and of its elementwise square on simple examples:

    gradient alignment score (equation 3)   <s, h> / <h, h>
    gradient cosine similarity (7)          <s, h> / (|s| |h|)
    Adam update alignment (8)               E_simple <u(g), h> / E_hard <u(g), h>,
                                            u(g) = ((1 - b1) g + b1 m) / (sqrt((1 - b2) g^2 + b2 v) + eps)
    average gradient norm                   E_simple |g|

The text of equations 7 and 8 has lost its square roots; they stand here as in Adam.

Streaming. No gradient of an example is kept. Two identities make one pass over the hard examples and two over the
simple ones enough: E_x E_y <g_x, g_y> = <E g, E g>, so that running sums give equations 3 and 7 and, with E |g|^2,
the share of |h|^2 that is sampling noise; and E <u(g), h> = <E u(g), h>, so that the hard examples' updates are
summed in the pass that makes h. Only u on simple examples needs a second pass, because v stands below its root.
Memory: the gradient, and s and h; with Adam two more (v and the sum of updates); with a projection sketches only.

A sample is the mean over `batch_size` examples. Equations 3 and 7 do not depend on it; `sample_norm` and equation 8
are the paper's at batch_size=1, and those of batches otherwise, which are faster to compute. `example_norm` is about
single examples whatever the batch: with B examples per sample, E |g_x|^2 = |E g|^2 + B (E |g_B|^2 - |E g|^2).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from vlmreason.analysis.projection import Projection
from vlmreason.analysis.subjects import Over, Weights
from vlmreason.analysis.text_tables import Data, _align
from vlmreason.analysis.tokens import Piece, encode_pieces, piece_losses, to_device
from vlmreason.data.loader import LENGTH_STEP
from vlmreason.dialogue.build import build_dialogue
from vlmreason.intervals import Mean, mean
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.processor import Encoded
from vlmreason.segments import View
from vlmreason.streams import SPLITS
from vlmreason.structure import check_choice, nearest
from vlmreason.supervision import ModelPart
from vlmreason.tasks.base import Task

OVER: Over = "checkpoints"
Samples = Callable[[], Iterable[Tensor]]
"""The losses of the samples of a set, one after the other, each with its own graph; the same on every call."""
Gradient = list[Tensor]
"""By parameter, or one sketch."""


@dataclass(frozen=True)
class Adam:
    """Constants of equation 8."""

    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8


@dataclass(frozen=True)
class SetGradient:
    """The gradients of one set. norm: of the mean gradient; sample_norm: mean of the samples' norms.

    example_norm: root mean square of the norms of single examples, estimated from the samples'; E |g_x| is a little
    below. noise: the share of norm^2 that comes from the finite number of samples (0 for infinitely many).
    """

    num_samples: int
    loss: Mean
    norm: float
    sample_norm: Mean
    example_norm: float | None
    noise: float | None


@dataclass(frozen=True)
class ProjectionError:
    """One standard deviation over seeds of the projection, to first order; that of the norm is relative."""

    size: int
    alignment: float | None
    cosine: float | None
    norm: float


@dataclass(frozen=True)
class Alignment:
    """The scores; None where a gradient vanishes. `alignment_corrected`: without the noise of the hard gradient."""

    num_parameters: int
    simple: SetGradient
    hard: SetGradient
    inner: float
    alignment: float | None
    alignment_corrected: float | None
    cosine: float | None
    adam: float | None
    projection: ProjectionError | None


MEANING = {
    "alignment": "inner product of the mean gradients of simple and hard examples over the hard one's (equation 3)",
    "cosine": "of the angle between them",
    "adam": "the same for Adam's steps (equation 8)",
    "norm simple": "root mean square norm of the gradients of single simple examples",
    "norm hard": "of hard ones",
    "text|I": "loss of the text form, given the picture, on the hard level (nats a token)",
    "solution|I,T": "loss of thought and answer, given picture and text form",
    "solution|I": "loss of thought and answer, given the picture alone",
}
"""What the columns of the table are."""


@dataclass(frozen=True)
class Settings:
    """Which examples, and which part of the model.

    levels: that of the simple and that of the hard examples; None: the task's first and last. num: examples of
    each, the first ones of the split. view: how they are shown. batch_size: examples of one sample; it must divide
    `num`. train: parts whose gradients count (of a model with adapters: what trains of them). adam: equation 8, a
    third more time; None: without a projection. projection: length of sketches in place of gradients; None: none.
    seed: of the projection.
    """

    levels: tuple[str, str] | None = None
    num: int = 256
    split: str = "validation"
    view: View = "image"
    batch_size: int = 4
    train: Literal["all"] | tuple[ModelPart, ...] = "all"
    adam: bool | None = None
    projection: int | None = None
    seed: int | None = None

    def __post_init__(self) -> None:
        check_choice("split", self.split, SPLITS)
        if self.batch_size < 1 or self.num < 2 * self.batch_size or self.num % self.batch_size:
            raise ValueError(
                f"num={self.num}, batch_size={self.batch_size}: num must be a multiple of batch_size, twice it or more"
            )
        if self.adam is None:
            object.__setattr__(self, "adam", self.projection is None)
        if self.projection is not None:
            Projection(self.projection)
            if self.adam:
                raise ValueError("adam=true: needs whole gradients; choose adam=false with a projection")
        elif self.seed is not None:
            raise ValueError(f"seed={self.seed}: has no effect without a projection")


def run(subject: Weights, settings: Settings) -> list[dict[str, Any]]:
    """Return the scores of every checkpoint, and its losses on the hard level. Raises ValueError."""
    task, results = subject.task, []
    levels = check_levels(task, settings.levels)
    for name in subject.names:
        learner = subject.load(name)
        found = measure(learner, task, settings)
        known = {"solution_given_image": found.hard.loss} if settings.view == "image" else {}
        missing = [loss for loss in LOSSES if loss not in known]
        each = losses(learner, task, levels[1], settings.num, settings.split, missing) | known
        results.append({"checkpoint": name, "levels": levels, "alignment": found, "losses": each})
    return results


def align(
    parameters: Sequence[nn.Parameter],
    simple: Samples,
    hard: Samples,
    adam: Adam | None = None,
    projection: Projection | None = None,
    batch_size: int = 1,
) -> Alignment:
    """Return the scores of two sets of samples for these parameters, all of which must require gradients.

    `batch_size`: examples of which each sample is the mean.

    Sharded parameters (DTensor) are fine where every process makes the same samples. Raises ValueError for sets
    without a sample.
    """
    assert not (adam and projection), "an update is no linear function of the gradient"
    mean_gradient, first, square = _pass(parameters, simple, projection, batch_size, with_square=adam is not None)
    update = _Update(adam, mean_gradient, square) if adam and square else None
    hard_gradient, second, hard_update = _pass(parameters, hard, projection, batch_size, update=update)
    inner, hard_square = _dot(mean_gradient, hard_gradient), _dot(hard_gradient, hard_gradient)
    norms = (first.norm, second.norm)
    alignment = inner / hard_square if hard_square else None
    cosine = inner / (norms[0] * norms[1]) if all(norms) else None
    corrected = None
    if alignment is not None and second.noise is not None and second.noise < 1:
        corrected = alignment / (1 - second.noise)
    score = None
    if update and hard_update and (below := _dot(hard_update, hard_gradient)):
        found = [_dot(update(gradient), hard_gradient) for _, gradient in _gradients(parameters, simple)]
        score = sum(found) / len(found) / below
    error = None
    if projection:
        error = ProjectionError(
            projection.size,
            None if alignment is None else projection.error_of_alignment(alignment, *norms),
            None if cosine is None else projection.error_of_cosine(cosine),
            projection.error_of_norm(),
        )
    num = sum(parameter.numel() for parameter in parameters)
    return Alignment(num, first, second, inner, alignment, corrected, cosine, score, error)


def measure(learner: Learner, task: Task[Any], settings: Settings) -> Alignment:
    """Return the scores of a learner between two levels of a task. Raises ValueError."""
    levels = check_levels(task, settings.levels)
    projection = Projection(settings.projection, settings.seed or 0) if settings.projection else None
    with only(learner, [parameter for _, parameter in learner.trained_parameters(settings.train)]) as parameters:
        simple, hard = (solution_samples(learner, task, level, settings) for level in levels)
        return align(parameters, simple, hard, Adam() if settings.adam else None, projection, settings.batch_size)


LOSSES = {
    "text_given_image": ("image_via_text", 1),
    "solution_given_image_and_text": ("image_via_text", 2),
    "solution_given_image": ("image", 2),
}
"""Equations 4, 5 and 2: the view, and the piece of the response that the loss is of. The conversion sentence is given
in all of them and has no loss."""
_FORWARD_BATCH = 16


@torch.no_grad()
def losses(
    learner: Learner, task: Task[Any], level: str, num: int, split: str, names: Sequence[str] = tuple(LOSSES)
) -> dict[str, Mean]:
    """Return by name the mean over problems of the mean over tokens, with its interval."""
    values: dict[str, list[list[float]]] = {}
    with only(learner, []):
        for view in dict.fromkeys(LOSSES[name][0] for name in names):
            batches = _batches(learner, task, level, split, num, view, _FORWARD_BATCH)
            rows = [piece_losses(learner, batch, 2).float().cpu() for batch in batches]
            values[view] = torch.cat(rows).T.tolist()
    return {name: mean(values[view][number - 1]) for name in names for view, number in [LOSSES[name]]}


def check_levels(task: Task[Any], levels: tuple[str, str] | None) -> tuple[str, str]:
    for level in levels or ():
        if level not in task.levels:
            raise ValueError(
                f"levels: {level!r}: {task.name} has {', '.join(task.levels)}{nearest(level, task.levels)}"
            )
    return levels or (task.levels[0], task.levels[-1])


def solution_samples(learner: Learner, task: Task[Any], level: str, settings: Settings) -> Samples:
    """Return mean losses on the solution, of `batch_size` examples at a time; of fewer none. Raises ValueError."""
    s = settings
    whole = len(task.first(level, s.split, s.num)) // s.batch_size * s.batch_size
    if whole < 2 * s.batch_size:
        raise ValueError(
            f"batch_size={s.batch_size}: level {level} has fewer than twice as many problems of the split {s.split}"
        )

    def samples() -> Iterator[Tensor]:
        for batch in _batches(learner, task, level, s.split, whole, s.view, s.batch_size, solution_only=True):
            yield piece_losses(learner, batch, 2)[:, 1].mean()

    return samples


def encode_solution(
    learner: Learner, task: Task[Any], level: str, split: str, index: int, view: View, solution_only: bool = False
) -> Encoded:
    """Return a problem in tokens: piece 1 is the text form that the response writes first, 2 all else: trace and
    answer."""
    problem = task.sample(level, split, index)
    dialogue = build_dialogue(task, problem, view)
    pieces = []
    for segment in dialogue.response.segments:
        if segment.kind == task.converted_as:
            sentence = task.convert(problem.state)
            pieces += [Piece(sentence, 0), Piece(segment.text.removeprefix(sentence), 0 if solution_only else 1)]
        else:
            pieces.append(Piece(segment.text, 2))
    return encode_pieces(learner.processor, dialogue, pieces)


@contextmanager
def only(learner: Learner, parameters: Sequence[nn.Parameter]) -> Iterator[Sequence[nn.Parameter]]:
    """Let these parameters alone require gradients and the model be in evaluation mode, for the block; then as
    before."""
    model, wanted = learner.model, {id(parameter) for parameter in parameters}
    before = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    was_training = model.training
    model.eval()
    try:
        for parameter, _ in before:
            parameter.grad = None
            parameter.requires_grad_(id(parameter) in wanted)
        yield parameters
    finally:
        for parameter, required in before:
            parameter.grad = None
            parameter.requires_grad_(required)
        model.train(was_training)


def _batches(
    learner: Learner,
    task: Task[Any],
    level: str,
    split: str,
    num: int,
    view: Any,
    batch_size: int,
    solution_only: bool = False,
) -> Iterator[dict[str, Tensor]]:
    numbers = task.first(level, split, num)
    for start in range(0, len(numbers), batch_size):
        part = numbers[start : start + batch_size]
        examples = [encode_solution(learner, task, level, split, i, view, solution_only) for i in part]
        yield to_device(learner, learner.processor.collate(examples, LENGTH_STEP))


def _gradients(parameters: Sequence[nn.Parameter], samples: Samples) -> Iterator[tuple[float, Gradient]]:
    """Loss and gradient of every sample; a gradient is valid until the next is asked for."""
    for loss in samples():
        if loss.requires_grad:
            loss.backward()  # type: ignore[no-untyped-call]
        # of parameters that a sample does not use (the vision tower's, for text) the gradient is zero
        gradient = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        yield float(loss.detach()), [tensor.float() if tensor.itemsize < 4 else tensor for tensor in gradient]
        for parameter in parameters:
            parameter.grad = None


def _pass(
    parameters: Sequence[nn.Parameter],
    samples: Samples,
    projection: Projection | None,
    batch_size: int,
    with_square: bool = False,
    update: Callable[[Gradient], Iterable[Tensor]] | None = None,
) -> tuple[Gradient, SetGradient, Gradient | None]:
    """Mean gradient of a set, its measures, and the mean of the squares or of the updates where asked for."""
    total: Gradient | None = None
    further: Gradient | None = None
    values, norms = [], []
    for loss, gradient in _gradients(parameters, samples):
        values.append(loss)
        norms.append(_dot(gradient, gradient) ** 0.5)
        added = [projection(gradient)] if projection else gradient
        total = _add(total, added)
        if with_square:
            further = further or [torch.zeros_like(tensor) for tensor in gradient]
            torch._foreach_addcmul_(further, gradient, gradient)
        elif update:
            further = _add(further, update(gradient))
    if total is None:
        raise ValueError("gradients of no sample: one or more are expected")
    num = len(values)
    for tensor in (*total, *(further or ())):
        tensor /= num
    square = _dot(total, total)
    noise = example_norm = None
    if num > 1:
        spread = max(0.0, sum(norm**2 for norm in norms) / num - square) / (num - 1)  # of the mean over the samples
        noise = spread / square if square else None
        example_norm = max(0.0, square - spread + batch_size * num * spread) ** 0.5
    return total, SetGradient(num, mean(values), square**0.5, mean(norms), example_norm, noise), further


def _add(total: Gradient | None, tensors: Iterable[Tensor]) -> Gradient:
    if total is None:
        return [tensor.clone() for tensor in tensors]
    torch._foreach_add_(total, list(tensors))
    return total


class _Update:
    """The Adam update u of a gradient, from the mean gradient and mean square of the simple examples."""

    def __init__(self, adam: Adam, first: Gradient, second: Gradient) -> None:
        self.adam = adam
        self.first, self.second = first, second

    def __call__(self, gradient: Gradient) -> Iterator[Tensor]:
        b1, b2, eps = self.adam.beta1, self.adam.beta2, self.adam.eps
        for g, m, v in zip(gradient, self.first, self.second, strict=True):
            below = torch.mul(v, b2).addcmul_(g, g, value=1 - b2).sqrt_().add_(eps)
            yield torch.lerp(g, m, b1).div_(below)


def _dot(one: Iterable[Tensor], other: Iterable[Tensor]) -> float:
    sums = [_product(a, b) for a, b in zip(one, other, strict=True)]
    return float(torch.stack(sums).double().sum())


def _product(one: Tensor, other: Tensor) -> Tensor:
    if isinstance(one, DTensor):
        total: Any = (one * other).sum()
        return torch.as_tensor(total.full_tensor())
    return torch.dot(one.reshape(-1), other.reshape(-1))


def table(results: Sequence[Data]) -> str:
    """Return one row per checkpoint; losses are on the hard level, equations 4, 5 and 2."""
    head = ["checkpoint", "alignment", "cosine", "adam", "norm simple", "norm hard", "text|I", "solution|I,T"]
    rows = [[*head, "solution|I"]]
    for one in results:
        scores, hard = one["alignment"], one["losses"]
        norms = (scores[name]["example_norm"] for name in ("simple", "hard"))
        values = [scores["alignment"], scores["cosine"], scores["adam"], *norms]
        values += [loss["mean"] for loss in hard.values()]
        rows.append([one["checkpoint"], *map(_number, values)])
    errors = [one["alignment"]["projection"] for one in results]
    if errors[0] is None:
        return _align(rows)
    worst = {
        name: max((e[name] for e in errors if e[name] is not None), default=None) for name in ("alignment", "cosine")
    }
    stated = f"in projection to {errors[0]['size']}; standard deviation at most "
    return _align(rows) + f"\n{stated}{_number(worst['alignment'])} of alignment, {_number(worst['cosine'])} of cosine"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
