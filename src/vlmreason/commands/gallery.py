"""Make one HTML page with examples of every task, level and view.

The page holds its pictures and needs no server and no network.

Examples:
  vlmreason gallery
  vlmreason gallery scale=paper tasks=[grid_navigation] num=3 out=grids.html
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CONFIG = "gallery"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/gallery.yaml."""

    tasks: tuple[str, ...] | None
    split: str
    num: int
    first: int
    trace: Literal["terse", "verbose"] | None
    out: str


def run(cfg: dict[str, Any]) -> Path:
    """Write the page; returns its path."""
    from vlmreason.assembly import build, catalog
    from vlmreason.files import write_text_atomic
    from vlmreason.report.pages.gallery import page

    own, scale = build.settings(Settings, cfg), build.build_scale(cfg)
    names = catalog.groups()["task"] if own.tasks is None else own.tasks
    tasks = [build.load_task(name, scale, own.trace) for name in names]
    tasks = [task for task in tasks if own.tasks is not None or not task.reads_files]
    path = Path(own.out)
    write_text_atomic(path, page(tasks, scale.name, own.split, own.first, own.num))
    return path
