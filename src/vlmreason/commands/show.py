"""Show answers of a run one by one: prompt, expected response, the model's own, verdict, first difference.

Needs no model. Shows the first wrong answers unless others are asked for; a table at the end counts those that there
are. With json=true every answer is one line of JSON, for pandas.

Examples:
  vlmreason show run=outputs/RUN
  vlmreason show run=outputs/RUN wrong=3 right=3 level=hard view=image
  vlmreason show run=outputs/RUN what=cut_off
  vlmreason show run=outputs/RUN json=true
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CONFIG = "show"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/show.yaml."""

    run: str
    folder: str | None
    wrong: int | None
    right: int | None
    what: Literal["unparsed", "cut_off"] | None
    level: str | None
    view: str | None
    prompt_lines: int
    json: bool

    def __post_init__(self) -> None:
        for name in ("wrong", "right", "prompt_lines"):
            if (getattr(self, name) or 0) < 0:
                raise ValueError(f"{name}={getattr(self, name)}: 0 or more is expected")


def run(cfg: dict[str, Any]) -> None:
    """Print the answers."""
    import json

    from vlmreason.assembly import build
    from vlmreason.assembly.evaluations import open_evaluation
    from vlmreason.evaluation.shown import Selection, answers, format_answer

    own = build.settings(Settings, cfg)
    found = open_evaluation(Path(own.run), own.folder)
    given = own.wrong is not None or own.right is not None
    wrong, right = (own.wrong or 0, own.right or 0) if given else (None, None) if own.json else (20, 0)
    selection = Selection(wrong, right, own.what)
    for one in answers(found.folder, found.task, found.split, selection, own.level, own.view):
        if own.json:
            print(json.dumps(one.to_json(found.run, found.task.name)))
        else:
            print(format_answer(one, own.prompt_lines) + "\n")
    if not own.json:
        print(selection.table())
