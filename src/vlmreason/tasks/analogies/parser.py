"""What a response says about an analogy: statements, options, the answer."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vlmreason.tasks.analogies.panels import ATTRIBUTES, RELATIONS, Pattern
from vlmreason.tasks.analogies.wording import _MARKER, AnalogyWording, _Phrases


class _Parser:
    """Reads patterns, option and listed values from a response."""

    def __init__(self, wording: AnalogyWording, phrases: _Phrases) -> None:
        self._rows = {phrases.examples[0].lower(): "1", phrases.examples[1].lower(): "2"}
        self._rows |= {"1": "1", "2": "2", "one": "1", "two": "2", "example 1": "1", "example 2": "2"}
        self._names = {name.lower(): name for name in ATTRIBUTES}
        self._names |= {name.replace(" ", "_"): name for name in ATTRIBUTES}
        self._names |= {given.lower(): name for given, name in zip(phrases.attributes, ATTRIBUTES, strict=True)}
        self._relations = {relation.lower(): relation for relation in RELATIONS}
        rows, names, relations = (_any_of(words) for words in (self._rows, self._names, self._relations))
        self._item = re.compile(
            rf"(?<!\w)(?:(?i:({rows}))|(?i:option\s?)?([A-D]))[\s:]{{1,3}}\(?(?i:({names})[\s,]{{1,3}}({relations}))(?!\w)"
        )
        self._name = re.compile(rf"(?<!\w)({_any_of(phrases.attributes)})(?!\w)")
        self._verdict = re.compile(rf"(?<!\w)(?:{relations}|{re.escape(wording.none)})\Z", re.IGNORECASE)
        self._longest = max(map(len, (*self._relations, wording.none)))
        heads = {**{head.strip(): row for row, head in phrases.heads.items()}}
        heads[wording.summary.partition("{")[0].strip()] = "summary"
        self._heads = heads
        self._stages = {"example": phrases.examples, "query": [phrases.query]}
        self._groups = {
            group: [given for given, name in zip(phrases.attributes, ATTRIBUTES, strict=True) if name.endswith(group)]
            for group in ("type", "color", "size", "quantity", "position")
        }

    def answer(self, response: str) -> tuple[dict[str, Pattern | None], str | None]:
        """Return patterns by row ("1", "2", "A" ... "D"; None where two different ones are given) and the option.

        The option is None when none is given, or several different ones.
        """
        marks = list(_MARKER.finditer(response))
        if not marks:
            bare = _BARE.fullmatch(response.strip()) if len(response) < _MAX_BARE else None
            return {}, bare.group(1) if bare else None
        answer = response[marks[-1].end() :]
        named: dict[str, Pattern | None] = {}
        for match in self._item.finditer(answer):
            row = self._rows[match[1].lower()] if match[1] else match[2]
            pattern = (self._names[match[3].lower()], self._relations[match[4].lower()])
            named[row] = pattern if named.get(row, pattern) == pattern else None
        rest = self._item.sub("", answer)
        given = set(_OPTION.findall(rest))
        if not given and (bare := _BARE.fullmatch(rest.strip()[:_MAX_BARE])):
            given = {bare.group(1)}
        return named, given.pop() if len(given) == 1 else None

    def values(self, response: str, gold: str) -> dict[str, bool]:
        """Tell per stage and group of attributes whether the trace lists the same values as the gold one."""
        wanted, listed = self.sections(gold), self.sections(response)
        return {
            f"{stage}_{group}": all(
                wanted.get(row, {}).get(name) == listed.get(row, {}).get(name) for row in rows for name in names
            )
            and all(row in listed for row in rows)
            for stage, rows in self._stages.items()
            for group, names in self._groups.items()
        }

    def sections(self, response: str) -> dict[str, dict[str, str]]:
        """Return row -> attribute -> its values in the trace; the last row of a name counts, the text form comes
        before."""
        marks = list(_MARKER.finditer(response))
        thought = response[: marks[-1].start()] if marks else response
        starts = sorted(
            (at, at + len(head), row) for head, row in self._heads.items() if (at := _last_line(thought, head)) >= 0
        )
        if not starts:
            return {}
        ends = [at for at, _, _ in starts[1:]] + [len(thought)]
        sections = {}
        for (_, begin, row), end in zip(starts, ends, strict=True):
            pieces = self._name.split(thought[begin:end])
            items: dict[str, str] = {}
            for name, item in zip(pieces[1::2], pieces[2::2], strict=True):
                items.setdefault(name, self._listed(item.strip(" \n:-")).strip())
            sections[row] = items
        return sections

    def _listed(self, item: str) -> str:
        """An item without the verdict at its end and the blanks and arrows before it; in linear time."""
        text = item.rstrip()
        verdict = self._verdict.search(text, max(0, len(text) - self._longest))
        if verdict is None:
            return item
        end = verdict.start()
        while end and (text[end - 1].isspace() or text[end - 1] in ">-"):
            end -= 1
        return text[:end]


_OPTION = re.compile(r"(?<!\w)(?i:option)\s{0,3}:?\s{0,3}\(?([A-D])(?!\w)")
_BARE = re.compile(r"(?:(?i:the )?(?i:final )?(?i:answer|option)(?i: is)?:?\s{0,3})?\(?([A-D])\)?\.?")
_MAX_BARE = 60


def _any_of(words: Iterable[str]) -> str:
    return "|".join(re.escape(word) for word in sorted(words, key=len, reverse=True))


def _last_line(text: str, head: str) -> int:
    """Where the last line that begins with `head` starts, -1 when there is none."""
    at = text.rfind("\n" + head)
    if at >= 0:
        return at + 1
    return 0 if text.startswith(head) else -1
