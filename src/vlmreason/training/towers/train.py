"""Train a small tower from nothing, by captions or by the pictures alone; in one process, in minutes."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from vlmreason.models.embedders import HubEncoder
from vlmreason.pictures import Picture
from vlmreason.streams import stream
from vlmreason.structure import check_positive
from vlmreason.training.engine.optimizers import schedule
from vlmreason.training.towers.objectives import Facts, ViewLoss, caption_loss, fits, named

Objective = Literal["captions", "views"]

Draw = Callable[[int], tuple[Sequence[Picture], Sequence[Facts]]]
"""Gives the pictures of a step and their facts."""

WARMUP = 0.1  # share of the steps in which the rate rises
_LOGGED = 20  # losses that are kept of a training


@dataclass(frozen=True)
class Recipe:
    """How a tower is trained. tasks: whose pictures it sees, in equal parts; named: facts that captions name, None:
    all; steps of `batch_size` pictures at `lr`, which rises over a tenth of them and falls to 0.

    shift (px), blanked (share of the places), temperature (of cosines): of `views` alone.
    """

    objective: Objective
    tasks: tuple[str, ...]
    steps: int
    batch_size: int
    lr: float
    named: tuple[str, ...] | None = None
    shift: int | None = None
    blanked: float | None = None
    temperature: float | None = None

    def __post_init__(self) -> None:
        check_positive(self, "steps", "batch_size", where="recipes.")
        if not self.lr > 0:
            raise ValueError(f"recipes.lr={self.lr}: more than 0 is expected")
        if not self.tasks or len(set(self.tasks)) < len(self.tasks):
            raise ValueError(f"recipes.tasks={list(self.tasks)}: one or more different ones are expected")
        views = {name: getattr(self, name) for name in ("shift", "blanked", "temperature")}
        if self.objective == "captions" and (given := [name for name, value in views.items() if value is not None]):
            raise ValueError(f"recipes.{given[0]}: has no effect with objective=captions")
        if self.objective == "views":
            if self.named is not None:
                raise ValueError("recipes.named: has no effect with objective=views, which has no captions")
            known = self.shift is not None and self.blanked is not None and self.temperature is not None
            if not known or views["shift"] < 1 or not 0 <= views["blanked"] < 1 or not views["temperature"] > 0:
                raise ValueError(
                    f"recipes: shift={self.shift} blanked={self.blanked} temperature={self.temperature}: with "
                    "objective=views 1 px and more, a share below 1 and more than 0 are expected"
                )
        if self.named == ():
            raise ValueError("recipes.named=[]: captions name one fact or more")

    @property
    def layer(self) -> int:
        """Say which hidden state is the tower's features: the last one whose places something trains."""
        return -2 if self.objective == "captions" else -1


def train(
    encoder: HubEncoder,
    recipe: Recipe,
    patch: int,
    draw: Draw,
    say: Callable[[Facts], str],
    seed: int,
    progress: bool = False,
) -> list[float]:
    """Train a tower in place; returns mean losses of equal parts of the training. say: writes a caption."""
    model, rng = encoder.model, stream("captions", seed)
    generator = torch.Generator().manual_seed(stream("views", seed).getrandbits(63))
    parts: list[Any] = [model.requires_grad_(True).train()]
    views = None
    if recipe.objective == "views":
        assert recipe.shift is not None and recipe.blanked is not None and recipe.temperature is not None
        views = ViewLoss(encoder.width, patch, recipe.shift, recipe.blanked, recipe.temperature, seed)
        parts.append(views)
    trained = [value for part in parts for value in part.parameters()]
    optimizer = torch.optim.AdamW(trained, lr=recipe.lr, betas=(0.9, 0.98), weight_decay=0.01)
    losses = []
    for step in range(recipe.steps):
        pictures, facts = draw(step)
        pixels_BCHW = encoder.sight.pixels(pictures).to(model.device)
        if views is not None:
            loss = views(model, pixels_BCHW, generator)
        else:
            said = [named(one, recipe.named or tuple(one), rng) for one in facts]
            loss = caption_loss(encoder, pixels_BCHW, [say(one) for one in said], fits(facts, said))
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * schedule(step, recipe.steps, WARMUP)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        if progress and sys.stderr.isatty():
            print(f"\033[Kstep {step + 1} of {recipe.steps}, loss {losses[-1]:.3f}", end="\r", file=sys.stderr)
    model.requires_grad_(False).eval()
    if not math.isfinite(losses[-1]):
        raise ValueError(f"recipes.lr={recipe.lr}: the training diverged")
    return _means(losses, min(_LOGGED, len(losses)))


def _means(losses: Sequence[float], num: int) -> list[float]:
    edges = [round(len(losses) * part / num) for part in range(num + 1)]
    return [round(sum(losses[a:b]) / (b - a), 4) for a, b in itertools.pairwise(edges)]
