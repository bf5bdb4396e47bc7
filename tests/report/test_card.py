"""The card of an exported model says what opens it and how it did."""

import pytest
import yaml

from vlmreason.report.card import Use, model_card, with_skills

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


def test_a_table_of_skills_takes_the_place_of_the_older_one() -> None:
    rows = [{"task": "t", "level": "value", "num": 9, "text": 0.99, "image": 0.5}, {"task": "t", "level": "bare",
             "num": 9, "text": 1.0}]  # fmt: skip
    once = with_skills("# A base\n\nWords.\n", rows)
    assert "| t | value | 99 | 50 | 9 |" in once and "| t | bare | 100 | - | 9 |" in once
    assert once.startswith("# A base\n\nWords.\n\n")
    again = with_skills(once + "More.\n", rows[:1])
    assert again.count("| t |") == 1 and again.endswith("More.\n")
    assert with_skills(once, rows) == once
    with pytest.raises(ValueError, match="the card's table of skills has no end"):
        with_skills("<!-- skills -->", rows)
