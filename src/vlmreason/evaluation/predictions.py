"""The file of responses: one JSON line per problem, appended as they come, each problem once.

A line holds `id` and `response`, and where this package wrote it also `task`, `level`, `split`, `index`,
`view`, `num_tokens` (generated), `finished` (False: cut off by the length limit) and `tokens_<segment>`; where the
response was chosen, `options`: all that could be, with their scores (answering/choices.py), of an episode by turn.
A killed run leaves at most one cut-off line at the end; opening the file again removes it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any

from vlmreason.files import Line, check_ordinary, lock, read_json, read_jsonl, write_bytes_atomic, write_json
from vlmreason.segments import VIEWS

IDENTITY_FILE = "evaluation.json"
_TOKENS = "tokens_"


@dataclass(frozen=True)
class Prediction:
    """One response. `response` is None where the file held something that is not UTF-8 text.

    `tokens` counts tokens per segment kind; None fields are unknown (a file made by another program).
    """

    id: str
    response: str | None
    view: str | None = None
    num_tokens: int | None = None
    finished: bool | None = None
    tokens: Mapping[str, int] = field(default_factory=dict)
    task: str | None = None
    level: str | None = None
    split: str | None = None
    index: int | None = None
    options: list[Any] | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a flat object, as it stands in a line; unknown fields are left out."""
        names = ("id", "task", "level", "split", "index", "view", "response", "num_tokens", "finished", "options")
        known = {name: getattr(self, name) for name in names if getattr(self, name) is not None}
        return known | {_TOKENS + kind: count for kind, count in self.tokens.items()}


def prediction_path(out_dir: Path, level: str, view: str) -> Path:
    """Say where the responses to a level in a view are kept."""
    return out_dir / "predictions" / f"{level}-{view}.jsonl"


def read_predictions(path: Path) -> Iterator[Prediction]:
    """Return the predictions of a file, one at a time. Raises ValueError naming file and line."""
    for line in read_jsonl(path):
        yield _prediction(line)


def _prediction(line: Line) -> Prediction:
    data = line.data
    if not isinstance(data.get("id"), str):
        raise ValueError(f"{line.where}: a prediction needs an id (text)")
    if "response" not in data:
        raise ValueError(f"{line.where}: a prediction needs a response")
    response = data["response"] if line.utf8 and isinstance(data["response"], str) else None
    view = _optional(line, "view", str)
    if view is not None and view not in VIEWS:
        raise ValueError(f"{line.where}: view={shorten(view)}: allowed are {', '.join(VIEWS)}")
    tokens = {key.removeprefix(_TOKENS): _count(line, key) for key in data if key.startswith(_TOKENS)}
    return Prediction(
        id=data["id"],
        response=response,
        view=view,
        num_tokens=None if data.get("num_tokens") is None else _count(line, "num_tokens"),
        finished=_optional(line, "finished", bool),
        tokens=tokens,
        task=_optional(line, "task", str),
        level=_optional(line, "level", str),
        split=_optional(line, "split", str),
        index=None if data.get("index") is None else _count(line, "index"),
        options=_optional(line, "options", list),
    )


def _optional(line: Line, key: str, kind: type) -> Any:
    value = line.data.get(key)
    if value is not None and not isinstance(value, kind):
        raise ValueError(f"{line.where}: {key}={shorten(value)}: {kind.__name__} is expected")
    return value


def _count(line: Line, key: str) -> int:
    value = line.data[key]
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**53:
        raise ValueError(f"{line.where}: {key}={shorten(value)}: a count is expected")
    return value


def shorten(value: object) -> str:
    """Return a value for a message: printable, on one line, short."""
    text = ascii(value)
    return text if len(text) <= 80 else text[:77] + "..."


class PredictionFile:
    """An open predictions file: knows which problems are done and appends further ones.

    `expected` are the ids this evaluation can hold; a file with any other id is refused. One process
    writes at a time. Raises ValueError for damaged lines, duplicates, and when a line cannot be written.
    """

    def __init__(self, path: Path, expected: Mapping[str, object]) -> None:
        self.path = path
        self.done: set[str] = set()
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.exists():
                check_ordinary(path)
            self._handle = path.open("ab", buffering=0)
        except OSError as error:
            raise ValueError(f"{path}: cannot be written: {error.strerror}") from None
        try:
            self._lock()
            self._recover(expected)
        except BaseException:
            self._handle.close()
            raise

    def append(self, predictions: Iterable[Prediction]) -> None:
        """Write the predictions to the end of the file, each in one piece."""
        for prediction in predictions:
            assert prediction.id not in self.done, prediction.id
            self._write(json.dumps(prediction.to_json()).encode("ascii") + b"\n")
            self.done.add(prediction.id)
        if not os.fstat(self._handle.fileno()).st_nlink:
            raise ValueError(f"{self.path}: deleted while it was written; the same command begins again")

    def sort(self) -> None:
        """Bring the lines into the order of their problems' numbers, in which an unbroken evaluation writes them."""
        places = [(_prediction(line).index, line.start, line.end) for line in read_jsonl(self.path)]
        known = [place for place in places if place[0] is not None]
        if len(known) < len(places) or known == sorted(known):
            return
        content = self.path.read_bytes()
        try:
            write_bytes_atomic(self.path, b"".join(content[start:end] for _, start, end in sorted(known)))
        except OSError as error:
            raise ValueError(f"{self.path}: cannot be written: {error.strerror}") from None

    def __enter__(self) -> PredictionFile:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        self._handle.close()

    def _lock(self) -> None:
        if not lock(self._handle):
            raise ValueError(f"{self.path}: another evaluation is writing to this file")

    def _recover(self, expected: Mapping[str, object]) -> None:
        end, terminated = 0, True
        for line in read_jsonl(self.path):
            prediction = _prediction(line)
            if prediction.id not in expected:
                raise ValueError(f"{line.where}: {shorten(prediction.id)} does not belong to this evaluation")
            if prediction.id in self.done:
                raise ValueError(f"{line.where}: {shorten(prediction.id)} stands in the file twice")
            self.done.add(prediction.id)
            end, terminated = line.end, line.terminated
        if end < self._handle.seek(0, os.SEEK_END):
            self._handle.truncate(end)
        if not terminated:
            self._write(b"\n")

    def _write(self, data: bytes) -> None:
        try:
            while data:
                data = data[self._handle.write(data) :]
        except OSError as error:
            raise ValueError(
                f"{self.path}: cannot be written: {error.strerror}; what is done is kept, and the same command goes on"
            ) from None


def claim(out_dir: Path, identity: Mapping[str, object], predictions: Sequence[Path]) -> None:
    """Make a directory the place of one evaluation, so that responses of two are never mixed.

    The first call writes `identity` to evaluation.json; later ones compare. Raises ValueError naming the
    first setting that differs, or when there are predictions of unknown origin.
    """
    path = out_dir / IDENTITY_FILE
    wanted = json.loads(json.dumps(identity))
    if not path.exists():
        if unknown := [file for file in predictions if file.exists() and file.stat().st_size]:
            raise ValueError(f"{unknown[0]}: there is no {IDENTITY_FILE} that says which evaluation made it")
        write_json(path, wanted)
        return
    found = read_json(path)
    if not isinstance(found, dict):
        raise ValueError(f"{path}: the file is damaged: a JSON object is expected")
    old, new = _flat(found), _flat(wanted)
    for key in sorted(old.keys() | new.keys()):
        if old.get(key) != new.get(key):
            raise ValueError(
                f"{out_dir}: holds another evaluation: {key} is {shorten(old.get(key))} there and "
                f"{shorten(new.get(key))} here; choose another directory or remove this one"
            )


def check_claimed(out_dir: Path) -> None:
    """Raise ValueError where a directory is no longer the place of an evaluation: it was deleted meanwhile."""
    if not (out_dir / IDENTITY_FILE).exists():
        raise ValueError(f"{out_dir}: deleted while it was evaluated; the same command begins again")


def holds(out_dir: Path, identity: Mapping[str, object]) -> bool:
    """Tell whether a directory is already the place of this evaluation."""
    path = out_dir / IDENTITY_FILE
    return path.exists() and read_json(path) == json.loads(json.dumps(identity))


def _flat(data: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in data.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[prefix + key] = value
    return flat
