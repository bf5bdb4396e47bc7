"""Configurations composed directly are those that Hydra composes, to the order of their keys."""

import json
import random
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from omegaconf import OmegaConf

from vlmreason import places
from vlmreason.assembly import catalog, compose, direct
from vlmreason.studies import artifacts, needs

NUM_RUNS = 12  # of the experiments' five hundred, drawn by chance; Hydra takes a fifth of a second for each


@pytest.fixture(autouse=True, scope="module")
def hydra_is_ready() -> Iterator[None]:
    with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
        yield


def every_run() -> list[dict[str, Any]]:
    """The settings of all runs of all experiments at both scales, once for all seeds."""
    found = {}
    for scale in ("nano", "paper"):
        for name in artifacts.names():
            for settings, _ in needs.needed(name, scale):
                found[repr(sorted((item for item in settings.items() if item[0] != "seed"), key=str))] = settings
    return list(found.values())


def by_hydra(settings: Mapping[str, Any]) -> dict[str, Any]:
    words = catalog.as_settings("train", compose.overrides(settings))
    return compose.resolve(hydra_compose("train", words), words)


def composed(settings: Mapping[str, Any]) -> dict[str, Any]:
    choices = direct.choices_of(settings)
    values = {key: value for key, value in settings.items() if key not in choices}
    return compose.checked(direct.resolved(direct.tree(choices), values), compose.overrides(settings))


def test_every_run_of_an_experiment_is_composed_directly() -> None:
    runs = every_run()
    assert len(runs) > 400
    for settings in runs:
        assert composed(settings)["scale"]["name"] == settings["scale"]


@pytest.mark.parametrize("number", range(NUM_RUNS))
def test_runs_are_as_hydra_composes_them(number: int) -> None:
    """Each of another choice of groups."""
    by_choice: dict[str, list[dict[str, Any]]] = {}
    for settings in every_run():
        by_choice.setdefault(repr(direct.choices_of(settings)), []).append(settings)
    chance = random.Random(0)
    settings = chance.choice(chance.sample(list(by_choice.values()), NUM_RUNS)[number])
    assert json.dumps(composed(settings)) == json.dumps(by_hydra(settings)), settings


@pytest.mark.slow
def test_every_choice_is_as_hydra_composes_it() -> None:
    columns = {d.group: catalog.groups()[d.group] for d in catalog.defaults("train")}
    needs_env = {"supervision": "expert", "evaluation": "episodes"}
    for number in range(max(map(len, columns.values()))):
        settings: dict[str, Any] = {group: names[number % len(names)] for group, names in columns.items()}
        if any(settings[group] == name for group, name in needs_env.items()) or number % 3 == 0:
            del settings["task"]
        else:
            del settings["env"]
        assert json.dumps(composed(settings)) == json.dumps(by_hydra(settings)), settings


def test_yaml_is_read_as_omegaconf_reads_it() -> None:
    names = [f"{group}/{choice}" for group, choices in catalog.groups().items() for choice in choices]
    for name in [*names, "train"]:
        wanted: Any = OmegaConf.to_container(OmegaConf.load(places.conf_dir() / f"{name}.yaml"))
        wanted.pop("defaults", None)
        found: dict[str, Any] = {}
        catalog.insert(found, f"{name}", [], {}, catalog.MAX_DEPTH)
        assert json.dumps(found) == json.dumps(wanted), name


@pytest.mark.parametrize(
    "settings",
    [
        {"supervision": "no_such"},
        {"scale.num_exampels": 3},
        {"scale": "nano", "task.wording": {"step": "x"}},
        {"task": "${model}"},
        {"task.trace": "${scale.trace}"},
        {"supervision/phase@supervision.phases.none": "mix"},
        {"+supervision/phase": "mix"},
        {"+task": "table_readout"},
        {"~logger": None},
        {"supervision": "expert"},
        {"optimizer": {"lr": 1}},
    ],
)
def test_what_is_not_read_here_is_left_to_hydra(settings: dict[str, Any]) -> None:
    with pytest.raises(direct.NotReadHereError):
        composed(settings)


@pytest.mark.parametrize("line", ["# @package _global_", "  - optional model: ${x}", "  - optional x: y", "- a: ${b}"])
def test_a_file_that_says_more_is_left_to_hydra(line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    direct._unread_file.cache_clear()
    try:
        monkeypatch.setattr(catalog, "file_lines", lambda name: (line,) if name == "model/nano" else ())
        assert direct._unread_file() == "model/nano"
        with pytest.raises(direct.NotReadHereError, match="model/nano"):
            direct.tree({})
    finally:
        direct._unread_file.cache_clear()
