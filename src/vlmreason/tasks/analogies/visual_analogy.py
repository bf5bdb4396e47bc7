"""Visual Analogy (sections C.5, C.6.3, E.3): find the option that continues a query as two examples go on.

A panel holds shapes (type, color, size, position), lines (type, color), or both. Everything else is derived
from these values. Per panel each attribute is a set of values, listed in a fixed order:

- shape type, shape color, shape size, shape position, line type, line color: the different values present;
- shape quantity: for every shape type present, how many shapes of it there are (a circle and two
  rectangles: 1 and 2), as in the description of appendix I.5.

A pattern is (attribute, relation), shown by three panels with sets A, B, C, none of them empty:

- XOR, OR, AND: A and B differ and C is their symmetric difference, union, intersection;
- Progression: each panel has one value, each further on in the attribute's list than the one before. The
  lists are the constants of this module: types by number of corners, colors from black to white, sizes and
  quantities upwards, positions in reading order, line types as in table 2.

Sets that stay the same show no pattern. Sets without common value have the same XOR and OR: such rows are
never drawn, because examples, and the query with each option, show exactly one pattern over all attributes.

simple: the examples and the query share attribute and relation, not held out, and no option shows a held-out
pattern. hard: all three patterns are held out and share the relation, over `num_domains` attributes. The eight
held-out patterns of the paper have two attributes for each relation, so the examples then differ and the
query repeats one of them (as figure 37 does); three distinct attributes need a larger held-out set. The
three other options each show one pattern of another relation. Panels with one shape or one line have single
values only, so a query with Progression over positions or line types has both shapes and lines: where
`both_percent` is 0 there are no such problems.
"""

from __future__ import annotations

import functools
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import ClassVar

from vlmreason.pictures import Picture
from vlmreason.structure import check_choice, nearest
from vlmreason.tasks.analogies.drawing import _draw_panel, _frames, _layout
from vlmreason.tasks.analogies.panels import (
    _COLOR,
    _LINE_TYPE,
    _SIZE,
    _TYPE,
    _VALUES,
    ATTRIBUTES,
    COLORS,
    LETTERS,
    LINE_TYPES,
    MAX_SIDE,
    RELATIONS,
    SHAPE_TYPES,
    SIZES,
    AnalogySizes,
    AnalogyState,
    Pattern,
    _flat,
    _solution,
    read,
    solve,
)
from vlmreason.tasks.analogies.parser import _Parser
from vlmreason.tasks.analogies.sampler import _MAX_PROBLEMS, _Sampler
from vlmreason.tasks.analogies.wording import (
    _CODES,
    _COMPACT_TEXT,
    _FULL_TEXT,
    TEXT_FORMS,
    WORDINGS,
    AnalogyWording,
    _lossless,
    _Phrases,
    lossy,
)
from vlmreason.tasks.base import MAX_RESPONSE_CHARS, Belongs, Modality, Score, Task, choose_wording
from vlmreason.tasks.held_out import held_out_pairs

PAPER_HELD_OUT: tuple[Pattern, ...] = (
    ("line type", "XOR"),
    ("line color", "OR"),
    ("shape type", "AND"),
    ("shape size", "XOR"),
    ("shape color", "Progression"),
    ("shape position", "OR"),
    ("line type", "AND"),
    ("line color", "Progression"),
)


class VisualAnalogy(Task[AnalogyState]):
    name = "visual_analogy"
    version = 1
    levels = ("simple", "hard")
    state_type = AnalogyState
    explained = True
    sizes_type: ClassVar[type] = AnalogySizes

    def __init__(
        self,
        sizes: AnalogySizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        text_form: str = "lossy",
        held_out: Iterable[Sequence[str]] = PAPER_HELD_OUT,
        num_domains: int = 2,
    ) -> None:
        check_choice("task.text_form", text_form, TEXT_FORMS)
        check_choice("task.num_domains", num_domains, (1, 2, 3))
        self.sizes, self.text_form, self.num_domains = sizes, text_form, num_domains
        self.wording: AnalogyWording = choose_wording(WORDINGS, trace, wording or {})
        self.held_out = held_out_pairs(held_out, {"attribute": ATTRIBUTES, "relation": RELATIONS}, least=1)
        _check_sizes(sizes)
        self._sampler = _Sampler(sizes)
        self._phrases = _Phrases(self.wording)
        self._parser = _Parser(self.wording, self._phrases)

    def domains(self, level: str) -> dict[str, list[str]]:
        """Return per relation the attributes that a level may use; relations with too few of them are left out."""
        needed = self.num_domains if level == "hard" else 1
        found: dict[str, list[str]] = {}
        for relation in RELATIONS:
            pairs = [(a, relation) for a in ATTRIBUTES if (a, relation) in self._sampler.supported]
            usable = [pair[0] for pair in pairs if (pair in self.held_out) == (level == "hard")]
            if len(usable) >= needed:
                found[relation] = usable
        return found

    def _sample(self, level: str, rng: random.Random, belongs: Belongs) -> AnalogyState:
        choices = self.domains(level)
        if not choices:
            number = self.num_domains if level == "hard" else 1
            raise self.unreachable(
                level,
                f"no relation has {number} {'' if level == 'hard' else 'not '}held-out attribute(s) that panels of "
                f"these sizes can show (held_out={[list(p) for p in sorted(self.held_out)]}, num_domains={number})",
            )
        excluded = self.held_out if level == "simple" else frozenset()
        for _ in range(_MAX_PROBLEMS):
            relation = rng.choice(list(choices))
            state = self._sampler.problem(rng, relation, self._three(level, rng, choices[relation]), excluded, belongs)
            if state is not None:
                return state
        raise self.unreachable(level, "no problem was found: the panels allow too few different values")

    def _three(self, level: str, rng: random.Random, attributes: list[str]) -> list[str]:
        """The attributes of both examples and of the query."""
        number = self.num_domains if level == "hard" else 1
        chosen = rng.sample(attributes, number)
        if number == 2:
            chosen.append(rng.choice(chosen))
        return chosen * 3 if number == 1 else chosen

    def key(self, state: AnalogyState) -> object:
        return [read(panel) for panel in state.examples[0]]

    def draw(self, state: AnalogyState) -> Picture:
        sizes = self.sizes
        picture = _frames(sizes.picture, sizes.panel).copy()
        places = _layout(sizes.picture, sizes.panel)
        rows = (*state.examples, state.query, state.options)
        for row, panels in zip(places, rows, strict=True):
            for (x, y), panel in zip(row, panels, strict=False):
                inner = sizes.panel - 2
                picture[y + 1 : y + 1 + inner, x + 1 : x + 1 + inner] = _draw_panel(sizes, panel)[:, :, None]
        return picture

    def groups(self, state: AnalogyState) -> Mapping[str, str]:
        """Return the relation of the examples, and the attribute that shows it with the right option."""
        found = _solution(state)
        attribute, relation = found.option_patterns[LETTERS.index(found.letter)]
        return {"relation": relation, "attribute": attribute}

    def text(self, state: AnalogyState) -> str:
        compact = self.sizes.compact_text
        if self.text_form == "lossy":
            found = _solution(state)
            written = [lossy(reading, compact) for reading in (*_flat(found.examples), *found.query, *found.options)]
        else:
            panels = (*_flat(state.examples), *state.query, *state.options)
            written = [_lossless(panel, compact) for panel in panels]
        return (_COMPACT_TEXT if compact else _FULL_TEXT).format(*written)

    def prompt(self, state: AnalogyState, modality: Modality) -> str:
        if modality == "image":
            return self.wording.prompt_image.format(**self._rules)
        legend = self._legend if self.text_form == "lossless" and not self.sizes.compact_text else ""
        return self.wording.prompt_text.format(text=self.text(state), legend=legend, **self._rules)

    @functools.cached_property
    def _rules(self) -> dict[str, str]:
        used = self._sampler.words
        lists = [("shape types", _TYPE), ("colors", _COLOR), ("sizes", _SIZE), ("line types", _LINE_TYPE)]
        orders = (f"{name} {', '.join(word for word in _VALUES[a] if word in used)}" for name, a in lists)
        return {"attributes": ", ".join(self._phrases.attributes), "orders": "; ".join(orders)}

    @functools.cached_property
    def _legend(self) -> str:
        codes = (f"{code} {word}" for word, code in _CODES.items() if word in self._sampler.words)
        return self.wording.legend.format(codes=", ".join(codes))

    def convert(self, state: AnalogyState) -> str:
        return self.wording.convert if self.text_form == "lossy" else self.wording.convert_lossless

    def thought(self, state: AnalogyState) -> list[str]:
        """Return one item per row of panels and attribute; between the examples and the query the common relation."""
        return list(_flat(self.thought_rows(state).values()))

    def thought_rows(self, state: AnalogyState) -> dict[str, list[str]]:
        """Return the steps of the trace by what they are about: "1", "2" (examples), "relation", "query", "A" ...
        "D"."""
        found, phrases, wording = _solution(state), self._phrases, self.wording
        steps: dict[str, list[str]] = {}
        examples = zip(("1", "2"), phrases.examples, found.examples, found.example_patterns, strict=True)
        for name, row, readings, pattern in examples:
            items = phrases.items(wording.item, wording.item, readings, pattern)
            steps[name] = self._row(row, items, wording.row_end)
        first, second = (phrases.pattern(pattern) for pattern in found.example_patterns)
        steps["relation"] = [wording.summary.format(first=first, second=second, relation=found.relation)]
        items = phrases.items(wording.item_query, wording.item_query, found.query, None)
        steps["query"] = self._row(phrases.query, items, wording.row_end)
        options = zip(LETTERS, phrases.options, found.options, found.option_patterns, strict=True)
        for letter, row, reading, pattern in options:
            end = wording.match if pattern[1] == found.relation else wording.mismatch
            items = phrases.items(wording.item_option, wording.item_option_none, (reading,), pattern)
            steps[letter] = self._row(row, items, end.format(relation=pattern[1], wanted=found.relation))
        return steps

    def _row(self, row: str, items: list[str], end: str) -> list[str]:
        joint = self.wording.item_joint
        steps = [item + joint for item in items[:-1]]
        steps.append(items[-1] + end)
        steps[0] = self._phrases.heads[row] + steps[0]
        return steps

    def answer(self, state: AnalogyState) -> str:
        found, phrases = _solution(state), self._phrases
        rows = (*phrases.examples, *LETTERS)
        listed = (
            self.wording.answer_item.format(row=row, pattern=phrases.pattern(pattern))
            for row, pattern in zip(rows, (*found.example_patterns, *found.option_patterns), strict=True)
        )
        return self.wording.answer.format(patterns=self.wording.answer_joint.join(listed), letter=found.letter)

    def options(self, state: AnalogyState) -> tuple[str, ...]:
        """Return the four options, without patterns: chosen responses are judged by the part `option`."""
        return tuple(f"Answer: option {letter}" for letter in LETTERS)

    def score(self, state: AnalogyState, response: str) -> Score:
        """Return all six patterns and the option are right (strict, section E.3); part `option` is the lenient figure.

        Patterns and option are read behind the last "Answer:". The parts follow table 14: `example_patterns`,
        `option_patterns`, `query_pattern` (that of the right option), `relation` and `domains_differ` (whether the
        examples' attributes were told apart or found equal, as they are); from the trace, `example_type` ...
        `query_position`: all values of shapes and lines right, and none invented; `trace`: all of it as it should be.
        """
        response = response[:MAX_RESPONSE_CHARS]
        found = _solution(state)
        named, letter = self._parser.answer(response)
        gold = (*found.example_patterns, *found.option_patterns)
        given = [named.get(row) for row in ("1", "2", *LETTERS)]
        one, two = given[:2]
        parts = {
            "option": letter == found.letter,
            "example_patterns": given[:2] == list(gold[:2]),
            "option_patterns": given[2:] == list(gold[2:]),
            "query_pattern": named.get(found.letter) == found.option_patterns[LETTERS.index(found.letter)],
            "relation": one is not None and two is not None and one[1] == two[1] == found.relation,
            "domains_differ": one is not None and two is not None and (one[0] == two[0]) == (gold[0][0] == gold[1][0]),
        }
        thought = "".join(self.thought(state))
        parts |= self._parser.values(response, thought)
        parts["trace"] = thought.strip() in response
        return Score(
            correct=given == list(gold) and letter == found.letter,
            parsed=letter is not None,
            parts={name: float(value) for name, value in parts.items()},
        )

    def read_answer(self, response: str) -> tuple[dict[str, Pattern | None], str | None]:
        """Return patterns by row ("1", "2", "A" ... "D"; None: two different ones) and the option behind the last
        marker."""
        return self._parser.answer(response[:MAX_RESPONSE_CHARS])

    def option_values(self, state: AnalogyState, response: str) -> list[bool]:
        """Tell per option whether the trace lists the right values of the attribute that gives the query its
        pattern."""
        found = _solution(state)
        wanted = self._parser.sections("".join(self.thought(state)))
        listed = self._parser.sections(response[:MAX_RESPONSE_CHARS])
        names = [self._phrases.attributes[ATTRIBUTES.index(attribute)] for attribute, _ in found.option_patterns]
        rows = zip(self._phrases.options, names, strict=True)
        return [name in listed.get(row, {}) and listed[row][name] == wanted[row].get(name) for row, name in rows]

    def panel_places(self) -> tuple[tuple[tuple[int, int], ...], ...]:
        """Return upper left corners (x, y) of the panels (px): both examples, query with its question mark, options."""
        return _layout(self.sizes.picture, self.sizes.panel)

    def state_from_json(self, data: object) -> AnalogyState:
        state = super().state_from_json(data)
        try:
            solve(state)
        except (KeyError, ValueError) as error:
            raise ValueError(f"problem of {self.name}: {error}") from error
        return state


def _check_sizes(sizes: AnalogySizes) -> None:
    lists: list[tuple[str, Sequence[str], Sequence[str]]] = [
        ("shape_types", sizes.shape_types, SHAPE_TYPES),
        ("shape_colors", sizes.shape_colors, tuple(COLORS)),
        ("shape_sizes", sizes.shape_sizes, SIZES),
        ("line_types", sizes.line_types, LINE_TYPES),
        ("line_colors", sizes.line_colors, tuple(COLORS)[:-1]),
    ]
    for what, names, allowed in lists:
        if unknown := [name for name in names if name not in allowed]:
            raise ValueError(f"{what}: no {unknown[0]!r}; there are {', '.join(allowed)}{nearest(unknown[0], allowed)}")
        if not names or len(set(names)) < len(names):
            raise ValueError(f"{what}={list(names)}: one or more different names are expected")
    numbers = [
        ("positions", sizes.positions, 1, MAX_SIDE),
        ("num_values", sizes.num_values, 1, len(COLORS)),
        ("both_percent", sizes.both_percent, 0, 100),
        ("outline", sizes.outline, 1, sizes.panel),
        ("line_width", sizes.line_width, 1, sizes.panel),
        ("panel", sizes.panel, 8, min(sizes.picture) // 4),
    ]
    for what, value, least, most in numbers:
        if not least <= value <= most:
            raise ValueError(f"{what}={value}: allowed is {least} to {most}")
    side = (sizes.panel - 2) // sizes.positions
    px = sizes.shape_px
    if min(px) < 3 or max(px) > side or list(px) != sorted(set(px)):
        raise ValueError(f"shape_px={list(px)}: four growing diameters of 3 to {side} px are expected")
    shapes = ("num_shapes", sizes.num_shapes, sizes.positions**2)
    for what, (low, high), most in (shapes, ("num_lines", sizes.num_lines, len(sizes.line_types))):
        if not 1 <= low <= high <= most:
            raise ValueError(f"{what}={[low, high]}: allowed is a range within 1 to {most}")
