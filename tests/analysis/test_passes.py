"""pass@k of drawn first answers: by hand, by counting all choices, and of a model."""

import itertools
import json
from collections.abc import Mapping
from typing import Any

import pytest
from support.tiny import nano_task, shared_learner

from vlmreason.analysis.passes import Settings, measure, pass_at, table
from vlmreason.files import plain
from vlmreason.intervals import wilson_interval
from vlmreason.models.contract import Sample
from vlmreason.models.networks.actions import ActionLearner
from vlmreason.models.vlm.learner import Learner

ENV: Any = nano_task("general_points")


class Knows(Learner):
    """A learner that has so many of the answers to a problem right, by the cards of its prompt."""

    def __init__(self, num_right: Mapping[str, int], answers: Mapping[str, str]) -> None:
        learner = shared_learner()
        super().__init__(learner.model, learner.processor)
        self.left, self.answers, self.seeds = dict(num_right), answers, set[int]()

    def sample(self, prompts: Any, seeds: Any, max_new_tokens: int, temperature: float) -> list[Sample]:
        found = []
        for prompt, seed in zip(prompts, seeds, strict=True):
            self.seeds.add(seed)
            text, self.left[prompt.text] = "nothing", self.left[prompt.text] - 1
            found.append(
                Sample(self.answers[prompt.text] if self.left[prompt.text] >= 0 else text, 1, True, [1], [0.0])
            )
        return found


def settings(**changes: Any) -> Settings:
    return Settings(**{"view": "text", "max_new_tokens": 12, "num": 4, "samples": 4, "batch_size": 3, **changes})


def test_the_estimate_is_the_mean_over_all_choices() -> None:
    for num, num_right in itertools.product(range(1, 7), range(7)):
        if num_right <= num:
            right = [True] * num_right + [False] * (num - num_right)
            for k in range(1, num + 1):
                found = [any(chosen) for chosen in itertools.combinations(right, k)]
                assert pass_at(k, num_right, num) == pytest.approx(sum(found) / len(found))


@pytest.mark.parametrize("batch_size", [1, 3])
def test_passes_are_those_of_what_a_model_knows(batch_size: int) -> None:
    states = [ENV.start("standard", "test", index) for index in range(4)]
    prompts = [ENV.prompt(state, "text") for state in states]
    learner = Knows(
        dict(zip(prompts, (0, 1, 2, 4), strict=True)), dict(zip(prompts, map(ENV.expert, states), strict=True))
    )
    [found] = measure(learner, ENV, settings(levels=("standard",), batch_size=batch_size))
    assert (found.num, found.samples, list(found.at)) == (4, 4, ["1", "2", "4"]) and len(learner.seeds) == 16
    assert found.at["1"].mean == pytest.approx((0 + 1 + 2 + 4) / 16)
    assert found.at["2"].mean == pytest.approx((0 + 1 / 2 + 5 / 6 + 1) / 4)
    assert found.at["4"].mean == 0.75 and found.unread.mean == pytest.approx(9 / 16)
    assert found.parts["recognition"].mean == found.parts["numbers"].mean == pytest.approx(7 / 16)
    shown = table(json.loads(json.dumps(plain([found]))))
    assert "pass@4" in shown and "75.0 (" in shown


def test_tasks_are_asked_too_and_networks_are_refused() -> None:
    task: Any = nano_task("table_readout")
    from vlmreason.envs.revision import Revision

    states = [task.sample("simple", "test", index).state for index in range(2)]
    prompts = [task.prompt(state, "text") for state in states]
    answers = {prompt: task.response(state, "text").text for prompt, state in zip(prompts, states, strict=True)}
    [found] = measure(Knows(dict.fromkeys(prompts, 1), answers), Revision(task), settings(levels=("simple",), num=2))
    assert found.at["1"].mean == 0.25 and found.at["4"].mean == 1.0
    with pytest.raises(ValueError, match="what=passes: needs a model that is here"):
        measure(ActionLearner.__new__(ActionLearner), ENV, settings())  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"num": 0}, {"samples": 0}, {"temperature": 0.0}, {"split": "all"}])
def test_settings_are_checked(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(change))):
        settings(**change)


def test_nothing_found_is_not_known_exactly() -> None:
    prompts = [ENV.prompt(ENV.start("standard", "test", index), "text") for index in range(4)]
    [found] = measure(Knows(dict.fromkeys(prompts, 0), dict.fromkeys(prompts, "")), ENV, settings(levels=("standard",)))
    assert found.at["4"].mean == 0 and found.at["4"].ci_high == pytest.approx(wilson_interval(0, 4)[1])
    assert found.unread.ci_low == pytest.approx(wilson_interval(4, 4)[0])
