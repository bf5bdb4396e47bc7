"""The shipped base: its size, its vocabulary, and that it has the skills it is there for."""

import functools
import json
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from sampled import TASKS

from vlmreason.commands import catalog
from vlmreason.commands.build import Scale, load_task
from vlmreason.dialogue import build_dialogue
from vlmreason.models.learner import Learner
from vlmreason.models.nano import BASE, NanoSettings, build_nano, load_nano, read_vocabulary
from vlmreason.models.tokenization import pieces
from vlmreason.structure import structure
from vlmreason.training.pretrain import skill_accuracy


def nano_task(name: str, trace: str | None = None) -> Any:
    data = OmegaConf.to_container(OmegaConf.load(catalog.conf_dir() / "scale" / "nano.yaml"))
    return load_task(name, structure(Scale, data, "scale"), trace)


@functools.cache
def base() -> Learner:
    return Learner(*load_nano())


def test_size() -> None:
    num_bytes = sum(path.stat().st_size for path in BASE.iterdir())
    assert num_bytes <= 10 * 2**20
    num_parameters = sum(p.numel() for p in base().model.parameters())
    assert 1_000_000 <= num_parameters <= 5_000_000


def test_record_names_its_data() -> None:
    record = json.loads((BASE / "record.json").read_text())
    assert record["seed"] == 0
    assert record["curves"][-1]["phase"] == list(record["phases"])[-1]
    assert set(record["tasks"]) == {"table_skills", "grid_skills", "figure_skills"}
    assert (BASE / "README.md").is_file()


def test_architecture_is_what_the_code_builds() -> None:
    built, _ = build_nano(NanoSettings(), read_vocabulary(), seed=0)
    shapes = {name: tuple(p.shape) for name, p in built.named_parameters()}
    assert shapes == {name: tuple(p.shape) for name, p in base().model.named_parameters()}


@pytest.mark.parametrize("name", TASKS)
def test_vocabulary_knows_every_word(name: str) -> None:
    vocabulary = set(base().processor.tokenizer.get_vocab())
    assert set(read_vocabulary()) <= vocabulary
    for trace in ("terse", "verbose"):
        task = nano_task(name, trace)
        for level in task.levels:
            for index in range(20):
                problem = task.sample(level, "test", index)
                for view in ("text", "image" if name.endswith("_skills") else "image_via_text"):
                    dialogue = build_dialogue(task, problem, view)
                    unknown = {*pieces(dialogue.prompt), *pieces(dialogue.response.text)} - vocabulary
                    assert not unknown, (trace, unknown)


def test_skills_are_learned() -> None:
    """What the card claims: values, rows, walks, trails and neighbours, in both modalities; not names of rows."""
    torch.manual_seed(0)
    tables = nano_task("table_skills")
    found = skill_accuracy(base(), {tables.name: tables}, num=16)
    for skill in ("value", "row", "walk", "beside", "trail", "marked"):
        for view in ("text", "image"):
            assert found[f"table_skills/{skill}/{view}"] > 0.85, found
