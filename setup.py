"""Copies `conf/`, `sweeps/` and `experiments/` into the package when a wheel is built; else see pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConf(build_py):
    def run(self) -> None:
        super().run()
        if not self.editable_mode:  # an editable install finds the folders in the checkout
            for name in ("conf", "sweeps", "experiments"):
                target = Path(self.build_lib) / "vlmreason" / name
                shutil.rmtree(target, ignore_errors=True)
                shutil.copytree(Path(__file__).parent / name, target)


setup(cmdclass={"build_py": BuildWithConf})
