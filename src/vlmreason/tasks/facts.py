"""What a picture shows, as facts that captions name or leave out: what towers of pictures and texts are taught by.

A task whose pictures have such facts says which there are (`nameable`), those of one problem (`named_in`) and how a
caption says one (`phrase`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Factual(Protocol):
    """A task whose pictures have facts."""

    name: str

    @property
    def nameable(self) -> Mapping[str, tuple[str, ...]]:
        """Say which facts every picture has, each with all of its values."""

    def named_in(self, state: Any) -> Mapping[str, str]:
        """Give the value of each fact in one picture."""

    def phrase(self, fact: str, value: str) -> str:
        """Say a fact as a part of a caption, behind "a photo of"."""
