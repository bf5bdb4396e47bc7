"""Ask towers about pairs of pictures, by statements (MMVP-VLM) or a linear read-out, beside the choices of their model.

Writes matches.json, with intervals, and pairs.jsonl.

Examples:
  vlmreason match task=mmvp_vlm_files task.data=MMVP_VLM/Questions.csv
  vlmreason match task=visual_pairs towers=[nano] readout=2000
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmreason.assembly import build
from vlmreason.assembly.matches import Settings, match

CONFIG = "match"


def run(cfg: dict[str, Any]) -> Path:
    """Ask, write the results, print a table; returns the file."""
    return match(build.settings(Settings, cfg), build.build_task(cfg))
