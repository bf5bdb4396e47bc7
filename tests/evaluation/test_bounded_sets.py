"""Sets with a bounded number of problems: whoever counts problems gets those that there are, and hears it once."""

import copy
import warnings

import pytest
from support.adding import Adding, FakeLearner, by_parity
from support.tiny import nano_task, shared_learner

from vlmreason.analysis import attribution, gradients, likelihood
from vlmreason.answering.settings import EvaluationSettings
from vlmreason.data.export import export
from vlmreason.data.formats import ExportSettings
from vlmreason.envs.episodes import Episodes
from vlmreason.envs.revision import Revision
from vlmreason.evaluation.evaluate import check_problems, evaluate, measure
from vlmreason.evaluation.table import format_course
from vlmreason.intervals import wilson_interval
from vlmreason.report.pages.gallery import page

SIZES = {"train": 6, "validation": 3, "test": 5}


class Bounded(Adding):
    """As many problems as SIZES says; hard ones in training alone."""

    def num_problems(self, level, split):
        return SIZES[split] if level == "simple" or split == "train" else 0


def bounded(name="table_readout"):
    task = copy.copy(nano_task(name))
    task.num_problems = lambda level, split: SIZES[split]
    return task


def settings(**changes):
    return EvaluationSettings(**{"num": 9, "batch_size": 4, "levels": ("simple",), "views": ("text",)} | changes)


pytestmark = pytest.mark.filterwarnings("ignore:task=.*but these are used")


def test_evaluation_asks_each_problem_once(tmp_path):
    learner = FakeLearner(by_parity)
    summary = evaluate(learner, Bounded(), settings(), tmp_path, {}, progress=False)
    assert summary.total.num == learner.num_asked == 5


def test_evaluation_while_training_counts_those_that_there_are():
    learner = FakeLearner(by_parity)
    found = measure(learner, Bounded(), settings())
    assert learner.num_asked == 3 and found["problems/simple/text"] == 3
    assert found["accuracy/simple/text"] == pytest.approx(2 / 3), "the first and the third"
    assert "problems/simple/text" not in measure(learner, Bounded(), settings(num=3))
    low, high = wilson_interval(2, 3)
    shown = format_course([{"phase": "ppo", "step": 0, **found}], "ppo", 9)
    assert f"67 % ({100 * low:.0f} to {100 * high:.0f})" in shown


class Sorted(Bounded):
    """Problems with two kinds of groups, of which one is followed."""

    followed = ("parity",)

    def groups(self, state):
        return {"parity": "odd" if sum(state.values) % 2 else "even", "first": str(state.values[0])}


def test_evaluation_while_training_tells_followed_groups_apart():
    assert Episodes(Sorted()).followed == ("parity",), "of whole episodes those of the environment"
    found = measure(FakeLearner(by_parity), Sorted(), settings())
    assert {name: value for name, value in found.items() if ":" in name} == {
        "parity:even/simple/text": 0, "problems:parity:even/simple/text": 1,
        "parity:odd/simple/text": 1, "problems:parity:odd/simple/text": 2,
    }  # fmt: skip


def test_fewer_than_asked_is_said_once(tmp_path):
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("default")
        evaluate(FakeLearner(by_parity), Bounded(), settings(views=("text", "image")), tmp_path, {}, progress=False)
        measure(FakeLearner(by_parity), Bounded(), settings())
    texts = [str(one.message) for one in said if "there are" in str(one.message)]
    assert texts == [
        f"task=adding level=simple split={split}: there are {num} problems, so not 9 but these are used"
        for split, num in (("test", 5), ("validation", 3))
    ]


def test_an_empty_split_is_one_sentence_before_anything_is_asked(tmp_path):
    learner, message = FakeLearner(by_parity), "^task=adding level=hard split=test: there is no problem$"
    with pytest.raises(ValueError, match=message):
        evaluate(learner, Bounded(), settings(levels=None), tmp_path / "none", {}, progress=False)
    with pytest.raises(ValueError, match=message):
        check_problems(Bounded(), settings(levels=None), "test")
    with pytest.raises(ValueError, match="level=hard split=validation: there is no problem"):
        measure(learner, Bounded(), settings(levels=("hard",)))
    assert learner.num_asked == 0 and not (tmp_path / "none").exists()


def test_episodes_are_as_many_as_their_environment_has():
    episodes = Episodes(Revision(Bounded(), attempts=2))
    assert len(episodes.first("simple", "test", 9)) == 5
    assert episodes.first("simple", "test", 2) == range(2)
    assert Episodes(Revision(Adding())).first("simple", "test", 9) == range(9)


def test_files_hold_those_that_there_are(tmp_path):
    path = export(Bounded(), ExportSettings("simple", "test", 9), tmp_path / "out", {}, 1, progress=False)
    assert len(path.read_text().splitlines()) == 5
    assert export(Bounded(), ExportSettings("simple", "test", 99), tmp_path / "out", {}, 1, progress=False) == path
    shown = page([bounded()], "nano", "validation", 0, 9)
    assert [shown.count(f"table_readout-simple-validation-{i}<") for i in (2, 3)] == [1, 0]


def test_analyses_look_at_those_that_there_are():
    learner, task = shared_learner(), bounded()
    [found] = attribution.attribute(learner, task, attribution.Settings(levels=("simple",), num=9))
    assert found.num == 3 and found.own.area.num <= 3
    assert gradients.losses(learner, task, "simple", 9, "validation", ["text_given_image"])["text_given_image"].num == 3
    alignment = gradients.measure(learner, task, gradients.Settings(num=8, batch_size=2, split="test", adam=False))
    assert alignment.simple.num_samples == alignment.hard.num_samples == 2, "whole samples of 2 among 5 problems"
    with pytest.raises(ValueError, match="batch_size=4: level simple has fewer than twice as many problems"):
        gradients.measure(learner, task, gradients.Settings(num=8, batch_size=4, split="test", adam=False))


def test_likelihoods_play_each_episode_once():
    env = Revision(bounded(), attempts=1)
    with pytest.warns(UserWarning, match="level simple: all 5 episodes of the split test are played, fewer than 50"):
        [found] = likelihood.measure(
            shared_learner(), env, likelihood.Settings("image", max_new_tokens=4, levels=("simple",), num=50)
        )
    assert found.num == found.num_episodes == 5
