"""MMVP (arXiv 2401.06209) from the user's disk: 300 pictures and Questions.csv, in which rows 2k - 1 and 2k are a pair.

Two answers as published are wrong: rows 100 and 280. Whether those of their partners are wrong too is disputed, so
`labels` says which are used: published; audit (the two corrected, as lmms-eval does); swapped (the partners too). With
audit these two pairs have one answer for both pictures.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from vlmreason.structure import check_choice
from vlmreason.tasks.base import Modality
from vlmreason.tasks.on_disk import DiskTask, Rows, shown
from vlmreason.tasks.pairs.base import LETTERS, cell
from vlmreason.tasks.pairs.files import PairFiles, pair_of, row_number, with_partners

CORRECTED: Mapping[str, frozenset[int]] = {
    "published": frozenset(),
    "audit": frozenset({100, 280}),
    "swapped": frozenset({99, 100, 279, 280}),
}
"""Rows, from 1, whose answer is the other one than is published."""

_OPTIONS = re.compile(r"\(a\)\s*(.+?)\s*\(b\)\s*(.+)", re.IGNORECASE | re.DOTALL)


@dataclass(frozen=True)
class MMVPState:
    """Row `number` from 1; `answer` 0 or 1, after correction."""

    number: int
    question: str
    choices: tuple[str, str]
    answer: int
    image: str


class MMVPFiles(PairFiles):
    """data: Questions.csv. images: the folder that the pictures' names are relative to. All are for testing."""

    name = "mmvp_files"
    version = 1
    state_type = MMVPState

    def __init__(
        self,
        sizes: Any = None,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        data: str | None = None,
        images: str | None = None,
        picture_name: str = "MMVP Images/{id}.jpg",
        labels: Literal["published", "audit", "swapped"] = "audit",
        checksums: str | None = None,
        max_megapixels: float = 50.0,
    ) -> None:
        DiskTask.__init__(self, sizes, trace, wording, data, images, checksums, None, "refuse", 0.1, max_megapixels)
        if picture_name.count("{id}") != 1:
            raise ValueError(f"task.picture_name={picture_name!r}: a path with {{id}} in it is expected")
        check_choice("task.labels", labels, CORRECTED)
        self.picture_name, self.labels = picture_name, labels

    def read(self, row: Any) -> MMVPState:
        question, options = (cell(row, name) for name in ("Question", "Options"))
        index, given = cell(row, "Index"), cell(row, "Correct Answer").strip().lower()
        number, found = row_number("Index", index), _OPTIONS.fullmatch(options.strip())
        if found is None:
            raise ValueError(f"Options={shown(options)}: (a) and (b) with words are expected")
        if given not in ("(a)", "(b)"):
            raise ValueError(f"Correct Answer={shown(given)}: (a) or (b) is expected")
        answer = LETTERS.index(given[1]) ^ (number in CORRECTED[self.labels])
        image = self.image(self.picture_name.replace("{id}", str(number)))
        return MMVPState(number, question.strip(), (found[1], found[2]), answer, image)

    def _check_pairs(self, rows: Rows[MMVPState]) -> None:
        """Raise ValueError for a row that is there twice, a picture without its partner, a pair with two questions."""
        for _, state, partner in with_partners(rows, "Index"):
            if (partner.question, partner.choices) != (state.question, state.choices):
                raise ValueError(f"{rows.path}: Index {state.number} and its partner ask different things")

    def groups(self, state: MMVPState) -> Mapping[str, str]:
        return {"pair": pair_of(state)}

    def prompt(self, state: MMVPState, modality: Modality) -> str:
        return self.asked(state, state.question)
