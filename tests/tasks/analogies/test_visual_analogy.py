"""The visual analogies, checked by code of its own: readers of both text forms and relations on Python sets."""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from vlmreason.dialogue.build import build_dialogue
from vlmreason.segments import VIEWS
from vlmreason.streams import SPLITS, split_of
from vlmreason.structure import structure
from vlmreason.tasks.analogies.panels import (
    COLORS,
    LINE_TYPES,
    SHAPE_TYPES,
    SIZES,
    AnalogySizes,
    AnalogyState,
    Panel,
    patterns,
    solve,
)
from vlmreason.tasks.analogies.pattern_heldout_visual_analogy import PatternHeldoutVisualAnalogy
from vlmreason.tasks.analogies.visual_analogy import VisualAnalogy
from vlmreason.tasks.base import Problem, state_to_json

CONF = Path(__file__).parents[3] / "conf" / "task"
KINDS: tuple[type[VisualAnalogy], ...] = (VisualAnalogy, PatternHeldoutVisualAnalogy)
SCALES = ("nano", "paper")
NUM = int(os.environ.get("VLMREASON_NUM_PROBLEMS", "200"))
Values = dict[str, list[str]]

HELD_OUT = {
    ("line type", "XOR"),
    ("line type", "AND"),
    ("line color", "OR"),
    ("line color", "Progression"),
    ("shape type", "AND"),
    ("shape color", "Progression"),
    ("shape size", "XOR"),
    ("shape position", "OR"),
}
ORDERS = {
    "shape type": list(SHAPE_TYPES),
    "shape color": list(COLORS),
    "shape size": list(SIZES),
    "shape quantity": [str(n) for n in range(1, 10)],
    "shape position": [f"({r},{c})" for r in (1, 2, 3) for c in (1, 2, 3)],
    "line type": list(LINE_TYPES),
    "line color": [*COLORS][:4],
}
TERSE = dict(zip(("shape", "color", "size", "number", "place", "line", "ink"), ORDERS, strict=True))
CODES = "CIR TRI REC PEN HEX BK DK GR LT WH S M L X FAL RIS HOR VER DIA RNG VUP VLE VDO VRI"
ABBREVIATIONS = dict(zip(CODES.split(" "), (*SHAPE_TYPES, *COLORS, *SIZES, *LINE_TYPES), strict=True))


def make(kind: type[VisualAnalogy], scale: str, trace: str | None = None, **changes: Any) -> VisualAnalogy:
    config = yaml.safe_load((CONF / f"{kind.name}.yaml").read_text())
    own = {key: config[key] for key in ("text_form", "held_out", "num_domains") if key in config}
    own |= {key: changes.pop(key) for key in list(changes) if key in own}
    sizes = structure(AnalogySizes, config[scale] | changes, scale)
    return kind(sizes, trace or ("terse" if scale == "nano" else "verbose"), **own)


def problems(task: VisualAnalogy, num: int = NUM) -> Iterator[Problem[AnalogyState]]:
    for level, split in itertools.product(task.levels, SPLITS):
        for index in range(num // len(SPLITS) + 1):
            yield task.sample(level, split, index)


def rows_of(text: str) -> list[list[str]]:
    """The text of panels: two examples of three, the query of two, four options."""
    lines = text.split("\n")
    if lines[0].startswith("One: "):
        assert [line.partition(":")[0] for line in lines] == ["One", "Two", "Query", "A", "B", "C", "D"]
        found = [re.split(r", (?!\d)", line.partition(": ")[2]) for line in lines]
        return [*found[:3], [panel for row in found[3:] for panel in row]]
    found = []
    for line in lines:
        if line in ("Example 1", "Example 2", "Query", "Options"):
            found.append([])
        else:
            found[-1].append(line.partition(": ")[2])
    return found


def read_lossy(panel: str) -> Values:
    if "; " in panel or any(panel.startswith(name) for name in ORDERS):
        found = {}
        for part in panel.split("; "):
            name = next(name for name in ORDERS if part.startswith(name + " "))
            found[name] = re.findall(r"\(\d,\d\)|\w+", part.removeprefix(name))
        return found
    values: Values = {}
    names = list(ORDERS)
    for word in panel.split(" "):
        start = names.index(list(values)[-1]) if values else 0
        name = next(name for name in names[start:] if word in ORDERS[name])
        values.setdefault(name, []).append(word)
    return values


def read_lossless(panel: str) -> Panel:
    shapes, lines = [], []
    for one in re.split(r"; ?", panel):
        words = one.split(" ") if " " in one else one.split("-")
        words = [ABBREVIATIONS.get(word, word) for word in words]
        if len(words) == 4:
            r, c = re.fullmatch(r"\((\d),(\d)\)", words[3]).groups()  # type: ignore[union-attr]
            shapes.append((words[0], words[1], words[2], (int(r), int(c))))
        else:
            lines.append((words[0], words[1]))
    return Panel(tuple(shapes), tuple(lines))


def values_of(panel: Panel) -> Values:
    per_type = Counter(shape[0] for shape in panel.shapes)
    found = {
        "shape type": {shape[0] for shape in panel.shapes},
        "shape color": {shape[1] for shape in panel.shapes},
        "shape size": {shape[2] for shape in panel.shapes},
        "shape quantity": {str(n) for n in per_type.values()},
        "shape position": {f"({r},{c})" for *_, (r, c) in panel.shapes},
        "line type": {line[0] for line in panel.lines},
        "line color": {line[1] for line in panel.lines},
    }
    return {name: sorted(values, key=ORDERS[name].index) for name, values in found.items() if values}


def relations(name: str, three: list[list[str]]) -> list[str]:
    """All relations of three sets, with nothing left out but sets that are equal or empty."""
    a, b, c = (set(values) for values in three)
    found = []
    if a and b and c and a != b:
        found += ["XOR"] * (c == (a | b) - (a & b)) + ["OR"] * (c == a | b) + ["AND"] * (c == a & b)
    if all(len(values) == 1 for values in three):
        i, j, k = (ORDERS[name].index(values[0]) for values in three)
        found += ["Progression"] * (i < j < k)
    return found


def all_patterns(panels: list[Values]) -> list[tuple[str, str]]:
    return [
        (name, relation) for name in ORDERS for relation in relations(name, [panel.get(name, []) for panel in panels])
    ]


def parse_answer(answer: str) -> tuple[list[tuple[str, str]], str]:
    pairs = re.findall(r"(?:One|Two|Example \d|[A-D]) \(?([a-z ]+?),? (XOR|OR|AND|Progression)\)?;", answer)
    option = re.fullmatch(r".*; option ([A-D])", answer)
    assert option
    return [(TERSE.get(name, name), relation) for name, relation in pairs], option[1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", SCALES)
@pytest.mark.parametrize("text_form", ["lossy", "lossless"])
def test_text_alone_gives_the_answer_and_levels_keep_their_limits(
    kind: type[VisualAnalogy], scale: str, text_form: str
) -> None:
    task = make(kind, scale, text_form=text_form)
    num_domains: set[tuple[str, int]] = set()
    letters: Counter[str] = Counter()
    for problem in problems(task, NUM if text_form == "lossy" else NUM // 4):
        text = task.text(problem.state)
        read = read_lossy if text_form == "lossy" else lambda panel: values_of(read_lossless(panel))
        one, two, query, options = [[read(panel) for panel in row] for row in rows_of(text)]
        assert [len(one), len(two), len(query), len(options)] == [3, 3, 2, 4]
        found = [all_patterns(row) for row in (one, two, *([*query, option] for option in options))]
        assert all(len(row) == 1 for row in found), "exactly one pattern each, nothing spurious"
        single = [row[0] for row in found]
        assert single[0][1] == single[1][1]
        right = [i for i, (_, relation) in enumerate(single[2:]) if relation == single[0][1]]
        assert len(right) == 1
        letter = "ABCD"[right[0]]
        letters[letter] += 1
        assert parse_answer(task.answer(problem.state)) == (single, letter)
        three = [single[0], single[1], single[2 + right[0]]]
        domains = [attribute for attribute, _ in three]
        num_domains.add((problem.level, len(set(domains))))
        if problem.level == "simple":
            assert len(set(domains)) == 1 and not HELD_OUT & set(single)
        else:
            assert set(three) <= HELD_OUT
            assert (domains[0] == domains[1]) == (kind is PatternHeldoutVisualAnalogy)
        assert len({str(option) for option in options}) == 4
    assert num_domains == {("simple", 1), ("hard", 2 if kind is VisualAnalogy else 1)}
    assert set(letters) == set("ABCD")


@pytest.mark.parametrize("scale", SCALES)
def test_every_pattern_of_a_level_occurs(scale: str) -> None:
    task = make(VisualAnalogy, scale)
    seen = Counter(
        (level, pattern)
        for level in task.levels
        for index in range(300)
        for pattern in set(solve(task.sample(level, "train", index).state).example_patterns)
    )
    everything = set(itertools.product(ORDERS, ("XOR", "OR", "AND", "Progression")))
    if not task.sizes.both_percent:  # one object has single values only: nothing to make confounders of
        everything -= {("shape position", "Progression"), ("line type", "Progression")}
    assert {pattern for level, pattern in seen if level == "simple"} == everything - HELD_OUT
    assert {pattern for level, pattern in seen if level == "hard"} == HELD_OUT


@pytest.mark.parametrize("scale", SCALES)
def test_lossless_text_gives_the_state_back_and_lossy_text_its_values(scale: str) -> None:
    lossless, lossy = make(VisualAnalogy, scale, text_form="lossless"), make(VisualAnalogy, scale)
    for problem in problems(lossless, 40):
        state = problem.state
        assert state == lossy.sample(problem.level, problem.split, problem.index).state
        rows = [tuple(read_lossless(panel) for panel in row) for row in rows_of(lossless.text(state))]
        assert (*state.examples, state.query, state.options) == tuple(rows)
        written = [[read_lossy(panel) for panel in row] for row in rows_of(lossy.text(state))]
        assert written == [[values_of(panel) for panel in row] for row in rows]


@pytest.mark.parametrize("scale", SCALES)
def test_panels_keep_to_the_sizes(scale: str) -> None:
    task = make(VisualAnalogy, scale)
    sizes, both = task.sizes, 0
    for problem in problems(task, 60):
        state = problem.state
        for row in (*state.examples, (*state.query, *state.options)):
            kinds = {(bool(panel.shapes), bool(panel.lines)) for panel in row}
            assert len(kinds) == 1, "a row has shapes, lines or both in all its panels"
            both += kinds == {(True, True)}
            for panel in row:
                if panel.shapes:
                    assert sizes.num_shapes[0] <= len(panel.shapes) <= sizes.num_shapes[1]
                    places = [shape[3] for shape in panel.shapes]
                    assert places == sorted(set(places)) and max(map(max, places)) <= sizes.positions
                    for i, allowed in enumerate((sizes.shape_types, sizes.shape_colors, sizes.shape_sizes)):
                        present = {shape[i] for shape in panel.shapes}
                        assert present <= set(allowed) and len(present) <= sizes.num_values
                if panel.lines:
                    assert sizes.num_lines[0] <= len(panel.lines) <= sizes.num_lines[1]
                    types = [line[0] for line in panel.lines]
                    assert types == sorted(set(types), key=LINE_TYPES.index) and set(types) <= set(sizes.line_types)
                    assert {line[1] for line in panel.lines} <= set(sizes.line_colors)
    assert (both > 0) == (sizes.both_percent > 0)


def swapped(panels: tuple[Panel, ...], i: int, panel: Panel) -> Any:
    return (*panels[:i], panel, *panels[i + 1 :])


@pytest.mark.parametrize("trace", ["terse", "verbose"])
def test_trace_and_patterns_come_from_the_panels(trace: str) -> None:
    """Another panel in an option changes what the trace and the answer say of it."""
    task = make(VisualAnalogy, "nano", trace)
    changed = 0
    for index in range(60):
        state = task.sample("simple", "train", index).state
        other = task.sample("simple", "train", index + 1).state
        wrong = "ABCD".index(solve(state).letter) - 1
        for panel in other.options:
            new = dataclasses.replace(state, options=swapped(state.options, wrong % 4, panel))
            found = all_patterns([values_of(p) for p in (*state.query, panel)])
            assert patterns(*state.query, panel) == found
            if len(found) == 1 and found[0][1] != solve(state).relation:
                assert parse_answer(task.answer(new))[0][2 + wrong % 4] == found[0]
                if parse_answer(task.answer(state))[0][2 + wrong % 4] != found[0]:
                    assert "".join(task.thought(new)) != "".join(task.thought(state))
                    changed += 1
            else:
                with pytest.raises(ValueError, match=r"pattern|relation"):
                    solve(new)
    assert changed


@pytest.mark.parametrize("scale", SCALES)
def test_trace_lists_all_rows_values_and_patterns(scale: str) -> None:
    task = make(VisualAnalogy, scale)
    names = {name: given for given, name in TERSE.items()} if scale == "nano" else {name: name for name in ORDERS}
    joint, panels_joint = (" ", ", ") if scale == "nano" else (", ", " | ")
    for problem in problems(task, 30):
        steps, state = task.thought(problem.state), problem.state
        assert all(step.endswith(("\n", " ")) for step in steps)
        thought = "".join(steps)
        for row in (*state.examples, state.query):
            read = [values_of(panel) for panel in row]
            for name in read[0]:
                listed = panels_joint.join(joint.join(panel[name]) for panel in read)
                sign = ":" if scale == "paper" else ""
                line = f"{names[name]}{sign} {listed}"
                shown = relations(name, [panel[name] for panel in read]) if len(row) == 3 else []
                line += "".join(f"{' ->' if scale == 'paper' else ''} {relation}" for relation in shown)
                assert line in thought
        letter = solve(state).letter
        assert thought.count(" yes\n" if scale == "nano" else ", the one wanted.") == 1
        row = rf"\n{letter}:.* yes\n" if scale == "nano" else rf"Option {letter}:\n.*\n.*, the one wanted\."
        assert re.search(row, thought)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", SCALES)
def test_own_answer_scores_and_spoiled_ones_do_not(kind: type[VisualAnalogy], scale: str) -> None:
    task = make(kind, scale)
    for problem in problems(task, 30):
        state, answer = problem.state, task.answer(problem.state)
        for view in VIEWS:
            score = task.score(state, build_dialogue(task, problem, view).response.text)
            assert score.correct and score.parsed and set(score.parts.values()) == {1.0}
        right = solve(state).letter
        other = "ABCD"["ABCD".index(right) - 1]
        assert task.score(state, answer).correct

        bare = task.score(state, f"Answer: {right}")
        assert bare.parsed and bare.parts["option"] == 1 and not bare.correct and not bare.parts["example_patterns"]
        assert task.score(state, right).parts["option"] == 1
        wrong = task.score(state, answer[:-1] + other)
        assert wrong.parsed and not wrong.correct and not wrong.parts["option"] and wrong.parts["option_patterns"]

        for i, item in enumerate(answer.removeprefix("Answer: ").split("; ")[:6]):
            relation = next(r for r in ("XOR", "AND", "Progression", "OR") if r in item)
            spoiled = answer.replace(item + ";", item.replace(relation, "AND" if relation != "AND" else "XOR") + ";", 1)
            score = task.score(state, spoiled)
            assert score.parsed and not score.correct and score.parts["option"] == 1
            assert score.parts["example_patterns" if i < 2 else "option_patterns"] == 0
            assert score.parts["query_pattern"] == (i < 2 or "ABCD"[i - 2] != right)
            assert not task.score(state, answer.replace(item + "; ", "")).correct
        assert not task.score(state, answer + f" or option {other}").correct, "naming two options is no answer"
        assert task.score(state, f"Answer: option {other}. No: {answer}").correct, "the last answer counts"


@pytest.mark.parametrize("trace", ["terse", "verbose"])
def test_wrong_values_in_the_trace_show_in_their_part_only(trace: str) -> None:
    task = make(VisualAnalogy, "nano", trace)
    state = next(s for s in (task.sample("simple", "train", i).state for i in range(50)) if s.query[0].shapes)
    name, marks = ("size", ":") if trace == "terse" else ("shape size:", ":")
    text = "".join(task.thought(state)) + task.answer(state)
    head = re.search(rf"(One|Example 1){marks}(.|\n)*?{name} ", text)
    assert head
    spoiled = text[: head.end()] + "tiny " + text[head.end() :]
    score = task.score(state, spoiled)
    assert score.correct and score.parts["example_size"] == 0 and score.parts["trace"] == 0
    zeros = {part for part, value in score.parts.items() if value == 0}
    assert zeros == {"example_size", "trace"}
    invented = text.replace("Query:", "Query: line ring, ring " if trace == "terse" else "Query:\n- line type: ring", 1)
    assert task.score(state, invented).parts["query_type"] == 0


@pytest.mark.parametrize(
    "text", ["", " ", "Answer:", "A" * 300_000, "Answer: " * 30_000, "option " * 40_000, "\x00\ud800"]
)
def test_hostile_responses_are_unparsed_and_quick(text: str) -> None:
    task = make(VisualAnalogy, "nano")
    state = task.sample("simple", "test", 0).state
    start = time.process_time()
    score = task.score(state, text)
    assert not score.parsed and not score.correct
    assert time.process_time() - start < 2


def test_options_named_in_an_unfinished_trace_are_no_answer() -> None:
    for trace in ("terse", "verbose"):
        task = make(VisualAnalogy, "nano", trace)
        state = task.sample("hard", "test", 0).state
        assert not task.score(state, "".join(task.thought(state))).parsed


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scale", SCALES)
def test_splits_are_disjoint_and_states_survive_json(kind: type[VisualAnalogy], scale: str) -> None:
    task = make(kind, scale)
    seen: dict[AnalogyState, str] = {}
    for problem in problems(task, 90):
        assert split_of(task.name, task.key(problem.state)) == problem.split
        assert seen.setdefault(problem.state, problem.split) == problem.split
        assert task.state_from_json(state_to_json(problem.state)) == problem.state
    with pytest.raises(ValueError, match="visual_analogy"):
        task.state_from_json(state_to_json(dataclasses.replace(problem.state, options=(problem.state.options[0],) * 4)))
    with pytest.raises(ValueError, match="visual_analogy"):
        data = state_to_json(problem.state)
        data["query"][0]["lines"] = [["zigzag", "black"]]
        task.state_from_json(data)


@pytest.mark.parametrize("scale", SCALES)
def test_pictures_show_every_value(scale: str) -> None:
    """Any change of a value, a shape or a line of a panel changes pixels, however full the panel is."""
    task = make(VisualAnalogy, scale)
    sizes = task.sizes
    state = task.sample("simple", "train", 0).state
    width, height = sizes.picture

    def drawn(panel: Panel) -> Any:
        """The pixels of the panel: they alone may change, and comparing them is what takes long."""
        picture = task.draw(dataclasses.replace(state, query=(panel, state.query[1])))
        outside = picture.copy()
        outside[_inside(task)] = 0
        frames.add(outside.tobytes())
        return picture[_inside(task)].astype(np.int16)

    def num_changed(a: Any, b: Any) -> int:
        return int((np.abs(a - b).max(axis=2) >= 20).sum())

    frames: set[bytes] = set()

    assert task.draw(state).shape == (height, width, 3)
    assert np.array_equal(task.draw(state), make(VisualAnalogy, scale).draw(state))
    cells = [(r, c) for r in range(1, sizes.positions + 1) for c in range(1, sizes.positions + 1)]
    looks = list(itertools.product(sizes.shape_types, sizes.shape_colors, sizes.shape_sizes))
    pictures = [drawn(Panel(((*look, cell),), ())) for look in looks for cell in (cells[0], cells[-1])]
    assert min(num_changed(a, b) for a, b in itertools.combinations(pictures[:40:2] + pictures[1::4], 2)) >= 4
    full = tuple((sizes.shape_types[0], "black", "huge", cell) for cell in cells)
    for i in range(len(full)):
        assert num_changed(drawn(Panel(full, ())), drawn(Panel(full[:i] + full[i + 1 :], ()))) >= 4
    for lines in itertools.combinations(itertools.product(sizes.line_types, ("black", "light")), 2):
        if lines[0][0] != lines[1][0]:
            both = drawn(Panel((), lines))
            assert all(num_changed(both, drawn(Panel((), (line,)))) >= sizes.panel // 4 for line in lines)
    if sizes.both_percent:
        for kind in sizes.line_types:
            assert num_changed(drawn(Panel(full, ((kind, "light"),))), drawn(Panel(full, ()))) >= sizes.panel // 4
    strokes = (drawn(Panel((), (("horizontal", color),))) for color in sizes.line_colors)
    greys = [int(stroke.min()) for stroke in strokes]
    assert greys == [COLORS[color] for color in sizes.line_colors]
    assert len(frames) == 1, "a panel draws within its frame"


def _inside(task: VisualAnalogy) -> tuple[slice, slice]:
    """Pixels of the first panel of the query, without its frame."""
    (width, height), panel = task.sizes.picture, task.sizes.panel
    x, y = (width - 4 * panel) // 5, (height - 4 * panel) // 5
    top = y + 2 * (panel + y)
    return slice(top + 1, top + panel - 1), slice(x + 1, x + panel - 1)


def test_three_domains_need_a_larger_held_out_set() -> None:
    with pytest.raises(ValueError, match=r"level=hard.*num_domains=3"):
        make(VisualAnalogy, "nano", num_domains=3).sample("hard", "train", 0)
    task = make(VisualAnalogy, "nano", num_domains=3, held_out=[*HELD_OUT, ("shape color", "XOR")])
    for index in range(20):
        found = solve(task.sample("hard", "train", index).state)
        query = found.option_patterns["ABCD".index(found.letter)]
        assert {*found.example_patterns, query} == {(a, "XOR") for a in ("line type", "shape size", "shape color")}


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"text_form": "lossles"}, "did you mean 'lossless'"),
        ({"held_out": [["line typ", "XOR"]]}, "did you mean 'line type'"),
        ({"held_out": [["line type", "NOR"]]}, "no relation 'NOR'"),
        ({"held_out": "line type"}, "list of pairs"),
        ({"num_domains": 4}, "num_domains=4"),
        ({"panel": 37}, "panel=37"),
        ({"shape_px": [6, 9, 12, 20]}, "shape_px"),
        ({"num_shapes": [1, 5]}, "num_shapes"),
        ({"line_colors": ["white"]}, "line_colors"),
        ({"shape_types": ["squircle"]}, "shape_types"),
        ({"positions": 4}, "positions=4"),
    ],
)
def test_impossible_settings_are_named(changes: dict[str, Any], match: str) -> None:
    with pytest.raises(ValueError, match=match):
        make(VisualAnalogy, "nano", **changes)


@pytest.mark.parametrize(
    "changes",
    [
        {
            "shape_sizes": ["huge"],
            "shape_colors": ["black"],
            "shape_types": ["circle"],
            "line_types": ["ring"],
            "num_lines": [1, 1],
        },
        {"num_shapes": [4, 4], "num_values": 1, "num_lines": [1, 1]},
        {"num_shapes": [3, 4], "num_lines": [6, 6]},
        {"positions": 1, "num_shapes": [1, 1], "line_types": ["ring", "falling"], "num_lines": [1, 2]},
    ],
)
def test_poor_panels_end_quickly_with_a_sentence_or_give_problems(changes: dict[str, Any]) -> None:
    task = make(VisualAnalogy, "nano", **changes)
    for level in task.levels:
        start = time.process_time()
        try:
            solve(task.sample(level, "test", 0).state)
        except ValueError as error:
            assert str(error).startswith(f"task=visual_analogy level={level}: ")
        assert time.process_time() - start < 5


def test_wordings_are_replaceable_and_checked() -> None:
    sizes = make(VisualAnalogy, "nano").sizes
    task = VisualAnalogy(sizes, "terse", {"prompt_image": "Which one?"})
    state = task.sample("simple", "train", 0).state
    assert task.prompt(state, "image") == "Which one?"
    assert task.text(state) in task.prompt(state, "text")
    assert VisualAnalogy(sizes, "verbose").convert(state).startswith("Convert")
    for wrong in ({"answer": "{letter}"}, {"item": "{nothing}"}, {"attributes": "a, b"}, {"nonsense": "x"}):
        with pytest.raises(ValueError, match=r"task\.wording"):
            VisualAnalogy(sizes, "terse", wrong)
