"""What docs/cluster.md tells people to type is real."""

import re
import shlex
from pathlib import Path
from typing import get_args

import pytest
import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from test_readme import PROGRAM, check_configuration, composed

from vlmreason import places
from vlmreason.assembly import build, catalog, compose, errors, planning, sweeps
from vlmreason.commands import job, sweep
from vlmreason.launch import profiles
from vlmreason.launch.state import Outcome
from vlmreason.studies import artifacts

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "cluster.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


LINES = [line.strip() for line in "".join(blocks("bash")).replace("\\\n", " ").splitlines() if line.strip()]
CALLS = [match.group("words") for line in LINES if line[:3] != "git" for match in PROGRAM.finditer(line)]


@pytest.mark.parametrize("line", CALLS)
def test_commands_compose(line: str) -> None:
    command, *words = shlex.split(line)
    if command == "--version":
        return
    errors.check_words(command, words)
    words = catalog.as_settings(command, words)
    if command in ("sweep", "job"):
        with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
            plain = compose.resolve(hydra_compose(catalog.commands()[command], words), words)
            if command == "job":
                build.settings(job.Settings, plain)
                return
            own = build.settings(sweep.Settings, plain)
            assert own.plan or own.dir or artifacts.chosen(own.experiment or ())
            if own.profile:
                sweeps.launch_profile(own.profile)
            if own.plan:
                first = next(planning.read_plan(own.plan).jobs())
                compose.freeze([*first, *own.set], "train")
        return
    overrides = [word for word in words if word != "-m" and not word.startswith("hydra")]
    jobs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), None)[0]
    assert len(jobs) == 1 or "-m" in words
    for overrides in jobs:
        check_configuration(command, composed(command, list(overrides)), list(overrides))


def test_every_action_is_shown() -> None:
    assert len(CALLS) > 12
    shown = {words[1] for words in map(shlex.split, CALLS) if words[0] == "sweep"}
    assert set(sweep.ACTIONS) <= shown
    for name in catalog.sweep_choices("profile"):
        assert f"`{name}`" in PAGE


def test_profile_of_the_page_is_one() -> None:
    (text,) = blocks("yaml")
    assert isinstance(profiles.make_profile(yaml.safe_load(text), "page"), profiles.Slurm)


def test_states_of_the_page_are_those_of_the_table() -> None:
    named = re.findall(r"^\| (\w[\w ]*) \|", PAGE, re.MULTILINE)
    assert set(named) - {"state"} == {*get_args(Outcome), "lost", "not begun", "damaged"}


def test_launcher_of_the_page_is_installed() -> None:
    pytest.importorskip("hydra_plugins.hydra_submitit_launcher")
    lines = [shlex.split(line) for line in CALLS if "hydra/launcher" in line]
    assert len(lines) == 2
    for command, *words in lines:
        words = [word for word in words if word.startswith("hydra")]
        with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
            found = hydra_compose(catalog.commands()[command], words, return_hydra_config=True)
        assert "submitit" in found.hydra.launcher._target_
