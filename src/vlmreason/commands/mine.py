"""Mine pairs of pictures that one tower finds alike and another one does not, over any folder of pictures.

What towers see is kept by content, and the search goes on where it was interrupted. Each picture counts once: further
files of the same pixels, and files that are no pictures, are named and counted. Writes pairs.jsonl, pairs.csv,
summary.json and pairs.html, a page with the pairs side by side.

Examples:
  vlmreason mine folder=photos
  vlmreason mine folder=photos towers=[nano,pixels] alike=0.999 unlike=0.5 thresholds=quantiles
  vlmreason mine folder=photos towers=[google/siglip-base-patch16-224,facebook/dinov2-base] out=outputs/siglip
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vlmreason.assembly import build
from vlmreason.assembly.searches import Settings, mine

CONFIG = "mine"


def run(cfg: dict[str, Any]) -> Path:
    """Search, write the results; returns the page."""
    return mine(build.settings(Settings, cfg))
