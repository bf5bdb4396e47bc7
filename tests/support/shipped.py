"""The tasks of conf/task that sample their problems, at the scales of conf/scale, as the commands build them."""

import functools
from typing import Any

from omegaconf import OmegaConf

from support.sampled import TASKS
from vlmreason import places
from vlmreason.assembly.build import load_task
from vlmreason.scale import Scale
from vlmreason.structure import structure
from vlmreason.tasks.base import Task

SCALES = ("nano", "paper")
SKILLS = [name for name in TASKS if name.endswith("_skills")]


@functools.cache
def shipped(name: str, scale: str = "nano", trace: str | None = None) -> Task[Any]:
    data = OmegaConf.to_container(OmegaConf.load(places.conf_dir() / "scale" / f"{scale}.yaml"))
    return load_task(name, structure(Scale, data, "scale"), trace)
