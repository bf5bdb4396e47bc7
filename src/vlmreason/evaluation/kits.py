"""Responses as evaluation kits write them: VLMEvalKit's result sheets and the samples of lmms-eval.

A sheet (xlsx, csv, tsv) has a row per problem with `prediction` and either `id` or VLMEvalKit's `index`; lmms-eval's
`samples_*.jsonl` a line with `filtered_resps` and either the id in its `accuracy`, as the task that `generate
format=lmms_eval` writes puts it there, or `doc_id`, the number of the problem's row.
"""

from __future__ import annotations

import csv
import io
import zipfile
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from vlmreason.evaluation.predictions import Prediction, read_predictions, shorten
from vlmreason.files import MAX_LINE_BYTES, Line, read_bytes, read_jsonl

MAX_SHEET_BYTES = 64 * 2**20
SHEETS = (".xlsx", ".csv", ".tsv")


def read_responses(path: Path, ids: Collection[str]) -> Iterator[Prediction]:
    """Read the predictions of a file in any of the layouts, one at a time.

    `ids`: of the problems in their order, for files that number them. Raises ValueError naming file and line.
    """
    if path.suffix in SHEETS:
        return _of_sheet(path, ids)
    first = next(read_jsonl(path), None)
    if first is not None and "doc_id" in first.data and "id" not in first.data:
        return _of_samples(path, list(ids))
    return read_predictions(path)


def _of_sheet(path: Path, ids: Collection[str]) -> Iterator[Prediction]:
    by_index: dict[str, str | None] = {}  # None: of several problems
    for id in ids:
        index = id.rpartition("-")[2]
        by_index[index] = None if index in by_index else id
    for number, row in enumerate(_rows(path), 2):
        where = f"{path}:{number}"
        if "prediction" not in row or not {"id", "index"} & row.keys():
            raise ValueError(f"{where}: a result sheet needs the columns prediction and id or index")
        index = str(row.get("index"))
        problem = row.get("id") or by_index.get(index)
        if problem is None:
            why = "is of several problems: a column id is needed" if index in by_index else "there is no such problem"
            raise ValueError(f"{where}: index={shorten(row.get('index'))}: {why}")
        response = row["prediction"]
        yield Prediction(str(problem), "" if response is None else str(response))


def _rows(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a sheet below its first one, which names the columns."""
    cells = _excel(path) if path.suffix == ".xlsx" else _separated(path)
    names = next(cells, ())
    for row in cells:
        if any(cell is not None for cell in row):
            yield dict(zip(map(str, names), row, strict=False))


def _separated(path: Path) -> Iterator[tuple[Any, ...]]:
    csv.field_size_limit(MAX_LINE_BYTES)
    text = read_bytes(path, MAX_SHEET_BYTES).decode("utf-8-sig", errors="replace")
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter="\t" if path.suffix == ".tsv" else ","):
            yield tuple(row)
    except csv.Error as error:
        raise ValueError(f"{path}: damaged ({error})") from None


def _excel(path: Path) -> Iterator[tuple[Any, ...]]:
    try:
        import openpyxl
    except ImportError:
        raise ValueError(f"{path}: xlsx needs the package openpyxl; csv and tsv are read without it") from None
    content = io.BytesIO(read_bytes(path, MAX_SHEET_BYTES))
    try:
        with zipfile.ZipFile(content) as archive:
            large = sum(part.file_size for part in archive.infolist()) > 4 * MAX_SHEET_BYTES
        book = None if large else openpyxl.load_workbook(content, read_only=True, data_only=True)
        yield from book.worksheets[0].iter_rows(values_only=True) if book else ()
    except Exception as error:  # a damaged archive ends in zipfile's, the XML parser's or openpyxl's own errors
        raise ValueError(f"{path}: damaged, no xlsx ({type(error).__name__})") from None
    if large:
        raise ValueError(f"{path}: larger than a result sheet is, unpacked ({4 * MAX_SHEET_BYTES:,} bytes)")


def _of_samples(path: Path, ids: list[str]) -> Iterator[Prediction]:
    for line in read_jsonl(path):
        yield Prediction(_sample_id(line, ids), _response(line))


def _sample_id(line: Line, ids: list[str]) -> str:
    noted, number = line.data.get("accuracy"), line.data.get("doc_id")
    if isinstance(noted, dict) and isinstance(noted.get("id"), str):
        return str(noted["id"])
    if not isinstance(number, int) or isinstance(number, bool) or not 0 <= number < len(ids):
        raise ValueError(f"{line.where}: doc_id={shorten(number)}: a number below {len(ids)} is expected")
    return ids[number]


def _response(line: Line) -> str | None:
    """The only response to a problem, as text or in lists of one."""
    found = line.data.get("filtered_resps")
    while isinstance(found, list) and len(found) == 1:
        found = found[0]
    if "filtered_resps" not in line.data or isinstance(found, list):
        raise ValueError(f"{line.where}: a sample needs filtered_resps, one response")
    return found if line.utf8 and isinstance(found, str) else None
