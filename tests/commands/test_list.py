"""`vlmreason list` names every choice with what it is."""

import json
from collections.abc import Callable

import pytest
from support.program import Done

from vlmreason.assembly import catalog
from vlmreason.commands.list import ACTIONS, named
from vlmreason.studies import artifacts

KINDS = {"tasks": "task", "envs": "env", "models": "model", "supervision": "supervision"}


@pytest.mark.parametrize("kind", ACTIONS)
def test_every_choice_is_named_and_says_what_it_is(kind: str) -> None:
    choices = artifacts.names() if kind == "experiments" else catalog.groups()[KINDS[kind]]
    assert list(named(kind)) == list(choices)
    assert all(len(text) > 10 for text in named(kind).values())


def test_as_a_person_and_as_a_program_reads_it(program: Callable[..., Done]) -> None:
    lines = program("list", "envs").out.splitlines()
    assert lines[0].split()[0] == "alfworld" and max(map(len, lines)) <= 120
    assert json.loads(program("list", "envs", "json=true").out) == named("envs")
    everything = program("list")
    assert [line for line in everything.out.splitlines() if not line.startswith(" ") and line] == list(ACTIONS)
    assert list(json.loads(program("list", "json=true").out)) == list(ACTIONS)
    assert "no such action; there are tasks, envs" in program("list", "taks").err
