"""The paths of Table Readout without its values: which cells the marked path has, in order.

A companion of Table Readout that is as long and knows nothing of what stands in a table: with it one sees whether
length alone carries over from one task to another (arXiv 2506.09251). Problem i is problem i of Table Readout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from vlmreason.streams import stream
from vlmreason.tasks.base import Score
from vlmreason.tasks.cells import cell_name
from vlmreason.tasks.tables.base import WORDINGS, TableState, TableWording, read_cells, read_listed_cells
from vlmreason.tasks.tables.table_readout import TableReadout


class TablePaths(TableReadout):
    name = "table_paths"
    splits_of = TableReadout.name
    explained = False
    wordings: ClassVar[Mapping[str, TableWording]] = {
        "terse": TableWording(
            prompt_text="{text}\nRead {kind} from {start} to {end} without numbers.",
            prompt_image="Read {kind} from {start} to {end} without numbers.",
            convert=WORDINGS["terse"].convert,
            step="{cell} ",
            answer="Answer: {values}",
            value_joint=" ",
        ),
        "verbose": TableWording(
            prompt_text="Here is a table as LaTeX code.\n{text}\n"
            "Beginning at cell {start} and ending at cell {end}, say where every cell on {kind} is, "
            "then list the cells. A cell is (row, column), without the header and counted from 1.",
            prompt_image="The picture shows a table whose numbers are written as words. "
            "Beginning at cell {start} and ending at cell {end}, say where every cell on {kind} is, "
            "then list the cells. A cell is (row, column), without the header and counted from 1.",
            convert=WORDINGS["verbose"].convert,
            step="{cell}\n",
            answer="Answer: the cells are {values}",
            value_joint=" ",
        ),
    }

    def _state(self, level: str, split: str, index: int) -> TableState:
        """The state of the same problem of Table Readout."""
        rng = stream(TableReadout.name, self.version, level, split, index)
        return self._sample(level, rng, lambda key: self.split_of(key) == split)

    def answer(self, state: TableState) -> str:
        return self.wording.answer.format(values=self.wording.value_joint.join(map(cell_name, state.path)))

    def score(self, state: TableState, response: str) -> Score:
        """Return exact list of cells in order, from the answer or from the trace: the better counts."""
        gold = list(state.path)
        listed, traced = read_listed_cells(response), [cell for cell, _ in read_cells(response)]
        parts = {"answer_list": float(listed == gold), "trace_list": float(traced == gold)}
        return Score(correct=any(parts.values()), parsed=bool(listed or traced), parts=parts)
