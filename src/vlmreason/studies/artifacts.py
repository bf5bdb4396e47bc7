"""Experiments by their names: their files and what stands in them.

`experiments/<study>/study.yaml` says what the artifacts of a study share at each scale, `<artifact>.yaml` is one table
or figure (vlmreason.studies.experiment), `results/<scale>/` holds the records that came with this package. A text
`${name}` in an artifact stands for a value of its study at the scale, `${at_paper.name}` for that of scale=paper.
"""

from __future__ import annotations

import csv
import functools
import io
import re
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, TypeVar

from vlmreason import places
from vlmreason.files import MAX_JSON_BYTES, read_plain_yaml, read_text
from vlmreason.structure import nearest, structure
from vlmreason.studies.experiment import Experiment, Study

NOT_ARTIFACTS = ("study", "claims")
REFERENCE = re.compile(r"\$\{([\w.]+)\}")
MAX_DEPTH = 8  # of references in values

T = TypeVar("T")


def folder() -> Path:
    """Return the folder of the experiments. Raises ValueError."""
    return places.data_dir("experiments")


@functools.cache
def names() -> tuple[str, ...]:
    """Return all artifacts, as `s2h/fig5`, figures and tables by their numbers."""
    found = [path.relative_to(folder()).with_suffix("") for path in folder().glob("*/*.yaml")]
    artifacts = [path.as_posix() for path in found if path.name not in NOT_ARTIFACTS]
    return tuple(sorted(artifacts, key=lambda name: [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)]))


def chosen(word: str | Sequence[str]) -> list[str]:
    """Return the artifacts of `s2h/fig5`, of a list, of `glob(s2h/*)`. Raises ValueError."""
    found: list[str] = []
    for one in [word] if isinstance(word, str) else word:
        pattern = re.fullmatch(r"glob\((.+)\)", one)
        matches = [name for name in names() if (fnmatchcase(name, pattern.group(1)) if pattern else name == one)]
        if not matches:
            of_studies = [name for name in names() if name.partition("/")[2] == one]
            meant = f" (did you mean {' or '.join(map(repr, of_studies))}?)" if of_studies else nearest(one, names())
            raise ValueError(f"experiment={one}: no such experiment; there are {', '.join(names())}{meant}")
        found += matches
    return list(dict.fromkeys(found))


def read_study(study: str) -> Study:
    """Read a study. Raises ValueError."""
    path = folder() / study / "study.yaml"
    return _structured(Study, _load(path), path)


def read_experiment(name: str, scale: str) -> Experiment:
    """Read an artifact at a scale. Raises ValueError."""
    study, path = read_study(name.partition("/")[0]), folder() / f"{name}.yaml"
    if scale not in study.scales:
        raise ValueError(f"scale={scale}: {path.parent.name} has {', '.join(study.scales)}")
    values = {**study.scales[scale].values, "at_paper": study.scales["paper"].values}
    try:
        data = _replaced(_load(path), values)
        own = structure(dict[str, Any], data.get("set", {}), "set")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    data["set"] = {**study.scales[scale].set, **own}
    return _structured(Experiment, data, path)


def _replaced(data: Any, values: Mapping[str, Any], depth: int = 0) -> Any:
    """`data` with every `${name}` replaced by its value, in which more may stand. Raises ValueError."""
    if isinstance(data, Mapping):
        return {key: _replaced(value, values, depth) for key, value in data.items()}
    if isinstance(data, (list, tuple)):
        return [_replaced(value, values, depth) for value in data]
    if not isinstance(data, str) or "${" not in data:
        return data
    if depth > MAX_DEPTH:
        raise ValueError(f"{data}: it refers to itself")
    whole = REFERENCE.fullmatch(data)
    if whole:
        return _replaced(_value(whole.group(1), values), values, depth + 1)
    return REFERENCE.sub(lambda found: str(_replaced(_value(found.group(1), values), values, depth + 1)), data)


def _value(name: str, values: Mapping[str, Any]) -> Any:
    found: Any = values
    for part in name.split("."):
        if not isinstance(found, Mapping) or part not in found:
            raise ValueError(f"${{{name}}}: no such value; there are {', '.join(values)}{nearest(name, values)}")
        found = found[part]
    return found


def _load(path: Path) -> dict[str, Any]:
    data = read_plain_yaml(path, aliases=True)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: settings are expected")
    return data


def _structured(kind: type[T], data: Any, path: Path) -> T:
    try:
        return structure(kind, data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def studies(artifacts: Sequence[str]) -> list[str]:
    """Return their studies, each once."""
    return list(dict.fromkeys(name.partition("/")[0] for name in artifacts))


def read_numbers(path: Path) -> dict[tuple[str, str], dict[int, float]]:
    """Return a CSV file of numbers from elsewhere: first column the series, the others named by their header.

    With a column `seed` a series has a row for each, else one row, of seed 0: by series and column the numbers by seed.
    Raises ValueError naming file and line.
    """
    found: dict[tuple[str, str], dict[int, float]] = {}
    for place, seed, number in _numbers(path):
        found.setdefault(place, {})[seed] = number
    return found


def _numbers(path: Path) -> Iterator[tuple[tuple[str, str], int, float]]:
    try:
        rows = list(csv.reader(io.StringIO(read_text(path, MAX_JSON_BYTES), newline="")))
    except csv.Error as error:
        raise ValueError(f"{path}: cannot be read ({error})") from None
    if not rows:
        return
    heads = rows[0]
    for line, row in enumerate(rows[1:], start=2):
        cells = dict(zip(heads[1:], row[1:], strict=False))
        seed = cells.pop("seed", "0")
        if not (seed.isdecimal() and seed.isascii()):
            raise ValueError(f"{path}, line {line}: seed={seed!r}: a whole number is expected")
        for head, text in cells.items():
            if text.strip():
                try:
                    yield (row[0], head), int(seed), float(text)
                except ValueError:
                    raise ValueError(f"{path}, line {line}: {head}={text!r}: a number is expected") from None
