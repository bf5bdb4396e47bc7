"""Look into a run: what its responses get wrong, how likely they are, its gradients, the pixels its traces come from.

Prints a table and writes <run>/analysis/<what>.json. A result of the same settings, code and weights is shown again,
one of others is replaced; either is said. What there is to look for is listed below.

Examples:
  vlmreason analyze run=outputs/RUN what=failures
  vlmreason analyze run=outputs/RUN what=gradients num=64 train=[language_model]
  vlmreason analyze run=outputs/RUN what=attribution levels=[hard] out=hard.json
  vlmreason analyze run=outputs/RUN what=likelihood num=200 temperature=0.5
  vlmreason analyze run=outputs/RUN what=passes samples=8 temperature=0.5
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

CONFIG = "analyze"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/analyze.yaml. The others there are those of analyses, null: not given."""

    run: str
    what: str
    out: str | None
    accelerator: Literal["auto", "cpu", "gpu"]


def run(cfg: dict[str, Any]) -> Path:
    """Print the table; returns the file of the result."""
    from vlmreason.assembly import analyses
    from vlmreason.structure import structure

    names = Settings.__dataclass_fields__
    own = structure(Settings, {key: value for key, value in cfg.items() if key in names})
    keys = [key for key in cfg if key not in names]
    given = {key: cfg[key] for key in keys if cfg[key] is not None}
    out = Path(own.out) if own.out else None
    return analyses.analyze(Path(own.run), own.what, given, keys, own.accelerator, out)
