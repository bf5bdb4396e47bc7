"""The shipped bases: their sizes, their vocabulary, and that they have the skills they are there for."""

import functools
import json
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from support.sampled import TASKS

from vlmreason import places
from vlmreason.assembly.build import load_task
from vlmreason.dialogue.build import build_dialogue
from vlmreason.models.nano.model import BASES, Nano, NanoSettings, build_nano, read_vocabulary, read_words
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.tokenization import build_tokenizer, pieces
from vlmreason.scale import Scale
from vlmreason.structure import structure
from vlmreason.training.supervised.marks import exact_share
from vlmreason.training.supervised.pretrain import skill_accuracy

SPELLED = ("digits", "things10", "things30", "symbols30")
OF_NEWER_WORDS = ("shape_area", "grid_position", "shape_grid", "raven", "raven_perception", "irregular")
"""Tasks whose terse wording takes words that the shipped bases lack; the verbose one is for larger models."""


def nano_task(name: str, trace: str | None = None) -> Any:
    data = OmegaConf.to_container(OmegaConf.load(places.conf_dir() / "scale" / "nano.yaml"))
    return load_task(name, structure(Scale, data, "scale"), trace)


@functools.cache
def base(name: str = "nano") -> Learner:
    return Nano(name).load()


@pytest.mark.parametrize("name", BASES)
def test_size(name: str) -> None:
    num_bytes = sum(path.stat().st_size for path in BASES[name].iterdir())
    assert num_bytes <= 10 * 2**20
    num_parameters = sum(p.numel() for p in base(name).model.parameters())
    assert 1_000_000 <= num_parameters <= 5_000_000


def test_record_of_the_first_names_its_data() -> None:
    record = json.loads((BASES["nano_first"] / "record.json").read_text())
    assert record["seed"] == 0
    assert record["curves"][-1]["phase"] == list(record["phases"])[-1]
    assert set(record["tasks"]) == {"table_skills", "grid_skills", "figure_skills"}
    assert (BASES["nano_first"] / "README.md").is_file()


def test_record_names_its_data() -> None:
    record = json.loads((BASES["nano"] / "record.json").read_text())
    assert record["curves"][-1]["phase"] == list(record["phases"])[-1] == "together"
    pretraining: Any = OmegaConf.load(places.conf_dir() / "supervision" / "nano_pretraining.yaml")
    assert list(record["phases"]) == list(pretraining.phases)
    assert {"table_reading_skills", "grid_reading_skills"} <= set(record["tasks"])


READ = {
    "table_reading_skills": {
        "value": (0.5, 0.5), "transcribe": (None, 0.8), "list": (0.6, 0.6), "trail": (0.6, 0.6), "trail_to": (0.8, 0.8),
    },
    "grid_reading_skills": {"transcribe": (None, 0.9), "near": (0.5, 0.5), "short_trail": (0.6, 0.6)},
}  # fmt: skip
"""Least shares of whole replies in text and picture: what the card's table has, less what 24 problems may miss."""


@pytest.mark.slow
@pytest.mark.parametrize(("task", "skill"), [(task, skill) for task, skills in READ.items() for skill in skills])
def test_the_base_has_the_skills_of_its_card(task: str, skill: str) -> None:
    card = (BASES["nano"] / "README.md").read_text()
    [row] = [line for line in card.splitlines() if line.startswith(f"| {task} | {skill} |")]
    shown = [cell.strip() for cell in row.split("|")][3:5]
    for view, least, percent in zip(("text", "image"), READ[task][skill], shown, strict=True):
        if least is not None:
            assert float(percent) / 100 >= least
            assert exact_share(base(), nano_task(task), skill, view, 24) >= least - 0.2


def test_bases_differ_in_weights_only() -> None:
    nano, first = base("nano"), base("nano_first")
    assert any(not torch.equal(p, q) for p, q in zip(nano.model.parameters(), first.model.parameters(), strict=True))


def test_an_unknown_base_is_named() -> None:
    with pytest.raises(ValueError, match=r"model\.name='tables' without .* nano, nano_first"):
        Nano("tables").load()


@pytest.mark.parametrize("name", BASES)
def test_architecture_is_what_the_code_builds(name: str) -> None:
    built, _ = build_nano(NanoSettings(), read_vocabulary(), seed=0)
    shapes = {key: tuple(p.shape) for key, p in built.named_parameters()}
    assert shapes == {key: tuple(p.shape) for key, p in base(name).model.named_parameters()}


@pytest.mark.parametrize("name", TASKS)
def test_vocabulary_knows_every_word(name: str) -> None:
    if name in SPELLED:
        pytest.skip("their labels are spelled")
    if name in ("smart_families", "visual_pairs", "picture_orders"):
        pytest.skip("its questions are for networks and larger models; the nano bases spell its words")
    vocabulary = set(base().processor.tokenizer.get_vocab())
    assert set(read_vocabulary()) <= vocabulary
    newer = name.endswith("_reading_skills") or name in OF_NEWER_WORDS
    if newer:
        vocabulary = set(build_tokenizer([*read_vocabulary(), *read_words()], NanoSettings.num_tokens).get_vocab())
    for trace in ("terse",) if newer else ("terse", "verbose"):
        task = nano_task(name, trace)
        for level in task.levels:
            for index in range(20):
                problem = task.sample(level, "test", index)
                pictured = "image" if name.endswith("_skills") else "image_via_text"
                for view in task.shown(level, ("text", pictured)):
                    dialogue = build_dialogue(task, problem, view)
                    unknown = {*pieces(dialogue.prompt), *pieces(dialogue.response.text)} - vocabulary
                    assert not unknown, (trace, unknown)


def test_words_of_the_reading_skills_take_reserved_entries() -> None:
    old = base("nano_first").processor.tokenizer.get_vocab()
    new = build_tokenizer([*read_vocabulary(), *read_words()], NanoSettings.num_tokens).get_vocab()
    assert {entry: row for entry, row in old.items() if not entry.startswith("<reserved_")}.items() <= new.items()
    assert len(new) == len(old) and all(
        new[word] >= min(old[f"<reserved_{i}>"] for i in (0, 1)) for word in read_words()
    )


def test_skills_of_the_first_are_learned() -> None:
    """What the card claims: values, rows, walks, trails and neighbours, in both modalities; not names of rows."""
    torch.manual_seed(0)
    tables = nano_task("table_skills")
    found = skill_accuracy(base("nano_first"), {tables.name: tables}, num=16)
    for skill in ("value", "row", "walk", "beside", "trail", "marked"):
        for view in ("text", "image"):
            assert found[f"table_skills/{skill}/{view}"] > 0.85, found
