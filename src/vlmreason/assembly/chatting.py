"""A model that is asked by hand: a problem of its task, or whatever a person types."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vlmreason import runs
from vlmreason.answering.responses import answers
from vlmreason.answering.settings import EvaluationSettings
from vlmreason.assembly import build, catalog
from vlmreason.assembly.scales import choose_sizes
from vlmreason.evaluation.predictions import Prediction
from vlmreason.evaluation.scores import judge
from vlmreason.evaluation.shown import Exhibit, show
from vlmreason.models.contract import Prompt
from vlmreason.pictures import Picture, open_picture
from vlmreason.segments import Shown
from vlmreason.tasks.base import Task
from vlmreason.terminal import printable

MAX_MEGAPIXELS = 50


@dataclass(frozen=True)
class Partner:
    """A model with the task whose problems it may be asked (None: it has none), and how it answers."""

    learner: Any
    task: Task[Any] | None
    settings: EvaluationSettings

    def answer(self, index: int, level: str | None, view: Shown | None) -> Exhibit:
        """Let it answer a problem as in an evaluation, and judge that. Raises ValueError."""
        if self.task is None:
            raise ValueError(f"index={index}: of a task, which task=... names")
        level, split = level or self.task.levels[0], self.settings.split
        build.check_level(self.task, level)
        there = self.task.num_problems(level, split)
        if there is not None and index >= there:
            raise ValueError(f"index={index}: {self.task.name} has {there} {split} problems of level {level}")
        view = view or ("image" if "image" in self.settings.views else self.settings.views[0])
        problem = self.task.sample(level, split, index)
        (made,) = answers(self.learner, self.task, [problem.state], view, self.settings)
        prediction = Prediction(problem.id, made.text, view, made.num_tokens, made.finished)
        return show(self.task, level, view, split, prediction, judge(self.task, problem.state, made.text))

    def say(self, text: str, picture: Picture | None) -> str:
        """Return its response to a prompt, fit for a terminal. Raises ValueError for what it cannot be asked."""
        side = getattr(getattr(self.learner, "processor", None), "pictures", None)
        side = getattr(side, "side", None)
        if picture is not None and side is not None and picture.shape[:2] != (side, side):
            print(f"vlmreason: the picture is stretched to the model's {side} x {side} px", file=sys.stderr)
            picture = np.asarray(Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC))
        prompt = Prompt(text, picture, self.settings.prefill)
        (made,) = self.learner.generate([prompt], self.settings.max_new_tokens)
        return printable(made.text) + ("" if made.finished else " ... (at evaluation.max_new_tokens)")


def open_partner(
    cfg: Mapping[str, Any], run: str | None, phase: str | None, accelerator: str, words: list[str]
) -> Partner:
    """Load the model of a run, or one by its name alone. Raises ValueError."""
    if run is None:
        if "model" not in cfg:
            raise ValueError("run: must be given (run=...), or a model (model=...)")
        if phase is not None:
            raise ValueError(f"phase={phase}: of a run, which run=... names")
        cfg = {"scale": catalog.tree_of("scale/nano"), **cfg}
        cfg = choose_sizes(cfg, words) if "task" in cfg and "sizes" not in cfg["task"] else cfg
        if cfg["evaluation"]["conversion"] == "auto":
            cfg = {**cfg, "evaluation": {**cfg["evaluation"], "conversion": "free"}}
        checkpoint = None
    else:
        if "model" in cfg:
            raise ValueError(f"model={cfg['model']['name']}: has no effect beside run={run}, whose model is asked")
        cfg = build.with_run(cfg, build.read_run(Path(run)), words)
        checkpoint = runs.find_checkpoint(Path(run), phase)
    task = build.evaluated(build.build_task(cfg)) if "task" in cfg else None
    settings = build.build_evaluation(cfg)
    learner = build.build_learner(cfg, checkpoint)
    build.place(learner, accelerator)
    return Partner(learner, task, settings)


def read_picture(file: str | None) -> Picture | None:
    """Read a picture of the user's. Raises ValueError naming it."""
    if file is None:
        return None
    try:
        return np.asarray(open_picture(Path(file), MAX_MEGAPIXELS, f"{MAX_MEGAPIXELS} million pixels"))
    except ValueError as error:
        raise ValueError(f"picture={file}: {error}") from None


def talk(partner: Partner, picture: Picture | None) -> None:
    """Ask what is typed, line by line, until an empty one."""
    print("A prompt and Enter; picture=FILE shows a picture from then on; an empty line ends.", file=sys.stderr)
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            return
        if not line:
            return
        try:
            if line.startswith("picture="):
                picture = read_picture(line.removeprefix("picture=") or None)
            else:
                print(partner.say(line, picture))
        except ValueError as error:
            print(f"vlmreason: {error}", file=sys.stderr)
