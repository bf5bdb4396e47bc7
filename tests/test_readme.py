"""What the README tells people to type is real: commands compose, targets and files exist, the Python runs."""

from __future__ import annotations

import importlib
import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

from vlmreason import places
from vlmreason.assembly import build, catalog, compose, errors, planning
from vlmreason.cli import completion
from vlmreason.evaluation.predictions import Prediction
from vlmreason.evaluation.problems import SampledProblems
from vlmreason.evaluation.scoring import score_predictions
from vlmreason.report import ledger
from vlmreason.studies import artifacts, claims, library

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PROGRAM = re.compile(r"(?:^|[\s(\"])(?:python3? -m )?vlmreason (?P<words>(?:'[^']*'|[^|>)#\"'])*)")


def blocks(language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)


def shell_lines() -> list[str]:
    text = "".join(blocks("bash")).replace("\\\n", " ")
    return [line.partition(" #")[0].strip() for line in text.splitlines() if line.strip()]


def program_calls() -> list[list[str]]:
    """The words behind the program's name, of every call in the shell blocks."""
    found = [match.group("words") for line in shell_lines() for match in PROGRAM.finditer(line)]
    return [shlex.split(words.replace("$RUN", "outputs/run")) for words in found]


CALLS = program_calls()


def test_readme_shows_every_command() -> None:
    assert len(CALLS) > 15
    assert {
        "train",
        "evaluate",
        "generate",
        "score",
        "check",
        "pretrain",
        "export",
        "sweep",
        "figure",
        "report",
        "collect",
    } <= {call[0] for call in CALLS}


@pytest.mark.parametrize("words", CALLS, ids=" ".join)
def test_command_composes(words: list[str]) -> None:
    command, rest = words[0], words[1:]
    if command == "completion":
        assert rest[0] in completion.SHELLS
        return
    if command == "--help" or rest == ["--help"]:
        assert command == "--help" or command in catalog.commands()
        return
    errors.check_words(command, rest)
    rest = catalog.as_settings(command, rest)
    overrides = [word for word in rest if word not in ("-m", "--multirun", "--cfg", "job")]
    jobs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(overrides), None)[0]
    assert len(jobs) == 1 or {"-m", "--multirun"} & set(rest), "several values need -m"
    for job in jobs:
        check_configuration(command, composed(command, list(job)), list(job))


def check_configuration(command: str, cfg: dict[str, Any], overrides: list[str]) -> None:
    """Every section becomes its typed object, as the command itself would make it before it starts."""
    build.settings(importlib.import_module(catalog.module_name(command)).Settings, cfg)
    if command == "evaluate":
        cfg = build.with_run(cfg, composed("train", []), overrides)
    if "optimizer" in cfg:
        build.build_tasks(cfg)
        build.build_optimizer(cfg)
        build.build_trainer(cfg)
    levels = [cfg["level"]] if "level" in cfg else []
    if "evaluation" in cfg:
        levels += build.build_evaluation(cfg).levels or ()
    if "task" in cfg:
        task = build.build_task(cfg)
        for level in levels:
            build.check_level(task, level)
            task.sample(level, "train", 0)


def composed(command: str, overrides: list[str]) -> dict[str, Any]:
    with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
        return compose.resolve(hydra_compose(catalog.commands()[command], overrides), overrides)


@pytest.mark.parametrize(
    ("study", "file"),
    [("s2h", "README.md"), *((study, "docs/rl_results.md") for study in ("rl4vlm", "sft_vs_rl", "beyond"))],
)
def test_the_ledger_is_that_of_the_records(tmp_path: Path, study: str, file: str) -> None:
    """`vlmreason report study=STUDY readme=FILE` brings it up to date."""
    text = (ROOT / file).read_text()
    with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
        opened = planning.open_library("nano", [study], tmp_path)
        results = {name: library.collect(name, "nano", opened, {}) for name in artifacts.chosen(f"glob({study}/*)")}
    assert not opened.faults
    found = claims.read_claims(ROOT / "experiments" / study / "claims.yaml")
    assert ledger.insert(text, study, ledger.ledger([claims.judge(claim, results) for claim in found])) == text


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z]+)`", README)) | {
        line.split()[1] for line in shell_lines() if line.startswith("make ")
    }
    assert {"run", "test"} <= named <= targets


def test_links_and_pictures_exist() -> None:
    targets = [target for target in re.findall(r"\]\(([^)\s]+)\)", README) if "://" not in target]
    assert len(targets) > 5
    assert not [target for target in targets if not (ROOT / target).exists()]


def test_named_places_exist() -> None:
    """Paths in backticks, where they are no patterns and lie in the repository."""
    named = re.findall(r"`((?:src|conf|docs|tests|tasks|experiments|sweeps|benchmarks)/[\w./]*)`", README)
    assert len(named) > 10
    bases = (ROOT, ROOT / "src" / "vlmreason")
    assert not [name for name in named if not any((base / name).exists() for base in bases)]


def test_every_task_and_strategy_is_named() -> None:
    tasks = [name for name in catalog.groups()["task"] if not name.endswith("_skills")]
    assert not [name for name in tasks if f"`{name}`" not in README]


def test_python_block_reads_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "outputs" / "table_readout-mix-nano-s0-0123456789ab"
    (run / "predictions").mkdir(parents=True)
    task = build.build_task(composed("train", []))
    problems = SampledProblems(task, task.levels, "test", 4)
    predictions = [
        Prediction(id=id, view="text", response=task.answer(problems[id].state), num_tokens=9, finished=True)
        for id in problems
    ]
    summary = score_predictions(task, problems, predictions)
    (run / "summary.json").write_text(json.dumps(summary.to_json()))
    lines = "".join(json.dumps(prediction.to_json()) + "\n" for prediction in predictions)
    (run / "predictions" / "all.jsonl").write_text(lines)
    (run / "metrics.jsonl").write_text('{"phase": "main", "step": 10, "loss": 1.5}\n')
    monkeypatch.chdir(tmp_path)
    (code,) = blocks("python")
    names: dict[str, Any] = {}
    exec(compile(code, "README.md", "exec"), names)
    assert list(names["table"]["accuracy"]) == [1.0] * len(task.levels)
    assert len(names["answers"]) == len(predictions)
    assert task.levels[0] in capsys.readouterr().out
