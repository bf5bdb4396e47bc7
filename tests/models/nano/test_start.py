"""The composed start: entries of the vocabulary that share a part begin alike, and all are distinct."""

from dataclasses import replace

import pytest
import torch
from support.tiny import SIZES

from vlmreason.models.nano.model import build_nano, read_vocabulary
from vlmreason.models.nano.start import EMBEDDING_STD, compose, parts_of


@pytest.mark.parametrize(
    ("entry", "parts"),
    [
        (" (3,2)", ["space", "cell", "row 3", "column 2"]),
        (" & \\cellcolor{yellow}6", ["ampersand", "mark", "word 6"]),
        (" & Mar", ["ampersand", "word mar"]),
        (" Mar", ["space", "word mar"]),
        ("Answer:", ["colon", "word answer"]),
        (":", ["word :"]),
        (" ", ["space"]),
        ("<pad>", ["<pad>"]),
        (" &", ["space", "word &"]),
    ],
)
def test_parts(entry: str, parts: list[str]) -> None:
    assert parts_of(entry) == parts


def test_entries_that_share_parts_begin_alike() -> None:
    vocabulary = {entry: row for row, entry in enumerate([" (3,2)", " (3,4)", " (1,5)", " Mar", " & Mar", " 7"])}
    weight = torch.zeros(len(vocabulary), 4096)
    compose(weight, vocabulary)
    unit = torch.nn.functional.normalize(weight, dim=1)
    alike = unit @ unit.T
    at = vocabulary.__getitem__
    assert alike[at(" (3,2)"), at(" (3,4)")] > alike[at(" (3,2)"), at(" (1,5)")] + 0.1
    assert alike[at(" Mar"), at(" & Mar")] > 0.3 and alike[at(" & Mar"), at(" 7")].abs() < 0.1
    assert 0.9 * EMBEDDING_STD < weight.std() < 1.2 * EMBEDDING_STD


def test_a_model_begins_with_it_whatever_its_seed() -> None:
    def built(seed: int) -> dict[str, torch.Tensor]:
        model, _ = build_nano(replace(SIZES, placed=True, start="composed"), read_vocabulary(), seed)
        return model.state_dict()

    first, again, other = built(0), built(0), built(1)
    embedding = "model.language_model.embed_tokens.weight"
    assert all(torch.equal(value, again[name]) for name, value in first.items())
    assert torch.equal(first[embedding], other[embedding])
    matrix = "model.language_model.layers.0.self_attn.q_proj.weight"
    assert not torch.equal(first[matrix], other[matrix])
