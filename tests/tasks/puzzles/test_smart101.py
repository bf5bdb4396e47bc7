"""A miniature of SMART-101 is read as it is, divided as papers and programs do, and what is wrong in it is named."""

import csv
import itertools
import re
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from support import smart101

from vlmreason.answers import AnswerSpace
from vlmreason.streams import SPLITS
from vlmreason.tasks.puzzles import partitions, smart101_tables
from vlmreason.tasks.puzzles.base import LEVEL
from vlmreason.tasks.puzzles.smart101 import Smart101, Smart101Sizes
from vlmreason.tasks.puzzles.values import Form

HELD_OUT_TEST = {61, 62, 65, 77}
SEQUENCES = {18, 35, 39, 63, 100}
NUM = 40


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[int, list[dict[str, Any]]]]:
    root = tmp_path_factory.mktemp("data") / "SMART101-release-v1"
    return root, smart101.write(root, NUM)


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A small one to be spoiled."""
    smart101.write(tmp_path / "set", 10, {2: "counting", 43: "math"})
    return tmp_path / "set"


def task(root: Path, **settings: Any) -> Smart101:
    settings.setdefault("puzzles", list(smart101.SKILLS))
    return Smart101(Smart101Sizes(), data=str(root), **settings)


def states(made: Smart101, split: str) -> list[Any]:
    return [made.sample(LEVEL, split, i).state for i in range(made.num_problems(LEVEL, split))]


def test_tables_have_each_puzzle_once() -> None:
    sizes = {skill: len(puzzles) for skill, puzzles in smart101_tables.SKILLS.items()}
    assert sizes == {"counting": 26, "algebra": 15, "math": 14, "path": 12, "spatial": 9, "logic": 9, "measure": 8,
                     "pattern": 5, "order": 3}  # fmt: skip
    assert sorted(smart101_tables.SKILL_OF) == list(range(1, 102)) == sorted(smart101_tables.FORMS)
    types = Counter(form.type for form in smart101_tables.FORMS.values())
    assert types["integer"] == 71 and len(smart101_tables.SEQUENCES) == 6
    assert len(smart101_tables.TEST_PUZZLES) == 21 and not {7, 43, 64} & set(smart101_tables.TEST_PUZZLES)
    by_skill = Counter(smart101_tables.SKILL_OF[puzzle] for puzzle in smart101_tables.TEST_PUZZLES)
    assert by_skill == {"spatial": 5, "algebra": 4, "math": 3, "path": 3, "counting": 2, "logic": 2, "measure": 1,
                        "pattern": 1}  # fmt: skip


def test_every_row_is_read(released: Any) -> None:
    root, rows = released
    made = task(root)
    found = made.read
    assert not found.faults and found.longer == ["SMART101-Data/7/puzzle_7.csv"]
    assert {puzzle: len(some) for puzzle, some in found.instances.items()} == dict.fromkeys(smart101.SKILLS, NUM)
    for puzzle, some in rows.items():
        for number, row in enumerate(some):
            instance = found.instances[puzzle][number]
            assert (instance.question, instance.letter) == (row["Question"], row["Answer"])
            assert instance.image == f"{puzzle}/img/{row['image']}"
            assert made.groups(instance) == {"skill": smart101.SKILLS[puzzle], "puzzle": str(puzzle)}
            picture = np.asarray(Image.open(root / "SMART101-Data" / instance.image))
            assert np.array_equal(made.draw(instance), picture)


@pytest.mark.parametrize(
    ("form", "text", "value"),
    [
        (Form("integer"), " 12 ", (12,)), (Form("letter"), "c", (2,)), (Form("unit", "hours"), "3 hours", (3,)),
        (Form("unit", "cm"), "14cm", (14,)), (Form("clock"), "3 PM", (15,)), (Form("clock"), "12:00 PM", (24,)),
        (Form("clock"), "11 a.m.", (11,)), (Form("word"), "Impossible", (0,)), (Form("word"), "17", (17,)),
        (Form("operator"), "/8", (48,)), (Form("operator"), "x 3", (33,)), (Form("operator"), "+1", (11,)),
        (Form("icon", names=("ant", "bird")), "Bird", (1,)), (Form("numbers"), "3, 14 and 5", (3, 14, 5)),
        (Form("digits"), "52143", (5, 2, 1, 4, 3)), (Form("digits"), "5-2-1-4-3", (5, 2, 1, 4, 3)),
        (Form("letters"), "A, C and D", (0, 2, 3)), (Form("letters"), "BAND", (1, 0, 13, 3)),
    ],
)  # fmt: skip
def test_answers_have_values(form: Form, text: str, value: tuple[int, ...]) -> None:
    assert form.read(text) == value and form.read(form.write(value)) == value
    space = form.space([value], 10)
    assert space.write(space.numbers("Answer: " + form.write(value))) == "Answer: " + form.write(value)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        (Form("integer"), "7 cm"), (Form("integer"), "-1"), (Form("integer"), ""), (Form("integer"), "\uff11"),
        (Form("letter"), "AB"), (Form("unit", "cm"), "3 km"), (Form("clock"), "13 PM"), (Form("clock"), "3:30 PM"),
        (Form("operator"), "8"), (Form("icon", names=("ant",)), "bee"), (Form("numbers"), "1, b"),
        (Form("letters"), "A1"), (Form("integer"), "9" * 5000), (Form("digits"), "12, 3"),
    ],
)  # fmt: skip
def test_other_answers_are_refused(form: Form, text: str) -> None:
    with pytest.raises(ValueError, match="is no answer of type"):
        form.read(text)


def test_sequences_end_with_a_class_of_their_own() -> None:
    space = AnswerSpace(("0", "1", "2"), steps=4, joint=" ")
    assert space.numbers("Answer: 2 0") == [2, 0, 3, 3] and space.write([2, 0, 3, 1]) == "Answer: 2 0"
    assert space.num_classes == 4 and AnswerSpace(("0", "1")).num_classes == 2


def test_empty_options_are_letters_and_icons_have_numbers(released: Any) -> None:
    made = task(released[0])
    assert {made.read.instances[24][row].options for row in range(NUM)} == {tuple("ABCDE")}
    icons = made.read.instances[1][0]
    assert icons.options == smart101.ICONS[:5] and made.values(icons) == ((0,), (1,), (2,), (3,), (4,))


@pytest.mark.parametrize("partition", ["instance", "puzzle", "few_shot", "answer", "smarter", "development"])
@pytest.mark.parametrize("rule", ["published", "coded"])
def test_splits_share_no_row_and_begin_balanced(released: Any, partition: Any, rule: Any) -> None:
    made = task(released[0], partition=partition, rule=rule)
    keys = {split: [tuple(made.key(state)) for state in states(made, split)] for split in SPLITS}
    for one, other in itertools.combinations(SPLITS, 2):
        assert not set(keys[one]) & set(keys[other])
    for some in keys.values():
        assert some and len(set(some)) == len(some)
        num = len({puzzle for puzzle, _ in some})
        assert len({puzzle for puzzle, _ in some[:num]}) == num or partition == "answer"


def test_instances_are_divided_by_row(released: Any) -> None:
    for partition, used, shares in (("instance", 40, (32, 2, 6)), ("smarter", 40, (24, 8, 8)),
                                    ("development", 20, (8, 4, 8))):  # fmt: skip
        rows = {rule: {split: {s.row for s in states(task(released[0], partition=partition, rule=rule), split)
                               if s.puzzle == 2} for split in SPLITS} for rule in ("published", "coded")}  # fmt: skip
        ends = [0, *itertools.accumulate(shares)]
        assert rows["coded"] == {split: set(range(*ends[i : i + 2])) for i, split in enumerate(SPLITS)}
        assert tuple(map(len, rows["published"].values())) == shares and rows["published"] != rows["coded"]
        assert used == ends[-1]


def test_puzzles_are_held_out_whole(released: Any) -> None:
    published, coded = (task(released[0], partition="puzzle", rule=rule) for rule in ("published", "coded"))
    held = {"validation": {7, 43}, "test": HELD_OUT_TEST}
    held["train"] = set(smart101.SKILLS) - held["validation"] - held["test"]
    for split, puzzles in held.items():
        assert Counter(s.puzzle for s in states(published, split)) == dict.fromkeys(puzzles, NUM)
        first, last = {"train": (0, 32), "validation": (32, 34), "test": (34, 40)}[split]
        found = {(s.puzzle, s.row) for s in states(coded, split)}
        assert found == {(p, row) for p in puzzles - SEQUENCES for row in range(first, last)}


def test_few_rows_of_held_out_puzzles_are_shown(released: Any) -> None:
    coded = task(released[0], partition="few_shot", rule="coded", few=10)
    train, test = states(coded, "train"), states(coded, "test")
    for puzzle in HELD_OUT_TEST:
        assert {s.row for s in train if s.puzzle == puzzle} == set(range(8))
        assert {s.row for s in test if s.puzzle == puzzle} == set(range(10 + 30 * 85 // 100, 40))
    published = task(released[0], partition="few_shot", rule="published", few=4)
    assert Counter(s.puzzle for s in states(published, "train") if s.puzzle in HELD_OUT_TEST) == dict.fromkeys(
        HELD_OUT_TEST, 4
    )
    assert {s.puzzle for s in states(published, "test")} == HELD_OUT_TEST


def test_an_answer_is_withheld(released: Any) -> None:
    for rule in ("published", "coded"):
        made = task(released[0], partition="answer", rule=rule)
        by_puzzle: dict[int, dict[str, set[Any]]] = {}
        for split in SPLITS:
            for state in states(made, split):
                by_puzzle.setdefault(state.puzzle, {}).setdefault(split, set()).add(made.value(state))
        whole = SEQUENCES | ({58} if rule == "coded" else set())
        for puzzle, found in by_puzzle.items():
            if puzzle not in whole:
                test = found.get("test", set())
                assert len(test) == 1 or (rule == "coded" and not test)
                assert not test & (found["train"] | found["validation"])
        assert sum("test" in found for found in by_puzzle.values()) > len(by_puzzle) - 4
    numbers = [1] * 5 + [2] * 3 + [3] * 3 + [4] * 9 + [5] * 2
    assert partitions.withheld([(n,) for n in numbers], "published") == (3,)
    # 1: 5, 2: 3, 3: 3, 4 and 5 together: 11; the median of 5, 3, 3, 11 is 4, the largest at most that is 3
    assert partitions.withheld([(n,) for n in numbers], "coded") == (3,)
    assert partitions.withheld([(n,) for n in [1] * 2 + [4] * 9 + [5] * 2], "coded") == (1,)


def test_values_and_options_are_judged_apart(released: Any) -> None:
    """S_acc and O_acc against a count of their own, over all predictions of all integer instances."""
    made, rows = task(released[0], puzzles=[2, 7, 43]), released[1]
    for state in states(made, "test"):
        row = rows[state.puzzle][state.row]
        written, right = [int(row[letter]) for letter in "ABCDE"], int(row[row["Answer"]])
        classes = max(int(other[other["Answer"]]) for other in rows[state.puzzle]) + 1
        assert made.kinds()[str(state.puzzle)].num_classes == classes
        for given in range(40):
            distances = [abs(option - given) for option in written]
            score = made.score(state, f"so. Answer: {given}")
            assert score.correct == (given == right)
            assert score.parts["option"] == ("ABCDE"[distances.index(min(distances))] == row["Answer"])
            assert score.parts["error"] == pytest.approx(min(1, abs(given - right) / classes))
        letter = made.score(state, f"Answer: {row['Answer']}")
        assert letter.correct and letter.parts["option"] == 1
        assert not made.score(state, "It is 5").parsed


def test_a_sequence_is_right_as_a_whole(released: Any) -> None:
    made = task(released[0], puzzles=[18])
    for state in states(made, "test"):
        right = made.answer(state)
        assert made.score(state, right).correct and made.score(state, right).parts["error"] == 0
        changed = right[:-1] + ("1" if right[-1] != "1" else "2")
        score = made.score(state, changed)
        assert not score.correct and score.parts == {"option": 0.0, "error": pytest.approx(0.2)}
        assert not made.score(state, right[:-2]).correct


def spoil(root: Path, puzzle: int, row: int, column: str, value: str) -> None:
    path = root / "SMART101-Data" / str(puzzle) / f"puzzle_{puzzle}.csv"
    with path.open(newline="") as file:
        rows = list(csv.reader(file))
    rows[row][rows[0].index(column)] = value
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)


@pytest.mark.parametrize(
    ("column", "value", "said"),
    [
        ("Answer", "F", "Answer='F': one of A, B, C, D, E is expected"),
        ("Answer", "AB", "Answer='AB'"),
        ("C", "seven", "'seven' is no answer of type integer"),
        ("C", "", "'' is no answer of type integer"),
        ("image", "../../43/img/puzzle_43_e_1.png", "the name of a picture is expected"),
        ("image", "..", "a path below task.data is expected"),
        ("image", "none.png", "not in task.data"),
        ("Question", "", "a text of at most 4000 characters is expected"),
        ("Question", "x" * 5000, "a text of at most 4000 characters is expected"),
    ],
)
def test_a_row_that_cannot_be_used_is_named_and_counted(own: Path, column: str, value: str, said: str) -> None:
    spoil(own, 2, 5, column, value)
    with pytest.raises(ValueError, match=r"1 of 20 rows of 2 puzzles cannot be used.*puzzle_2.csv, row 5: ") as raised:
        task(own, puzzles=[2, 43]).num_problems(LEVEL, "train")
    assert said in str(raised.value)
    made = task(own, puzzles=[2, 43], broken="skip")
    with pytest.warns(UserWarning, match="left out, 1 of 20 rows of 2 puzzles cannot be used"):
        num = sum(made.num_problems(LEVEL, split) for split in SPLITS)
    assert num == 19 and [(fault.file, fault.row) for fault in made.read.faults] == [
        ("SMART101-Data/2/puzzle_2.csv", 4)
    ]


def test_files_that_cannot_be_used_are_named_and_counted(own: Path) -> None:
    path = own / "SMART101-Data" / "2" / "puzzle_2.csv"
    whole = path.read_text()
    for text, said in (
        (whole.replace("Answer", "Solution"), "no column Answer in its head"),
        ("", "no column Question in its head"),
        (whole.splitlines()[0], "no row"),
        (whole + "\ud800".encode("utf-8", "surrogatepass").decode("latin-1"), "fewer fields than the head"),
        (re.sub(r"\n1,", "\n1,1,1,", whole, count=1), "2 fields more than the head"),
        ("id,Question,image,A,B,C,D,E,Answer,Note\n" + '"' + "x" * 200_000, "not CSV"),
    ):
        path.write_text(text)
        with pytest.raises(ValueError, match="cannot be used") as raised:
            task(own, puzzles=[2, 43]).read  # noqa: B018
        assert "SMART101-Data/2/puzzle_2.csv" in str(raised.value) and said in str(raised.value)
    shutil.rmtree(own / "SMART101-Data" / "2")
    with pytest.raises(ValueError, match=r"1 whole files; the first: SMART101-Data/2/puzzle_2.csv: no such folder"):
        task(own, puzzles=[2, 43]).read  # noqa: B018
    with pytest.raises(ValueError, match=r"no folder SMART101-Data in it"):
        task(own / "SMART101-Data").read  # noqa: B018
    with pytest.raises(ValueError, match=r"task\.data: missing"):
        Smart101(Smart101Sizes()).num_problems(LEVEL, "test")
    (own / "puzzle_type_info.csv").write_text("puzzle_id,type\n43,counting\n")
    with pytest.raises(ValueError, match=r"puzzle_type_info.csv, row 1: '43,counting' is not as SMART-101 has it"):
        task(own, puzzles=[43]).read  # noqa: B018


def test_the_difficulty_of_originals_is_a_group_where_it_is_said(own: Path) -> None:
    small = {"puzzles": [2, 43]}
    [first, *_] = states(task(own, **small), "train")
    assert "difficulty" not in task(own, **small).groups(first)
    (own / "SMART_info_v2.csv").write_text("id,Question,difficulty,type\n2,?,3,counting\n43,?,1,math\n")
    made = task(own, **small)
    found = {(made.kind_of(one), made.groups(one)["difficulty"]) for one in states(made, "train")}
    assert found == {("2", "3"), ("43", "1")}
    for row in ("2,?,7,counting", "x,?,1,counting", "102,?,1,counting"):
        (own / "SMART_info_v2.csv").write_text(f"id,Question,difficulty,type\n{row}\n")
        with pytest.raises(ValueError, match=r"SMART_info_v2.csv, row 1: .* a puzzle of SMART-101 with 1, 2, 3"):
            made = task(own, **small)
            made.groups(first)


def test_a_picture_that_is_none_is_named_with_its_row(own: Path) -> None:
    made = task(own, puzzles=[2], rule="coded")
    state = made.sample(LEVEL, "train", 3).state
    path = own / "SMART101-Data" / state.image
    path.write_bytes(b"no picture")
    with pytest.raises(ValueError, match=r"task=smart101: puzzle 2, row 4: picture '2/img/puzzle_2_3.png': "):
        made.draw(state)
    path.unlink()
    path.symlink_to(own / "icon-classes.txt")
    with pytest.raises(ValueError, match=r"row 4: .*leads out of task\.data"):
        made.draw(state)
    other = task(own, puzzles=[2], rule="coded", max_megapixels=0.0001)
    with pytest.raises(ValueError, match=r"more than task\.max_megapixels"):
        other.draw(other.sample(LEVEL, "train", 0).state)


def test_settings_without_effect_are_refused(own: Path) -> None:
    with pytest.raises(ValueError, match=r"task\.few=5: has no effect with task.partition=instance"):
        task(own, few=5)
    with pytest.raises(ValueError, match=r"task\.partition='puzzles': allowed are .*did you mean 'puzzle'"):
        task(own, partition="puzzles")
    with pytest.raises(ValueError, match=r"task\.puzzles=102"):
        task(own, puzzles=[102])
    made = task(own, puzzles=[2, 43], question=False)
    assert made.prompt(made.sample(LEVEL, "train", 0).state, "image").startswith("What is the answer?\nOptions: A: ")
