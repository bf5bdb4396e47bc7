"""Verdicts beside responses: made once, read afterwards, made again where version or response changed."""

import json

import pytest
from support.adding import Adding, FakeLearner, by_parity, gold

from vlmreason.answering.settings import EvaluationSettings
from vlmreason.evaluation.evaluate import evaluate
from vlmreason.evaluation.predictions import prediction_path
from vlmreason.evaluation.scores import FORM, judged_cell


class Counting(Adding):
    """Counts how often a problem is made and a response is judged."""

    def __init__(self):
        self.sampled = self.judged = 0

    def sample(self, level, split, index):
        self.sampled += 1
        return super().sample(level, split, index)

    def score(self, state, response):
        self.judged += 1
        return super().score(state, response)


class Revised(Counting):
    version = 2


def run(out_dir, task=None, num=4, learner=None):
    settings = EvaluationSettings(num=num, batch_size=4, levels=("simple",), views=("text",))
    return evaluate(learner or FakeLearner(by_parity), task or Counting(), settings, out_dir, {}, progress=False)


def cell(out_dir, task):
    return list(judged_cell(out_dir, task, "simple", "text", "test"))


def scores(out_dir):
    return out_dir / "scores" / "simple-text.jsonl"


def test_each_problem_is_made_and_judged_once(tmp_path):
    task = Counting()
    summary = run(tmp_path, task)
    assert (task.sampled, task.judged) == (4, 4)
    judged = cell(tmp_path, task)
    assert (task.sampled, task.judged) == (4, 4), "what comes after reads the verdicts"
    assert sum(verdict.correct for _, verdict in judged) == summary.total.correct == 2
    head, *lines = map(json.loads, scores(tmp_path).read_text().splitlines())
    assert head == {"task": "adding", "task_version": 1, "form": FORM}
    assert [line["id"] for line in lines] == [f"adding-simple-test-{i}" for i in range(4)]
    assert lines[0]["parts"] == {"off_by_ten": 1.0, "length": 1.0} and "groups" not in lines[0]
    before = scores(tmp_path).stat().st_mtime_ns
    again = Counting()
    assert run(tmp_path, again) == summary and (again.sampled, again.judged) == (0, 0)
    assert scores(tmp_path).stat().st_mtime_ns == before


def test_further_problems_alone_are_judged(tmp_path):
    run(tmp_path)
    task = Counting()
    assert run(tmp_path, task, num=7).total.num == 7 and task.judged == 3
    assert len(scores(tmp_path).read_text().splitlines()) == 8
    task = Counting()
    assert run(tmp_path, task).total.num == 4 and task.judged == 0


@pytest.mark.parametrize("change", ["deleted", "damaged", "cut", "version", "not json"])
def test_scores_that_are_not_there_are_made(tmp_path, change):
    """As in a directory from before there were any."""
    summary = run(tmp_path)
    whole = scores(tmp_path).read_text()
    if change == "deleted":
        scores(tmp_path).unlink()
    elif change == "version":
        scores(tmp_path).write_text(whole.replace('"task_version": 1', '"task_version": 0'))
    else:
        spoiled = {"damaged": whole.replace("true", "7"), "cut": whole[:-30], "not json": "x\n" + whole}
        scores(tmp_path).write_text(spoiled[change])
    task = Counting()
    assert sum(verdict.correct for _, verdict in cell(tmp_path, task)) == summary.total.correct
    assert task.judged > 0 and scores(tmp_path).read_text() == whole


def test_a_changed_response_is_judged_again_and_no_other(tmp_path):
    run(tmp_path, learner=FakeLearner(gold))
    path = prediction_path(tmp_path, "simple", "text")
    first, *rest = path.read_text().splitlines()
    path.write_text("\n".join([json.dumps(json.loads(first) | {"response": "Answer: 7777"}), *rest]) + "\n")
    task = Counting()
    assert [verdict.correct for _, verdict in cell(tmp_path, task)] == [False, True, True, True]
    assert task.judged == 1


def test_another_version_judges_anew(tmp_path):
    run(tmp_path)
    task = Revised()
    cell(tmp_path, task)
    assert task.judged == 4 and json.loads(scores(tmp_path).read_text().splitlines()[0])["task_version"] == 2


def test_a_folder_that_cannot_be_written_to_is_read(tmp_path, monkeypatch):
    run(tmp_path)
    scores(tmp_path).unlink()
    scores(tmp_path).parent.rmdir()

    def refuse(path, text):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("vlmreason.evaluation.scores.write_text_atomic", refuse)
    assert len(cell(tmp_path, Counting())) == 4 and not scores(tmp_path).exists()


def test_responses_to_other_problems_are_refused(tmp_path):
    run(tmp_path)
    path = prediction_path(tmp_path, "simple", "text")
    path.write_text(path.read_text().replace("adding-simple-test-2", "adding-simple-train-2"))
    with pytest.raises(ValueError, match="'adding-simple-train-2' is no test problem of adding"):
        cell(tmp_path, Counting())
