"""Measure which generic skills a base has: every level of the skill tasks, in text and in pictures, whole replies.

Replies are written greedily, and right when they are the skill's own from the first token to the end. With `card` the
table is put into that README.md, in place of the one that is there.

Examples:
  vlmreason skills
  vlmreason skills model.checkpoint=outputs/RUN/checkpoints/final num=30 tasks=[grid_reading_skills]
  vlmreason skills model.checkpoint=base card=base/README.md
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "skills"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/skills.yaml."""

    tasks: tuple[str, ...]
    num: int
    card: str | None
    accelerator: str
    json: bool | None


def run(cfg: dict[str, Any]) -> None:
    """Print share of whole replies by skill and view, and write it into a card."""
    import json

    from vlmreason import terminal
    from vlmreason.assembly import build
    from vlmreason.report.card import with_skills
    from vlmreason.structure import check_positive
    from vlmreason.training.supervised.marks import exact_share
    from vlmreason.training.supervised.pretrain import check_vocabulary

    own, scale = build.settings(Settings, cfg), build.build_scale(cfg)
    check_positive(own, "num")
    if own.card is not None and not Path(own.card).is_file():
        raise ValueError(f"card={own.card}: no such file; the README.md of a base is expected")
    tasks = [build.load_task(name, scale) for name in own.tasks]
    build.quieten()
    learner = build.build_learner(cfg)
    check_vocabulary(learner, tasks)
    build.place(learner, own.accelerator)
    rows: list[dict[str, Any]] = []
    for task in tasks:
        for level in task.levels:
            views = task.shown(level, ("text", "image"))
            shares = {view: round(exact_share(learner, task, level, view, own.num), 4) for view in views}
            rows.append({"task": task.name, "level": level, "num": own.num, **shares})
    if terminal.prints_json(own.json):
        print("\n".join(map(json.dumps, rows)))
    else:
        shown: list[list[str]] = [
            [row["task"], row["level"], *(f"{row[view]:.1%}" if view in row else "-" for view in ("text", "image"))]
            for row in rows
        ]
        print(terminal.columns(["task", "skill", "text", "image"], shown, left=2))
    if own.card is not None:
        from vlmreason.files import write_text_atomic

        write_text_atomic(Path(own.card), with_skills(Path(own.card).read_text(encoding="utf-8"), rows))
