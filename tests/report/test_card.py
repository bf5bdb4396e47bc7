"""The card of an exported model says what opens it and how it did."""

import pytest
import yaml

from vlmreason.report.card import Use, model_card

CONFIG = {"model": {"name": "hf", "id": "some/model"}, "task": {"name": "table_readout"}, "seed": 3}
CELL = {"level": "hard", "view": "image", "accuracy": 0.5, "ci_low": 0.25, "ci_high": 0.75, "num": 8}


@pytest.mark.parametrize(
    ("use", "library", "opened_by"),
    [
        ("plain", "transformers", "AutoProcessor.from_pretrained"),
        ("placed", "vlmreason", "import vlmreason.models.nano.placed"),
        ("adapter", "peft", "PeftModel.from_pretrained"),
        ("package", "vlmreason", "vlmreason evaluate run="),
    ],
)
def test_header_use_and_results(use: Use, library: str, opened_by: str) -> None:
    card = model_card("a-run", "final", CONFIG, use, {"cells": [CELL]})
    _, header, text = card.split("---\n", 2)
    assert yaml.safe_load(header)["library_name"] == library
    assert yaml.safe_load(header)["base_model"] == "some/model"
    assert opened_by in text and "`seed=3`, phase final" in text
    assert "| hard | image | 50.0 (25.0 to 75.0) | 8 |" in text
    assert "accuracy" not in model_card("a-run", "align", CONFIG, use, None)
    needing = model_card("a-run", "align", CONFIG, use, None, ("torchvision", "num2words"))
    assert ("needs `pip install torchvision num2words`." in needing) == (use == "plain") and "pip install" not in card


def test_the_picture_of_the_loss_is_shown_where_there_is_one() -> None:
    assert "](loss.svg)" in model_card("a-run", "final", CONFIG, "plain", None, loss="loss.svg")
    assert "![" not in model_card("a-run", "final", CONFIG, "plain", None)
