"""Responses in the files of evaluation kits: the same summary as from ours, or one sentence."""

import csv
import json
import os
import zipfile
from pathlib import Path
from typing import Any

import pytest
from support.adding import Adding

from vlmreason.evaluation import kits
from vlmreason.evaluation.kits import read_responses
from vlmreason.evaluation.scoring import score_file
from vlmreason.tasks.base import state_to_json

TASK = Adding()
PROBLEMS = [TASK.sample("simple", "test", index) for index in range(12)]
RESPONSES = [TASK.answer(problem.state) if problem.index % 3 else "no idea" for problem in PROBLEMS]
IDS = [problem.id for problem in PROBLEMS]


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    rows = [
        {"id": p.id, "task": p.task, "level": p.level, "split": p.split, "index": p.index}
        | {"meta": json.dumps(state_to_json(p.state))}
        for p in PROBLEMS
    ]
    path = tmp_path / "metadata.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def sheet(path: Path, *names: str) -> Path:
    """A result sheet as VLMEvalKit writes it, in any order, with the columns `names` besides the usual ones."""
    known = {"index": [p.index for p in PROBLEMS], "id": IDS}
    columns = {name: known[name] for name in names} | {"question": ["Q,\n\t?"] * 12, "prediction": RESPONSES}
    rows = [list(columns), *reversed(list(zip(*columns.values(), strict=True)))]
    if path.suffix == ".xlsx":
        book = pytest.importorskip("openpyxl").Workbook()
        for row in rows:
            book.active.append(list(row))
        book.save(path)
    else:
        with path.open("w", newline="") as file:
            csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",").writerows(rows)
    return path


def samples(path: Path, **changes: Any) -> Path:
    """What lmms-eval logs; a list of one response is left as it is."""
    lines = [
        {"doc_id": n, "target": "", "filtered_resps": [text] if n % 2 else text, "doc_hash": "0"} | changes
        for n, text in enumerate(RESPONSES)
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def check(problems: Path, predictions: Path) -> None:
    summary, path = score_file(TASK, problems, predictions)
    assert (summary.total.num, summary.total.correct, summary.total.unparsed, summary.total.missing) == (12, 8, 4, 0)
    assert path == predictions.with_name(f"{predictions.stem}.summary.json")


@pytest.mark.parametrize("name", ["a.xlsx", "a.tsv", "a.csv"])
@pytest.mark.parametrize("columns", [("index",), ("id",), ("index", "id")])
def test_result_sheets(name: str, columns: tuple[str, ...], problems: Path, tmp_path: Path) -> None:
    check(problems, sheet(tmp_path / name, *columns))


def test_samples_by_row_and_by_id(problems: Path, tmp_path: Path) -> None:
    check(problems, samples(tmp_path / "1_samples_adding.jsonl"))
    named = samples(tmp_path / "2_samples_adding.jsonl")
    lines = [json.loads(line) for line in named.read_text().splitlines()]
    for line, id in zip(lines, IDS, strict=True):
        line |= {"doc_id": 99 - line["doc_id"], "accuracy": {"id": id}}
    named.write_text("".join(json.dumps(line) + "\n" for line in lines))
    check(problems, named)


def test_an_index_of_several_problems_needs_an_id(tmp_path: Path) -> None:
    path = sheet(tmp_path / "a.csv", "index")
    with pytest.raises(ValueError, match="index='11': is of several problems: a column id is needed"):
        list(read_responses(path, [*IDS, "adding-hard-test-11"]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.csv", b"index,answer\n0,1\n", r"a\.csv:2: a result sheet needs the columns prediction"),
        ("a.tsv", b"prediction\n1\n", r"a\.tsv:2: a result sheet needs the columns prediction and id or index"),
        ("a.csv", b"index,prediction\n77,1\n", r"a\.csv:2: index='77': there is no such problem"),
        ("a.csv", b"id,prediction\nx,1\n", "prediction 'x': there is no such problem"),
        ("a.csv", None, "cannot be read"),
        ("a.xlsx", b"PK\x03\x04", "damaged, no xlsx|needs the package openpyxl"),
        ("a.jsonl", b'{"doc_id": 99, "filtered_resps": "1"}\n', "doc_id=99: a number below 12 is expected"),
        ("a.jsonl", b'{"doc_id": true, "filtered_resps": "1"}\n', "doc_id=True"),
        ("a.jsonl", b'{"doc_id": 0}\n', "a sample needs filtered_resps"),
        ("a.jsonl", b'{"doc_id": 0, "filtered_resps": ["1", "2"]}\n', "a sample needs filtered_resps, one response"),
    ],
)
def test_unusable_files_end_with_one_sentence(
    name: str, content: bytes | None, message: str, problems: Path, tmp_path: Path
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message) as raised:
        score_file(TASK, problems, tmp_path / name)
    assert "\n" not in str(raised.value)


def test_a_cell_without_text_is_an_empty_response(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("index,prediction\n0,\n\n1,7\n")
    assert [found.response for found in read_responses(tmp_path / "a.csv", IDS)] == ["", "7"]


def test_a_sheet_that_never_ends_or_is_a_bomb_is_named(tmp_path: Path) -> None:
    for name in ("pipe.csv", "pipe.tsv", "pipe.xlsx"):
        os.mkfifo(tmp_path / name)
        with pytest.raises(ValueError, match="no ordinary file"):
            list(kits.read_responses(tmp_path / name, []))
    with (tmp_path / "holes.csv").open("wb") as handle:
        handle.truncate(10**12)
    with pytest.raises(ValueError, match="larger than such a file is"):
        list(kits.read_responses(tmp_path / "holes.csv", []))
    with zipfile.ZipFile(tmp_path / "bomb.xlsx", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", bytes(4 * kits.MAX_SHEET_BYTES + 1))
    with pytest.raises(ValueError, match="larger than a result sheet is, unpacked"):
        list(kits.read_responses(tmp_path / "bomb.xlsx", []))
