"""The notebook of one study: short, without outputs, found from the README, and every cell runs as it stands."""

import ast
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "first_study.ipynb"
CONTENT: dict[str, Any] = json.loads(NOTEBOOK.read_text())
SOURCES = [("".join(cell["source"]), cell) for cell in CONTENT["cells"]]
CODE = [source for source, cell in SOURCES if cell["cell_type"] == "code"]

RUN = """
import ast, json, sys
names = {"__name__": "__main__"}
for source in json.load(sys.stdin):
    *rest, last = ast.parse(source).body
    shown = isinstance(last, ast.Expr) and not source.rstrip().endswith(";")
    exec(compile(ast.Module(rest if shown else [*rest, last], []), "cell", "exec"), names)
    value = eval(compile(ast.Expression(last.value), "cell", "eval"), names) if shown else None
    print("SHOWN", type(value).__name__, getattr(value, "size", ""))
"""
"""Cells as Jupyter runs them, one namespace for all; what stands last is shown."""


def test_it_is_a_short_notebook_without_outputs() -> None:
    assert (CONTENT["nbformat"], len({cell["id"] for _, cell in SOURCES})) == (4, len(SOURCES))
    assert sum(len(source.splitlines()) for source in CODE) < 100
    for _, cell in SOURCES:
        assert cell["cell_type"] in ("markdown", "code") and not cell.get("outputs") and not cell.get("execution_count")
    for source in CODE:
        ast.parse(source)  # no shell and no magic: it needs nothing but Python


def test_a_newcomer_finds_it_and_its_links_lead_somewhere() -> None:
    assert "(docs/first_study.ipynb)" in (ROOT / "README.md").read_text()
    text = "".join(source for source, cell in SOURCES if cell["cell_type"] == "markdown")
    links = re.findall(r"\]\(([^)#]+)", text)
    assert len(links) > 3 and all((NOTEBOOK.parent / link).exists() for link in links)


@pytest.mark.slow
def test_every_cell_runs_in_order(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", RUN], input=json.dumps(CODE), cwd=tmp_path, env=environment, capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    shown = re.findall(r"^SHOWN (\w+) (.*)$", done.stdout, re.MULTILINE)
    assert len(shown) == len(CODE)
    pictures = [eval(size) for kind, size in shown if kind.endswith(("Image", "ImageFile"))]
    assert len(pictures) == 2 and pictures[1] == (432, 432) and ("list", "") in shown
    [run] = (path.parent for path in (tmp_path / "outputs").glob("*smoke*/summary.json"))
    assert (tmp_path / "outputs" / "figures" / "s2h" / "fig5.png").is_file() and str(run.name) in done.stdout
    for said in ("Mix+ ", "\n  expected  ", "\n  response  ", "answer   Answer: ", "written  "):
        assert said in done.stdout
