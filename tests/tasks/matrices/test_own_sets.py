"""Our puzzles written as RAVEN's and MARVEL's sets on disk, and read back equal."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from support.shipped import shipped

from vlmreason.data.export import export
from vlmreason.data.formats import ExportSettings
from vlmreason.pictures import png_bytes
from vlmreason.streams import SPLITS
from vlmreason.tasks.matrices.irregular_rules import PATTERNS
from vlmreason.tasks.matrices.marvel_files import MarvelFiles, MarvelSizes
from vlmreason.tasks.matrices.panels import CONFIGURATIONS
from vlmreason.tasks.matrices.raven_files import RavenFiles


@pytest.mark.parametrize("level", ["center", "grid_2x2", "out_grid"])
def test_puzzles_of_raven_are_read_back_equal(level: str, tmp_path: Path) -> None:
    raven = shipped("raven", "paper")
    for split in ("train", "validation"):
        export(raven, ExportSettings(level, split, 6, "own"), tmp_path / split, {}, 1)
        again = RavenFiles(raven.sizes, data=str(tmp_path / split))
        assert again.num_problems(level, split) == 6
        for index in range(6):
            mine, found = (task.sample(level, split, index).state for task in (raven, again))
            assert (found.context, found.choices, found.answer) == (mine.context, mine.choices, mine.answer)
            assert np.array_equal(again.draw(found), raven.draw(mine))
    listed = json.loads((tmp_path / "train" / "puzzles.json").read_text())
    assert [one["files"] for one in listed] == [f"{CONFIGURATIONS[level].folder}/RAVEN_{i}_train" for i in range(6)]


@pytest.mark.parametrize("level", PATTERNS)
def test_irregular_puzzles_are_read_back_equal(level: str, tmp_path: Path) -> None:
    task = shipped("irregular", "paper")
    target = export(task, ExportSettings(level, "test", 12, "own"), tmp_path, {}, 1)
    assert target == tmp_path / "marvel_label.json"
    again = MarvelFiles(MarvelSizes(None), data=str(target))
    found = {}
    for split in SPLITS:
        for index in range(again.num_problems("together", split)):
            state = again.sample("together", split, index).state
            found[state.id, state.asked] = state
    assert len(found) == 36
    for index in range(12):
        mine = task.sample(level, "test", index).state
        state = found[index, "reasoning"]
        assert state.answer == mine.answer + 1
        assert png_bytes(again.draw(state)) == png_bytes(task.draw(mine))
        assert again.score(state, task.answer(mine)).correct
        fine, coarse = found[index, "fine"], found[index, "coarse"]
        num = len(mine.context) + (mine.layout != "group")
        assert coarse.counts == (num, 4, num + 4)
        assert fine.fine_answers[0] != fine.fine_answers[1]
        if level in ("counting", "arithmetic", "closed", "inside"):
            words = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
            asked = int(fine.fine_question.rstrip("?").rpartition("choice ")[2].split()[0]) - 1
            assert fine.fine_answers[0] == words[mine.choices[asked][0]]


def test_tasks_without_such_sets_say_so(tmp_path: Path) -> None:
    for name in ("table_readout", "raven_perception"):
        with pytest.raises(ValueError, match=f"format=own: there are no sets on disk of the kind of {name}"):
            task = shipped(name)
            export(task, ExportSettings(task.levels[0], "test", 1, "own"), tmp_path, {}, 1)
