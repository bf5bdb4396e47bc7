"""Ask a trained model something in the terminal: one problem of a task, or a prompt and a picture of one's own.

A problem is answered as in an evaluation, and shown with expected response and verdict. With neither problem nor prompt
it asks what is typed, line by line: picture=FILE shows a picture from then on, an empty line ends.

Examples:
  vlmreason chat run=outputs/RUN index=3 level=hard view=image
  vlmreason chat run=outputs/RUN task=consecutive_table_readout index=0
  vlmreason chat run=outputs/RUN picture=table.png prompt='Read the marked path from (4,2) to (2,1).'
  vlmreason chat run=outputs/RUN
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from vlmreason.segments import Shown

CONFIG = "chat"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/chat.yaml."""

    run: str | None
    phase: str | None
    accelerator: Literal["auto", "cpu", "gpu"]
    index: int | None
    level: str | None
    view: Shown | None
    prompt: str | None
    picture: str | None

    def __post_init__(self) -> None:
        if self.index is not None:
            if self.index < 0:
                raise ValueError(f"index={self.index}: 0 or more is expected")
            if self.prompt is not None or self.picture is not None:
                raise ValueError(f"index={self.index}: a problem has a prompt and a picture of its own")
        elif self.level is not None:
            raise ValueError(f"level={self.level}: of a problem, which index=N names")


def run(cfg: dict[str, Any]) -> None:
    """Print what the model answers."""
    import sys

    from vlmreason.assembly import build, chatting
    from vlmreason.evaluation.shown import format_answer

    own = build.settings(Settings, cfg)
    if own.index is None and own.prompt is None and not sys.stdin.isatty():
        raise ValueError("prompt: must be given (prompt=...), or a problem (index=N): there is no terminal to type on")
    picture = chatting.read_picture(own.picture)
    partner = chatting.open_partner(cfg, own.run, own.phase, own.accelerator, sys.argv[2:])
    if own.index is not None:
        print(format_answer(partner.answer(own.index, own.level, own.view), prompt_lines=sys.maxsize))
    elif own.prompt is not None:
        print(partner.say(own.prompt, picture))
    else:
        chatting.talk(partner, picture)
