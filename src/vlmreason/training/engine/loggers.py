"""Where curves go beside the run directory's own files: a CSV file, TensorBoard's, or Weights & Biases."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger


@dataclass(frozen=True)
class LoggerSettings:
    """conf/logger/. `mode` auto: online when somebody is logged in, else offline."""

    name: Literal["csv", "tensorboard", "wandb"]
    project: str = "vlmreason"
    entity: str | None = None
    mode: Literal["auto", "online", "offline", "disabled"] = "auto"

    def __post_init__(self) -> None:
        if self.name == "tensorboard" and importlib.util.find_spec("tensorboard") is None:
            raise ValueError('logger=tensorboard: the package is not installed: pip install "vlmreason[tensorboard]"')


def make_logger(settings: LoggerSettings, folder: Path) -> Logger:
    """Return the logger of a run directory. Raises ValueError for mode=online without a login.

    A run that goes on after a stop begins a new version_<n> in csv/ or tensorboard/: the earlier ones are kept.
    """
    if settings.name == "csv":
        return CSVLogger(folder, name="csv")
    if settings.name == "tensorboard":
        return TensorBoardLogger(folder, name="tensorboard")
    mode = ("online" if _logged_in() else "offline") if settings.mode == "auto" else settings.mode
    if mode == "online" and not _logged_in():
        raise ValueError("logger.mode=online: nobody is logged in; run `wandb login`, or take logger.mode=offline")
    return WandbLogger(
        name=folder.name, project=settings.project, entity=settings.entity, save_dir=folder, mode=mode
    )  # fmt: skip


def _logged_in() -> bool:
    """Whether a key for Weights & Biases is at hand, by its own look-up: environment, settings, netrc."""
    import wandb

    return bool(wandb.api.api_key)
