"""Skills on panels whose wording varies: replies are what the panels hold, in pictures and in the text that lists
them."""

import re

import pytest
from support.shipped import shipped

from vlmreason.tasks.analogies.panels import read
from vlmreason.tasks.analogies.reading_skills import NUM_PANELS, sets_of, values_of
from vlmreason.tasks.analogies.wording import lossy
from vlmreason.tasks.base import state_to_json

TASK = shipped("panel_reading_skills")
PICTURED = [level for level in TASK.levels if level not in TASK.text_only]


def drawn(level: str, num: int = 150) -> list:
    return [TASK.sample(level, "train", index).state for index in range(num)]


@pytest.mark.parametrize("level", PICTURED)
def test_text_lists_every_panel_that_is_asked_for(level: str) -> None:
    listed = set()
    for state in drawn(level):
        lines = TASK.text(state).splitlines()
        assert lines == [f"{i}: {lossy(read(panel), True)}" for i, panel in enumerate(state.panels, 1)][: len(lines)]
        asked = [int(n) for n in re.findall(r"\d+", state.question)]
        assert level == "transcribe" or max(asked) <= len(lines)
        listed.add(len(lines))
    assert max(listed) == NUM_PANELS


def test_values_of_one_attribute() -> None:
    for state in drawn("attribute"):
        name = next(word for word in ("shape", "color", "size", "number", "place", "line", "ink")
                    if word in state.question.split(" "))  # fmt: skip
        at = ("shape", "color", "size", "number", "place", "line", "ink").index(name)
        order = [str(v) if not isinstance(v, tuple) else f"({v[0]},{v[1]})" for v in values_of(TASK.sizes)[at]]
        for number, reply in zip(re.findall(r"(?<!\S)\d+", state.question), state.reply.split(", "), strict=True):
            have = {str(v) if not isinstance(v, tuple) else f"({v[0]},{v[1]})" for v in
                    sets_of(state.panels[int(number) - 1])[at]}  # fmt: skip
            assert reply.split() == [value for value in order if value in have]


def test_sets_are_related_as_sets() -> None:
    for state in drawn("relate"):
        both, either, one = (set(part.split()[1:]) - {"none"} for part in state.reply.split(", "))
        assert both | one == either and not both & one
        assert both <= set(re.findall(r"[\w(),]+", state.question.replace(", ", " ")))


def test_no_answer_of_the_task_occurs() -> None:
    for level in TASK.levels:
        shown = "\n".join(f"{TASK.prompt(state, 'text')}\n{state.reply}" for state in drawn(level, 60))
        assert not re.search(r"Answer|Convert|XOR|AND\b|Progression|Option|Example|Query", shown)


def test_panels_that_do_not_hold_together_are_refused() -> None:
    data = state_to_json(drawn("values", 1)[0])
    shape = next(panel["shapes"][0] for panel in data["panels"] if panel["shapes"])
    shape[0] = "blob"
    with pytest.raises(ValueError, match="problem of panel_reading_skills: a panel has no value 'blob'"):
        TASK.state_from_json(data)
    data = state_to_json(drawn("values", 1)[0])
    data["panels"].pop()
    with pytest.raises(ValueError, match="12 panels are expected"):
        TASK.state_from_json(data)
