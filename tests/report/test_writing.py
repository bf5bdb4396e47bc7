"""The Markdown table and the JSON file of an artifact, and numbers from elsewhere."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from support.studies import ARTIFACT, make_record

from vlmreason.report.writing import markdown, write
from vlmreason.structure import structure
from vlmreason.studies.artifacts import read_numbers
from vlmreason.studies.experiment import Experiment
from vlmreason.studies.results import Found, Result, collect


def made(mark: str = "") -> Result:
    x = {**ARTIFACT["x"], "values": [10, 20], "paper_values": [100, 200]}
    experiment = structure(Experiment, {**ARTIFACT, "seeds": [0, 1], "x": x})
    record = make_record({("hard", "image"): "1100", ("hard", "text"): "1110"}, run="one")

    def find(settings: Mapping[str, Any]) -> Found | None:
        there = settings["supervision"] == "mix" and settings["scale.num_examples"] == 20 and settings["seed"] == 0
        return Found(record, mark) if there else None

    return collect("made_up/fig1", "nano", experiment, find)


def test_the_table_says_what_is_there_and_what_is_not() -> None:
    lines = markdown(made("made before the setting new")).splitlines()
    head = next(line for line in lines if line.startswith("|  |"))
    assert head.split("|")[2:-1] == [f" {panel}, {x} " for panel in ("as image", "as text") for x in ("10", "20")]
    [mix] = [line for line in lines if line.startswith("| Mix")]
    cells = [cell.strip() for cell in mix.split("|")[2:-1]]
    assert cells[0] == cells[2] == "missing"
    assert cells[1].startswith("50.0 (") and cells[1].endswith(")† (1 of 2 runs)")
    assert cells[3].startswith("75.0 (")
    [image] = [line for line in lines if line.startswith("| Image")]
    assert [cell.strip() for cell in image.split("|")[2:-1]] == ["missing", "missing", "", ""]
    assert any("64 (section 1)" in line for line in lines)
    assert sum(line.startswith("- Missing: no run (task=table_readout supervision=mix") for line in lines) == 3


def test_every_cell_of_the_json_names_its_runs(tmp_path: Path) -> None:
    write(made(), tmp_path / "fig1")
    data = json.loads((tmp_path / "fig1.json").read_text())
    assert len(data["cells"]) == 6
    assert sum(cell["runs"] == ["one"] for cell in data["cells"]) == 2
    assert sum(len(cell["missing"]) for cell in data["cells"]) == 10
    assert (tmp_path / "fig1.md").read_text().startswith("# An artifact\n")


def test_numbers_from_elsewhere(tmp_path: Path) -> None:
    path = tmp_path / "numbers.csv"
    path.write_text("model,MMMU,POPE\nours,35.4,\ntheirs,1e1,86.6\n")
    assert read_numbers(path) == {
        ("ours", "MMMU"): {0: 35.4}, ("theirs", "MMMU"): {0: 10.0}, ("theirs", "POPE"): {0: 86.6},
    }  # fmt: skip
    path.write_text("model,seed,MMMU\nours,0,35\nours,7,37\n")
    assert read_numbers(path) == {("ours", "MMMU"): {0: 35.0, 7: 37.0}}
    path.write_text("model,seed,MMMU\nours,x,35\n")
    with pytest.raises(ValueError, match=r"numbers\.csv, line 2: seed='x': a whole number is expected"):
        read_numbers(path)
    path.write_text("model,MMMU\nours,many\n")
    with pytest.raises(ValueError, match=r"numbers\.csv, line 2: MMMU='many': a number is expected"):
        read_numbers(path)
    with pytest.raises(ValueError, match="cannot be read"):
        read_numbers(tmp_path / "none.csv")
