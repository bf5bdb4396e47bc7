"""Environments and algorithms composed: an environment takes the task's place, an algorithm gets its scale's keys."""

import pytest

from vlmreason.commands import build, catalog, identity
from vlmreason.envs.base import Env
from vlmreason.envs.episodes import Episodes

ENVS = [name for name in catalog.groups()["env"] if name != "alfworld"]  # it needs games of the user's
ALGORITHMS = [name for name in catalog.groups()["algorithm"] if name != "sft"]


@pytest.mark.parametrize("scale", ["nano", "paper"])
@pytest.mark.parametrize("name", ENVS)
def test_an_environment_takes_the_task_s_place(name: str, scale: str, composed) -> None:
    cfg = composed("train", f"env={name}", f"scale={scale}")
    task = build.build_task(cfg)
    assert isinstance(task, Env)
    assert cfg["env"].keys() == {"name", "view"}
    assert cfg["task"]["sizes"] and "start" not in cfg["task"]
    assert build.build_supervision(cfg).name == "expert"
    assert build.build_evaluation(cfg).views == (cfg["env"]["view"],)
    assert isinstance(build.evaluated(task), Episodes)
    assert "algorithm" not in cfg  # supervised training alone is what runs without the key are


@pytest.mark.parametrize("scale", ["nano", "paper"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_an_algorithm_has_the_keys_of_its_scale(algorithm: str, scale: str, composed) -> None:
    cfg = composed("train", f"algorithm={algorithm}", "env=number_line", f"scale={scale}")
    assert not {"nano", "paper"} & cfg["algorithm"].keys()
    assert cfg["algorithm"]["updates"] >= 1


def test_runs_without_an_algorithm_are_the_runs_that_they_were(composed) -> None:
    cfg = composed("train")
    assert not {"algorithm", "env"} & cfg.keys()
    assert identity.config_hash(cfg) != identity.config_hash(composed("train", "algorithm=grpo"))


def test_a_language_variant_is_its_environment_in_words(composed) -> None:
    cfg = composed("train", "env=general_points_l")
    assert (cfg["task"]["name"], cfg["env"]["view"], cfg["task"]["image"]) == ("general_points", "text", False)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["env=number_line", "task=table_readout"], "task=table_readout: has no effect with env=number_line"),
        (["env=number_line", "scale.num_examples=5"], "scale.num_examples: has no effect with supervision=expert"),
        (["env=number_line", "env.paper.font=5"], "env.paper.font: has no effect at scale=nano"),
        (["algorithm=ppo", "algorithm.paper.turns=5"], "algorithm.paper.turns: has no effect at scale=nano"),
        (["supervision=expert"], "choose one with env="),
    ],
)
def test_what_has_no_effect_is_refused(words: list[str], message: str, composed) -> None:
    with pytest.raises(ValueError, match=message.replace(".", r"\.")):
        composed("train", *words)


def test_an_evaluation_plays_the_environment_of_its_run(composed) -> None:
    trained = composed("train", "env=general_points_l", "algorithm=ppo")
    cfg = build.with_run(composed("evaluate"), trained, [])
    assert build.build_evaluation(cfg).views == ("text",)
    assert isinstance(build.evaluated(build.build_task(cfg)), Episodes)
    chosen = build.with_run(composed("evaluate", "evaluation.views=[image]"), trained, ["evaluation.views=[image]"])
    assert build.build_evaluation(chosen).views == ("image",)
