"""`match` asks towers about pairs: by statements, by a read-out, by the model behind them, on the same pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from support.tiny import shared_learner

from vlmreason.assembly import matches, towers
from vlmreason.models.contract import Choice, Prompt
from vlmreason.models.embedders import TowerOf
from vlmreason.tasks.pairs.visual_pairs import PairSizes, VisualPairs

TASK = VisualPairs(PairSizes())
DARK = (60, 60, 60)


class Shade:
    """Compares pictures and texts by whether a block is dark, and knows nothing else."""

    width, identity, both = 2, "shade", True

    def embed(self, prompts: Any) -> torch.Tensor:
        if prompts[0].image is None:
            dark = [1.0 if "dark" in prompt.text else 0.0 for prompt in prompts]
        else:
            dark = [float((prompt.image == DARK).all(axis=2).sum() > 100) for prompt in prompts]
        return torch.tensor([[1.0 + one, 2.0 - one] for one in dark])


def run(program: Any, monkeypatch: pytest.MonkeyPatch, out: Path, tower: Any, *words: str) -> tuple[Any, Any]:
    monkeypatch.setattr(towers, "open_tower", lambda word, accelerator: tower)
    done = program("match", "towers=[one]", f"out={out}", *words)
    assert done.code == 0, done.err
    return done, json.loads((out / "matches.json").read_text())["towers"]["one"]


def test_statements_and_a_read_out_of_one_tower(tmp_path: Path, program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("levels=[color,text]", "pairs=12", "readout=24")
    done, found = run(program, monkeypatch, tmp_path, Shade(), *words)
    color, letters = found["color"], found["text"]
    assert [color[name]["count"] for name in ("texts", "pictures", "both", "readout")] == [12] * 4
    assert [letters[name]["count"] for name in ("texts", "pictures", "both")] == [0] * 3, "equal cosines are not right"
    assert letters["readout"]["count"] <= 1, "and one answer for both pictures is no pair"
    assert found["all"]["texts"]["num"] == 24 and found["all"]["texts"]["share"] == 0.5
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").open()]
    assert len(rows) == 24 and sum(row["texts"] for row in rows) == 12
    assert "color" in done.out and "100.0 (" in done.out


def test_the_model_stands_beside_its_tower(tmp_path: Path, program: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The read-out sees what the projector gets; a model that always takes (a) has no pair."""
    learner = shared_learner()
    monkeypatch.setattr(
        type(learner), "choose", lambda self, prompts, options: [[Choice(-1.0, 1), Choice(-2.0, 1)] for _ in prompts]
    )
    tower = TowerOf(learner)
    _, found = run(program, monkeypatch, tmp_path, tower, "levels=[color]", "pairs=6", "readout=40", "grid=2")
    both = found["color"]
    assert "texts" not in both and both["model"]["count"] == 0
    assert both["model_to_readout"]["gained"] == both["readout"]["count"] and not both["model_to_readout"]["lost"]
    image = TASK.draw(TASK.sample("color", "test", 0).state)
    assert tower.places([Prompt("", image)], 2).shape == (1, 4 * tower.width)
    asked = list(matches.pairs_of(TASK, "color", 3))
    assert [TASK.right(state) for pair in asked for state in pair.states] == [0, 1] * 3
    monkeypatch.setattr(
        type(learner), "choose",
        lambda self, prompts, options: [
            [Choice(-float((one.image == DARK).all(axis=2).sum() > 100), 1), Choice(-0.5, 1)] for one in prompts
        ],
    )  # fmt: skip
    dark_first = [TASK.two_options(pair.states[0])[0] == "light" for pair in asked]
    assert matches.chosen(learner, TASK, asked) == dark_first, "it takes (a) of what is light"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task=digits"], "pairs of pictures are expected"),
        (["towers=[]"], "one or more different ones are expected"),
        (["readout=1"], "readout=1: 0, or 4 training pictures"),
        (["caption=photo"], "caption='photo': a text with {statement}"),
        (["levels=[shade]"], "levels=shade: visual_pairs has"),
        (["towers=[pixels]", "pairs=1"], "towers=pixels: it has no vectors of texts"),
    ],
)
def test_wrong_settings_are_named(words: list[str], message: str, program: Any) -> None:
    done = program("match", *words)
    assert done.code == 2 and message in done.err


def test_pixels_are_read_too() -> None:
    """A shade of the block is in the pixels, whatever place it has."""
    pairs = list(matches.pairs_of(TASK, "viewpoint", 8))
    settings = matches.Settings(("pixels",), None, 8, 60, 6, "a photo of {statement}", "out", "auto")
    found = matches.read_out(towers.open_tower("pixels"), TASK, ("viewpoint",), pairs, settings)
    assert len(found) == 8 and np.mean(found) > 0.5, "more than by guessing, which has a quarter"
