"""Pattern-Heldout Visual Analogy (section G.2): hard problems differ from simple ones by their pattern alone.

As Visual Analogy, but in hard problems too the examples and the query share one attribute; (attribute,
relation) is held out.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from vlmreason.tasks.analogies.panels import AnalogySizes
from vlmreason.tasks.analogies.visual_analogy import PAPER_HELD_OUT, VisualAnalogy


class PatternHeldoutVisualAnalogy(VisualAnalogy):
    name = "pattern_heldout_visual_analogy"
    version = 1

    def __init__(
        self,
        sizes: AnalogySizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        text_form: str = "lossy",
        held_out: Iterable[Sequence[str]] = PAPER_HELD_OUT,
    ) -> None:
        super().__init__(sizes, trace, wording, text_form, held_out, num_domains=1)
