"""Draw the paper's tables and figures from the runs that are there, the paper's own numbers beside them.

Runs are found by their settings: records that came with the package (experiments/<study>/results) and the run
directories in `runs`. Each artifact becomes a picture, a Markdown table and a JSON file in which every cell names its
runs. Runs that are missing are listed, with the command that makes them and about what it costs; nothing is trained
here.

Examples:
  vlmreason figure experiment=s2h/fig5
  vlmreason figure 'experiment=glob(s2h/*)'
  vlmreason figure experiment=[s2h/fig5,s2h/table8] scale=paper runs=outputs formats=[png,pdf]
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CONFIG = "figure"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/figure.yaml."""

    experiment: str | tuple[str, ...]
    set: tuple[str, ...]
    runs: str
    out: str
    formats: tuple[Literal["png", "pdf", "svg"], ...]

    def __post_init__(self) -> None:
        if not self.formats:
            raise ValueError("formats=[]: one or more of png, pdf, svg is expected")


def run(cfg: dict[str, Any]) -> Path:
    """Draw the artifacts; returns the folder of the results."""
    from vlmreason.assembly import build, compose, planning
    from vlmreason.report import writing
    from vlmreason.report.figures import kept
    from vlmreason.studies import artifacts
    from vlmreason.studies.library import collect, line

    own = build.settings(Settings, cfg)
    compose.check_scale_words(sys.argv[2:])
    out, scale, names = Path(own.out), build.build_scale(cfg).name, artifacts.chosen(own.experiment)
    library = planning.open_library(scale, artifacts.studies(names), Path(own.runs))
    extra = compose.typed(own.set)
    results = []
    for place, name in enumerate(names):
        planning.show_progress("drawing", place, len(names))
        result = collect(name, scale, library, extra)
        results.append(result)
        styles = artifacts.read_study(name.partition("/")[0]).styles
        kept.draw(
            result, styles, library.records, out / name, own.formats, lambda record: build.build_task(record.config)
        )
        writing.write(result, out / name)
        planning.clear_progress()
        print(line(result), flush=True)
    if price := planning.price_of_missing(results, library, extra):
        print(price)
    return out
