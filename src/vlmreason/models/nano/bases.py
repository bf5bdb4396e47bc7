"""Where the shipped bases of the nano model lie, and which came first."""

from __future__ import annotations

from pathlib import Path

BASE, _FIRST = (Path(__file__).parent / name for name in ("base", "first"))
BASES = {"nano": BASE, "nano_first": _FIRST}
"""The weights that ship with the package, by the model's name."""

FIRST = {"nano": "2c8c82167a826c9074fdc84608e77642"}
"""Digests (runs.checkpoint_digest) of the bases of runs that do not note theirs, by the name the model had then."""
