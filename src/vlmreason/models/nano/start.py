"""The composed start of a nano model: what an entry of the vocabulary is made of is known before anything is learned.

Each entry begins as the sum of the vectors of its parts: ` & \\cellcolor{yellow}6` of an ampersand, a mark and a six,
`(3,2)` of a coordinate, a row 3 and a column 2, ` Mar` and ` & Mar` share the month. It is a start and nothing more:
training changes the entries one by one, and what is saved is a plain table.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

EMBEDDING_STD = 0.1
PLACE_STD = 0.05
MATRIX_STD = 0.02
_OWN = 0.3  # of an entry's own vector, beside those of its parts
_SEED = 5  # of the parts: entries begin alike whatever the seed of the model
_CELL = re.compile(r"\((\d+),(\d+)\)")
_MARK = "\\cellcolor{yellow}"


def parts_of(entry: str) -> list[str]:
    """Return the parts of an entry of the vocabulary, by names that entries share."""
    if entry.startswith("<"):
        return [entry]
    parts, rest = [], entry
    for sign, name in ((" & ", "ampersand"), (" ", "space")):
        if rest.startswith(sign):
            parts, rest = [name], rest.removeprefix(sign)
            break
    if rest.startswith(_MARK):
        parts, rest = [*parts, "mark"], rest.removeprefix(_MARK)
    if cell := _CELL.fullmatch(rest):
        return [*parts, "cell", f"row {cell[1]}", f"column {cell[2]}"]
    if rest.endswith(":") and len(rest) > 1:
        parts, rest = [*parts, "colon"], rest[:-1]
    return [*parts, f"word {rest.lower()}"] if rest else parts or [entry]


@torch.no_grad()
def compose(weight_VD: Tensor, vocabulary: Mapping[str, int]) -> None:
    """Fill a table of embeddings with the composed start; `vocabulary` gives the row of each entry."""
    generator, known = torch.Generator().manual_seed(_SEED), dict[str, Tensor]()
    width = weight_VD.shape[1]
    for entry, row in sorted(vocabulary.items(), key=lambda item: item[1]):
        parts = parts_of(entry)
        for part in parts:
            if part not in known:
                known[part] = torch.randn(width, generator=generator)
        whole = torch.stack([known[part] for part in parts]).sum(dim=0) / math.sqrt(len(parts))
        weight_VD[row] = EMBEDDING_STD * (whole + _OWN * torch.randn(width, generator=generator))


@torch.no_grad()
def begin(model: Any, vocabulary: Mapping[str, int]) -> None:
    """Draw all weights of an untrained nano model anew, its embeddings composed."""
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            nn.init.normal_(parameter, std=PLACE_STD if "embed_positions" in name else MATRIX_STD)
        elif name.endswith("bias"):
            nn.init.zeros_(parameter)
    compose(model.get_input_embeddings().weight, vocabulary)
