"""What is printed of evaluations while training."""

from vlmreason.evaluation.table import format_course

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
