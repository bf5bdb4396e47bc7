"""Compare runs on the same problems: the paired difference by level and view, and their answers side by side.

Every further run is compared with the first, which all must have the problems of: the difference of both shares with
Newcombe's 95 % interval for pairs, problems that only one of the two has right, and McNemar's exact test. Needs no
model. out=report.html writes one page with the answers to problems on which they differ; of records, which keep few
responses, those that are there.

Examples:
  vlmreason compare run=outputs/RUN,outputs/OTHER
  vlmreason compare run=outputs/RUN,outputs/OTHER out=compared.html num=20
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "compare"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/compare.yaml."""

    run: tuple[str, ...]
    out: str | None
    num: int
    json: bool | None

    def __post_init__(self) -> None:
        if len(self.run) < 2 or len(set(self.run)) < len(self.run):
            raise ValueError(f"run={','.join(self.run)}: two or more different ones are expected, as run=A,B")
        if self.num < 1:
            raise ValueError(f"num={self.num}: 1 or more is expected")


def run(cfg: dict[str, Any]) -> Path | None:
    """Print the table; returns the page, where one is written."""
    import json

    from vlmreason import terminal
    from vlmreason.assembly import build
    from vlmreason.assembly.evaluations import open_marks, side_by_side
    from vlmreason.evaluation import paired
    from vlmreason.files import write_text_atomic
    from vlmreason.report.pages.comparison import page

    own = build.settings(Settings, cfg)
    opened = [open_marks(place) for place in own.run]
    marks = [one for _, one in opened]
    paired.check_same(marks)
    problems = paired.common(marks)
    found = list(paired.compare(marks, problems))
    as_json = terminal.prints_json(own.json)
    print(json.dumps([one.to_json(marks) for one in found]) if as_json else paired.format_comparison(marks, found))
    if own.out is None:
        return None
    names = [(paired.letter(number), one.run) for number, one in enumerate(marks)]
    examples = [side_by_side(opened, *at) for at in paired.differing(marks, problems, own.num)]
    try:
        write_text_atomic(Path(own.out), page(names, paired.HEADER, [paired.row(one) for one in found], examples))
    except OSError as error:
        raise ValueError(f"out={own.out}: cannot be written: {error.strerror}") from None
    return Path(own.out)
