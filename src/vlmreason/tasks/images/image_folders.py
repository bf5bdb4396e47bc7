"""Pictures in a folder for each class, as miniImageNet and many others are kept: on the user's disk.

Folders of classes lie in the set's folder, or in train, val (or validation) and test in it. The name of a folder is its
label, with blanks in place of underscores; labels that differ in case alone are refused.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Literal

from PIL import Image

from vlmreason.pictures import FORMATS, open_picture
from vlmreason.structure import check_choice, first_line
from vlmreason.tasks.images.base import PictureSizes, spoken
from vlmreason.tasks.images.files import HELD_OUT, Filed, FiledPictures
from vlmreason.tasks.images.judge import Judge
from vlmreason.tasks.on_disk import Folder, Limits, shown

SPLIT_FOLDERS = {"train": "train", "val": "validation", "validation": "validation", "test": "test"}


class ImageFolders(FiledPictures):
    """broken: what is done about files that are no pictures: refuse (the set), or skip (with a warning that counts
    them)."""

    name = "image_folders"
    version = 1

    def __init__(
        self,
        sizes: PictureSizes,
        trace: str = "terse",
        wording: Mapping[str, str] | None = None,
        listed: str = "none",
        foreign: Sequence[str] | None = None,
        data: str | None = None,
        held_out: float = HELD_OUT,
        broken: Literal["refuse", "skip"] = "refuse",
        max_megapixels: float = 50.0,
    ) -> None:
        super().__init__(sizes, trace, wording, listed, foreign, data, held_out)
        check_choice("task.broken", broken, ("refuse", "skip"))
        self.limits = Limits(broken=broken, max_megapixels=max_megapixels)

    @property
    def labels(self) -> tuple[str, ...]:
        return tuple(self._classes)

    def entries(self) -> Mapping[str, Sequence[Filed]]:
        found: dict[str, list[Filed]] = {}
        faults = []
        for label, folders in self._classes.items():
            for split, folder in folders:
                for path in sorted(one for one in folder.iterdir() if not one.name.startswith(".")):
                    name = path.relative_to(self.folder).as_posix()
                    if fault := _fault(path):
                        faults.append(f"{shown(name)}: {fault}")
                    else:
                        found.setdefault(split, []).append(Filed(label, name, 0))
        num = sum(map(len, found.values()))
        if faults and (self.limits.broken == "refuse" or not num):
            raise ValueError(
                f"task.data={self.data}: {len(faults)} of {num + len(faults)} files are no pictures (task.broken=skip "
                f"leaves them out); {faults[0]}"
            )
        if faults:
            warnings.warn(f"task.data={self.data}: {len(faults)} files are left out; {faults[0]}", stacklevel=2)
        return found

    def image(self, state: Filed) -> Image.Image:
        path = Folder(self.data, self.limits, setting="task.data").locate(state.file)
        return open_picture(path, self.limits.max_megapixels, "task.max_megapixels")

    @cached_property
    def _classes(self) -> dict[str, list[tuple[str, Path]]]:
        """The folders of each label, in the order of the labels, with the split that each is of."""
        inner = _folders(self.folder)
        split = {path.name: path for path in inner if path.name in SPLIT_FOLDERS}
        places = (
            [(SPLIT_FOLDERS[name], path) for name, path in split.items()] if "train" in split else [("", self.folder)]
        )
        found: dict[str, list[tuple[str, Path]]] = {}
        for published, place in places:
            for folder in _folders(place):
                found.setdefault(spoken(folder.name), []).append((published, folder))
        if len(found) < 2:
            raise ValueError(
                f"task.data={self.data}: {len(found)} folders of classes, and two or more are expected, one per class"
            )
        try:
            Judge(sorted(found))
        except ValueError as error:
            raise ValueError(f"task.data={self.data}: {error}") from error
        return {label: found[label] for label in sorted(found)}


def _folders(place: Path) -> list[Path]:
    return sorted(path for path in place.iterdir() if path.is_dir() and not path.name.startswith("."))


def _fault(path: Path) -> str:
    """Say what is wrong with a file by its first bytes; "": it begins as a picture does."""
    if path.is_symlink() or not path.is_file():
        return "a link or no file, and files are expected"
    try:
        with Image.open(path, formats=FORMATS):
            return ""
    except (OSError, SyntaxError, Image.DecompressionBombError) as error:
        return first_line(error).replace(str(path), "this")
