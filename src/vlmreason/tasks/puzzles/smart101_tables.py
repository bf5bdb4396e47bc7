"""SMART-101 in tables: the skill and the type of answer of each root puzzle, and which puzzles a split holds out."""

from __future__ import annotations

from collections.abc import Mapping

from vlmreason.tasks.puzzles.values import Form

NUM_PUZZLES = 101
NUM_ROWS = 2000
STEPS = 10
"""Elements of a sequence, with what fills it up."""


def _listed(text: str) -> tuple[int, ...]:
    """Puzzles of a list, in which 69-77 stands for all from 69 to 77."""
    found: list[int] = []
    for word in text.split():
        first, _, last = word.partition("-")
        found += range(int(first), int(last or first) + 1)
    return tuple(found)


SKILLS: Mapping[str, tuple[int, ...]] = {
    "counting": _listed("2-5 8 13 14 23 24 29 33 34 36 41 42 45 50 52 53 57 60 79 80 89 97 99"),
    "algebra": _listed("7 9 10 12 15 27 28 47 49 61 63 72 76 85 101"),
    "math": _listed("6 11 30 31 38 43 46 58 59 67 71 88 90 98"),
    "path": _listed("1 16 19 32 35 37 39 48 54 65 66 73"),
    "spatial": _listed("17 44 55 68 69 70 75 95 96"),
    "logic": _listed("40 56 62 64 74 81 87 91 100"),
    "measure": _listed("20 21 22 25 26 92-94"),
    "pattern": _listed("77 78 83 84 86"),
    "order": _listed("18 51 82"),
}
"""The puzzles of each skill. `order` is in no table of a paper by skill, but in every overall figure."""

SKILL_OF: Mapping[int, str] = {puzzle: skill for skill, puzzles in SKILLS.items() for puzzle in puzzles}

_INTEGER = Form("integer")
_LETTERS = _listed("24 32 44 68-70 73 77 82 83 95 98")
_LABELS = _listed("65 66 84")
FORMS: Mapping[int, Form] = {
    **dict.fromkeys(range(1, NUM_PUZZLES + 1), _INTEGER),
    **dict.fromkeys((*_LETTERS, *_LABELS), Form("letter")),
    1: Form("icon"),
    21: Form("unit", "hours"),
    **dict.fromkeys((22, 92), Form("unit", "cm")),
    93: Form("unit", "km"),
    25: Form("clock"),
    **dict.fromkeys((90, 101), Form("word")),
    58: Form("operator"),
    **dict.fromkeys((16, 63), Form("numbers")),
    18: Form("digits"),
    **dict.fromkeys((35, 39, 100), Form("letters")),
}
"""How the answers of each puzzle are written. The icon names of puzzle 1 come with the data."""

SEQUENCES = tuple(puzzle for puzzle, form in FORMS.items() if form.is_sequence)
TEXT_ONLY = (9, 30, 38, 47, 89, 91)
"""Puzzles whose originals need no picture."""

VALIDATION_PUZZLES = (7, 43, 64)
TEST_PUZZLES = _listed("61 62 65 66 67 69-77 94-99 101")
HELD_OUT = (*VALIDATION_PUZZLES, *TEST_PUZZLES)

FILE_OF: Mapping[int, str] = {62: "puzzle_63.csv"}
"""Files that are not called after their folder."""
