"""The line that says of which kind a problem is: written first, found again, given, kept away, wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from support.shipped import shipped

from vlmreason.answering.responses import answers
from vlmreason.answering.settings import EvaluationSettings
from vlmreason.dialogue.build import build_dialogue
from vlmreason.dialogue.compare import compare
from vlmreason.dialogue.parse import conversion_exact, kinds_of, split_response
from vlmreason.evaluation.further import evaluation_dir
from vlmreason.models.contract import Generation, Prompt
from vlmreason.segments import VIEWS

RAVEN = shipped("raven")
PROBLEM = RAVEN.sample("center", "test", 0)


class Remembering:
    """Keeps what it is asked, and writes what it was given as beginning."""

    def __init__(self) -> None:
        self.prefills: list[str] = []
        self.forbidden: tuple[str, ...] = ()

    def generate(self, prompts: list[Prompt], max_new_tokens: int, forbidden_starts: tuple[str, ...] = ()) -> list:
        self.prefills, self.forbidden = [prompt.prefill for prompt in prompts], tuple(forbidden_starts)
        return [Generation(prompt.prefill, 1, True) for prompt in prompts]

    def choose(self, prompts: list[Prompt], options: list) -> list:
        raise AssertionError("nothing is chosen here")

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def asked(view: str = "image", **settings: str) -> tuple[list[str], tuple[str, ...]]:
    model = Remembering()
    found = answers(model, RAVEN, [PROBLEM.state], view, EvaluationSettings(**settings))  # type: ignore[arg-type]
    assert "condition" in found[0].tokens
    return model.prefills, model.forbidden


@pytest.mark.parametrize("trace", ["terse", "verbose"])
@pytest.mark.parametrize("view", VIEWS)
def test_it_comes_first_and_is_found_again(view: str, trace: str) -> None:
    task = shipped("raven", "nano", trace)
    plain, response = (build_dialogue(task, PROBLEM, view, condition=given).response for given in (False, True))
    assert response.text == task.condition(PROBLEM.state) + plain.text
    assert [one.kind for one in response.segments] == ["condition", *(one.kind for one in plain.segments)]
    assert split_response(task, PROBLEM.state, response.text) == response
    assert split_response(task, PROBLEM.state, plain.text) == plain
    assert conversion_exact(task, PROBLEM.state, response.text) is (True if view == "image_via_text" else None)
    assert compare(task, PROBLEM, view, response.text).difference is None
    score = task.score(PROBLEM.state, response.text)
    assert score.correct and score.parts["statements"] == score.parts["kind"] == 1
    assert task.score(PROBLEM.state, plain.text).parts["kind"] == 0


def test_any_line_that_begins_so_is_one() -> None:
    other = next(line for line in RAVEN.conditions() if line != RAVEN.condition(PROBLEM.state))
    answer = RAVEN.answer(PROBLEM.state)
    for said in (other, "Kinds of all\n", "Kinds\n"):
        found = split_response(RAVEN, PROBLEM.state, said + answer)
        assert [(one.kind, one.text) for one in found.segments] == [("condition", said), ("answer", answer)]
        assert RAVEN.score(PROBLEM.state, said + answer).parts["kind"] == 0
    assert split_response(RAVEN, PROBLEM.state, "Kinds").text_of("condition") == "Kinds"
    assert split_response(RAVEN, PROBLEM.state, f"Kinds {answer}").text_of("answer") == answer
    assert "condition" in kinds_of(RAVEN) and "condition" not in kinds_of(shipped("table_readout"))


def test_tasks_without_kinds_have_no_line() -> None:
    task = shipped("table_readout")
    problem = task.sample(task.levels[0], "test", 0)
    plain, asked_for = (build_dialogue(task, problem, "image", condition=given) for given in (False, True))
    assert plain.response == asked_for.response
    with pytest.raises(ValueError, match=r"evaluation\.condition=force: table_readout says of no problem"):
        answers(Remembering(), task, [problem.state], "text", EvaluationSettings(condition="force"))


def test_it_is_given_kept_away_or_wrong() -> None:
    regular, irregular = RAVEN.conditions()
    assert asked() == ([""], ())
    assert asked(condition="force") == ([regular], ())
    assert asked("text", condition="wrong") == ([irregular], ())
    assert asked(condition="forbid") == ([""], ("Kinds",))
    assert asked(condition="forbid", conversion="forbid") == ([""], ("Convert", "Kinds"))


@pytest.mark.parametrize("other", [{"prefill": "So"}, {"length": "given"}, {"how": "choose"}, {"conversion": "gold"}])
def test_what_it_cannot_be_combined_with(other: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"evaluation\.condition=force: cannot be combined with"):
        EvaluationSettings(condition="force", **other)  # type: ignore[arg-type]


def test_it_decides_responses_where_it_is_asked_for() -> None:
    plain = EvaluationSettings()
    assert "condition" not in plain.decisive
    assert replace(plain, condition="wrong").decisive["condition"] == "wrong"


def test_evaluations_with_it_are_told_apart(tmp_path: Path) -> None:
    names = {
        evaluation_dir(tmp_path, RAVEN, EvaluationSettings(condition=one), {"checkpoint": "x"}).name  # type: ignore[arg-type]
        for one in ("free", "force", "wrong", "forbid")
    }
    assert len(names) == 4 and sum("condition_" in name for name in names) == 3
