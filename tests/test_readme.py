"""What README and documentation say is real: commands compose, links lead somewhere, the Python runs."""

from __future__ import annotations

import functools
import importlib
import os
import re
import shlex
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from support.answered import answered_run
from support.program import runner
from test_repository import FLOORS

from vlmreason import places
from vlmreason.assembly import build, catalog, compose, errors, planning
from vlmreason.cli import completion
from vlmreason.data.mixture import mixtures
from vlmreason.dialogue.build import build_dialogue
from vlmreason.report import ledger
from vlmreason.report.pages.content import Artifact
from vlmreason.studies import artifacts, claims, library
from vlmreason.studies.results import Result

ROOT = Path(__file__).resolve().parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md"), *(ROOT / "experiments").rglob("*.md")])
"""Everything that is written to be read (the commands of docs/cluster.md: tests/launch/test_cluster_page.py)."""
YOURS = {"src/vlmreason/envs/parity.py", "conf/env/parity.yaml"}  # files that a page tells the reader to make
STUDIES = ("s2h", "rl4vlm", "sft_vs_rl", "beyond", "avr", "emt", "mmvp")
PROGRAM = re.compile(r"(?:^|[\s(\"])(?:python3? -m )?vlmreason (?P<words>(?:'[^']*'|[^|>)#\"'])*)")


def blocks(text: str, language: str) -> list[str]:
    """The fenced blocks of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def shell_lines(text: str) -> list[str]:
    joined = "".join(blocks(text, "bash")).replace("\\\n", " ")
    return [line.partition(" #")[0].strip() for line in joined.splitlines() if line.strip()]


def program_calls(text: str) -> list[list[str]]:
    """The words behind the program's name, of every call in the shell blocks."""
    found = [match.group("words") for line in shell_lines(text) for match in PROGRAM.finditer(line)]
    return [shlex.split(words.replace("$RUN", "outputs/run")) for words in found]


CALLS = list(
    dict.fromkeys(
        tuple(words) for page in PAGES if page.name != "cluster.md" for words in program_calls(page.read_text())
    )
)


def test_every_command_is_shown() -> None:
    assert len(CALLS) > 40
    assert set(catalog.commands()) - {call[0] for call in CALLS} <= {"job"}  # docs/cluster.md shows it


@pytest.mark.parametrize("words", CALLS, ids=" ".join)
def test_command_composes(words: tuple[str, ...]) -> None:
    command, rest = words[0], list(words[1:])
    if command == "completion":
        assert rest[0] in completion.SHELLS
        return
    if "--config-dir" in rest:
        assert (ROOT / rest[rest.index("--config-dir") + 1]).is_dir()  # tests/test_adding.py types it
        return
    if command.startswith("--") or {"-h", "--help"} & set(rest):
        assert command in ("--help", "--version") or command in catalog.commands()
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
    own = importlib.import_module(catalog.module_name(command)).Settings
    if command == "analyze":  # its other keys are those of analyses
        assert cfg["what"] in catalog.analyses()
        cfg = {name: cfg[name] for name in own.__dataclass_fields__}
    build.settings(own, cfg)
    if command in ("evaluate", "chat"):
        cfg = build.with_run(cfg, composed("train", []), overrides)
    if "optimizer" in cfg:
        build.build_tasks(cfg)
        build.build_optimizer(cfg)
        build.build_trainer(cfg)
    levels = [cfg["level"]] if cfg.get("level") else []
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


@functools.cache
def results(study: str) -> dict[str, Result]:
    """Every artifact of a study from the records that the package carries."""
    with initialize_config_dir(str(places.conf_dir()), version_base="1.3"):
        opened = planning.open_library("nano", [study], Path(os.devnull))
        found = {name: library.collect(name, "nano", opened, {}) for name in artifacts.chosen(f"glob({study}/*)")}
    assert not opened.faults
    return found


@pytest.mark.parametrize("study", STUDIES)
def test_the_ledger_is_that_of_the_records(study: str) -> None:
    """`vlmreason report study=STUDY readme=experiments/STUDY/LEDGER.md` brings it up to date."""
    text = (ROOT / "experiments" / study / "LEDGER.md").read_text()
    found = claims.read_claims(ROOT / "experiments" / study / "claims.yaml")
    verdicts = [claims.judge(claim, results(study)) for claim in found]
    assert ledger.insert(text, study, ledger.ledger(verdicts)) == text


@pytest.mark.parametrize("study", STUDIES)
def test_the_readme_says_what_is_there_of_a_study(study: str) -> None:
    """How many artifacts are complete, and how many begun."""
    (row,) = (
        line for line in README.splitlines() if line.startswith("|") and f"(experiments/{study}/README.md)" in line
    )
    states = Counter(Artifact(result, ()).state for result in results(study).values())
    complete, begun, num = states["complete"], states["partial"], states.total()
    assert f"{complete} of {num}" + (f", {begun} in part" if begun else "") in row


def test_effects_in_the_readme_stand_in_a_ledger() -> None:
    pages = [ROOT / "experiments" / study / name for study in STUDIES for name in ("LEDGER.md", "README.md")]
    known = "".join(page.read_text() for page in pages)
    effects = re.findall(r"[+-]?[\d.]+(?: x)? \([+-]?[\d.]+ to [+-]?[\d.]+\)", README)
    assert len(effects) > 10
    assert not [effect for effect in effects if f"| {effect}" not in known]


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = "".join(page.read_text() for page in PAGES)
    lines = shell_lines(text)
    named = set(re.findall(r"`make ([a-z-]+)`", text)) | {line.split()[1] for line in lines if line.startswith("make ")}
    assert {"run", "test"} <= named <= targets


@pytest.mark.parametrize("page", [*PAGES, ROOT / "GALLERY.md"], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_and_pictures_exist(page: Path) -> None:
    """Links lead to files, and where they name a heading to a page that has it."""
    faults = []
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        path, _, heading = target.partition("#")
        there = page.parent / path if path else page
        if "://" not in target and not (there.exists() and (not heading or heading in headings(there.read_text()))):
            faults.append(target)
    assert not faults


def headings(text: str) -> set[str]:
    """The anchors that a page offers, as GitHub makes them."""
    found = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in found}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_named_places_exist(page: Path) -> None:
    """Paths in backticks, where they are no patterns and lie in the repository."""
    rooms = "|".join(path.name for path in (ROOT / "src" / "vlmreason").iterdir() if path.is_dir())
    place = rf"`((?:src|conf|docs|tests|experiments|sweeps|benchmarks|{rooms})/[\w./]*)`"
    named = set(re.findall(place, page.read_text())) - YOURS
    bases = (ROOT, ROOT / "src" / "vlmreason")
    assert not [name for name in named if not any((base / name).exists() for base in bases)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_named_definitions_exist(page: Path) -> None:
    """Places written as `file.py:name`."""
    named = re.findall(r"`([\w/]+\.py):(\w+)`", page.read_text())
    texts = {file: (ROOT / "src" / "vlmreason" / file).read_text() for file, _ in named}
    assert not [f"{file}:{name}" for file, name in named if not defined(name, texts[file])]


def defined(name: str, text: str) -> bool:
    """Whether a module has a function, class or constant of this name."""
    return bool(re.search(rf"\b(?:def|class) {name}\b|^{name}\b.* = ", text, re.MULTILINE))


def test_the_floors_of_the_architecture_are_those_of_the_test() -> None:
    table = (ROOT / "docs" / "architecture.md").read_text().partition("| room |")[2].partition("\n\n")[0]
    rooms = [name.strip("/") for row in table.splitlines()[2:] for name in re.findall(r"`([\w/]+)`", row.split("|")[1])]
    assert (*rooms, "__main__") == FLOORS


def test_the_tour_follows_what_is_there() -> None:
    """The first example of the default run, and the first turn of NumberLine."""
    tour = (ROOT / "docs" / "tour.md").read_text()
    cfg = composed("train", [])
    task, mixture = build.build_task(cfg), mixtures(build.build_supervision(cfg), "table_readout", 0)["main"]
    example = mixture[0]
    dialogue = build_dialogue(task, task.sample(example.level, example.split, example.index), example.view)
    assert f"level {example.level}, split {example.split}, index {example.index}, view {example.view}" in tour
    assert dialogue.prompt in tour
    assert [f"{part.kind.ljust(7)} | {' '.join(part.text.split())[:60]}" for part in dialogue.response.segments] == [
        line[:70] for line in re.findall(r"^(?:convert|thought|answer) .*$", tour, re.MULTILINE)
    ]
    env = build.build_task(composed("train", ["env=number_line"]))
    assert env.expert(env.start("standard", "train", 0)) in tour


def test_the_readme_is_short() -> None:
    assert len(README.encode()) <= 11 * 1024


def test_every_page_is_reachable() -> None:
    """From the README a reader finds every page of the documentation and of the studies."""
    seen, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        seen.add(page)
        links = [page.parent / link for link in re.findall(r"\]\(([^)\s#]+\.md)[^)]*\)", page.read_text())]
        todo += {link.resolve() for link in links if link.exists()} - seen - set(todo)
    assert not [page for page in PAGES if page not in seen]


def test_every_task_strategy_and_environment_is_named() -> None:
    pages = "".join(page.read_text() for page in PAGES)
    for group in ("task", "env", "supervision", "model", "algorithm"):
        names = [name for name in catalog.groups()[group] if not name.endswith("_skills")]
        assert not [name for name in names if f"`{name}`" not in pages and f"{group}={name}" not in pages]


def test_python_block_reads_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the command above it."""
    page = (ROOT / "docs" / "runs.md").read_text().partition("## In pandas")[2]
    run = answered_run(tmp_path / "outputs")
    (run / "metrics.jsonl").write_text('{"phase": "main", "step": 10, "loss": 1.5}\n')
    monkeypatch.chdir(tmp_path)
    ((command, *words),) = program_calls(page)
    done = runner(monkeypatch, capsys)(command, *(word.replace("outputs/RUN", str(run)) for word in words))
    Path("answers.jsonl").write_text(done.out)
    (code,) = blocks(page, "python")
    names: dict[str, Any] = {}
    exec(compile(code, "docs/runs.md", "exec"), names)
    assert list(names["table"]["accuracy"]) == [1.0] * 4 and list(names["answers"].correct) == [True] * 16
    assert "simple text" in " ".join(capsys.readouterr().out.split())
