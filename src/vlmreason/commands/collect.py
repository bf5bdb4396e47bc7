"""Keep the records of the runs that experiments use, so that their figures are drawn without the runs.

A record is a small JSON file: configuration, source, cost, scores problem by problem, analyses and a few responses.
What no figure shows is left out: lists of the worst responses, and top pixels but for figures that draw them. A record
that is there is replaced by one that has all it has, and never by one that lacks an evaluation or analysis.

Examples:
  vlmreason collect 'experiment=glob(s2h/*)'
  vlmreason collect experiment=s2h/fig5 runs=/data/outputs scale=paper
  vlmreason collect experiment=[s2h/fig5,s2h/table8] to=records
"""

from __future__ import annotations

import math
import sys
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "collect"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/collect.yaml."""

    experiment: str | tuple[str, ...]
    set: tuple[str, ...]
    runs: str
    to: str | None


def run(cfg: dict[str, Any]) -> Path | None:
    """Write the records of each study; returns their folder if it is one."""
    from vlmreason.assembly import build, compose, planning
    from vlmreason.studies import artifacts
    from vlmreason.studies.needs import needs

    own = build.settings(Settings, cfg)
    compose.check_scale_words(sys.argv[2:])
    scale, names, runs = build.build_scale(cfg).name, artifacts.chosen(own.experiment), Path(own.runs)
    if not runs.is_dir():
        raise ValueError(f"runs={own.runs}: no such folder")
    studies = artifacts.studies(names)
    library = planning.open_library(scale, studies, runs)
    for study in studies:
        to = Path(own.to) if own.to else artifacts.folder() / study / "results" / scale
        own_names = [name for name in names if name.startswith(f"{study}/")]
        found = needs(own_names, scale, library, compose.typed(own.set))
        outcomes = Counter(
            _keep(need.found.record.data, to, "pixels" in need.draws) for need in found if need.run_dir is not None
        )
        _report(to, outcomes, found)
    return to if len(studies) == 1 or own.to else None


def _keep(data: Mapping[str, Any], to: Path, pixels: bool) -> str:
    """Write a record below `to`, without what is not needed; returns what was done."""
    from vlmreason.structure import one_line
    from vlmreason.studies.records import Record, read_record

    path = to / f"{data['run']}.json"
    held = None
    if path.exists():
        try:
            held = read_record(path)
        except ValueError as error:
            print(f"vlmreason: {one_line(str(error))}; it is replaced", file=sys.stderr)
    record = Record(slim(data, pixels or (held is not None and held.has_pixels)), path)
    if held is None:
        record.write(path)
        return "written"
    if held.data == record.data:
        return "unchanged"
    if lost := sorted(_contents(held.data) - _contents(record.data)):
        print(f"vlmreason: {path} is kept: the run lacks {', '.join(lost)}, which it has", file=sys.stderr)
        return "kept"
    if record.data["provenance"]["time"] < held.data["provenance"]["time"]:
        print(f"vlmreason: {path} is kept: the run is older", file=sys.stderr)
        return "kept"
    record.write(path)
    return "replaced"


def _contents(data: Mapping[str, Any]) -> set[str]:
    """Names of a record's evaluations and analyses, and of the problems that they are about."""
    found = {f"analysis {name}" for name in data["analyses"]}
    if data.get("training"):
        found.add("evaluations while training")
    for one in data["evaluations"]:
        for cell in one["cells"]:
            asked = f"how={one['how']}" if "how" in one else f"conversion={one['conversion']}"
            asked += f", length={one['length']}" if "length" in one else ""
            what = f"{one['task']} {cell['level']} {cell['view']} with {asked} ({one['phase']})"
            found.add(f"evaluation of {what}")
    return found


def slim(data: Mapping[str, Any], pixels: bool) -> dict[str, Any]:
    """Return a record's data without the ids of the worst responses, without top pixels unless they are wanted, and
    with the numbers of analyses in 6 digits."""
    without = {"worst"} if pixels else {"worst", "examples"}
    analyses = {
        name: {
            **analysis,
            "results": [_short({k: v for k, v in group.items() if k not in without}) for group in analysis["results"]],
        }
        for name, analysis in data["analyses"].items()
    }
    return {**data, "analyses": analyses}


def _short(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _short(below) for key, below in value.items()}
    if isinstance(value, list):
        return [_short(below) for below in value]
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{value:.6g}")
    return value


def _report(to: Path, outcomes: Mapping[str, int], needs: list[Any]) -> None:
    done = ", ".join(f"{number} {outcome}" for outcome, number in sorted(outcomes.items()))
    sizes = [path.stat().st_size for path in to.glob("*.json")]
    size = f"; {len(sizes)} files, {sum(sizes) / 1000:.0f} kB, the largest {max(sizes) / 1000:.0f} kB" if sizes else ""
    print(f"{to}: {done or 'nothing to collect'}{size}")
    missing, partly = (sum(need.found is None for need in needs), sum(bool(need.lacking) for need in needs))
    if missing or partly:
        parts = f", {partly} lack something that is measured after training" if partly else ""
        print(
            f"{missing} of {len(needs)} runs are missing{parts}; `vlmreason sweep` with the same experiment makes them"
        )
