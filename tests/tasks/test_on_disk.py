"""A set on disk is a few lines; nothing in its files can do harm, and what is wrong with them is said in a sentence."""

import csv
import hashlib
import json
import os
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vlmreason.answering.rollout import Rollouts
from vlmreason.answering.settings import EvaluationSettings
from vlmreason.data.export import export
from vlmreason.data.formats import ExportSettings
from vlmreason.envs.revision import Revision
from vlmreason.evaluation.evaluate import evaluate
from vlmreason.evaluation.problems import ProblemFile
from vlmreason.models.contract import Generation
from vlmreason.streams import SPLITS
from vlmreason.tasks.base import Modality, Score, state_to_json
from vlmreason.tasks.on_disk import DiskTask

NUM = 24
COLORS = ((200, 0, 0), (0, 200, 0), (0, 0, 200))
NAMES = ("red", "green", "blue")


@dataclass(frozen=True)
class Swatch:
    picture: str
    color: str
    room: str


class Swatches(DiskTask[Swatch]):
    """Name the colour of a picture."""

    name = "swatches"
    version = 1
    levels = ("plain",)
    state_type = Swatch

    def read(self, row: Any) -> Swatch:
        return Swatch(self.image(row["picture"]), str(row["color"]), str(row["room"]))

    def groups(self, state: Swatch) -> dict[str, str]:
        return {"room": state.room}

    def draw(self, state: Swatch) -> Any:
        return self.picture(state.picture)

    def text(self, state: Swatch) -> str:
        return f"A swatch of {state.color}."

    def prompt(self, state: Swatch, modality: Modality) -> str:
        return "Which colour?" + (f" {self.text(state)}" if modality == "text" else "")

    def convert(self, state: Swatch) -> str:
        return "Convert the picture to text:"

    def thought(self, state: Swatch) -> list[str]:
        return []

    def answer(self, state: Swatch) -> str:
        return state.color

    def score(self, state: Swatch, response: str) -> Score:
        return Score(response.strip() == state.color, response.strip() in NAMES)


def rows(num: int = NUM) -> list[dict[str, Any]]:
    return [{"picture": f"deep/{i}.png", "color": NAMES[i % 3], "room": str(i // 2)} for i in range(num)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "set" / "deep").mkdir(parents=True)
    for i in range(NUM):
        Image.new("RGB", (8 + i, 6), COLORS[i % 3]).save(tmp_path / "set" / "deep" / f"{i}.png")
    write(tmp_path / "set" / "index.jsonl", rows())
    return tmp_path / "set"


def write(path: Path, content: list[dict[str, Any]]) -> Path:
    if path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, list(content[0]))
            writer.writeheader()
            writer.writerows(content)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in content))
    else:
        path.write_text(json.dumps(content))
    return path


def swatches(data: Path, **changes: Any) -> Swatches:
    return Swatches(data=str(data), **changes)


def states(task: Swatches, split: str) -> list[Swatch]:
    return [task.sample("plain", split, i).state for i in range(task.num_problems("plain", split))]


@pytest.mark.parametrize("name", ["index.jsonl", "index.json", "index.csv"])
def test_every_row_is_a_problem_of_one_split(folder: Path, name: str) -> None:
    task = swatches(write(folder / name, rows()))
    found = {split: states(task, split) for split in SPLITS}
    assert all(found.values())
    assert sorted(s.picture for one in found.values() for s in one) == sorted(row["picture"] for row in rows())
    num = len(found["train"])
    assert task.sample("plain", "train", num + 1).state == found["train"][1], "they come round again"
    for state in found["test"]:
        assert task.draw(state)[0, 0].tolist() == list(COLORS[NAMES.index(state.color)])
        assert task.state_from_json(json.loads(json.dumps(state_to_json(state)))) == state


def test_the_share_that_is_held_out(folder: Path) -> None:
    task = swatches(write(folder / "index.json", rows()), held_out=0.05)
    assert task.num_problems("plain", "train") > 18
    with pytest.raises(ValueError, match=r"task\.held_out=0\.6: more than 0 and less than 0\.5"):
        swatches(folder / "index.json", held_out=0.6)


def test_splits_and_levels_may_have_files_of_their_own(folder: Path) -> None:
    write(folder / "train-plain.csv", rows()[:10])
    write(folder / "test-plain.csv", rows()[10:15])
    task = swatches(folder / "{split}-{level}.csv")
    assert [task.num_problems("plain", split) for split in SPLITS] == [10, 0, 5]
    assert [state.picture for state in states(task, "test")] == [row["picture"] for row in rows()[10:15]]
    for call in (lambda: task.sample("plain", "validation", 0), lambda: task.first("plain", "validation", 3)):
        with pytest.raises(ValueError, match="task=swatches level=plain split=validation: there is no problem"):
            call()
    with pytest.raises(ValueError, match="no such file"):
        swatches(folder / "{split}.csv").sample("plain", "train", 0)


def test_a_benchmark_may_be_for_testing_alone(folder: Path) -> None:
    class Benchmark(Swatches):
        def split(self, state: Swatch) -> str:
            return "test"

    task = Benchmark(data=str(folder / "index.jsonl"))
    assert [task.num_problems("plain", split) for split in SPLITS] == [0, 0, NUM]


class Guesser:
    """Says red to everything."""

    def generate(self, prompts: Any, max_new_tokens: int, forbidden: Any = ()) -> list[Generation]:
        return [Generation("red", 1, True) for _ in prompts]

    def count_tokens(self, text: str) -> int:
        return len(text.split())


def test_a_set_is_evaluated_and_written_out_like_any_task(folder: Path, tmp_path: Path) -> None:
    task, num = swatches(folder / "index.jsonl"), len(states(swatches(folder / "index.jsonl"), "test"))
    settings = EvaluationSettings(num=1000, views=("image",), conversion="free")
    with pytest.warns(UserWarning, match=f"there are {num} problems, so not 1000"):
        summary = evaluate(Guesser(), task, settings, tmp_path / "out", {}, progress=False)  # type: ignore[arg-type]
    assert summary.total.num == num
    assert summary.total.correct == sum(state.color == "red" for state in states(task, "test"))
    assert [group.group for group in summary.groups] == ["room"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        path = export(task, ExportSettings("plain", "test", num), tmp_path / "files", {}, 1, progress=False)
    assert len(ProblemFile(path, task)) == num


def test_reinforcement_goes_round_and_needs_a_split_for_training(folder: Path) -> None:
    task = swatches(folder / "index.jsonl")
    num = task.num_problems("plain", "train")
    rollouts = Rollouts(Revision(task), ("plain",), "image", {}, 8, 1.0, 0, 4)
    first, again = (rollouts.begin(number).state for number in (1, num + 1))
    assert first == again and first.problem == states(task, "train")[1]
    write(folder / "test.csv", rows())
    with pytest.raises(ValueError, match="task=swatches level=plain split=train: there is no problem"):
        Revision(swatches(folder / "{split}.csv")).start("plain", "train", 0)


def test_checksums_name_the_damaged_file(folder: Path) -> None:
    files = [folder / "index.jsonl", *sorted((folder / "deep").iterdir())]
    digests = {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
    listed = folder / "SHA256SUMS"
    listed.write_text("".join(f"{digest}  {path.relative_to(folder)}\n" for path, digest in digests.items()))
    task = swatches(folder / "index.jsonl", checksums=str(listed))
    first = states(task, "test")[0]
    assert task.draw(first).shape[0] == 6
    Image.new("RGB", (9, 9)).save(folder / first.picture)
    with pytest.raises(ValueError, match=f"task=swatches: picture '{first.picture}': {first.picture} is damaged"):
        task.draw(first)
    listed.write_text("".join(line for line in listed.read_text().splitlines(True) if first.picture not in line))
    with pytest.raises(ValueError, match=f"{first.picture} is not in task.checksums="):
        swatches(folder / "index.jsonl", checksums=str(listed)).draw(first)
    write(folder / "index.jsonl", rows()[:-1])
    with pytest.raises(ValueError, match=r"task\.data=.*index\.jsonl is damaged"):
        swatches(folder / "index.jsonl", checksums=str(listed)).sample("plain", "train", 0)
    listed.write_text("abc\n")
    with pytest.raises(ValueError, match="SHA256SUMS:1: a SHA-256 and a name are expected"):
        swatches(folder / "index.jsonl", checksums=str(listed)).sample("plain", "train", 0)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"picture": "/etc/passwd"}, "a path below task.images"),
        ({"picture": "../set/deep/1.png"}, "a path below task.images"),
        ({"picture": "deep/999.png"}, "not in task.images"),
        ({"picture": 7}, "image=7: one path is expected"),
        ({"color": json.loads("[" * 40 + "]" * 40)}, "nested deeper than 32"),
    ],
)
def test_rows_that_cannot_be_used_are_named_or_left_out(folder: Path, changes: dict[str, Any], why: str) -> None:
    path = write(folder / "index.json", [*rows()[:5], rows()[5] | changes, *rows()[6:]])
    with pytest.raises(ValueError, match=f"1 of 24 records cannot be used .*; record 5: .*{why}") as raised:
        swatches(path).sample("plain", "train", 0)
    assert "\n" not in str(raised.value)
    with pytest.warns(UserWarning, match=f"1 of 24 records are left out; record 5: .*{why}"):
        assert sum(swatches(path, broken="skip").num_problems("plain", split) for split in ("train",)) > 0


def test_a_row_without_a_key_is_named(folder: Path) -> None:
    path = write(folder / "index.jsonl", [{"picture": "deep/1.png"}])
    with pytest.raises(ValueError, match="record 0: no 'color'"):
        swatches(path).sample("plain", "train", 0)


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("a.json", b"{", "not JSON"),
        ("a.json", b"[" * 100_000, "not JSON"),
        ("a.json", b"{}", "a list of records is expected"),
        ("a.jsonl", b"", "a list of records is expected"),
        ("a.jsonl", b'{"a": 1}\n[1]\n', "a.jsonl:2: a JSON object is expected"),
        ("a.jsonl", b'{"a": 1}\n{"a": ', "the last line is cut off"),
        ("a.jsonl", b'{"a": "\xff"}\n', "a.jsonl:1: no UTF-8"),
        ("a.csv", b"picture,color\na,b,c\n", "a row has other cells than the head, 'a'"),
        ("a.csv", b"picture,color\na\n", "a row has other cells than the head, 'a'"),
        ("a.csv", b'picture,color\n"a', "not CSV"),
        ("a.csv", b"picture\n\xff\n", "'utf-8' codec can't decode"),
        ("a.csv", b"picture,color\n", "a list of records is expected"),
        ("a.jsonl", b" " * 3_000_000, "more than task.max_file_gb"),
    ],
)
def test_files_that_are_none(folder: Path, name: str, content: bytes, why: str) -> None:
    (folder / name).write_bytes(content)
    with pytest.raises(ValueError, match=why) as raised:
        swatches(folder / name, max_file_gb=0.002).sample("plain", "train", 0)
    assert "\n" not in str(raised.value) and str(folder / name) in str(raised.value)


def test_limits_of_rows_and_settings(folder: Path) -> None:
    task = swatches(folder / "index.jsonl")
    object.__setattr__(task.limits, "max_rows", 5)
    with pytest.raises(ValueError, match="more than 5 records"):
        task.sample("plain", "train", 0)
    with pytest.raises(ValueError, match=r"task\.max_file_gb=0: more than 0"):
        swatches(folder / "index.jsonl", max_file_gb=0)
    with pytest.raises(ValueError, match=r"task\.wording: swatches has no templates"):
        swatches(folder / "index.jsonl", wording={"a": "b"})
    with pytest.raises(ValueError, match=r"task\.data: missing, the index of swatches"):
        Swatches().sample("plain", "train", 0)


def test_pictures_are_files_within_the_folder(folder: Path) -> None:
    whole = (folder / "deep" / "3.png").read_bytes()
    (folder / "text.png").write_text("no picture")
    (folder / "cut.png").write_bytes(whole[:45])
    (folder.parent / "outside.png").write_bytes(whole)
    os.symlink(folder.parent / "outside.png", folder / "out.png")
    os.symlink(folder / "deep" / "3.png", folder / "link.png")
    os.symlink(folder / "deep", folder / "door")
    os.mkfifo(folder / "pipe.png")
    Image.new("L", (300, 200)).save(folder / "large.png")
    task = swatches(folder / "index.jsonl", max_megapixels=0.05)
    for name, why in {
        "text.png": "cannot identify",
        "cut.png": "truncated|cannot|broken",
        "out.png": "leads out of task.images",
        "link.png": "a link, and files are expected",
        "door/3.png": "a link, and files are expected",
        "pipe.png": "no regular file",
        "deep": "no regular file",
        "gone.png": "No such file",
        "large.png": "300 x 200 px, more than task.max_megapixels",
    }.items():
        with pytest.raises(ValueError, match=f"^task=swatches: picture '{name}': .*({why})") as raised:
            task.draw(Swatch(name, "red", "1"))
        assert "\n" not in str(raised.value)
    assert np.asarray(task.draw(Swatch("deep/3.png", "red", "1"))).shape == (6, 11, 3)


def test_problems_of_training_are_found_in_the_files_of_other_splits(folder: Path) -> None:
    for split, chosen in (("train", rows()[:8]), ("validation", rows()[8:12]), ("test", rows()[6:16])):
        (folder / f"{split}.json").write_text(json.dumps(chosen))
    task = Swatches(data=str(folder / "{split}.json"), images=str(folder))
    said = task.met_in_training(task.levels, "plain", "test")
    assert said == "2 of its 10 problems in task.data are there for training too"
    assert task.met_in_training(task.levels, "plain", "validation") == ""
    assert swatches(folder / "index.jsonl").met_in_training(task.levels, "plain", "test") == ""
