"""The shape of the repository: floors, edges, one YAML per task, what may lie in it."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "vlmreason"

FLOORS = (
    "structure",
    "files",
    "provenance",
    "streams",
    "pictures",
    "intervals",
    "terminal",
    "places",
    "scale",
    "segments",
    "answers",
    "tasks",
    "dialogue",
    "envs",
    "supervision",
    "models",
    "data",
    "answering",
    "evaluation",
    "training",
    "analysis",
    "runs",
    "studies",
    "report",
    "launch",
    "assembly",
    "cli",
    "gym",
    "commands",
    "__main__",
)
"""From the ground up, as in docs/architecture.md: a room imports itself and the rooms before it."""

EDGES = {
    "hydra": {"assembly", "cli"},
    "omegaconf": {"assembly", "cli"},
    "lightning": {"training"},
    "wandb": {"training"},
    "matplotlib": {"report"},
    "torch": {"models", "data", "answering", "evaluation", "training", "analysis", "assembly", "commands"},
    "transformers": {"models", "assembly"},  # assembly: to quieten it
    "tokenizers": {"models"},
    "gymnasium": {"envs", "gym"},
    "vllm": {"training"},
}
"""Where a library may be imported; one that is not named here may be imported anywhere."""

WALLS = {
    "training": {"evaluation", "analysis"},
    "analysis": {"evaluation", "training"},
    "evaluation": {"training", "analysis"},
    "models": {"tasks", "envs", "data"},
    "studies": {"models", "training", "analysis", "report"},
    "report": {"models", "training", "evaluation"},
}
"""Rooms that a room does without although they lie below it, or beside it: a command or `assembly` joins them."""

MEGABYTE = 1_000_000
BASES = tuple(f"src/vlmreason/models/nano/{name}/" for name in ("base", "first"))
TEXT = {".py", ".md", ".yaml", ".yml", ".toml", ".txt", ".json", ".jsonl", ".cfg", ""}


class Import(NamedTuple):
    module: str  # of ours, that imports
    line: int
    target: str  # dotted name of what is imported

    def __str__(self) -> str:
        return f"{self.module}:{self.line} imports {self.target}"


def module_names() -> dict[str, Path]:
    found = {}
    for path in SOURCE.rglob("*.py"):
        parts = path.relative_to(SOURCE.parent).with_suffix("").parts
        found[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    return found


MODULES = module_names()


def imports_of(module: str) -> Iterator[Import]:
    """Every import of a module, those inside of functions too; `from a import b` names module a.b if it is one."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.Import):
            yield from (Import(module, node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0 and node.module, f"{module}:{node.lineno}: imports are absolute"
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield Import(module, node.lineno, full if full in MODULES else node.module)


IMPORTS = [found for module in MODULES for found in imports_of(module)]


def room(module: str) -> str:
    """The floor of one of our modules ("" for the package itself, which holds the version only)."""
    return module.split(".")[1] if "." in module else ""


def tracked_files() -> list[Path]:
    listing = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listing.returncode:
        pytest.skip("not a git checkout")
    paths = [ROOT / name for name in listing.stdout.decode().split("\0") if name]
    return [path for path in paths if path.is_file()]


def test_every_module_lies_on_a_floor() -> None:
    assert {room(module) for module in MODULES} <= {"", *FLOORS}


def test_imports_go_down() -> None:
    height = {name: number for number, name in enumerate(FLOORS)} | {"": -1}
    ours = [found for found in IMPORTS if found.target in MODULES]
    assert len(ours) > 50
    upwards = [str(found) for found in ours if height[room(found.target)] > height[room(found.module)]]
    assert not upwards


@pytest.mark.parametrize("name", WALLS)
def test_rooms_do_without_each_other(name: str) -> None:
    through = [
        str(found)
        for found in IMPORTS
        if room(found.module) == name and found.target in MODULES and room(found.target) in WALLS[name]
    ]
    assert not through


def test_files_are_short() -> None:
    lengths = {module: len(path.read_text().splitlines()) for module, path in MODULES.items()}
    assert not {module: length for module, length in lengths.items() if length > 500}
    assert sum(length for module, length in lengths.items() if room(module) == "commands") < 1800


def test_docstrings_of_functions_begin_with_a_verb() -> None:
    """At least with none of the words with which a description without one begins."""
    nouns = {
        "the",
        "a",
        "an",
        "what",
        "whether",
        "where",
        "how",
        "one",
        "every",
        "all",
        "of",
        "as",
        "for",
        "in",
        "within",
    }
    found = []
    for module, path in MODULES.items():
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                words = (ast.get_docstring(node) or "").split()
                if words and (words[0].lower() in nouns or words[0] == "Raises"):
                    found.append(f"{module}:{node.lineno} {node.name}: {' '.join(words[:6])}")
    assert not found


def test_there_are_no_import_circles() -> None:
    graph: dict[str, set[str]] = {module: set() for module in MODULES}
    for found in IMPORTS:
        if found.target in MODULES and found.target != found.module and found.target != "vlmreason":
            graph[found.module].add(found.target)
    try:
        order = list(TopologicalSorter(graph).static_order())
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))
    assert len(order) == len(MODULES)


@pytest.mark.parametrize("library", EDGES)
def test_libraries_stay_at_their_edge(library: str) -> None:
    users = [found for found in IMPORTS if found.target.partition(".")[0] == library]
    inside = [str(found) for found in users if room(found.module) not in EDGES[library]]
    assert not inside


def test_what_is_imported_is_declared() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    of_users = [line for name in extras if name not in ("dev", "benchmark") for line in extras[name]]
    lines = [*project["dependencies"], *of_users]
    declared = {re.split(r"[<>=\[; ]", line)[0].replace("-", "_") for line in lines}
    names = {"hydra": "hydra_core", "PIL": "pillow", "yaml": "pyyaml", "fontTools": "fonttools"}
    used = {found.target.partition(".")[0] for found in IMPORTS} - sys.stdlib_module_names - {"vlmreason"}
    assert {names.get(name, name) for name in used} <= declared


def test_constraints_pin_what_is_declared() -> None:
    """Every declared dependency is pinned, once, and nothing else."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["dev"], *extras["benchmark"]]
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line and line[0] != "#"]
    pinned = [line.partition("==")[0] for line in lines]
    assert len(pinned) == len(set(pinned))
    assert {re.split(r"[<>=\[; ]", line)[0] for line in wanted} == set(pinned)


def test_papers_of_the_repository_agree_with_the_project() -> None:
    """Citation, container and what contributors are told name what there is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert {key: str(citation[key]) for key in ("version", "license")} == {
        key: project[key] for key in ("version", "license")
    }
    assert (citation["title"], citation["cff-version"]) == (project["name"], "1.2.0") and citation["authors"]
    targets = set(re.findall(r"^(\S+):", (ROOT / "Makefile").read_text().replace("$(VENV)", ".venv"), re.MULTILINE))
    for name, least in (("CONTRIBUTING.md", 2), ("Dockerfile", 2)):
        text = (ROOT / name).read_text().replace('"make", "', "make ")
        named = re.findall(r"^(?:RUN |CMD \[)?make ([a-z./-]+)", text, re.MULTILINE)
        assert len(named) >= least and set(named) <= targets, name
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "CONTRIBUTING.md").read_text())
    assert links and all((ROOT / link).is_file() for link in links)


def task_classes() -> dict[str, str]:
    """Dotted name of every class in tasks/ that has a `name`, by that name."""
    found: dict[str, str] = {}
    for module, path in MODULES.items():
        if room(module) != "tasks":
            continue
        for node in ast.parse(path.read_text()).body:
            for line in node.body if isinstance(node, ast.ClassDef) else []:
                match line:
                    case ast.Assign(targets=[ast.Name(id="name")], value=ast.Constant(value=str(name))):
                        assert isinstance(node, ast.ClassDef)
                        assert name not in found, f"{found[name]} and {module} are both called {name}"
                        found[name] = f"{module}.{node.name}"
    return found


def test_every_task_has_its_file_and_every_file_its_task() -> None:
    files = {path.stem: yaml.safe_load(path.read_text()) for path in (ROOT / "conf" / "task").glob("*.yaml")}
    assert {name: data["_target_"] for name, data in files.items()} == task_classes()
    for name, data in files.items():
        assert data["name"] == name
        assert {"trace", "wording", "nano", "paper"} <= data.keys(), name


def test_every_configuration_says_what_it_is() -> None:
    for path in (ROOT / "conf").rglob("*.yaml"):
        assert path.read_text().startswith("#"), f"{path.relative_to(ROOT)}: the first line is a comment"


def test_nothing_large_is_tracked() -> None:
    sizes = {path.relative_to(ROOT).as_posix(): path.stat().st_size for path in tracked_files()}
    large = {name: size for name, size in sizes.items() if size > MEGABYTE and not name.startswith(BASES)}
    assert not large
    for base in BASES:
        assert sum(size for name, size in sizes.items() if name.startswith(base)) <= 7 * MEGABYTE
    assert sum(size for name, size in sizes.items() if name.startswith("docs/pictures/")) <= 0.75 * MEGABYTE


def test_text_is_for_every_reader() -> None:
    """No place on a developer's machine and no private tracker is mentioned, and no secret is left."""
    patterns = {
        "a path of one machine": r"(?<![\w.])/(?:work|root|home)/|/tmp/(?:venv|clone)",
        "a tracker or its people": r"(?i)\bissues? *#?\d|\bhelpers?\b|\b(?<!scope=\")sessions?\b(?!\.(?:config|items))",
        "a key": r"(?i)\b(?:api_key|token|password) *= *['\"][A-Za-z0-9]{16,}",
    }
    found = []
    for path in tracked_files():
        if (
            path.suffix not in TEXT
            or path == Path(__file__).resolve()
            or any(base in path.as_posix() for base in BASES)
        ):
            continue
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
            found += [
                f"{path.relative_to(ROOT)}:{number}: {what}: {match.group()}"
                for what, pattern in patterns.items()
                if (match := re.search(pattern, line))
            ]
    assert not found


def test_tests_do_not_hide_each_other() -> None:
    """Test folders are no packages, so pytest tells files apart by their names alone."""
    names = [path.name for path in (ROOT / "tests").rglob("*.py") if path.name != "conftest.py"]
    assert len(names) == len(set(names)), sorted(name for name in set(names) if names.count(name) > 1)
