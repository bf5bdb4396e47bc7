"""What is printed of evaluations, at the end and while training."""

import re
from pathlib import Path
from typing import Any

import pytest
from support.adding import Adding, FakeLearner, gold

from vlmreason.answering.settings import EvaluationSettings
from vlmreason.envs.episodes import Episodes
from vlmreason.envs.number_line import NumberLine, NumberLineSizes
from vlmreason.evaluation.evaluate import evaluate
from vlmreason.evaluation.further import format_evaluations
from vlmreason.evaluation.table import format_course, format_table
from vlmreason.models.contract import Generation

LINES = [
    {"phase": "expert", "step": 10, "loss": 1.0},
    {"phase": "ppo", "step": 0, "accuracy/standard/image": 0.5, "return/standard/image": 0.1},
    {"phase": "ppo", "step": 1, "loss": 0.5},
    {"phase": "ppo", "step": 4, "env_steps": 2048.0, "accuracy/standard/image": 0.9},
]


def test_the_course_of_a_phase_has_a_row_per_evaluation_with_its_interval() -> None:
    lines = format_course(LINES, "ppo", 50).splitlines()
    assert lines[1].split() == ["step", "env", "steps", "standard", "image"]
    assert [line.split()[:3] for line in lines[2:]] == [["0", "0", "50"], ["4", "2048", "90"]]
    assert lines[3].endswith("90 % (79 to 96)")


def test_a_phase_without_evaluations_has_no_course() -> None:
    assert format_course(LINES, "expert", 50) == ""


class Says:
    """A model that gives these replies in turn."""

    def __init__(self, *replies: str) -> None:
        self.replies, self.num = replies, 0

    def generate(self, prompts: list[Any], max_new_tokens: int, forbidden_starts: Any = ()) -> list[Generation]:
        self.num += 1
        return [Generation(self.replies[self.num % len(self.replies)], 7, True) for _ in prompts]

    def count_tokens(self, text: str) -> int:
        return len(text)


@pytest.mark.parametrize("replies", [("nothing",), ('{"action": "+"}', "nothing")])
def test_of_episodes_turns_are_counted(tmp_path: Path, replies: tuple[str, ...]) -> None:
    task = Episodes(NumberLine(NumberLineSizes(max_number=5, picture=(144, 144), font=20)))
    settings = EvaluationSettings(views=("text",), num=6, batch_size=6)
    model: Any = Says(*replies)
    summary = evaluate(model, task, settings, tmp_path, {"checkpoint": "x"}, progress=False)
    header, _, row = (re.split(r"  +", line.strip()) for line in format_table(summary).splitlines())
    assert header[4:] == ["episodes", "unparsed turns", "cut off", "tokens a turn"]
    found = dict(zip(header, row, strict=True))
    assert found["episodes"] == "6" and found["tokens a turn"] == "7.0"
    assert (found["unparsed turns"] == "100.0 %") == (len(replies) == 1)
    assert f"{found['unparsed turns']} of turns" in format_evaluations(tmp_path)


def test_of_tasks_responses_are_counted(tmp_path: Path) -> None:
    learner: Any = FakeLearner(gold)
    summary = evaluate(learner, Adding(), EvaluationSettings(num=2), tmp_path, {}, progress=False)
    header = re.split(r"  +", format_table(summary).splitlines()[0])
    assert header[4:] == ["problems", "unparsed", "cut off", "tokens", "prefix right", "stopped early"]
