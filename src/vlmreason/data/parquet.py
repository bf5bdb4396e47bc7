"""Problems as a data set of Hugging Face: one parquet file per level and split, and a data-set card over all.

    <out>/README.md                          the card; its front matter is written anew, what stands below it stays
    <out>/<level>/<split>/problems.parquet   the columns of `format=folder`, with the picture in `image`

`datasets.load_dataset(<out>, <level>)` gives the splits of a level, pictures decoded; pandas and pyarrow read
the files.
"""

from __future__ import annotations

import base64
import importlib.util
import itertools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vlmreason.files import rename_synced, write_text_atomic
from vlmreason.tasks.base import Task

GROUP_ROWS = 100  # of a row group: so many are in memory, and are read at once
OWN = ("level", "split", "num")  # keys in which the files of one data set differ
_TYPES = {"str": "string", "int": "int64", "float": "float64", "bool": "bool"}
_SIZES = ((1000, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


def check(held: Mapping[str, Any], others: Mapping[tuple[str, ...], Mapping[str, Any]]) -> None:
    """Raise ValueError without pyarrow, and where the folder holds files of another configuration."""
    if importlib.util.find_spec("pyarrow") is None:
        raise ValueError("format=parquet: needs the package pyarrow: pip install 'vlmreason[parquet]'")
    mine = json.loads(json.dumps({key: value for key, value in held.items() if key not in OWN}))
    for place, other in others.items():
        if key := next((key for key in mine if mine[key] != other.get(key)), None):
            values = f"{key} is {other.get(key)!r} in {'/'.join(place)}, {mine[key]!r} here"
            raise ValueError(f"format=parquet: the files of a folder are one data set ({values}); choose another out=")


def write(records: Path, target: Path) -> None:
    """Make the parquet file of a file of records; it is whole or absent."""
    import pyarrow
    import pyarrow.parquet

    with open(records, encoding="utf-8") as lines:
        rows = _rows(lines)
        first = next(rows)
        features = _features(first)
        schema = pyarrow.schema([(name, _arrow(kind)) for name, kind in features.items()])
        known = {name: {"_type": "Image"} if kind == "image" else {"dtype": kind, "_type": "Value"}
                 for name, kind in features.items()}  # fmt: skip
        schema = schema.with_metadata({"huggingface": json.dumps({"info": {"features": known}})})
        made = target.with_name(f".{target.name}.tmp")
        with pyarrow.parquet.ParquetWriter(made, schema) as writer:
            rows = itertools.chain([first], rows)
            while group := list(itertools.islice(rows, GROUP_ROWS)):
                writer.write_table(pyarrow.Table.from_pylist(group, schema))
    rename_synced(made, target)


def write_card(root: Path, task: Task[Any], folders: Sequence[Path]) -> None:
    """Write the card over the parquet files of these folders, `<root>/<level>/<split>`, as far as they are there."""
    import yaml

    files = [path for folder in folders for path in sorted(folder.glob("*.parquet"))]
    by_level: dict[str, list[Path]] = {}
    for path in files:
        by_level.setdefault(path.parent.parent.name, []).append(path)
    infos = [_info(level, by_level[level]) for level in task.levels if level in by_level]
    num = sum(split["num_examples"] for info in infos for split in info["splits"])
    front = {
        "license": "mit",
        "pretty_name": task.name,
        "language": ["en"],
        "task_categories": ["visual-question-answering"],
        "tags": ["synthetic", "vlmreason"],
        "size_categories": [next((name for size, name in _SIZES if num < size), "n>10M")],
        "configs": [
            {
                "config_name": info["config_name"],
                "data_files": [
                    {"split": split["name"], "path": f"{info['config_name']}/{split['name']}/*.parquet"}
                    for split in info["splits"]
                ],
            }
            for info in infos
        ],
        "dataset_info": infos,
    }
    card = root / "README.md"
    below = card.read_text(encoding="utf-8") if card.exists() else _BODY.format(name=task.name, version=task.version)
    if below.startswith("---\n") and "\n---\n" in below:
        below = below.partition("\n---\n")[2]
    write_text_atomic(card, f"---\n{yaml.safe_dump(front, sort_keys=False)}---\n{below}")


_BODY = """
# {name}

Problems of the task or environment `{name}` (version {version}), made by `vlmreason generate format=parquet`. They are
sampled, so that any number of further ones can be made; splits share no problem where there are enough of them.

A configuration is a level. `image` is the problem as a picture, `text` the same as text; `prompt_image` and
`prompt_text` ask about one or the other. The response is `thought` and `answer`, before them `convert` and the text
form where the picture is to be written as text first. `meta` is the problem itself, in JSON. Rows of an environment
are the turns of its expert's episodes: `index` is the episode, `reward`, `done` and `success` say what the response
led to.
"""


def _info(level: str, files: Sequence[Path]) -> dict[str, Any]:
    """The entry of a level in the card's `dataset_info`."""
    import pyarrow.parquet

    kept = pyarrow.parquet.read_schema(files[0]).metadata[b"huggingface"]
    features = [
        {"name": name, "dtype": kind.get("dtype", "image")}
        for name, kind in json.loads(kept)["info"]["features"].items()
    ]
    splits = []
    for path in files:
        found = pyarrow.parquet.read_metadata(path)
        num_bytes = sum(found.row_group(i).total_byte_size for i in range(found.num_row_groups))
        splits.append({"name": path.parent.name, "num_bytes": num_bytes, "num_examples": found.num_rows})
    return {
        "config_name": level,
        "features": features,
        "splits": splits,
        "download_size": sum(path.stat().st_size for path in files),
        "dataset_size": sum(int(split["num_bytes"]) for split in splits),
    }


def _rows(lines: Iterable[str]) -> Iterator[dict[str, Any]]:
    for line in lines:
        row = json.loads(line)
        yield row | {"image": {"bytes": base64.b64decode(row["image"]), "path": f"{row['id']}.png"}}


def _features(row: Mapping[str, Any]) -> dict[str, str]:
    """The type of each column, by the names that `datasets` gives them."""
    return {name: "image" if name == "image" else _TYPES[type(value).__name__] for name, value in row.items()}


def _arrow(kind: str) -> Any:
    import pyarrow

    if kind == "image":
        return pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    return pyarrow.type_for_alias(kind)
