"""The pages with examples of tasks, and the pictures that the documentation shows of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from support.sampled import READ_FROM_FILES

from vlmreason import places
from vlmreason.commands import gallery as command
from vlmreason.report.pages import gallery
from vlmreason.scale import Scale
from vlmreason.structure import structure

ROOT = Path(__file__).resolve().parents[3]
PICTURES = ROOT / "docs" / "pictures"
AGAIN = "a task, its wording or its drawing has changed: `vlmreason gallery out=GALLERY.md` in the checkout"


@pytest.fixture(scope="module")
def entries() -> list[Any]:
    settings = yaml.safe_load((places.conf_dir() / "scale" / "nano.yaml").read_text())
    return command.entries(None, structure(Scale, settings, "scale"))


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path).convert("RGB"))


def test_the_gallery_is_that_of_the_tasks(entries: list[Any]) -> None:
    folder = PICTURES / "gallery"
    text = gallery.markdown(entries, "nano", "train", 0, folder.relative_to(ROOT).as_posix())
    assert text == (ROOT / "GALLERY.md").read_text(), AGAIN
    drawn = gallery.pictures(entries, "train", 0)
    assert {path.stem for path in folder.iterdir()} == set(drawn), AGAIN
    assert not [
        name for name, picture in drawn.items() if not np.array_equal(picture, pixels(folder / f"{name}.png"))
    ], AGAIN


def test_the_pictures_of_the_documentation_are_those_of_the_tasks() -> None:
    made = make_module().drawn()
    assert {"problem", "grid_navigation"} <= set(made)
    stale = [
        name
        for name, image in made.items()
        if not np.array_equal(np.asarray(image.convert("RGB")), pixels(PICTURES / f"{name}.png"))
    ]
    assert not stale, "a drawing has changed: python docs/pictures/make.py"


def make_module() -> ModuleType:
    spec = importlib.util.spec_from_file_location("make_pictures", PICTURES / "make.py")
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_task_and_environment_is_in_the_gallery(entries: list[Any]) -> None:
    """But for those without problems of their own."""
    files = {path.stem for group in ("task", "env") for path in (ROOT / "conf" / group).glob("*.yaml")}
    assert files - {entry.name for entry in entries} == {*READ_FROM_FILES, "alfworld"}


def test_a_long_text_is_cut_and_says_so() -> None:
    lines = list(gallery._named("prompt", "\n".join(str(number) for number in range(20))))
    assert len(lines) == gallery.NUM_LINES
    assert lines[0] == "prompt | 0"
    assert lines[-1] == "       | ..."


def test_a_markdown_page_shows_one_problem_of_each(program: Any, tmp_path: Path) -> None:
    done = program("gallery", "tasks=[table_readout]", "out=pages/tasks.md", "pictures=shown")
    assert done.last_line == "pages/tasks.md"
    assert "![table_readout-simple-train-0](../shown/table_readout.png)" in (tmp_path / "pages/tasks.md").read_text()
    assert pixels(tmp_path / "shown/table_readout.png").shape == (288, 288, 3)
    done = program("gallery", "out=tasks.md", "num=2")
    assert done.code == 2
    assert "num=2: a Markdown page shows 1 problem of each task" in done.err
