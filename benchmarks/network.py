"""Training steps of the SmarterVLM network on kept features of the published shape, and what an epoch of them takes.

    python benchmarks/network.py                      # every form of the QF layer, in float32 and with bfloat16
    python benchmarks/network.py tokens 32-true 12 1  # one form, one precision, so many steps and threads

Features are numbers at random in the shape that DINOv2 and SigLIP give: 16 places of 768 + 768, 64 tokens of 768, kept
in files as in a run. 101 kinds of puzzles, 128 examples a step, sizes and optimizer of the published model. A step is
reading, loss, gradients, clipping and the optimizer. Seconds are those of the processor over the threads that compute,
so that other work disturbs little; an epoch has 101 x 1,200 rows.
"""

import itertools
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import torch
from drawing import machine

from vlmreason.answers import AnswerSpace
from vlmreason.models.networks.encoders import Texts, Tower
from vlmreason.models.networks.smarter_net import SmarterNet
from vlmreason.models.networks.smarter_settings import Reader, Sizes
from vlmreason.models.networks.smarter_vlm import Seen, SmarterLearner
from vlmreason.models.networks.store import KEY, FeatureStore
from vlmreason.structure import structure
from vlmreason.training.engine.optimizers import OptimizerSettings, build_optimizers

FORMS, PRECISIONS = ("tokens", "pooled", "none"), ("32-true", "bf16-mixed")
KINDS, SEQUENCES, CLASSES, BATCH, ROWS = 101, 6, 40, 128, 2048
EPOCH = KINDS * 1200
SKIPPED = 2  # steps at the beginning


class RandomTower(Tower):
    """A tower that has seen ROWS pictures."""

    def __init__(self, name: str, places: int, folder: Path) -> None:
        self.places, self.width, self.source = places, 768, None
        self.store = filled(folder, name, places * self.width)


class RandomTexts(Texts):
    """A text encoder that has read ROWS questions, filled up to 64 tokens."""

    def __init__(self, folder: Path) -> None:
        self.settings, self.width, self.source = Reader("random", tokens=64, padded=True), 768, None
        self.store = filled(folder, "text", 1 + 64 * self.width, first=64)


def filled(folder: Path, name: str, width: int, first: float | None = None) -> FeatureStore:
    store, rng = FeatureStore(folder, name, width), np.random.default_rng(0)
    for begin in range(0, ROWS, 256):
        vectors = rng.standard_normal((256, width), np.float32).astype(np.float16)
        if first is not None:
            vectors[:, 0] = first
        store.add([row.to_bytes(KEY, "big") for row in range(begin, begin + 256)], vectors)
    return store


def learner(form: str, folder: Path) -> SmarterLearner:
    """Make the published network on features of the width that this form reads."""
    kinds = {
        f"{kind}": AnswerSpace(tuple(map(str, range(CLASSES))), 10 if kind < SEQUENCES else 1) for kind in range(KINDS)
    }
    places = 16 if form == "tokens" else 1
    towers: list[Tower] = [RandomTower(f"{name}-{places}", places, folder) for name in ("dinov2", "siglip")]
    sizes = structure(Sizes, {"qf": form}, "sizes")
    torch.manual_seed(0)
    return SmarterLearner(towers, RandomTexts(folder), SmarterNet(kinds, (1536, 768), sizes))


def examples(num_steps: int) -> Iterator[list[Seen]]:
    """Draw the examples of each step."""
    rng = np.random.default_rng(1)
    for _ in range(num_steps):
        rows, kinds = rng.integers(ROWS, size=(BATCH, 2)), rng.integers(KINDS, size=BATCH)
        yield [
            Seen((int(picture), int(picture)), int(text), str(kind), (1,) * (10 if kind < SEQUENCES else 1))
            for (picture, text), kind in zip(rows, kinds, strict=True)
        ]


def measure(form: str, precision: str, num_steps: int, folder: Path) -> tuple[float, float, float, float]:
    """Return seconds of reading, of loss and gradients, of the optimizer, each by step, and of a step on the clock."""
    made = learner(form, folder)
    model = made.model.train()
    settings = OptimizerSettings("adamw", 3e-4, betas=(0.9, 0.98), weight_decay=0.2)
    [optimizer] = build_optimizers(settings, model.named_parameters())
    half = torch.autocast("cpu", torch.bfloat16) if precision == "bf16-mixed" else nullcontext()
    spent: list[tuple[float, float, float, float]] = []
    for batch in examples(num_steps + SKIPPED):
        clock, times = time.perf_counter(), [time.process_time()]
        collated = made.processor.collate(batch)
        times.append(time.process_time())
        with half:
            losses_B, _ = made.token_losses(collated)
        loss: Any = losses_B.mean()
        loss.backward()
        times.append(time.process_time())
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        times.append(time.process_time())
        reading, computing, stepping = (b - a for a, b in itertools.pairwise(times))
        num = torch.get_num_threads()
        spent.append((reading, computing / num, stepping / num, time.perf_counter() - clock))
    reading, computing, stepping, clock = (statistics.median(column) for column in zip(*spent[SKIPPED:], strict=True))
    return reading, computing, stepping, clock


def main() -> None:
    torch.set_num_threads(int((sys.argv[4:5] or ["2"])[0]))
    print(machine())
    forms, precisions = (sys.argv[1:2] or FORMS), (sys.argv[2:3] or PRECISIONS)
    print("qf      precision   reading  gradients  optimizer  step (ms)  on the clock  epoch (s)")
    with tempfile.TemporaryDirectory() as folder:
        for form, precision in itertools.product(forms, precisions):
            *parts, clock = measure(form, precision, int((sys.argv[3:4] or ["12"])[0]), Path(folder))
            step = sum(parts)
            shown = [1e3 * value for value in (*parts, step, clock)]
            print(f"{form:6}  {precision:10}{shown[0]:9.0f}{shown[1]:11.0f}{shown[2]:11.0f}{shown[3]:11.0f}", end="")
            print(f"{shown[4]:14.0f}{step * EPOCH / BATCH:11.0f}")
    print(f"memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20:.2f} GB with mapped files")


if __name__ == "__main__":
    main()
