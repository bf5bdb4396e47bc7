"""Data sets of Hugging Face, opened with the real `datasets`, pandas and pyarrow; their card; what is refused."""

import importlib.util
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from support.program import Done
from support.tiny import nano_task

from vlmreason.data.export import export
from vlmreason.data.formats import ExportSettings
from vlmreason.data.parquet import GROUP_ROWS

TASK = nano_task("table_readout")
MADE = (("simple", "train", 12), ("hard", "train", 3), ("hard", "test", 4))


def made(folder: Path, *which: tuple[str, str, int], task: Any = TASK) -> Path:
    for level, split, num in which or MADE:
        settings = ExportSettings(level, split, num, "parquet")
        path = export(task, settings, folder, {}, 1, progress=False)
        assert path == folder / level / split / "problems.parquet"
    return folder


def front(folder: Path) -> dict[str, Any]:
    return yaml.safe_load((folder / "README.md").read_text().split("---\n")[1])


@pytest.mark.slow
def test_datasets_reads_levels_splits_and_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr("datasets.config.HF_DATASETS_OFFLINE", True)
    folder, cache = made(tmp_path / "d"), str(tmp_path / "cache")
    assert datasets.get_dataset_config_names(str(folder)) == ["simple", "hard"]
    for level, split, num in MADE:
        read = datasets.load_dataset(str(folder), level, split=split, cache_dir=cache)
        assert read.num_rows == num and isinstance(read.features["image"], datasets.Image)
        [info] = [info for info in front(folder)["dataset_info"] if info["config_name"] == level]
        assert [one["name"] for one in info["features"]] == list(read.features)
        for index, row in enumerate(read):
            problem = TASK.sample(level, split, index)
            assert np.array_equal(np.asarray(row["image"]), TASK.draw(problem.state))
            assert row["id"] == problem.id and TASK.state_from_json(json.loads(row["meta"])) == problem.state
            assert row["prompt_image"] == TASK.prompt(problem.state, "image")
            assert TASK.score(problem.state, row["thought"] + row["answer"]).correct


def test_pandas_reads_a_file_and_its_columns_are_those_of_the_folder(tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.read_parquet(made(tmp_path / "d") / "hard" / "test" / "problems.parquet")
    lines = export(TASK, ExportSettings("hard", "test", 4), tmp_path / "f", {}, 1, progress=False).read_text()
    for row, line in zip(frame.to_dict("records"), map(json.loads, lines.splitlines()), strict=True):
        picture, name = row.pop("image"), line.pop("file_name")
        assert picture["path"] == name
        assert picture["bytes"] == (tmp_path / "f" / "test" / name).read_bytes()
        assert Image.open(io.BytesIO(picture["bytes"])).size == (144, 144)
        assert row == line


def test_the_card_says_what_there_is_and_keeps_what_was_written_below(tmp_path: Path) -> None:
    folder = made(tmp_path, ("hard", "test", 4))
    assert front(folder)["license"] == "mit" and front(folder)["size_categories"] == ["n<1K"]
    card = folder / "README.md"
    card.write_text(card.read_text() + "\nOur own words.\n")
    made(folder, *MADE)
    card_of = front(folder)
    assert [one["config_name"] for one in card_of["configs"]] == ["simple", "hard"]
    sizes = {
        (info["config_name"], split["name"]): split["num_examples"]
        for info in card_of["dataset_info"]
        for split in info["splits"]
    }
    assert sizes == {(level, split): num for level, split, num in MADE}
    text = card.read_text()
    assert text.endswith("\nOur own words.\n") and text.count("# table_readout") == 1 and text.count("\n---\n") == 1
    for one in card_of["configs"]:
        for files in one["data_files"]:
            assert list(folder.glob(files["path"]))


def test_row_groups_are_bounded(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow.parquet")
    folder = made(tmp_path, ("simple", "train", GROUP_ROWS + 20))
    found = pyarrow.read_metadata(folder / "simple" / "train" / "problems.parquet")
    assert [found.row_group(i).num_rows for i in range(found.num_row_groups)] == [GROUP_ROWS, 20]


def test_a_file_that_was_deleted_is_made_again_and_another_one_left_alone(tmp_path: Path) -> None:
    folder = made(tmp_path)
    path, other = (folder / "hard" / split / "problems.parquet" for split in ("test", "train"))
    before, at = path.read_bytes(), other.stat().st_mtime_ns
    path.unlink()
    made(folder)
    assert path.read_bytes() == before and other.stat().st_mtime_ns == at


def test_one_data_set_is_of_one_configuration(tmp_path: Path) -> None:
    folder = made(tmp_path, ("hard", "test", 4))
    with pytest.raises(ValueError, match=r"one data set \(config is None in hard/test"):
        export(TASK, ExportSettings("hard", "train", 4, "parquet"), folder, {"config": 1}, 1)
    with pytest.raises(ValueError, match=r"one data set \(task is 'table_readout' in hard/test"):
        export(nano_task("grid_navigation"), ExportSettings("hard", "train", 4, "parquet"), folder, {}, 1)
    with pytest.raises(ValueError, match="not made by generate"):
        export(TASK, ExportSettings("hard", "train", 4), folder, {}, 1)
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "hard"]


def test_a_missing_package_is_one_sentence(
    program: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec", lambda name, *rest: None if name == "pyarrow" else find(name, *rest)
    )
    done = program("generate", "format=parquet", "out=d")
    assert (done.code, done.err.count("\n")) == (2, 1) and "vlmreason[parquet]" in done.err
    assert not (tmp_path / "d").exists()


def test_the_command_and_a_sweep(program: Callable[..., Done], tmp_path: Path) -> None:
    words = ("generate", "-m", "level=simple,hard", "split=train,test", "num=2", "format=parquet", "out=d")
    assert program(*words).code == 0
    assert len(list((tmp_path / "d").glob("*/*/problems.parquet"))) == 4
    assert [len(one["splits"]) for one in front(tmp_path / "d")["dataset_info"]] == [2, 2]
