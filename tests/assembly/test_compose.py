"""Every shipped configuration composes and becomes the objects of the lower floors."""

import json
import re
from typing import Any

import pytest
import yaml
from hydra import initialize_config_dir
from support.composing import compose_plain

from vlmreason import places, runs
from vlmreason.assembly import build, catalog
from vlmreason.assembly.compose import Composer, differences, freeze
from vlmreason.scale import Scale
from vlmreason.structure import structure
from vlmreason.training.engine.optimizers import OptimizerSettings

WITH_ENV = {"supervision=expert", "evaluation=episodes"}
WITH_STUDY = {
    f"model={name}"
    for name in (
        *("smarter_vlm", "smarter_vlm_paper", "bert_resnet50", "bert_mae", "clip_clip"),
        *("picture_net", "context_blind", "clip_classifier", "nano_clip"),
    )
}
"""Models that choose supervision and evaluation too: of commands that have both."""
GIVEN = {"mine": ["folder=pictures"]}
"""What a command must be given."""


def sets_of_choices(command: str) -> list[list[str]]:
    """As few sets of overrides as hold every choice of every group of a command that needs no environment."""
    defaults = [d for d in catalog.defaults(catalog.commands()[command]) if d.group != "env"]
    columns = [[f"{d.group}={choice}" for choice in catalog.groups()[d.group]] for d in defaults]
    missed = WITH_ENV if {"supervision", "evaluation"} <= {d.group for d in defaults} else WITH_ENV | WITH_STUDY
    columns = [[word for word in column if word not in missed] for column in columns]
    longest = max(map(len, columns), default=1)
    return [[column[i % len(column)] for column in columns] for i in range(longest)]


@pytest.mark.parametrize("command", [name for name in catalog.commands() if name != "check"])
def test_every_group_choice_composes(command: str, composed) -> None:
    for overrides in sets_of_choices(command):
        cfg = composed(command, *overrides, *GIVEN.get(command, ()))
        assert "hydra" not in cfg
        assert set(cfg) & {"seed", "out", "run", "problems", "plan", "config", "experiment", "action", "card", "to"}


def test_every_task_is_built_at_both_scales(composed) -> None:
    for name in catalog.groups()["scale"]:
        for task in catalog.groups()["task"]:
            cfg = composed("generate", f"scale={name}", f"task={task}")
            assert build.build_task(cfg).name == task
            assert build.build_scale(cfg).name == name
            assert cfg["task"]["sizes"] or "data" in cfg["task"], "pictures from disk have their own"


def test_every_supervision_is_built(composed) -> None:
    for supervision in catalog.groups()["supervision"]:
        if f"supervision={supervision}" in WITH_ENV:
            continue
        header = (places.conf_dir() / "supervision" / f"{supervision}.yaml").read_text().partition("defaults:")[0]
        task = (re.findall(r"\btask=(\w+)", header) or ["table_readout"])[0]
        cfg = composed("train", "scale=paper", f"supervision={supervision}", f"task={task}")
        built = build.build_supervision(cfg)
        assert built.name == supervision
        names = built.task_names(task)
        if set(names) <= set(catalog.groups()["task"]):
            assert set(build.build_tasks(cfg)) == set(names)


def test_scale_sizes_everything_together(composed) -> None:
    nano, paper = composed("train"), composed("train", "scale=paper")
    assert build.build_supervision(nano).phase("main").num_examples == nano["scale"]["num_examples"]
    assert build.build_supervision(paper).phase("main").num_examples == 120_000
    assert build.build_supervision(paper).phase("align").num_examples == 10_000
    assert build.build_evaluation(paper).max_new_tokens == 2048
    assert build.build_evaluation(composed("train", "evaluation.num=7")).num == 7
    assert build.build_trainer(paper).batch_size == 128
    assert build.build_optimizer(paper).lr == paper["scale"]["lr"]
    assert build.build_task(paper).sizes.picture == (1500, 800)


def test_an_override_reaches_the_task(composed) -> None:
    cfg = composed("generate", "task.nano.rows=[4,4]", "task.trace=verbose")
    assert build.build_task(cfg).sizes.rows == (4, 4)
    assert cfg["task"]["sizes"]["rows"] == [4, 4]
    assert "paper" not in cfg["task"]


def test_sizes_of_another_scale_are_refused(composed) -> None:
    with pytest.raises(ValueError, match=r"task\.paper\.rows: has no effect at scale=nano.*task\.nano\.rows"):
        composed("train", "task.paper.rows=[3,3]")


def test_an_evaluation_takes_task_and_scale_of_its_run(composed) -> None:
    trained = composed("train", "task=consecutive_table_readout", "scale=paper", "task.paper.rows=[6,6]")
    cfg = build.with_run(composed("evaluate"), trained, [])
    assert build.build_task(cfg).name == "consecutive_table_readout"
    assert build.build_task(cfg).sizes.rows == (6, 6)
    assert build.build_evaluation(cfg).num == trained["scale"]["num_problems"]
    other = build.with_run(composed("evaluate", "task=table_readout"), trained, [])
    assert (other["task"]["name"], other["scale"]["name"]) == ("table_readout", "paper")
    nano = build.with_run(composed("evaluate", "scale=nano"), trained, [])
    assert build.build_task(nano).sizes.picture == (144, 144)


def test_values_are_checked(composed) -> None:
    with pytest.raises(ValueError, match=r"scale\.num_examples=0"):
        build.build_scale(composed("train", "scale.num_examples=0"))
    with pytest.raises(ValueError, match=r"optimizer\.lr='high': float is expected"):
        build.build_optimizer(composed("train", "optimizer.lr=high"))
    with pytest.raises(ValueError, match=r"scale\.trace"):
        structure(Scale, {**composed("train")["scale"], "trace": "long"}, "scale")
    with pytest.raises(ValueError, match=r"task\._target_"):
        build.build_task(composed("train", "task._target_=os.system"))


def test_a_configuration_from_before_code_moved_still_opens(composed) -> None:
    cfg = composed("train")
    old = cfg | {
        "task": cfg["task"] | {"_target_": "vlmreason.tasks.table_readout.TableReadout"},
        "model": cfg["model"] | {"_target_": "vlmreason.models.nano.Nano"},
    }
    assert type(build.build_task(old)) is type(build.build_task(cfg))
    assert build.build_model(old) == build.build_model(cfg)
    env = composed("train", "env=number_line")
    moved = env | {"task": env["task"] | {"_target_": "vlmreason.envs.gone.NumberLine"}}
    assert type(build.build_task(moved)) is type(build.build_task(env))
    gone = cfg | {"task": cfg["task"] | {"_target_": "vlmreason.tasks.gone.Gone", "name": "gone"}}
    with pytest.raises(ValueError, match=r"task\._target_=vlmreason\.tasks\.gone\.Gone"):
        build.build_task(gone)


@pytest.mark.parametrize(
    ("words", "place", "value"),
    [
        (["algorithm=ppo", "algorithm.rewards.parsed=0.1"], "algorithm.rewards", {"parsed": 0.1}),
        (["algorithm=grpo", "algorithm.rewards={parsed: 0.1}"], "algorithm.rewards", {"parsed": 0.1}),
        (["task.wording.step=x", "task.wording.answer=y"], "task.wording", {"step": "x", "answer": "y"}),
        (["task=number_line", "task.wording.read=x"], "task.wording", {"read": "x"}),
        (["supervision.phases.main.optimizer.lr=0.1"], "supervision.phases.main.optimizer", {"lr": 0.1}),
        (["model=composed", "model.towers={a: {id: x}}"], "model.towers", {"a": {"id": "x"}}),
        (["model=composed", "model.towers.a.id=x", "model.towers.b={id: y}"], "model.towers",
         {"a": {"id": "x"}, "b": {"id": "y"}}),
    ],
)  # fmt: skip
def test_what_goes_into_an_empty_mapping_is_written_as_any_setting(
    words: list[str], place: str, value: Any, composed
) -> None:
    found = composed("train", *words)
    for key in place.split("."):
        found = found[key]
    assert found == value
    settings = {key: yaml.safe_load(text) for key, _, text in (word.partition("=") for word in words)}
    if "number_line" not in words[0]:  # experiments choose an environment by env=
        with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
            assert Composer().config(settings) == composed("train", *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["algorithm=ppo", "algorithm.reward.parsed=0.1"], "did you mean 'algorithm.rewards'"),
        (["task.wordin.step=x"], "did you mean 'task.wording'"),
        (["task.wording.stp=x"], "did you mean 'step'"),
        (["supervision.phases.main.optimizer.lrr=1"], "no such key"),
        (["supervision.phases.mian.optimizer.lr=1"], "did you mean 'supervision.phases.main'"),
    ],
)
def test_a_name_that_is_not_there_is_still_refused(words: list[str], message: str) -> None:
    with initialize_config_dir(str(places.conf_dir()), version_base="1.3"), pytest.raises(ValueError, match=message):
        phase_optimizers_of(freeze(words, "train"))


def phase_optimizers_of(cfg: dict[str, Any]) -> None:
    for phase in build.build_supervision(cfg).phases.values():
        structure(OptimizerSettings, {**cfg["optimizer"], **phase.optimizer})


def test_a_run_from_elsewhere_imports_nothing_that_it_names(composed, tmp_path, monkeypatch) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "trap.py").write_text("raise SystemExit('imported')")
    cfg = composed("train", f"out={tmp_path}")
    for group in ("task", "model"):
        folder = runs.open_run(cfg)
        text = (folder / "config.yaml").read_text()
        target = cfg[group]["_target_"]
        (folder / "config.yaml").write_text(text.replace(target, "trap.Trap"))
        with pytest.raises(ValueError, match=rf"{group}\._target_=trap\.Trap: no choice of conf/{group} has it"):
            build.read_run(folder)
        (folder / "config.yaml").write_text(text)
        assert build.read_run(folder) == cfg


@pytest.mark.parametrize("group", ["task", "model", "supervision", "scale", "algorithm"])
@pytest.mark.parametrize("value", [None, [], "text", {}, {"name": None}, {"name": ["x"]}])
def test_a_run_from_elsewhere_without_its_sections_is_named(composed, tmp_path, group, value) -> None:
    cfg = composed("train", f"out={tmp_path}")
    folder = runs.open_run(cfg)
    (folder / "config.yaml").write_text(json.dumps({**cfg, group: value}))
    with pytest.raises(ValueError, match=rf"config\.yaml: damaged: {group}: a mapping with a name is expected"):
        build.read_run(folder)
    (folder / "config.yaml").write_text(json.dumps({key: below for key, below in cfg.items() if key != group}))
    if group != "algorithm":
        with pytest.raises(ValueError, match=rf"config\.yaml: damaged: {group}: missing"):
            build.read_run(folder)


@pytest.mark.parametrize("scale", ["nano", "paper"])
@pytest.mark.parametrize("word", ["algorithm.optimizer.lr=3e-5", "algorithm.updates=7", "env.picture=[168,168]"])
def test_a_size_of_the_chosen_scale_needs_no_name_of_it(scale: str, word: str) -> None:
    """As it stands in the config.yaml of a run, and as messages advise it."""
    group, _, rest = word.partition(".")
    words = ("algorithm=ppo", "env=number_line", f"scale={scale}")
    assert compose_plain("train", *words, word) == compose_plain("train", *words, f"{group}.{scale}.{rest}")
    assert compose_plain("train", *words, word) != compose_plain("train", *words)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "all by default"),
        (["task=grid_navigation", "seed=1", "seed=2"], "by default, but for task=grid_navigation seed=2"),
        (["--config-dir=x", "++algorithm.rewards.parsed=1"], "by default, but for ++algorithm.rewards.parsed=1"),
        (["task.wording.step={cell} "], "by default, but for 'task.wording.step={cell} '"),
    ],
)
def test_a_run_says_in_what_it_is_not_the_default_one(words: list[str], said: str) -> None:
    assert differences(words) == said
