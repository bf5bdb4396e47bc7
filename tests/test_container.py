"""The Dockerfile by reading: its base, what it copies and installs, and that its commands are those of the Makefile."""

import fnmatch
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LINES = [line for line in (ROOT / "Dockerfile").read_text().splitlines() if line]
STEPS = [tuple(line.split(maxsplit=1)) for line in LINES if not line.startswith("#")]
OF = {word: [rest for name, rest in STEPS if name == word] for word, _ in STEPS}


def ignored(path: str) -> bool:
    """Whether a file is left out of the image: by the pattern of a folder above it, or of itself."""
    patterns = (ROOT / ".dockerignore").read_text().split()
    parts = path.split("/")
    return any(fnmatch.fnmatch("/".join(parts[:end]), one) for one in patterns for end in range(1, len(parts) + 1))


def test_it_has_a_form_that_docker_reads() -> None:
    assert STEPS[0][0] == "FROM" and STEPS[-1][0] == "CMD" and len(OF["FROM"]) == len(OF["CMD"]) == 1
    assert set(OF) <= {"FROM", "RUN", "WORKDIR", "COPY", "ENV", "CMD"}
    assert OF["CMD"] == ['["make", "run"]']
    for line in OF["RUN"]:
        if "apt-get install" in line:
            assert "apt-get update && apt-get install -y --no-install-recommends" in line
            assert line.endswith("&& rm -rf /var/lib/apt/lists/*")


def test_its_python_is_one_that_the_project_takes() -> None:
    [minor] = re.findall(r"^python:3\.(\d+)-slim$", OF["FROM"][0])
    required = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["requires-python"]
    assert int(minor) >= int(required.removeprefix(">=3."))


def test_the_place_that_is_mounted_is_where_runs_are_written() -> None:
    [mounted] = re.findall(r'-v "\$PWD/outputs:([^"]+)"', LINES[0])
    assert mounted == f"{OF['WORKDIR'][0]}/outputs"
    assert re.search(r"^out: outputs\b", (ROOT / "conf" / "train.yaml").read_text(), re.MULTILINE)


def test_the_image_has_all_that_is_installed_and_nothing_that_was_made_here(tmp_path: Path) -> None:
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    assert OF["COPY"] == [". ."] and not [path for path in listing.stdout.split("\n") if path and ignored(path)]
    assert all(map(ignored, (".venv/bin/python", "outputs/run/config.yaml", "multirun/x")))


def test_its_commands_are_targets_that_install_and_train(tmp_path: Path) -> None:
    if shutil.which("make") is None:
        pytest.skip("there is no make")
    for name in ("Makefile", "pyproject.toml", "constraints.txt"):
        shutil.copy(ROOT / name, tmp_path)
    targets = [line.removeprefix("make ") for line in OF["RUN"] if line.startswith("make ")]
    assert targets == [".venv/.installed"]
    for target in (*targets, "run"):
        done = subprocess.run(["make", "-n", target], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        assert "pip install --disable-pip-version-check -c constraints.txt -e ." in done.stdout
        assert ("-m vlmreason train" in done.stdout) == (target == "run")
