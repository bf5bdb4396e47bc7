"""Records of runs from before something was named otherwise are read as they are written today, and found."""

import json

import pytest

from vlmreason import places, runs
from vlmreason.assembly import catalog, compose
from vlmreason.studies.artifacts import folder
from vlmreason.studies.library import Library
from vlmreason.studies.records import Record, read_records

GONE = {"nano_scenes", "nano_reader"}
"""Bases that the package had, of records that are set aside."""


@pytest.fixture(scope="module")
def records() -> list[Record]:
    found, faults = read_records(folder())
    assert not faults and len(found) > 100
    return found


def test_every_record_is_of_choices_that_there_are(records: list[Record]) -> None:
    algorithms = {catalog.tree_of(f"algorithm/{name}")["name"] for name in catalog.groups()["algorithm"]}
    models = {catalog.tree_of(f"model/{name}")["name"] for name in catalog.groups()["model"]}
    for record in records:
        assert record.config.get("algorithm", {}).get("name", "sft") in algorithms, record.path
        aside = "set_aside" in record.path.parts
        assert record.config["model"]["name"] in (models | GONE if aside else models), record.path


def test_policies_without_language_are_found_by_their_new_words(records: list[Record]) -> None:
    old = [record for record in records if record.data["config"].get("algorithm", {}).get("name") == "cnn_ppo"]
    assert len(old) == 12
    composer = compose.Composer()
    library = Library("set_aside", ["rl4vlm"], places.data_dir("conf"), composer.config, lambda *_: None)
    updates = {"number_line": 40, "ez_points": 40, "points24": 80, "blackjack": 60}
    for record in old:
        task, seed = record.config["task"]["name"], record.config["seed"]
        settings = {
            "scale": "nano", "trainer.precision": "bf16-mixed", "scale.num_problems": 200,
            "scale.max_response_tokens": 80, "trainer.evaluate_num": 50,
            "env": task, "model": "cnn", "algorithm": "ppo_small", "supervision": "none",
            "algorithm.nano.updates": updates[task], "seed": seed,
        }  # fmt: skip
        found = library.find(settings)
        assert found is not None and found.record.run == record.run
        assert runs.difference_of_common(record.config, composer.config(settings), settings) is not None


def test_what_is_new_stays_as_it_is(records: list[Record]) -> None:
    for record in records:
        again = runs.upgraded(record.config)
        assert json.dumps(again) == json.dumps(record.config)


@pytest.mark.parametrize(("study", "num"), [("sft_vs_rl", 27), ("rl4vlm", 48), ("s2h", 125), ("beyond", 12)])
def test_records_that_are_set_aside_count_nowhere(study: str, num: int) -> None:
    """They are kept, with the reason beside them, and no figure opens them."""
    aside = folder() / study / "results" / "set_aside"
    assert len(read_records(aside)[0]) == num and "never mixed with new ones" in " ".join(
        (aside / "README.md").read_text().split()
    )
    library = Library("nano", [study], places.data_dir("conf"), compose.Composer().config, lambda *_: None)
    held = {record.run for record in read_records(aside)[0]}
    assert not held & {record.run for record in library.records}
