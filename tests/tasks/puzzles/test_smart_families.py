"""Own puzzles after the manner of SMART-101: balanced, divided, and right by a solution of their own."""

import collections
import itertools
import re
from typing import Any

import pytest

from vlmreason.streams import SPLITS
from vlmreason.tasks.base import state_to_json
from vlmreason.tasks.puzzles.families.listed import FAMILIES
from vlmreason.tasks.puzzles.smart_families import FamilySizes, FamilyState, SmartFamilies

SIZES = FamilySizes((144, 144))
NUM = 40


def made(**settings: Any) -> SmartFamilies:
    return SmartFamilies(SIZES, **settings)


def problems(task: SmartFamilies, split: str, num: int) -> list[FamilyState]:
    return [task.sample("puzzle", split, index).state for index in range(num)]


@pytest.fixture(scope="module")
def by_family() -> dict[str, list[FamilyState]]:
    found: dict[str, list[FamilyState]] = {}
    for state in problems(made(), "train", NUM * len(FAMILIES)):
        found.setdefault(state.family, []).append(state)
    return found


def test_there_are_three_families_of_each_of_eight_skills() -> None:
    assert collections.Counter(family.skill for family in FAMILIES.values()) == dict.fromkeys(
        ("counting", "math", "logic", "path", "algebra", "measure", "spatial", "pattern"), 3
    )
    splits = {split: [one for one in FAMILIES.values() if one.split == split] for split in SPLITS}
    assert {split: len(some) for split, some in splits.items()} == {"train": 14, "validation": 2, "test": 8}
    assert len({one.skill for one in splits["test"]}) == 8
    assert not [one for one in splits["test"] + splits["validation"] if one.form.is_sequence]
    types = collections.Counter(one.form.type for one in FAMILIES.values())
    assert types == {"integer": 13, "letter": 4, "unit": 3, "letters": 2, "digits": 1, "operator": 1}


def test_options_are_five_and_answers_are_spread(by_family: dict[str, list[FamilyState]]) -> None:
    task, letters = made(), collections.Counter[str]()
    for name, states in by_family.items():
        assert len(states) == NUM
        values = collections.Counter(task.value(state) for state in states)
        assert values.most_common(1)[0][1] <= 0.45 * NUM, name  # of 40; in the long run 0.3
        for state in states:
            options = task.values(state)
            assert len(set(options)) == 5
            answer = task.kinds()[name].numbers(task.answer(state))
            assert task.kinds()[name].write(answer) == task.answer(state)
            letters[state.letter] += 1
    assert all(abs(num / sum(letters.values()) - 0.2) < 0.05 for num in letters.values())


def numbers(text: str) -> list[int]:
    return [int(word) for word in re.findall(r"\d+", text)]


def solve(state: FamilyState) -> str | None:
    """Solve a problem from its text and question, in another way than the family does; None: not here."""
    text, asked = state.text, state.question
    lines = text.splitlines()
    match state.family:
        case "counting_kind":
            [kind] = {word for word in text.split() if re.search(rf"\b{word}s\b", asked)} - {"-"} or {"?"}
            return str(text.split().count(kind))
        case "counting_frames":
            frames = [numbers(line) for line in lines[:2]]
            inside = [
                [a <= r + 1 <= b and c <= k + 1 <= d for a, b, c, d in frames]
                for r, line in enumerate(lines[2:]) for k, word in enumerate(line.split()) if word != "-"
            ]  # fmt: skip
            return str(sum(one and not other for one, other in inside))
        case "counting_bricks":
            return str(text.count("."))
        case "math_chain":
            before, after = re.findall(r"(\d+) \[\?\] (\d+)", text)[0]
            signs = {"+": "+", "-": "-", "x": "*", "/": "/"}
            fitting = [
                f"{sign}{n}" for sign in signs for n in range(1, 10)
                if eval(f"{before} {signs[sign]} {n} == {after}")
            ]  # fmt: skip
            assert len(fitting) == 1
            return fitting[0]
        case "math_outside":
            return str(sum(numbers(lines[1])))
        case "math_pegs":
            return str(numbers(asked)[0] + 1)
        case "logic_code":
            names = lines[0].split()
            cells = re.findall(r"\b([P-W])([1-4])\b", asked)
            return "".join(lines[int(row)].split()[names.index(column)] for column, row in cells)
        case "path_ways":
            rows = [line.split() for line in lines]
            end = (len(rows) - 1, len(rows[0]) - 1)
            moves = itertools.product("rd", repeat=sum(end))
            return str(sum(walks(rows, way) for way in moves if way.count("d") == end[0]))
        case "path_maze":
            return "".join(sorted(flooded(lines) & set("ABCDE")))
        case "path_tangle":
            first, second = (dict(re.findall(r"(\w+) to (\w+)", line)) for line in lines)
            [icon] = [name for name in first if re.search(rf"\b{name}\b", asked)]
            return second[first[icon]]
        case "algebra_balances":
            several, one = (line.split(" = ") for line in lines)
            known = int(several[1]) // len(several[0].split())
            return str(int(one[1]) - known)
        case "algebra_queue":
            num, before, between = numbers(asked)
            return str(num - before - between - 2)
        case "measure_towers":
            one, other = numbers(text)
            return f"{abs(one - other)} cm"
        case "measure_road":
            place = {name: i for i, name in enumerate(lines[0].split()[2:])}
            far = {frozenset(line.split(":")[0].split(" to ")): numbers(line)[0] for line in lines[1:]}
            ends = frozenset(re.findall(r"\b[K-T]\b", asked))
            whole = {place[name] for name in ends} == {0, 2}
            one, other = far.values()
            assert ends not in far
            return f"{one + other if whole else abs(one - other)} km"
        case "spatial_cards":
            below = dict(pair.split(" on ") for pair in text.split(", "))
            [here] = set(below) - set(below.values())
            order = [here]
            while order[-1] in below:
                order.append(below[order[-1]])
            return " ".join(order)
        case "spatial_towers":
            heights = [list(map(int, line.split())) for line in lines[:-1]]
            hidden = 0
            for r, row in enumerate(heights):
                for k, height in enumerate(row):
                    for level in range(height):
                        hidden += any(heights[f][k] > level for f in range(r + 1, len(heights)))
            return str(hidden)
        case "pattern_strip":
            icons, at = lines[0].split(), numbers(asked)[0]
            letters = {line[3:]: line[0] for line in lines[1:]}
            for period in range(1, 5):
                fits = [{icon for icon in icons[i::period] if icon != "?"} for i in range(period)]
                if all(len(some) == 1 for some in fits):
                    return letters[next(iter(fits[(at - 1) % period]))]
        case "pattern_colors":
            figure = lines[0].partition(": ")[2].partition(";")[0]
            wanted = figure.translate(str.maketrans("ab", "ba"))
            return next(line[0] for line in lines[1:] if line[3:] == wanted)
    return None


def walks(rows: list[list[str]], way: tuple[str, ...]) -> bool:
    r = c = 0
    for move in way:
        r, c = (r + 1, c) if move == "d" else (r, c + 1)
        if r >= len(rows) or c >= len(rows[0]) or rows[r][c] == "#":
            return False
    return True


def flooded(lines: list[str]) -> set[str]:
    """The names that are joined to S in a maze of cells at even places and passages between them."""
    grid = {(r, c): sign for r, line in enumerate(lines) for c, sign in enumerate(line) if sign != " "}
    todo = [at for at, sign in grid.items() if sign == "S"]
    seen = set(todo)
    while todo:
        r, c = todo.pop()
        for at in ((r + 1, c), (r - 1, c), (r, c + 1), (r, c - 1)):
            if at in grid and at not in seen:
                seen.add(at)
                todo.append(at)
    return {grid[at] for at in seen}


def test_answers_are_those_of_another_solution(by_family: dict[str, list[FamilyState]]) -> None:
    task, solved = made(), collections.Counter[str]()
    for name, states in by_family.items():
        for state in states:
            if (found := solve(state)) is not None:
                assert task.answer(state) == f"Answer: {found}", (name, state.question, state.text)
                solved[name] += 1
    assert len(solved) >= 16 and set(solved.values()) == {NUM}


def test_no_problem_is_in_two_splits_of_a_partition() -> None:
    for partition in ("instance", "answer", "few_shot", "puzzle"):
        task = made(partition=partition)
        keys = {split: {str(task.key(state)) for state in problems(task, split, 4 * len(FAMILIES))} for split in SPLITS}
        for one, other in itertools.combinations(SPLITS, 2):
            assert not keys[one] & keys[other], partition


def test_whole_families_are_held_out() -> None:
    task = made(partition="puzzle")
    for split in SPLITS:
        wanted = {name for name, family in FAMILIES.items() if family.split == split}
        assert {state.family for state in problems(task, split, 2 * len(wanted))} == wanted
    shown = problems(made(partition="few_shot", few=2), "train", 10 * len(FAMILIES))
    num = collections.Counter(str(state) for state in shown if state.family == "algebra_table")
    assert set(num.values()) == {5} and len(num) == 2
    test = problems(made(partition="few_shot", few=2), "test", 16)
    assert test == problems(task, "test", 16)


def test_an_answer_is_withheld_from_each_family_but_sequences() -> None:
    task = made(partition="answer")
    seen = {split: collections.defaultdict[str, set[Any]](set) for split in SPLITS}
    for split in SPLITS:
        for state in problems(task, split, 6 * len(FAMILIES)):
            seen[split][state.family].add(task.value(state))
    for name, family in FAMILIES.items():
        if not family.form.is_sequence:
            assert len(seen["test"][name]) == 1
            assert not seen["test"][name] & (seen["train"][name] | seen["validation"][name])


def test_settings_and_problems_from_elsewhere_are_checked() -> None:
    with pytest.raises(ValueError, match=r"task\.few=3"):
        made(few=3)
    with pytest.raises(ValueError, match=r"task\.families='path_mace'.*did you mean 'path_maze'"):
        made(families=("path_mace",))
    with pytest.raises(ValueError, match="none of them is of the split test"):
        made(families=("path_maze",), partition="puzzle").sample("puzzle", "test", 0)
    task = made()
    data = state_to_json(task.sample("puzzle", "train", 0).state)
    for change in (
        {"family": "unheard_of"}, {"letter": "F"}, {"options": ["1"]}, {"options": ["a", "b", "c", "d", "e"]},
        {"marks": [{"shape": "moon", "x": 0, "y": 0}]}, {"marks": [{"shape": "star", "x": 0, "y": 0, "w": 10**9}]},
    ):  # fmt: skip
        with pytest.raises(ValueError, match="problem of smart_families"):
            task.state_from_json(data | change)
