"""`mine` goes from a folder of pictures to a page of pairs; what is no picture or there twice is named."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlmreason.assembly import towers


class Corner:
    """A tower that sees the upper left pixel alone."""

    width, identity = 3, "corner"

    def embed(self, prompts: Any) -> Any:
        import torch

        return torch.tensor(np.stack([prompt.image[0, 0].astype(np.float32) + 1 for prompt in prompts]))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Four pictures, two of them with the same corner and opposite else; one there twice, a text, a link."""
    place = tmp_path / "<photos>"
    (place / "below").mkdir(parents=True)
    rng = np.random.default_rng(0)
    black = np.zeros((40, 40, 3), np.uint8)
    white = 255 - black
    white[0, 0] = 0
    noise = rng.integers(0, 256, (40, 40, 3), np.uint8)
    noise[0, 0] = 255, 0, 0
    for name, picture in {"black": black, "below/white": white, "c": noise}.items():
        Image.fromarray(picture).save(place / f"{name}.png")
    Image.fromarray(black).save(place / "zagain.bmp")
    (place / "notes.txt").write_text("no picture")
    (place / "link.png").symlink_to(place / "black.png")
    return place


def test_pairs_of_a_folder(folder: Path, tmp_path: Path, program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = towers.open_tower
    monkeypatch.setattr(towers, "open_tower", lambda word, place: Corner() if word == "nano" else opened(word, place))
    words = ["mine", f"folder='{folder}'", "towers=[nano,pixels]", f"features={tmp_path}/kept", f"out={tmp_path}/out"]
    done = program(*words)
    assert done.code == 0, done.err
    assert "1 pairs of 3 pictures" in done.out and "duplicates: 1, as zagain.bmp (black.png)" in done.out
    out = tmp_path / "out"
    (row,) = (json.loads(line) for line in (out / "pairs.jsonl").open())
    assert (row["first"], row["second"]) == ("below/white.png", "black.png") and row["alike"] > 0.99 > 0 > row["unlike"]
    assert next(csv.DictReader((out / "pairs.csv").open()))["second"] == "black.png"
    summary = json.loads((out / "summary.json").read_text())
    assert summary["found"] == 1 and [name for name, _ in summary["none"]] == ["link.png", "notes.txt"]
    page = (out / "pairs.html").read_text()
    assert page.count("<article") == 1 and page.count("data:image/png") == 2 and "&lt;photos&gt;" in page
    again = program(*words)
    assert again.code == 0 and (out / "pairs.html").read_text() == page


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["folder=nowhere"], "folder=nowhere: no such folder"),
        (["folder=.", "alike=2"], "alike=2"),
        (["folder=.", "towers=[nano]"], "two different ones are expected"),
        (["folder=.", "towers=[pixels,pixels]"], "two different ones are expected"),
    ],
)
def test_wrong_settings_are_named(words: list[str], message: str, program: Any) -> None:
    done = program("mine", *words)
    assert done.code == 2 and message in done.err
