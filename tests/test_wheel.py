"""The built package carries its configuration."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.slow
def test_built_package_runs_without_the_checkout(tmp_path: Path) -> None:
    pytest.importorskip("setuptools")
    source, built = tmp_path / "source", tmp_path / "built"
    source.mkdir()
    for name in ("src", "conf", "sweeps", "experiments"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.egg-info"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, source)
        else:
            (source / name).write_text("")
    build = [sys.executable, "setup.py", "-q", "build_py", "--build-lib", str(built)]
    subprocess.run(build, cwd=source, check=True, capture_output=True)
    assert {p.relative_to(ROOT / "conf") for p in (ROOT / "conf").rglob("*.yaml")} == {
        p.relative_to(built / "vlmreason" / "conf") for p in (built / "vlmreason" / "conf").rglob("*.yaml")
    }
    assert list((built / "vlmreason" / "sweeps" / "profiles").glob("*.yaml"))
    assert (built / "vlmreason" / "experiments" / "s2h" / "study.yaml").is_file()
    for kind in ("*.json", "base/*", "scenes/*"):
        for path in (ROOT / "src" / "vlmreason" / "models" / "nano").glob(kind):
            assert (built / path.relative_to(ROOT / "src")).is_file()
    shutil.rmtree(source)
    environment = {**os.environ, "PYTHONPATH": str(built)}
    words = [sys.executable, "-m", "vlmreason", "train", "supervision=text", "--cfg", "job"]
    done = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "name: text\n" in done.stdout
    where = "import vlmreason.places as c; print(c.conf_dir())"
    done = subprocess.run([sys.executable, "-c", where], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.stdout.strip() == str(built / "vlmreason" / "conf")
