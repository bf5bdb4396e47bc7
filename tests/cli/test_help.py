"""Help, completion and the files of `conf/` that they are made of."""

import json
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from vlmreason.assembly import catalog
from vlmreason.cli import completion

HEAVY = {"torch", "transformers", "lightning", "numpy", "hydra", "omegaconf", "matplotlib", "PIL"}
UNEXPLAINED = {"name", "_target_"}  # keys that say what they are

_PROBE = """
import contextlib, io, json, sys, time
before = time.process_time()
sys.argv = ["vlmreason", *json.loads(sys.argv[1])]
from vlmreason.__main__ import main
text = io.StringIO()
with contextlib.redirect_stdout(text):
    try:
        main()
    except SystemExit as end:
        code = end.code
print(json.dumps([code, time.process_time() - before, sorted(sys.modules), len(text.getvalue())]))
"""


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["-h"],
        ["--help"],
        ["train", "--help"],
        ["gallery", "num=3", "-h"],
        ["completion", "query", "vlmreason train task="],
        ["completion", "query", "vlmreason train supervision.phases."],
        ["completion", "bash"],
    ],
)
def test_answers_at_once_and_imports_nothing_heavy(words: list[str]) -> None:
    done = subprocess.run([sys.executable, "-c", _PROBE, json.dumps(words)], capture_output=True, check=True)
    code, seconds, modules, num_chars = json.loads(done.stdout)
    assert code == 0
    assert num_chars > 40
    assert not HEAVY & set(modules)
    assert seconds < 1.0  # of the processor: not of a busy machine


def test_every_command_is_in_the_overview_with_its_first_line(program) -> None:
    shown = program("--help").out
    assert {"train", "evaluate", "pretrain", "generate", "score", "check", "gallery"} <= set(catalog.commands())
    for name in catalog.commands():
        first_line = catalog.docstring(name).splitlines()[0]
        assert first_line.endswith(".")
        assert f"  {name} " in shown
        assert first_line in shown


@pytest.mark.parametrize("command", catalog.commands())
def test_help_of_a_command_lists_groups_choices_and_settings(command: str, program) -> None:
    done = program(command, "--help")
    assert done.code == 0
    for default in catalog.defaults(catalog.commands()[command]):
        none = "null" if default.comment.startswith("null:") else "???"
        assert f"  {default.group}={default.choice or none}" in done.out
        for choice in catalog.groups()[default.group]:
            assert choice in done.out
    for setting in catalog.settings(catalog.commands()[command]):
        assert f"  {setting.key}" + (f"={setting.value}" if setting.value else ".*") in done.out
    assert "Examples:" in done.out


def test_every_key_has_a_comment() -> None:
    names = [*catalog.commands().values()]
    for group in ("scale", "model", "adapter", "optimizer", "trainer", "logger", "evaluation"):
        names += [f"{group}/{choice}" for choice in catalog.groups()[group]]
    for name in names:
        assert catalog.header(name), name
        for setting in catalog.settings(name):
            assert setting.comment or setting.key in UNEXPLAINED, f"{name}: {setting.key}"


def test_examples_of_the_helps_are_accepted(program) -> None:
    """What the docstrings show composes (with --cfg, so that nothing runs)."""
    for command in catalog.commands():
        lines = [
            shlex.split(line) for line in catalog.docstring(command).splitlines() if line.startswith("  vlmreason ")
        ]
        assert lines, command
        for words in lines:
            assert words[1] == command
            sweep = "-m" in words
            shown = [word.split(",")[0] if sweep else word for word in words[2:] if word != "-m"]
            done = program(command, *shown, "--cfg", "job")
            assert (done.code, done.err) == (0, ""), words


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("vlmreason ge", ["generate "]),
        ("vlmreason train task=table_r", ["table_readout "]),
        ("vlmreason train task=tab", ["table_readout "]),
        ("vlmreason train -m task=table_readout,conse", ["consecutive_table_readout"]),
        ("vlmreason train optimizer.l", ["optimizer.lr="]),
        ("vlmreason train supervision=text supervision.phases.", ["supervision.phases.main."]),
        ("vlmreason train --mul", ["--multirun "]),
        ("vlmreason completion b", ["bash "]),
        ("vlmreason generate format=lm", ["lmms_eval "]),
        ("vlmreason figure experiment=s2h/fig", ["s2h/fig5 "]),
        ("vlmreason collect experiment=[s2h/fig5,s2h/table1", ["s2h/table10 "]),
        ("vlmreason analyze what=gr", ["gradients "]),
        ("vlmreason list ex", ["experiments "]),
        ("vlmreason sweep format=j", ["json "]),
        ("vlmreason nonsense ta", []),
        ("vlmreason train nonsense.", []),
    ],
)
def test_completion(line: str, expected: list[str]) -> None:
    found = [candidate.rpartition("=")[2] or candidate for candidate in completion.query(line)]
    found = [name.rpartition(",")[2] for name in found]
    assert set(expected) <= set(found)
    if not expected:
        assert found == []


def test_globs_of_experiments_and_lists_of_settings_need_no_quotes() -> None:
    for typed, wanted in (
        ("experiment=glob(s2h/*)", "experiment='glob(s2h/*)'"),
        ("experiment=[s2h/fig5,glob(s2h/t*)]", "experiment=[s2h/fig5,'glob(s2h/t*)']"),
        ("experiment='glob(*)'", "experiment='glob(*)'"),
        ("set=[seed=1,task=x]", "set=['seed=1','task=x']"),
    ):
        assert catalog.as_settings("figure", [typed]) == [wanted]
    assert catalog.as_settings("train", ["-m", "seed=glob(*)"]) == ["-m", "seed=glob(*)"]


def test_completion_offers_all_commands_and_choices() -> None:
    assert {f"{name} " for name in catalog.commands()} <= set(completion.query("vlmreason "))
    for group in ("task", "supervision", "scale"):
        wanted = [f"{group}={choice} " for choice in catalog.groups()[group]]
        assert completion.query(f"vlmreason train {group}=") == sorted(wanted)


def test_bash_replaces_what_follows_the_equals_sign() -> None:
    script = completion.script("bash") + (
        f'vlmreason() {{ {sys.executable} -m vlmreason "$@"; }}\n'
        'COMP_LINE="vlmreason train task=table_reado"; COMP_POINT=${#COMP_LINE}; _vlmreason; echo "${COMPREPLY[@]}"\n'
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["table_readout"], done.stderr


def test_completion_knows_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("outputs/table-a", "outputs/grid-b", "elsewhere/c"):
        (tmp_path / name).mkdir(parents=True)
        (tmp_path / name / "config.yaml").touch()
    (tmp_path / "outputs" / "beginnings").mkdir()
    assert completion.query("vlmreason show run=") == ["run=outputs/grid-b ", "run=outputs/table-a "]
    assert completion.query("vlmreason evaluate run=elsewhere/") == ["run=elsewhere/c "]
    assert completion.query("vlmreason compare run=outputs/grid-b,outputs/t") == ["run=outputs/grid-b,outputs/table-a "]
