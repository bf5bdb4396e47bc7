"""Environments and algorithms composed: an environment takes the task's place, an algorithm gets its scale's keys."""

import pytest

from vlmreason import runs
from vlmreason.assembly import algorithms, build, catalog, planning
from vlmreason.envs.base import Env
from vlmreason.envs.episodes import Episodes

ENVS = [name for name in catalog.groups()["env"] if name != "alfworld"]  # it needs games of the user's
MEMORY: tuple[list[str], ...] = ([], ["algorithm.vllm.gpu_memory_utilization=0.5"], ["algorithm.vllm.sleep=false"])
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
    assert runs.config_hash(cfg) != runs.config_hash(composed("train", "algorithm=grpo"))


@pytest.mark.parametrize("algorithm", ["ppo", "grpo"])
def test_rollouts_by_the_learner_are_the_runs_that_they_were(algorithm: str, composed) -> None:
    """The engine is part of a run only where it is another one; how much memory it takes never is."""
    plain = composed("train", f"algorithm={algorithm}")
    assert not {"engine", "vllm"} & plain["algorithm"].keys()
    assert composed("train", f"algorithm={algorithm}", "algorithm.engine=learner") == plain
    assert algorithms.build_algorithm(plain).engine == "learner"
    served = [composed("train", f"algorithm={algorithm}", "algorithm.engine=vllm", *more) for more in MEMORY]
    hashes = {runs.config_hash(cfg) for cfg in served}
    assert len(hashes) == 1 and runs.config_hash(plain) not in hashes
    assert algorithms.build_algorithm(served[1]).vllm.gpu_memory_utilization == 0.5


def test_two_tasks_are_played_in_turn(composed) -> None:
    both = ("train", "algorithm=grpo", "task=shape_area", "supervision=two_skills", "task.nano.dimension=[1,4]")
    cfg = composed(*both, "algorithm.tasks=[shape_area,grid_position]")
    env = algorithms.build_env(cfg)
    assert env.played == ("shape_area/total", "grid_position/nearest")
    assert [one.task.sizes.dimension for one in env.envs.values()] == [(1, 4), (1, 4)], "they are of one family"
    assert algorithms.build_algorithm(cfg).name == "grpo"
    assert "tasks" not in composed(*both)["algorithm"], "of one task alone they are the runs that they were"
    chosen = ["algorithm.tasks=[shape_area,grid_position]", "algorithm.levels=[shape_area/named]"]
    assert algorithms._trained_levels(composed(*both, *chosen)) == {"named", "total"}
    for words, message in (
        (["algorithm.tasks=[grid_position]"], "the run's own among them, and not shape_area"),
        (["algorithm.tasks=[shape_area,table_readout]"], "table_readout do not begin"),
        ([*chosen[:1], "algorithm.levels=[total]"], "algorithm.levels"),
        ([*chosen[:1], "algorithm.rewards.shapes=1"], "no such reward"),
        ([*chosen[:1], "algorithm.rewards.caption=inf"], "finite number"),
    ):
        with pytest.raises(ValueError, match=message):
            algorithms.build_algorithm(composed(*both, *words))


def test_text_comes_first_in_a_phase_of_its_own(composed, tmp_path) -> None:
    words = ("train", "algorithm=grpo", "task=shape_area", "supervision=two_skills", "algorithm.nano.updates=3")
    cfg = composed(*words, "algorithm.text_first=2")
    assert "text_first" not in composed(*words)["algorithm"], "without it they are the runs that they were"
    assert planning.steps(cfg) == {**planning.steps(composed(*words)), "grpo_text": 2}
    first, second = algorithms.build_stages(cfg, build.build_learner(cfg), tmp_path)
    assert [(stage.name, stage.num_steps) for stage in (first, second)] == [("grpo_text", 2), ("grpo", 3)]
    assert first.rollouts.view == "text" and second.rollouts.view == "image"
    assert [stage.reference.args[1].name for stage in (first, second)] == ["main", "grpo_text"]
    for more, message in ((["text_first=0"], "text_first=0"), (["text_first=2", "algorithm.view=text"], "no effect")):
        with pytest.raises(ValueError, match=message):
            algorithms.build_algorithm(composed(*words, f"algorithm.{more[0]}", *more[1:]))


def test_tasks_on_the_same_things_have_the_sizes_of_the_run_s(composed) -> None:
    cfg = composed("train", "task=shape_area", "supervision=two_skills", "task.nano.style=paper")
    assert build.build_tasks(cfg)["grid_position"].sizes.style == "paper"
    other = composed("evaluate", "run=x", "task=shape_grid", "scale=nano")
    words = ["task=shape_grid", "task.nano.size=[3,4]"]
    asked = {**composed("evaluate", "run=x", *words), "scale": cfg["scale"]}
    assert "sizes" in build.with_run(asked, cfg, words)["task"] and other is not None
    sizes = build.with_run(asked, cfg, words)["task"]["sizes"]
    assert sizes["style"] == "paper" and sizes["size"] == [3, 4]
    table = build.with_run(composed("evaluate", "run=x", "task=table_readout"), cfg, ["task=table_readout"])
    assert "style" not in table["task"]["sizes"]


def test_nothing_begins_that_vllm_cannot_do(composed, tmp_path) -> None:
    cfg = composed("train", "algorithm=grpo", "algorithm.engine=vllm", "supervision=none")
    with pytest.raises(ValueError, match=r"algorithm\.engine=vllm: it does not run this model \(model_type=llava\)"):
        algorithms.build_stages(cfg, build.build_learner(cfg), tmp_path)


def test_a_language_variant_is_its_environment_in_words(composed) -> None:
    cfg = composed("train", "env=general_points_l")
    assert (cfg["task"]["name"], cfg["env"]["view"], cfg["task"]["image"]) == ("general_points", "text", False)


@pytest.mark.parametrize("name", ["general_points", "virl"])
def test_what_is_recognized_is_seen_in_a_picture(name: str, composed) -> None:
    choices = rf"choose env={name} or env={name}_l$"
    for words, message in (
        ([f"env={name}", "env.view=text"], r"env\.view=text: does not go with env\.image=true"),
        ([f"env={name}", "env.image=false"], r"env\.view=image: does not go with env\.image=false"),
        ([f"env={name}_l", "env.image=true"], r"env\.view=text: does not go with env\.image=true"),
        ([f"env={name}_l", "env.view=image"], r"env\.view=image: does not go with env\.image=false"),
    ):
        with pytest.raises(ValueError, match=f"{message}.*{choices}"):
            composed("train", *words)
    assert composed("train", f"env={name}", "evaluation.views=[text]")["task"]["image"]
    words_alone = composed("train", f"env={name}", "env.view=text", "env.image=false")
    assert words_alone["task"] == composed("train", f"env={name}_l")["task"]
    assert composed("train", "env=number_line", "env.view=text")["env"]["view"] == "text"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["env=number_line", "task=table_readout"], "task=table_readout: has no effect with env=number_line"),
        (["env=number_line", "scale.num_examples=5"], "scale.num_examples: has no effect with supervision=expert"),
        (["env=number_line", "env.paper.font=5"], "env.paper.font: has no effect at scale=nano"),
        (["algorithm=ppo", "algorithm.paper.turns=5"], "algorithm.paper.turns: has no effect at scale=nano"),
        (["supervision=expert"], "choose one with env="),
        (["algorithm=ppo", "algorithm.vllm.sleep=false"], "algorithm.vllm.sleep: has no effect"),
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


def test_another_scale_changes_the_sizes_alone(composed) -> None:
    trained = composed("train", "env=general_points_l", "algorithm=ppo", "env.max_attempts=3")
    cfg = build.with_run(composed("evaluate", "scale=paper"), trained, ["scale=paper"])
    paper = composed("train", "env=general_points_l", "scale=paper", "env.max_attempts=3")
    assert cfg["task"] == paper["task"]


def test_an_environment_is_chosen_as_a_task(program) -> None:
    typed = program("train", "task=number_line", "task.trace=verbose", "--cfg", "job")
    assert typed.code == 0, typed.err
    assert typed.out == program("train", "env=number_line", "env.trace=verbose", "--cfg", "job").out
    assert "name: number_line" in typed.out and "trace: verbose" in typed.out
    assert "name: grid_navigation" in program("train", "task=grid_navigation", "--cfg", "job").out


def test_tasks_and_environments_are_swept_apart(program) -> None:
    done = program("train", "-m", "task=table_readout,number_line")
    assert done.code == 2
    assert done.err.count("\n") == 1 and "number_line is an environment; sweep tasks and environments apart" in done.err
