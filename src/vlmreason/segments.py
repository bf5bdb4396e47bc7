"""What a response is made of: segments, each of a kind, and the one table of the kinds.

Adding a kind is adding a row to `KINDS`: losses, weights, lengths and pages read the table. A task writes what kinds
it likes (`Task.response`) and says how a further one begins (`Task.markers`). Segments are plain data, which tasks
may make; that is why they lie below them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from vlmreason.structure import check_choice

Shown = Literal["text", "image", "both"]
"""How a model is asked: by the text form, by the picture, by both in one prompt."""
View = Literal["text", "image", "image_via_text", "both"]
VIEWS: tuple[str, ...] = get_args(View)
"""Supervision on one instance (section 2.4): text in; image in; image in, text written first. And text form and picture
in, answered as text is: a known case in which the picture lowers accuracy (arXiv 2604.16256)."""
WITH_TEXT, WITH_PICTURE = ("text", "both"), ("image", "image_via_text", "both")
"""The views whose prompts hold the text form, and those whose prompts hold the picture."""


@dataclass(frozen=True)
class Kind:
    """A kind of segments.

    number: what stands for it in `segments` tensors (0: prompt and padding); once given it stays. colours: its
    background on light and on dark pages. fades: whether its steps go as `thought_kept` falls (appendix I.7).
    acts: whether it is the action, whose tokens count whole in log pi; those of other kinds have the weight lambda
    (equation 4.3).
    """

    name: str
    number: int
    colours: tuple[str, str]
    words: str
    fades: bool = False
    acts: bool = False


CONDITION, CONVERT, CAPTION, PERCEPTION = "condition", "convert", "caption", "perception"
THOUGHT, ANSWER = "thought", "answer"
KINDS = (
    Kind(CONDITION, 6, ("#dff3f3", "#1c4548"), "of which kind the problem is"),
    Kind(CONVERT, 1, ("#e3ecfb", "#22345a"), "the picture written as text"),
    Kind(CAPTION, 4, ("#fbe4ec", "#552638"), "what the picture shows, in words"),
    Kind(PERCEPTION, 5, ("#efe6fa", "#3a2a5c"), "what one place of the picture shows"),
    Kind(THOUGHT, 2, ("#fdf1d7", "#4a3b16"), "the chain of thought", fades=True),
    Kind(ANSWER, 3, ("#dcf3e1", "#1d4429"), "the answer, or the action", acts=True),
)
"""In the order in which pages and files name them."""

SEGMENT_IDS: dict[str | None, int] = {None: 0, **{kind.name: kind.number for kind in KINDS}}
"""Number of each kind in `segments_BL`; 0 is prompt and padding."""
FADING = frozenset(kind.name for kind in KINDS if kind.fades)
ACTING = frozenset(kind.number for kind in KINDS if kind.acts)


@dataclass(frozen=True)
class Segment:
    """A stretch of a response.

    label: what it is about, where a response has several of a kind. steps: the parts of the text, up to its end, that
    can be dropped one after the other; (): the text is one step. Raises ValueError for a kind that the table lacks.
    """

    kind: str
    text: str
    label: str = ""
    steps: tuple[str, ...] = field(default=(), compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in SEGMENT_IDS:
            check_choice("segment kind", self.kind, (kind.name for kind in KINDS))
        assert self.text.endswith("".join(self.steps)), "the text ends with its steps"

    def without(self, num: int) -> Segment | None:
        """Drop the first `num` steps; None where none is left."""
        steps = self.steps or (self.text,)
        opening = self.text[: len(self.text) - sum(map(len, steps))]
        return in_steps(self.kind, steps[num:], self.label, opening) if num < len(steps) else None


def in_steps(kind: str, steps: Sequence[str], label: str = "", opening: str = "") -> Segment:
    """Make a segment of steps, joined as they are; the opening (a marker) stays as long as one of them does."""
    return Segment(kind, opening + "".join(steps), label, tuple(steps))


@dataclass(frozen=True)
class Response:
    """All that a model writes, or is to write, in segments."""

    segments: tuple[Segment, ...]

    @property
    def text(self) -> str:
        return "".join(segment.text for segment in self.segments)

    def text_of(self, kind: str) -> str:
        """Join the texts of all segments of a kind."""
        return "".join(segment.text for segment in self.segments if segment.kind == kind)

    def spans(self) -> list[tuple[str, int, int]]:
        """Return (kind, start, end) of each segment in the characters of `text`."""
        spans, start = [], 0
        for segment in self.segments:
            spans.append((segment.kind, start, start + len(segment.text)))
            start += len(segment.text)
        return spans
