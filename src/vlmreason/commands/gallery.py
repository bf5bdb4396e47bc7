"""Make a page with examples of every task and environment.

In HTML all levels and views; the page holds its pictures and needs no server and no network. In Markdown one problem
of each, with its picture in a file of `pictures`.

Examples:
  vlmreason gallery
  vlmreason gallery scale=paper tasks=[grid_navigation] num=3 out=grids.html
  vlmreason gallery out=GALLERY.md
"""

from __future__ import annotations

import os
from collections.abc import Sequence
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
    pictures: str


def run(cfg: dict[str, Any]) -> Path:
    """Write the page; returns its path."""
    from vlmreason.assembly import build
    from vlmreason.files import write_bytes_atomic, write_text_atomic
    from vlmreason.pictures import png_bytes
    from vlmreason.report.pages import gallery

    own, scale = build.settings(Settings, cfg), build.build_scale(cfg)
    path = Path(own.out)
    shown = entries(own.tasks, scale, own.trace)
    if path.suffix != ".md":
        tasks = [entry.task for entry in shown]
        write_text_atomic(path, gallery.page(tasks, scale.name, own.split, own.first, own.num))
        return path
    if own.num != 1:
        raise ValueError(f"num={own.num}: a Markdown page shows 1 problem of each task")
    folder = Path(own.pictures)
    for name, picture in gallery.pictures(shown, own.split, own.first).items():
        write_bytes_atomic(folder / f"{name}.png", png_bytes(picture))
    where = os.path.relpath(folder, path.parent)
    write_text_atomic(path, gallery.markdown(shown, scale.name, own.split, own.first, Path(where).as_posix()))
    return path


def entries(names: Sequence[str] | None, scale: Any, trace: str | None = None) -> list[Any]:
    """Return the tasks of these names with what there is to say of them; None: all that need no data of the user's."""
    from vlmreason.assembly import build, catalog
    from vlmreason.report.pages.gallery import Entry

    folders = {name: group for group in ("task", "env") for name in catalog.groups()[group]}
    found = []
    for name in folders if names is None else names:
        task = build.load_task(name, scale, trace)
        if names is not None or not task.reads_files:
            view = catalog.file_content(folders[name], name).get("view", "image_via_text")
            found.append(Entry(name, task, view, f"conf/{folders[name]}/{name}.yaml"))
    return found
