"""Irregular puzzles as MARVEL keeps its own: a record with three questions for each, read back by `marvel_files`.

Pattern and layout are numbers there; which ones MARVEL means by them is not known, so ours count from 1 in the order of
its paper's table.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from vlmreason.tasks.matrices.irregular_rules import GROUP, LAYOUTS, NUM_CHOICES, PATTERNS, IrregularState, solve

FILE = "marvel_label.json"
_LAYOUTS = {
    "sequence": "The panels follow each other in one row.",
    "two_row": "The panels stand in two rows of three.",
    "matrix": "The panels stand in three rows of three.",
    "group": "The three panels are a group.",
}
_DETAILS = {
    "counting": "How many shapes has choice {number}?",
    "arithmetic": "How many shapes has choice {number}?",
    "symmetry": "Which axes of symmetry has the figure of choice {number}?",
    "closed": "How many closed lines has choice {number}?",
    "inside": "How many dots are inside the ring of choice {number}?",
    "rotation": "Where does the hand of choice {number} point?",
}
_NUMBERS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_WORDS = {
    "symmetry": ("none", "vertical", "horizontal", "both"),
    "rotation": ("up", "up right", "right", "down right", "down", "down left", "left", "up left"),
}
_COARSE = (
    "How many panels are there, with the one that is asked for?",
    "How many choices are there?",
    "How many are they together?",
)


def record(state: IrregularState, number: int) -> Mapping[str, Any]:
    """Return the record of a puzzle, whose picture is `Marvel/<number>.png`."""
    solution, words = solve(state), _WORDS.get(state.pattern, _NUMBERS)
    asked = number % NUM_CHOICES
    value, other = (state.choices[at % NUM_CHOICES][0] for at in (asked, asked + 1))
    shown = ", ".join(words[value] for value, _ in state.context)
    num = len(state.context) + (state.layout != GROUP)
    wanted = "belongs to the same group" if state.layout == GROUP else "fills the missing part"
    return {
        "id": number,
        "pattern": PATTERNS[state.pattern].code,
        "task_configuration": LAYOUTS.index(state.layout) + 1,
        "avr_question": f"{_LAYOUTS[state.layout]} Which choice (1 to {NUM_CHOICES}) {wanted}?",
        "answer": state.answer + 1,
        "explanation": f"Of {state.pattern} the panels have {shown}; the rule is {solution.rule}, so "
        f"{words[solution.predicted]} follows.",
        "f_perception_question": _DETAILS[state.pattern].format(number=asked + 1),
        "f_perception_answer": words[value],
        "f_perception_distractor": words[other],
        "c_perception_question_tuple": list(_COARSE),
        "c_perception_answer_tuple": [num, NUM_CHOICES, num + NUM_CHOICES],
    }
