"""Where the shipped bases of the nano model lie, and which came first."""

from __future__ import annotations

from pathlib import Path

BASE, _SCENES, _READER = (Path(__file__).parent / name for name in ("base", "scenes", "reader"))
BASES = {"nano": BASE, "nano_scenes": _SCENES, "nano_reader": _READER}
"""The weights that ship with the package, by the model's name."""

FIRST = {"nano": "2c8c82167a826c9074fdc84608e77642", "nano_scenes": "3b24c44e1184a04eb24c2b30338db234"}
"""Digests (runs.checkpoint_digest) of the bases of runs that do not note theirs."""
