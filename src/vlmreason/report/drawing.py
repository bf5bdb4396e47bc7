"""Artifacts as pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from vlmreason.report.records import Record
from vlmreason.report.results import Result


def draw(
    result: Result,
    styles: Mapping[str, tuple[str, str]],
    records: Sequence[Record],
    path: Path,
    formats: Sequence[str],
) -> list[Path]:
    """Draw an artifact into `<path>.<format>`; returns the files.

    `styles`: colour and marker by the name of a series. `records`: where pixel attributions are read.
    """
    return []
