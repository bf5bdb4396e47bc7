"""Skills on grids whose wording varies: replies are what the grid says, walks and trails as in the older skills."""

import pytest
from support.shipped import shipped

from vlmreason.tasks.grids.reading_skills import MOST_MOVES, OLDER
from vlmreason.tasks.skills import FILLING

TASK = shipped("grid_reading_skills")
PHRASES = ("Answer", "Convert", "Search", "search", "Collect", "collect", "shortest", "Path")


def drawn(level: str, num: int = 150) -> list:
    return [TASK.sample(level, "train", index).state for index in range(num)]


def test_cells_hold_what_the_grid_says() -> None:
    for state in drawn("holds"):
        grid = state.grid
        content = {grid.start: "S", grid.destination: "D"} | {
            cell: name for name, cell in grid.objects + grid.obstacles
        }
        words = state.reply.split()
        for cell, name in zip(words[::2], words[1::2], strict=True):
            assert content.get(tuple(map(int, cell.strip("()").split(","))), "free") == name
        assert all(cell in state.question for cell in words[::2])


def test_things_are_named_in_reading_order() -> None:
    for level, at in (("filled", 0), ("things", 1)):
        for state in drawn(level, 40):
            where = {state.grid.start: "S", state.grid.destination: "D"}
            where |= {cell: name for name, cell in state.grid.objects}
            words = state.reply.split()
            assert words[at::2] == [f"({row},{col})" for row, col in sorted(where)]
            assert words[1 - at :: 2] == [where[cell] for cell in sorted(where)]


@pytest.mark.parametrize("level", TASK.levels)
def test_questions_vary_and_are_no_task_s(level: str) -> None:
    states = drawn(level)
    assert len({" ".join(w for w in state.question.split() if w in FILLING) for state in states}) > 30
    shown = "\n".join(f"{TASK.prompt(state, 'text')}\n{state.reply}" for state in states)
    assert not [phrase for phrase in PHRASES if phrase in shown]
    assert shipped("grid_navigation").wording.convert not in shown


@pytest.mark.parametrize("level", ["walk", "trail"])
def test_short_ones_are_short(level: str) -> None:
    def moves(name: str) -> list[int]:
        return [state.reply.rpartition(":")[2].count("(") for state in drawn(name)]

    assert max(moves(f"short_{level}")) == MOST_MOVES < max(moves(level))
    assert set(OLDER.values()) <= set(shipped("grid_skills").levels)
