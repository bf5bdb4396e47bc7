"""The sentence that says of which kind an abstract puzzle is: made by rules of a grammar (regular), or one of its own.

A response may begin with it (LLaVA-AVR, arXiv 2504.01324, conditional multi-task learning).
"""

from __future__ import annotations

REGULAR, IRREGULAR = KINDS = ("regular", "irregular")
SENTENCES = {
    "terse": {REGULAR: "Kinds rows\n", IRREGULAR: "Kinds free\n"},
    "verbose": {REGULAR: "Kind: regular.\n", IRREGULAR: "Kind: irregular.\n"},
}
"""By the trace of a task; all of one begin with the same word, which begins nothing else."""
