"""MMVP-VLM (arXiv 2401.06209, section 3.3) from the user's disk: pairs of pictures with a statement of each.

Rows 2k - 1 and 2k are a pair and have a pattern in common, the file's own name of it. The benchmark matches pictures
and statements by a contrastive model (`vlmreason match`); a model that writes or chooses is asked which of both
statements fits the picture. Folders of pictures are named in two ways, and either is taken.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vlmreason.tasks.base import Modality
from vlmreason.tasks.on_disk import DiskTask, Rows, shown
from vlmreason.tasks.pairs.base import cell
from vlmreason.tasks.pairs.files import PairFiles, pair_of, row_number, with_partners

FOLDERS = ("MMVP_VLM_Images", "MLLM_VLM Images")
"""Names of the folder of pictures, in which there is one for each pattern."""


@dataclass(frozen=True)
class StatementState:
    """Row `number` from 1; `choices`: the statements of this row and of its partner, in the order in which they are
    asked, `answer` the place of its own."""

    number: int
    pattern: str
    choices: tuple[str, str]
    answer: int
    image: str


class MMVPVLMFiles(PairFiles):
    """data: Questions.csv. columns: its names of number, pattern and statement. All pairs are for testing."""

    name = "mmvp_vlm_files"
    version = 1
    state_type = StatementState

    def __init__(
        self,
        sizes: Any = None,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        data: str | None = None,
        images: str | None = None,
        columns: tuple[str, str, str] = ("Question ID", "Type", "Statement"),
        checksums: str | None = None,
        max_megapixels: float = 50.0,
    ) -> None:
        DiskTask.__init__(self, sizes, trace, wording, data, images, checksums, None, "refuse", 0.1, max_megapixels)
        if len(set(columns)) != 3:
            raise ValueError(
                f"task.columns={list(columns)}: three names are expected, of number, pattern and statement"
            )
        self.columns = tuple(columns)

    def read(self, row: Any) -> StatementState:
        index, pattern, statement = (cell(row, name) for name in self.columns)
        number = row_number(self.columns[0], index)
        return StatementState(number, pattern.strip(), (statement.strip(), ""), 0, self._image(pattern, number))

    def _image(self, pattern: str, number: int) -> str:
        """The picture of a row, by either name of its folders. Raises ValueError where it is in none."""
        kinds = dict.fromkeys((pattern.strip(), pattern.strip().replace(" ", "_")))
        names = [f"{folder}/{kind}/{number}.jpg" for folder in FOLDERS for kind in kinds]
        for name in names[:-1]:
            try:
                return self.image(name)
            except ValueError:
                continue
        try:
            return self.image(names[-1])
        except ValueError:
            raise ValueError(f"picture {number}: neither {' nor '.join(map(shown, names))} is there") from None

    def _check_pairs(self, rows: Rows[StatementState]) -> None:
        """Give each row the statement of its partner, every other pair in the other order.

        Raises ValueError for a row that is there twice, one without its partner, a pair of two patterns or one
        statement.
        """
        for place, state, partner in with_partners(rows, "number"):
            own, other = state.choices[0], partner.choices[0]
            if partner.pattern != state.pattern or own == other:
                what = "one statement" if own == other else "two patterns"
                raise ValueError(f"{rows.path}: number {state.number} and its partner have {what}")
            turned = (state.number + 1) // 2 % 2 == 0
            ordered = (own, other) if (state.number % 2 == 1) != turned else (other, own)
            rows.rows[place] = dataclasses.replace(state, choices=ordered, answer=ordered.index(own))

    def groups(self, state: StatementState) -> Mapping[str, str]:
        return {"pair": pair_of(state), "pattern": state.pattern}

    def statements(self, state: StatementState) -> tuple[str, str]:
        return state.choices

    def prompt(self, state: StatementState, modality: Modality) -> str:
        return self.asked(state, "Which statement fits the picture?")
