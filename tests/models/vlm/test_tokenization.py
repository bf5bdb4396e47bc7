"""Text goes through the closed vocabulary and comes back as it was."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.tiny import TASKS, TRACES, nano_task, processor

from vlmreason.dialogue.build import build_dialogue
from vlmreason.models.vlm.tokenization import SPECIAL, build_tokenizer, pieces

KNOWN = "".join(sorted(set(string.printable) - set("\r\x0b\x0c")))


@given(st.text(KNOWN, max_size=300))
@settings(deadline=None, max_examples=150)
def test_ascii_comes_back(text: str) -> None:
    coder = processor()
    ids = coder.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]
    assert coder.decode(ids) == text
    assert coder.count_tokens(text) == len(ids) <= len(text)


@pytest.mark.parametrize("text", [*SPECIAL, "<unk>", "<reserved_3>", f"a {SPECIAL[2]}b", "x" * 2000, "7" * 2000])
def test_hard_ascii_comes_back(text: str) -> None:
    coder = processor()
    assert coder.decode(coder.tokenizer(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]) == text


@given(st.text(max_size=50))
@settings(deadline=None, max_examples=50)
def test_any_text_is_taken(text: str) -> None:
    """What is not ASCII becomes the unknown token; nothing around it changes."""
    coder = processor()
    assert coder.decode(coder.tokenizer(f"A{text}\n7", add_special_tokens=False)["input_ids"])[-2:] == "\n7"


@pytest.mark.parametrize("name", TASKS)
@pytest.mark.parametrize("trace", TRACES)
def test_texts_of_tasks_come_back(name: str, trace: str) -> None:
    coder, task = processor(), nano_task(name, trace)
    for level in task.levels:
        for index in range(5):
            view = "text" if level in task.text_only else "image_via_text"
            dialogue = build_dialogue(task, task.sample(level, "test", index), view)
            for text in (dialogue.prompt, dialogue.response.text):
                assert coder.decode(coder.tokenizer(text, add_special_tokens=False)["input_ids"]) == text


def test_pieces_join_to_the_text() -> None:
    text = "\\begin{tabular}{ccc}\n & Jan & \\cellcolor{yellow}7 \\\\\n\\end{tabular}\n(3,2) tau: 12, done."
    assert "".join(pieces(text)) == text
    found = pieces(text)
    assert " & \\cellcolor{yellow}7" in found
    assert "(3,2)" in found


def test_vocabulary_has_the_size_asked_for() -> None:
    assert len(build_tokenizer(["some words"], 200)) == 200
    with pytest.raises(ValueError, match="num_tokens=110: the vocabulary needs"):
        build_tokenizer(["one two three four five six seven eight nine ten eleven twelve"], 110)
