"""The lengths of a text after each of its tokens are those of its decoded prefixes, whatever the tokens are."""

import functools
import itertools
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support import families
from support.tiny import processor
from tokenizers import Tokenizer, decoders, models
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import bytes_to_unicode

from vlmreason.models.contract import Prompt
from vlmreason.models.vlm.processor import Processor, _segments_of
from vlmreason.models.vlm.text import TextCoder
from vlmreason.segments import ANSWER, THOUGHT, Response, Segment

MAKE = {
    "qwen": families.qwen_tokenizer,
    "llama3": families.llama3_tokenizer,
    "smol": families.smol_tokenizer,
    "llama2": lambda: families.llama2_tokenizer(legacy=False),
    "llama2_legacy": lambda: families.llama2_tokenizer(legacy=True),
    "prepending": families.prepending_tokenizer,
    "nano": lambda: processor().tokenizer,
}
CODERS: dict[str, TextCoder] = {}
TEXTS = st.text(st.sampled_from("aé中😀\ufffd \n▁.1") | st.characters(codec="utf-8"), max_size=20)


def coder_of(name: str) -> TextCoder:
    if name not in CODERS:
        CODERS[name] = TextCoder(MAKE[name]())
    return CODERS[name]


def by_definition(coder: TextCoder, ids: list[int]) -> list[int]:
    return [len(coder.decode(ids[:num])) for num in range(1, len(ids) + 1)]


@functools.cache
def byte_tokens(name: str) -> list[int]:
    """The tokens of the bytes 0 to 255; for the nano model, which has none, those of single characters."""
    vocabulary = coder_of(name).tokenizer.get_vocab()
    if name == "nano":
        return [token for text, token in vocabulary.items() if len(text) == 1]
    written = bytes_to_unicode()
    return [vocabulary.get(f"<0x{byte:02X}>", vocabulary.get(written[byte])) for byte in range(256)]


@pytest.mark.parametrize("name", MAKE)
@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_lengths_are_those_of_the_prefixes(name: str, data: st.DataObject) -> None:
    """Tokens of texts, of texts cut anywhere, any tokens, any bytes, special ones and numbers beyond the vocabulary."""
    coder = coder_of(name)
    specials = [token for token, one in coder.tokenizer.added_tokens_decoder.items() if one.special]
    some = st.sampled_from(byte_tokens(name)) | st.integers(0, len(coder.tokenizer) + 3) | st.sampled_from(specials)
    encoded = TEXTS.map(lambda text: coder.follow([], text)[0])
    cut = st.tuples(encoded, st.integers(0, 9), st.integers(1, 99)).map(lambda of: of[0][of[1] : of[2]])
    parts = data.draw(st.lists(encoded | cut | st.lists(some, max_size=8), max_size=6))
    ids = list(itertools.chain.from_iterable(parts))
    assert coder.lengths(ids) == by_definition(coder, ids)


FAULTS = [
    b"\xc3\xa9\xff",
    b"\xe4\xb8",
    b"\xf0\x9f\x98\x80\x80",
    b"\xed\xa0\x80",
    b"\xf0\x80",
    b"\xc3A\xa9",
    b"\xff\xfe",
]


@pytest.mark.parametrize("name", ["qwen", "llama3", "smol", "llama2", "prepending"])
@example(faults=FAULTS)
@settings(max_examples=150, deadline=None)
@given(st.lists(st.sampled_from(FAULTS) | st.binary(max_size=6) | TEXTS.map(str.encode), max_size=6))
def test_bytes_that_are_no_characters(name: str, faults: list[bytes]) -> None:
    """A whole character may turn into several faults when a further byte comes, and the other way round."""
    coder, of_byte = coder_of(name), byte_tokens(name)
    ids = [of_byte[byte] for byte in b"".join(faults)]
    assert coder.lengths(ids) == by_definition(coder, ids)


def toy(decoder: Any) -> TextCoder:
    vocabulary = {"<unk>": 0, "</s>": 1, "a": 2, "b": 3, "a</w>": 4, "b</w>": 5, "##a": 6, "▁a": 7, ".": 8, " a ": 9}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    if decoder is not None:
        backend.decoder = decoder
    return TextCoder(PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>"))


@pytest.mark.parametrize(
    "decoder",
    [
        None,
        decoders.Fuse(),
        decoders.BPEDecoder(),
        decoders.CTC(pad_token="b"),
        decoders.WordPiece(),
        decoders.Metaspace(),
        decoders.Strip(" ", 1, 0),
        decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 1, 1)]),
        decoders.Sequence([decoders.Replace("a", "aaa"), decoders.Fuse(), decoders.Replace("aaab", "b")]),
    ],
    ids=str,
)
@settings(max_examples=50, deadline=None)
@given(ids=st.lists(st.integers(0, 11), max_size=12))
def test_decoders_of_other_kinds(decoder: Any, ids: list[int]) -> None:
    coder = toy(decoder)
    assert coder.lengths(ids) == by_definition(coder, ids)


@pytest.mark.parametrize("name", MAKE)
def test_what_is_decoded_grows_with_the_response_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each token that there is once, however long the response: a bound on the work that needs no clock."""
    coder = TextCoder(MAKE[name]())
    num_decoded = 0
    decode = coder.decode

    def counted(ids: Any) -> str:
        nonlocal num_decoded
        num_decoded += len(ids)
        return decode(ids)

    monkeypatch.setattr(coder._prefixes, "_decode", counted)
    ids = (byte_tokens(name) + coder.follow([], "Answer: 1 é中😀 ")[0]) * 20
    lengths = coder.lengths(ids)
    assert num_decoded <= len(set(ids)) + 1 < len(ids) / 10
    assert lengths[-1] == len(decode(ids))


@pytest.mark.parametrize("name", MAKE)
@settings(max_examples=30, deadline=None)
@given(TEXTS, TEXTS, st.integers(0, 5))
def test_generated_tokens_get_the_segments_of_their_prefixes(name: str, thought: str, answer: str, cut: int) -> None:
    """As the definition has it: a token belongs to the segment that holds the last character of the text up to it."""
    coder = Processor(coder_of(name).tokenizer, processor().template, processor().pictures)
    ids = coder.coder.follow([], thought + answer)[0]
    ids = ids[: len(ids) - cut]

    def split(text: str) -> Response:
        pieces = Segment(THOUGHT, text[: len(thought)]), Segment(ANSWER, text[len(thought) :])
        return Response(tuple(piece for piece in pieces if piece.text))

    encoded = coder.encode_generated(Prompt("?", None), ids, split)
    text = coder.decode(ids)
    lead = len(coder.coder.decode(ids)) - len(text)
    spans = split(text).spans() or [(ANSWER, 0, 0)]
    wanted = _segments_of(spans, [length - lead for length in by_definition(coder.coder, ids)])
    assert encoded.input_ids[len(encoded) - len(ids) :] == ids
    assert encoded.segments[len(encoded) - len(ids) :] == wanted
