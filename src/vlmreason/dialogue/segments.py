"""The kinds of segments that a response has, and how a problem is shown."""

from __future__ import annotations

from dataclasses import dataclass

VIEWS = ("text", "image", "image_via_text")
"""Supervision on one instance (section 2.4): text in; image in; image in, text written first."""

CONVERT, THOUGHT, ANSWER = "convert", "thought", "answer"


@dataclass(frozen=True)
class Segment:
    kind: str
    text: str


@dataclass(frozen=True)
class Response:
    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        return "".join(segment.text for segment in self.segments)

    def spans(self) -> list[tuple[str, int, int]]:
        """(kind, start, end) of each segment in the characters of `text`."""
        spans, start = [], 0
        for segment in self.segments:
            spans.append((segment.kind, start, start + len(segment.text)))
            start += len(segment.text)
        return spans


SEGMENT_IDS = {None: 0, CONVERT: 1, THOUGHT: 2, ANSWER: 3}
"""Number of each segment kind in `segments_BL`; 0 is prompt and padding."""
