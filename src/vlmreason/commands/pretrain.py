"""Pretrain the nano model on generic skills: how the base that ships with the package was made.

A phase with marks ends as soon as they are reached, and the next one does not begin before (trainer.marks).

Examples:
  vlmreason pretrain
  vlmreason pretrain seed=1 out=bases
  vlmreason pretrain layout=placed supervision=nano_reading
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CONFIG = "pretrain"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/pretrain.yaml."""

    seed: int
    out: str
    layout: Literal["rotary", "placed"] = "rotary"
    smoke: bool = False


def run(cfg: dict[str, Any]) -> Path | None:
    """Pretrain from an untrained model; returns the run directory, None in all but the first of several processes."""
    import functools
    import sys

    from vlmreason import runs
    from vlmreason.assembly import beginnings, build, compose

    own, supervision = build.settings(Settings, cfg), build.build_supervision(cfg)
    tasks, optimizer, trainer = build.build_tasks(cfg), build.build_optimizer(cfg), build.build_trainer(cfg)
    from vlmreason.models.nano.model import NanoSettings, build_nano, read_vocabulary, read_words
    from vlmreason.models.vlm.learner import Learner
    from vlmreason.training.engine import strategies
    from vlmreason.training.engine.console import Lost, Stopped
    from vlmreason.training.engine.runner import train
    from vlmreason.training.supervised import pretrain

    pretrain.check_untrained(cfg["model"])
    build.quieten()
    settings, words = NanoSettings(), [*read_vocabulary(), *read_words(), *pretrain.vocabulary_texts(tasks.values())]
    if own.layout == "placed":
        settings = NanoSettings(placed=True, start="composed")
    learner = Learner(*build_nano(settings, words, own.seed))
    pretrain.check_vocabulary(learner, tasks.values())
    folder = runs.open_run(cfg)
    logger = build.build_logger(cfg, folder)
    if trainer.progress and strategies.is_first():
        print(f"vlmreason: {compose.differences(sys.argv[2:])}", file=sys.stderr)
    measure = functools.partial(pretrain.skill_accuracy, tasks=tasks)
    try:
        with beginnings.build_beginnings(cfg, None, folder) as shared:
            train(
                learner, tasks, supervision, None, own.seed, optimizer, trainer, folder, logger, measure,
                shared=shared,
            )  # fmt: skip
    except Stopped as stopped:
        if not strategies.is_first() and not isinstance(stopped, Lost):
            return None  # the first process says it
        raise KeyboardInterrupt(f"{stopped}; the same command goes on in {folder}") from None
    first = strategies.is_first()
    strategies.leave()
    return folder if first else None
