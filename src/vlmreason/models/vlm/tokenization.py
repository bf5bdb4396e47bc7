"""The closed vocabulary of the nano model: one token per table cell, coordinate, word, digit or sign.

Splitting is by one pattern whose pieces keep their leading space, so decoding is concatenation and nothing
is lost. A piece that is not in the vocabulary is spelled in the longest known parts, at worst characters.
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable

from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

PAD, EOS, IMAGE, USER, ASSISTANT = "<pad>", "<eos>", "<image>", "<user>", "<assistant>"
SPECIAL = (PAD, EOS, IMAGE, USER, ASSISTANT)

PIECE = (
    r"\\begin\{tabular\}\{[a-z|]{0,40}\}\n?|\\end\{tabular\}\n?| ?\\\\\n?"
    r"| &(?: (?:\\cellcolor\{[a-z]{1,20}\})?[A-Za-z0-9]{1,40})?"
    r"| ?\(\d{1,3},\d{1,3}\)| ?[A-Za-z]{1,40}:?| ?\d| ?[^\sA-Za-z0-9]|\s"
)
"""Every piece is shorter than 100 characters, beyond which WordPiece gives up on a word."""


def pieces(text: str) -> list[str]:
    return re.findall(PIECE, text)


def build_tokenizer(texts: Iterable[str], num_tokens: int) -> PreTrainedTokenizerFast:
    """Return a tokenizer of exactly `num_tokens` entries: special, printable ASCII, the pieces of `texts`, reserved.

    Raises ValueError when the pieces do not fit.
    """
    entries = dict.fromkeys([*SPECIAL, "<unk>", *sorted(set(string.printable) - set("\r\x0b\x0c"))])
    for text in texts:
        entries.update(dict.fromkeys(pieces(text)))
    if len(entries) > num_tokens:
        raise ValueError(f"model.num_tokens={num_tokens}: the vocabulary needs {len(entries)}")
    entries.update(dict.fromkeys(f"<reserved_{i}>" for i in range(num_tokens - len(entries))))
    vocabulary = {piece: i for i, piece in enumerate(entries)}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>", continuing_subword_prefix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECE), behavior="isolated")
    tokenizer.decoder = decoders.Fuse()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=EOS,
        unk_token="<unk>",
        additional_special_tokens=[IMAGE, USER, ASSISTANT],
        clean_up_tokenization_spaces=False,
    )
