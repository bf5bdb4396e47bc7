"""The folders of the package: its configuration, what lies beside it, its commands."""

from __future__ import annotations

import functools
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
COMMANDS = HERE / "commands"


@functools.cache
def conf_dir() -> Path:
    """Find the folder of the configuration: inside the installed package, or at the root of the checkout."""
    for folder in (HERE / "conf", HERE.parents[1] / "conf"):
        if (folder / "train.yaml").is_file():
            return folder
    raise ValueError(f"conf/: no configuration beside {HERE}; install the package again")


_further: list[Path] = []


def conf_dirs() -> list[Path]:
    """List the folders of configuration files: the package's, then those of `--config-dir`."""
    return [conf_dir(), *_further]


def use_conf_dirs(folders: Iterable[Path]) -> None:
    """Read configuration files in these folders too, in place of further ones of before."""
    _further[:] = [folder.absolute() for folder in folders]


@functools.cache
def data_dir(name: str) -> Path:
    """Find a folder beside conf/: inside the installed package, or at the root of the checkout."""
    for folder in (HERE / name, HERE.parents[1] / name):
        if folder.is_dir():
            return folder
    raise ValueError(f"{name}/: not beside {HERE}; install the package again")
