"""Skills on panels of a matrix: replies are what the panels hold, and captions what their patches show."""

import itertools
import re
from collections import Counter

import numpy as np
import pytest
from support.shipped import shipped

from vlmreason.tasks.base import state_to_json
from vlmreason.tasks.matrices.panels import CONFIGURATIONS, read
from vlmreason.tasks.matrices.reading_skills import COMPONENTS, NAMES, NUM_PANELS

TASK = shipped("matrix_reading_skills")
PICTURED = [level for level in TASK.levels if level not in TASK.text_only]
_LOOK_UP = re.compile(r"\([123],[123]\)|(?<![\w(,])[1-8](?![\w),])")


def drawn(level: str, num: int = 150) -> list:
    return [TASK.sample(level, "train", index).state for index in range(num)]


def named(question: str) -> list[int]:
    """The numbers of the panels that a question names."""
    return [NAMES.index(name) for name in _LOOK_UP.findall(question)]


def component_of(question: str) -> int:
    return 1 if re.search(r"\bTwo\b", question) else 0


@pytest.mark.parametrize("level", PICTURED)
def test_text_lists_every_panel_that_is_asked_for(level: str) -> None:
    listed = set()
    for state in drawn(level):
        lines = TASK.text(state).splitlines()
        assert [line.partition(": ")[0] for line in lines] == list(NAMES[: len(lines)])
        if level not in ("transcribe", "row", "count"):  # digits of these are of rows and levels
            assert max(named(state.question)) < len(lines)
        listed.add(len(lines))
    assert max(listed) == NUM_PANELS


def test_panels_are_written_as_the_text_has_them() -> None:
    for state in drawn("panels"):
        lines = TASK.text(state).splitlines()
        assert set(state.reply.splitlines()) <= set(lines)
        assert [line.partition(":")[0] for line in state.reply.splitlines()] == [
            NAMES[i] for i in named(state.question)
        ]


@pytest.mark.parametrize("level", ["attribute", "row"])
def test_levels_of_one_attribute(level: str) -> None:
    for state in drawn(level):
        name = re.search(r"\b(shape|size|color|number|place)\b", state.question)[1]
        if level == "row":
            lines = re.findall(r"(row|column) (\d)", state.question)
            numbers = [
                3 * (int(n) - 1) + i if what == "row" else 3 * i + int(n) - 1 for what, n in lines for i in range(3)
            ]
        else:
            numbers = named(state.question)
        levels = state.reply.replace(",", "").split()
        assert len(levels) == len(numbers)
        for number, level_of in zip(numbers, levels, strict=True):
            mask, kind, size, color = read(state.panels[number][component_of(state.question)])
            if name == "place":
                assert level_of == "".join(str(i + 1) for i in range(9) if mask >> i & 1)
            elif name == "number":
                assert level_of == str(mask.bit_count())
            else:
                value = {"shape": kind, "size": size, "color": color}[name]
                word = TASK.sizes.types[value - 1] if name == "shape" else str(value)
                assert level_of == ("mixed" if value < 0 else word)


def test_counts_are_those_of_the_panels() -> None:
    kinds = Counter()
    for state in drawn("count"):
        line = re.search(r"(row|column) (\d)", state.question)
        kinds[bool(line)] += 1
        if not line:
            numbers = [sum(map(len, state.panels[i])) for i in named(state.question)]
            assert state.reply.split() == [str(number) for number in numbers]
        else:
            assert 1 <= int(state.reply) <= 3
    assert min(kinds.values()) > 10


def test_panels_are_compared_attribute_by_attribute() -> None:
    for state in drawn("compare"):
        one, other = (state.panels[i] for i in named(state.question))
        for component, part in enumerate(state.reply.split(", ")):
            words = [word for word in part.split() if word not in COMPONENTS]
            said = dict(zip(words[::2], words[1::2], strict=True))
            pairs = zip(("place", "shape", "size", "color"), read(one[component]), read(other[component]), strict=True)
            for name, a, b in pairs:
                assert said.get(name, "same") == ("same" if a == b else "different")


def test_levels_go_on_add_up_and_are_missing() -> None:
    types = list(TASK.sizes.types)
    for state in drawn("next"):
        row = re.findall(rf"\b(?:\d|{'|'.join(types)})\b", state.question)
        values = [types.index(word) if word in types else int(word) for word in [*row, state.reply]]
        assert len({b - a for a, b in itertools.pairwise(values)}) == 1 and values[0] != values[1]
    for state in drawn("sums"):
        asked = re.findall(r"(\d) ([+-]) (\d)", state.question)
        sums = [int(a) + int(b) if sign == "+" else int(a) - int(b) for a, sign, b in asked]
        assert state.reply == " ".join(map(str, sums)) and 0 <= min(sums) <= max(sums) <= 9
    for state in drawn("missing"):
        row = re.findall(rf"\b(?:\d|{'|'.join(types)})\b", state.question)
        assert [word for word, count in Counter(row).items() if count == 1] == [state.reply]


def test_captions_say_what_patches_show() -> None:
    """Two panels look alike but for their angles exactly where they have the same caption."""
    form = TASK.captions(24)
    across = TASK.sizes.picture[0] // 24
    assert [(place % across * 24, place // across * 24) for place in form.places] == list(TASK.artist.places)
    looks: dict[tuple, set] = {}
    for state in drawn("transcribe", 60):
        classes, bits = TASK.caption(state)
        assert len(classes) == len(bits) == NUM_PANELS
        for panel, of_panel in zip(state.panels, classes, strict=True):
            assert all(0 <= one < slot.num_classes for one, slot in zip(of_panel, form.slots, strict=True))
            assert sum(one > 0 for one in of_panel) == 1 + 3 * sum(map(len, panel))
            upright = tuple(tuple((*entity[:4], 0) for entity in entities) for entities in panel)
            looks.setdefault(tuple(of_panel), set()).add(TASK.artist.panel(upright, state.configuration).tobytes())
    assert len(looks) > 300 and all(len(pictures) == 1 for pictures in looks.values())
    assert len(set.union(*looks.values())) == len(looks)
    with pytest.raises(ValueError, match="no patch of 16 px"):
        TASK.captions(16)


def test_a_panel_lies_in_its_patch() -> None:
    state = drawn("transcribe", 1)[0]
    picture = TASK.draw(state)
    for (x, y), panel in zip(TASK.artist.places, state.panels, strict=True):
        inside = picture[y : y + 23, x : x + 23, 0]
        assert np.array_equal(inside, TASK.artist.panel(panel, state.configuration)[:-1, :-1])


def test_configurations_of_the_setting_are_drawn() -> None:
    assert {state.configuration for state in drawn("panels")} == set(TASK.sizes.configurations)
    assert set(shipped("matrix_reading_skills", "paper").sizes.configurations) == set(CONFIGURATIONS)


def test_nothing_of_a_puzzle_occurs() -> None:
    for level in TASK.levels:
        shown = "\n".join(f"{TASK.prompt(state, 'text')}\n{state.reply}" for state in drawn(level, 60))
        assert not re.search(r"Answer|Convert|Option|fits|\?|Not |turn|any\b", shown)


def test_panels_that_do_not_hold_together_are_refused() -> None:
    data = state_to_json(drawn("panels", 1)[0])
    data["panels"][0][0][0][1] = 9
    with pytest.raises(ValueError, match="problem of matrix_reading_skills: type 9 of an entity: allowed is 1 to 5"):
        TASK.state_from_json(data)
    data = state_to_json(drawn("panels", 1)[0])
    data["panels"].pop()
    with pytest.raises(ValueError, match="17 panels are expected"):
        TASK.state_from_json(data)
