"""Search a folder for pairs of pictures that two towers disagree on, and write what was found (`vlmreason mine`)."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlmreason import runs
from vlmreason.analysis import mining, picture_folders
from vlmreason.assembly import towers
from vlmreason.files import write_json, write_text_atomic
from vlmreason.pictures import png_bytes
from vlmreason.report.pages import mined
from vlmreason.structure import check_positive


@dataclass(frozen=True)
class Settings:
    """The keys of `vlmreason mine`; see conf/mine.yaml."""

    folder: str
    towers: tuple[str, ...]
    alike: float
    unlike: float
    thresholds: Literal["cosines", "quantiles"]
    most: int
    num: int
    max_megapixels: float
    features: str | None
    out: str
    accelerator: Literal["auto", "cpu", "gpu"]

    def __post_init__(self) -> None:
        if len(self.towers) != 2 or len(set(self.towers)) < 2:
            raise ValueError(f"towers={list(self.towers)}: two different ones are expected, as [nano,pixels]")
        check_positive(self, "most", "num")


def mine(own: Settings) -> Path:
    """Search, write the results; returns the page. Raises ValueError."""
    limits, folder, out = mining.Thresholds(own.alike, own.unlike), Path(own.folder), Path(own.out)
    if not folder.is_dir():
        raise ValueError(f"folder={folder}: no such folder")
    seeing = towers.open_towers(own.towers, own.features, own.accelerator)
    looked = picture_folders.look(folder, seeing, own.max_megapixels, progress=True)
    first, second = looked.vectors
    if own.thresholds == "quantiles":
        limits = mining.as_cosines(first, second, limits)
    what = runs.digest([looked.content, [tower.embedder.identity for tower in seeing], vars(limits), own.most])
    state = mining.resumed(first, second, limits, own.most, out / "search.npz", what, progress=True)
    pairs = state.pairs
    facts = mined.Facts(
        str(folder), own.towers, (limits.alike, limits.unlike), len(looked.names), state.count,  # type: ignore[arg-type]
        [mining.of_random_pairs(one) for one in (first, second)],
        [(float(a), float(u)) for a, u in zip(pairs.alike[:2000], pairs.unlike[:2000], strict=True)],
        looked.duplicates, looked.none,
    )  # fmt: skip
    shown = [_shown(folder, looked.names, pairs, at) for at in range(min(own.num, len(pairs)))]
    return _write(out, facts, looked.names, pairs, mined.page(facts, shown))


def _shown(folder: Path, names: list[str], pairs: Any, at: int) -> Any:
    both = names[pairs.first[at]], names[pairs.second[at]]
    pictures = [picture_folders.shown(folder / name, 240) for name in both]
    cosines = float(pairs.alike[at]), float(pairs.unlike[at])
    first, second = ((png_bytes(picture), picture.shape[1]) for picture in pictures)
    return mined.Shown(both, cosines, (first[0], second[0]), (first[1], second[1]))


def _write(out: Path, facts: Any, names: list[str], pairs: Any, page: str) -> Path:
    """Write the files of a search, print what it came to; returns the page."""
    rows = [
        {"first": names[i], "second": names[j], "alike": round(float(a), 5), "unlike": round(float(u), 5)}
        for i, j, a, u in zip(pairs.first, pairs.second, pairs.alike, pairs.unlike, strict=True)
    ]
    table = io.StringIO()
    writer = csv.DictWriter(table, ["first", "second", "alike", "unlike"], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    summary = {key: value for key, value in vars(facts).items() if key != "points"}
    summary["random"] = [{f"{at:g}": value for at, value in one.items()} for one in facts.random]
    write_json(out / "summary.json", summary | {"kept": len(rows)})
    write_text_atomic(out / "pairs.jsonl", "".join(json.dumps(row) + "\n" for row in rows))
    write_text_atomic(out / "pairs.csv", table.getvalue())
    write_text_atomic(out / "pairs.html", page)
    for words, files in (("duplicates", facts.duplicates), ("no pictures", facts.none)):
        if files:
            print(f"{words}: {len(files)}, as {files[0][0]} ({files[0][1]})")
    print(f"{facts.found} pairs of {facts.pictures} pictures, {len(rows)} kept in {out}")
    return out / "pairs.html"
