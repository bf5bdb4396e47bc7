"""Text into token ids and back, exactly, wherever in a sequence the text stands.

SentencePiece-like tokenizers put a space before a text, some of them only at the very start. Pieces of a sequence are
tokenized apart here (what comes from outside must not become a special token), and get the ids that the whole
sequence in one go would give them.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer

from vlmreason.models.vlm.prefixes import Prefixes


@dataclass(frozen=True)
class Written:
    """Text of a chat template: special tokens in it are meant. A plain `str` comes from outside: there they are not."""

    text: str


Part = Written | str | list[int]
"""A piece of a sequence; a list holds the ids of special tokens."""


class TextCoder:
    """The text side of a tokenizer. Raises ValueError for one that is not of the `tokenizers` library."""

    def __init__(self, tokenizer: Any) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise ValueError(f"{type(tokenizer).__name__}: no tokenizer of the `tokenizers` library")
        self.tokenizer = tokenizer
        spec = json.loads(backend.to_str()) | {"truncation": None, "padding": None}
        self._start = Tokenizer.from_str(json.dumps(spec))
        bare = _without_prefix_space(spec)
        self._inside = self._start if bare == spec else Tokenizer.from_str(json.dumps(bare))
        self._after_special = self._start if self._prefixes_after_special() else self._inside
        added = tokenizer("", add_special_tokens=True)["input_ids"]
        self._bos: list[int] = [token for token in added[:1] if token == tokenizer.bos_token_id]
        self._anchor = self._ids(self._inside, "a")
        self._anchor_text = self._decode(self._anchor)
        self._prefixes = Prefixes(backend, spec["decoder"], self._anchor, self.decode)

    def sequence(self, *parts: Part) -> list[int]:
        """Return ids of the parts in a row. Text between two special tokens is tokenized in one piece."""
        return self._sequence(parts)[0]

    def turn(self, *parts: Part) -> list[int]:
        """Write as `sequence`, at the beginning of a dialogue: with the token in front that the tokenizer puts there by
        itself, unless the first part has it."""
        ids = self.sequence(*parts)
        return ids if ids[:1] == self._bos else self._bos + ids

    def follow(self, before: Sequence[Part], text: str) -> tuple[list[int], list[tuple[int, int]]]:
        """Return ids of `text` where it comes behind `before`, which is tokenized alone, and the characters of each."""
        ids, ends_special = self._sequence(before)
        coder = self._start if not ids else self._after_special if ends_special else self._inside
        coder.encode_special_tokens = True
        coded = coder.encode(text, add_special_tokens=False)
        return coded.ids, coded.offsets

    def decode(self, ids: Sequence[int]) -> str:
        """Return what the ids add to a text they come behind; special tokens are left out."""
        return self._decode([*self._anchor, *ids])[len(self._anchor_text) :]

    def lengths(self, ids: Sequence[int]) -> list[int]:
        """Count the characters of `decode(ids[:n])` for every n from 1 on."""
        return self._prefixes.lengths(ids)

    @functools.cached_property
    def specials(self) -> re.Pattern[str]:
        """Return any special token, the longest first, as a group that `split` keeps."""
        spelled = {str(token) for token in self.tokenizer.added_tokens_decoder.values()}
        return re.compile("(" + "|".join(map(re.escape, sorted(spelled, key=len, reverse=True))) + ")")

    def _sequence(self, parts: Sequence[Part]) -> tuple[list[int], bool]:
        """Ids, and whether the last one is a special token's."""
        ids: list[int] = []
        plain = ""
        for part in parts:
            for piece in self.specials.split(part.text) if isinstance(part, Written) else [part]:
                if isinstance(piece, str) and not (isinstance(part, Written) and self.specials.fullmatch(piece)):
                    plain += piece
                    continue
                ids += self._run(plain, first=not ids)
                ids += piece if isinstance(piece, list) else [self.tokenizer.convert_tokens_to_ids(piece)]
                plain = ""
        return ids + self._run(plain, first=not ids), not plain

    def _run(self, text: str, first: bool) -> list[int]:
        return self._ids(self._start if first else self._after_special, text) if text else []

    @staticmethod
    def _ids(coder: Tokenizer, text: str) -> list[int]:
        coder.encode_special_tokens = True  # each time: it is lost when a worker process gets its copy
        ids: list[int] = coder.encode(text, add_special_tokens=False).ids
        return ids

    def _decode(self, ids: Sequence[int]) -> str:
        return str(self.tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False))

    def _prefixes_after_special(self) -> bool:
        """Whether text behind a special token gets the prefix of a text at the start."""
        special = self.tokenizer.eos_token
        if special is None or self._inside is self._start:
            return True
        whole = self.tokenizer(special + "a", add_special_tokens=False)["input_ids"]
        return bool(whole[1:] == self._ids(self._start, "a"))


def _without_prefix_space(spec: Any) -> Any:
    """A tokenizer's description without what puts a space before a text."""
    if isinstance(spec, list):
        kept = [item for item in spec if not (isinstance(item, dict) and item.get("type") == "Prepend")]
        return [_without_prefix_space(item) for item in kept]
    if not isinstance(spec, dict):
        return spec
    changed = {}
    for key, value in spec.items():
        if key in ("added_tokens", "model"):  # vocabulary and merges: long, and nothing to change
            changed[key] = value
        elif key == "prepend_scheme":
            changed[key] = "never"
        elif key == "add_prefix_space":
            changed[key] = False
        elif isinstance(value, dict) and value.get("type") == "Prepend":
            changed[key] = None
        else:
            changed[key] = _without_prefix_space(value)
    return changed
