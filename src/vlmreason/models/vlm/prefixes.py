"""How long a text is after each of its tokens, in time linear in the text.

Most tokens add the same characters wherever they stand, so theirs are counted once. Others are bytes that become
characters together with their neighbours: of a byte-level tokenizer those that are no whole characters, of a
SentencePiece one those spelled <0xE2>. Bytes in a row are counted one after the other as the `tokenizers` library
decodes them: the first kind replaces each part that cannot be a character, the second every byte of a row that has a
fault. (Decoding every prefix instead took 0.2 s for 1600 tokens.)
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Sequence
from typing import Any

from tokenizers import Tokenizer

_LOCAL = re.compile(r"(Replace )*(ByteFallback )?(Fuse (Strip )?)?|ByteLevel |Metaspace |WordPiece ")
"""Decoders, step by step, in which nothing but bytes in a row depends on what comes behind it."""
_BYTE = re.compile("<0x[0-9A-Fa-f]{2}>")
_PRINTED = (*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100))
_UNPRINTED = (byte for byte in range(0x100) if byte not in _PRINTED)
_ALPHABET = {chr(byte): byte for byte in _PRINTED} | {chr(0x100 + i): byte for i, byte in enumerate(_UNPRINTED)}
"""The characters that stand for bytes in byte-level vocabularies."""


class Prefixes:
    """The prefixes of sequences of tokens, decoded behind an anchor."""

    def __init__(
        self, backend: Tokenizer, decoder: Any, anchor: Sequence[int], decode: Callable[[Sequence[int]], str]
    ) -> None:
        """decoder: as the tokenizer's file describes it. `decode` gives what ids add to the text of the anchor."""
        self._backend, self._decode = backend, decode
        steps = _steps(decoder)
        names = "".join(f"{step['type']} " for step in steps)
        self._byte_level, self._fallback = "ByteLevel" in names, "ByteFallback" in names
        self._specials = {token.content for token in backend.get_added_tokens_decoder().values() if token.special}
        self._added: dict[int, int | bytes] = {}
        self._local = _LOCAL.fullmatch(names) is not None and not any(step.get("stop") for step in steps)
        self._local &= bool(anchor) and all(isinstance(self._add(token), int) for token in anchor)

    def lengths(self, ids: Sequence[int]) -> list[int]:
        """Count the characters of the first 1, 2, ... tokens; special ones and unknown numbers have none.

        A decoder of a kind that is not known here is asked for each prefix, which is quadratic.
        """
        if not self._local:
            return [len(self._decode(ids[:num])) for num in range(1, len(ids) + 1)]
        lengths, settled, row = [], 0, _Row(self._byte_level)
        for token in ids:
            added = self._add(token)
            if isinstance(added, bytes):
                row.append(added)
            else:
                settled += row.num_chars + added
                row = _Row(self._byte_level)
            lengths.append(settled + row.num_chars)
        return lengths

    def _add(self, token: int) -> int | bytes:
        """The number of characters that a token adds anywhere, or the bytes that it adds to a row."""
        if token not in self._added:
            self._added[token] = self._read(token)
        return self._added[token]

    def _read(self, token: int) -> int | bytes:
        text = self._backend.id_to_token(token)
        if text is None or text in self._specials:
            return b""
        if self._fallback and _BYTE.fullmatch(text):
            return bytes.fromhex(text[3:5])
        if self._byte_level:
            raw = bytes(map(_ALPHABET.__getitem__, text)) if _ALPHABET.keys() >= set(text) else text.encode()
            if "\ufffd" in raw.decode(errors="replace"):
                return raw
        return len(self._decode([token]))


class _Row:
    """Bytes in a row, and how many characters they are so far."""

    def __init__(self, in_parts: bool) -> None:
        """in_parts: a fault spoils the part that cannot be a character, and not the whole row."""
        self._in_parts = in_parts
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace" if in_parts else "strict")
        self._num_bytes = self._num_whole = 0
        self._broken = False

    def append(self, raw: bytes) -> None:
        self._num_bytes += len(raw)
        try:
            self._num_whole += len(self._decoder.decode(raw))
        except UnicodeDecodeError:
            self._broken = True

    @property
    def num_chars(self) -> int:
        unfinished = self._decoder.getstate()[0]
        if self._in_parts:
            return self._num_whole + len(unfinished.decode(errors="replace"))
        return self._num_bytes if self._broken or unfinished else self._num_whole


def _steps(decoder: Any) -> list[Any]:
    """The steps of a tokenizer's decoder; none where there is no decoder."""
    return [] if decoder is None else decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
