"""Every command of the README and the documentation is executed as it is printed, at smoke size.

A page's commands run in the order of the page in a folder with the checkout's files, in this process. What they are
given beside their words is `at_smoke_size`; what is not executed is named in NOT_HERE with the reason.
"""

from __future__ import annotations

import io
import json
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from support.program import Done
from test_readme import PAGES, ROOT, shell_lines

from vlmreason.launch import local, slurm, status
from vlmreason.pictures import png_bytes
from vlmreason.report.figures import draw

NOT_HERE = {
    r"^make ": "installs, or runs all tests; tests/test_readme.py knows its targets",
    r"^(git clone|python3 -m venv|pip install|hf download)": "downloads",
    r"^(salloc|srun|torchrun) ": "needs an allocation, or several machines",
    r"hydra/launcher=submitit": "starts processes of SLURM's; tests/launch/test_sweep_runs.py has the local one",
    r"model=(qwen|llava|hf\b)": "weights of the hub; tests/models/ has every family at tiny size",
    r"engine=vllm": "needs vLLM and a GPU",
}
"""Commands that are not executed, by what they match, with the reason."""

STAND_INS = {"outputs/sweeps/s2h/jobs/0000": "outputs/sweeps/smoke-smoke/jobs/0000"}
"""Jobs of the papers' models, and those of the built-in one."""


A_RUN = "outputs/table_readout-*-s0-*"


class Typed(io.StringIO):
    """What a person types at a terminal."""

    def isatty(self) -> bool:
        return True


def at_smoke_size(words: list[str], base: Path) -> list[str]:
    """The words with what makes them small, and with a place of their own where they would write into the checkout.

    base: weights of the built-in model's kind that take milliseconds.
    """
    command, asked = words[0], {word.partition("=")[0] for word in words}
    if {"-h", "--help", "--cfg"} & asked:
        return words
    smoke = [] if "smoke" in asked else ["smoke=true"]
    if command in ("train", "check", "pretrain"):
        own = command == "pretrain" or {"model", "model.checkpoint"} & asked
        return [*words, *smoke, "trainer.num_workers=0", *([] if own else [f"model.checkpoint={base}"])]
    if command == "sweep":
        takes = "dir" not in asked or not {"submit", "status", "resume"} & asked
        return [*words, *smoke] if takes else words
    small = {
        "generate": ["num=4", "workers=1"],
        "skills": ["num=1", "tasks=[panel_reading_skills]"],
        "collect": ["to=records"],
        "towers": [
            "sizes.side=48",
            "sizes.width=16",
            "sizes.heads=2",
            "pictures=16",
            "pairs=2",
            "out=towers",
            "to=null",
        ]
        + [f"recipes.{name}.steps=2" for name in ("captions", "captions_all", "captions_again", "views", "labels")],
    }
    return [*words, *small.get(command, ())]


PICTURES = draw.pictures


def no_pictures(*arguments: Any) -> dict[str, bytes]:
    """Stand in for the drawing of an artifact, which takes seconds for a whole study."""
    return dict.fromkeys(arguments[3], png_bytes(np.zeros((2, 2, 3), np.uint8)))


class Sandbox:
    """A folder like the checkout in which commands run; what several of them need is made once."""

    def __init__(self, program: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, base: Path) -> None:
        self.program, self.monkeypatch, self.base = program, monkeypatch, base
        self.variables, self.seconds = dict[str, str](), dict[str, float]()
        for name in ("docs", "sweeps", "experiments"):
            shutil.copytree(ROOT / name, name, dirs_exist_ok=True)

    def line(self, line: str) -> None:
        """Execute a line of a page as a shell would."""
        began = time.process_time()
        if assigned := re.fullmatch(r"RUN=\$\(ls -td (\S+) \| head -1\)", line):
            self.variables["$RUN"] = self.newest(assigned.group(1))
        elif completion := re.fullmatch(r'eval "\$\(vlmreason (.*)\)"', line):
            self.call(shlex.split(completion.group(1)))
        elif line.startswith(("export ", "cp ")):
            subprocess.run(["bash", "-ec", line], check=True)
        else:
            self.program_line(line)
        self.seconds[line] = time.process_time() - began

    def program_line(self, line: str) -> None:
        words = shlex.split(line.partition(">")[0])
        while "=" in words[0]:  # variables before the program
            name, _, value = words.pop(0).partition("=")
            assert name == "PYTHONPATH"
            self.monkeypatch.syspath_prepend(value)
        assert words[0] == "vlmreason", line
        self.prepare(words)
        whole_study = "glob(" in line or " report" in line  # tests/report/figures/ draws all kinds
        self.monkeypatch.setattr(draw, "pictures", no_pictures if whole_study else PICTURES)
        out = self.call([self.filled(word) for word in words[1:]])
        if words[1] == "pretrain":
            self.variables["model.checkpoint=outputs/RUN"] = f"model.checkpoint={out.splitlines()[-1]}"

    def call(self, words: list[str]) -> str:
        small = at_smoke_size(words, self.base)
        done = self.program(*small)
        assert done.code == 0, f"vlmreason {' '.join(small)}\n{done.err}"
        assert "Traceback" not in done.err
        return done.out

    def filled(self, word: str) -> str:
        """A word with names that the page leaves to the reader: of runs, and of what only a cluster has."""
        if "outputs/OTHER" in word:
            self.variables["outputs/OTHER"] = self.call(["train", "seed=1"]).splitlines()[-1]
        for name, value in {**self.variables, **STAND_INS}.items():
            word = word.replace(name, value)
        return word.replace("outputs/RUN", self.newest(A_RUN)) if "outputs/RUN" in word else word

    def newest(self, pattern: str) -> str:
        """The last run of a pattern; trained where there is none."""
        while not (found := [path for path in Path().glob(pattern) if (path / "summary.json").exists()]):
            self.call(["train"])
        return str(max(found, key=lambda path: path.stat().st_mtime))

    def prepare(self, words: list[str]) -> None:
        """Make what the page's reader has: responses to score, a base that was pretrained."""
        if "predictions=answers.jsonl" in words:
            problems = Path("tables/test/metadata.jsonl").read_text().splitlines()
            answers = [{"id": json.loads(line)["id"], "response": "Answer: 1"} for line in problems]
            Path("answers.jsonl").write_text("".join(json.dumps(answer) + "\n" for answer in answers))
        if "picture=table.png" in words:
            shutil.copy(next(Path("tables").rglob("*.png")), "table.png")
        if "card=base/README.md" in words:
            Path("base").mkdir(exist_ok=True)
            shutil.copy(ROOT / "src" / "vlmreason" / "models" / "nano" / "base" / "README.md", "base")
        if any("outputs/base/" in word for word in words) and not Path("outputs/base").exists():
            run = self.newest(A_RUN)
            Path("outputs/base").symlink_to(Path(run).resolve())
        if any("sweeps/s2h/jobs" in word for word in words) and not Path("outputs/sweeps/smoke-smoke").exists():
            self.call(["sweep", "plan", "plan=smoke"])


@pytest.fixture
def sandbox(program: Callable[..., Done], monkeypatch: pytest.MonkeyPatch, base: Path) -> Iterator[Sandbox]:
    """Sweeps are sent, but nobody works on them: their processes would be other ones."""
    for queue in (local, slurm):
        monkeypatch.setattr(queue, "submit", lambda folder, submission, numbers, *_: f"{len(numbers)} jobs")
    monkeypatch.setattr(slurm, "queue", dict)
    monkeypatch.setattr(status, "_GRACE", 0.0)
    monkeypatch.setattr("sys.stdin", Typed("What is it?\n\n"))
    found = Sandbox(program, monkeypatch, base)
    yield found
    slowest = sorted(found.seconds.items(), key=lambda item: -item[1])[:5]
    print(*(f"{seconds:5.1f} s  {line}" for line, seconds in slowest), sep="\n")


def lines_of(page: Path) -> list[str]:
    """The page's lines that no earlier page has."""
    before = {line for other in PAGES[: PAGES.index(page)] for line in shell_lines(other.read_text())}
    own = dict.fromkeys(shell_lines(page.read_text()))
    return [line for line in own if line not in before or line.startswith("RUN=")]


WITH_COMMANDS = [page for page in PAGES if any(not line.startswith("RUN=") for line in lines_of(page))]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_commands_of_a_page(page: Path, sandbox: Sandbox) -> None:
    executed = [line for line in lines_of(page) if not any(re.search(pattern, line) for pattern in NOT_HERE)]
    for line in executed:
        sandbox.line(line)


def test_what_is_not_executed_is_there_and_is_not_much() -> None:
    every: list[Any] = [line for page in PAGES for line in lines_of(page)]
    for pattern in NOT_HERE:
        assert any(re.search(pattern, line) for line in every), pattern
    left_out = [line for line in every if any(re.search(pattern, line) for pattern in NOT_HERE)]
    program = [line for line in every if "vlmreason " in line and line not in left_out]
    assert len(program) > 60 > 30 > len(left_out)
