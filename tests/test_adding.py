"""What docs/adding.md promises, done in a temporary folder: a task family, a reward, a measure.

A network is in tests/models/networks/test_new_network.py, a segment kind in tests/test_segments.py, a set on disk in
tests/tasks/test_on_disk.py.
"""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from support.composing import compose_plain
from support.program import Done
from support.studies import ARTIFACT, STUDY, make_record, write_study
from support.tiny import tiny_learner

ROOT = Path(__file__).parents[1]
EXAMPLES = ROOT / "docs" / "examples"
SMALL = (
    "scale.num_examples=16", "scale.num_align=8", "scale.batch_size=8", "evaluation.num=3",
    "evaluation.max_new_tokens=8", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.num_threads=1",
    "trainer.num_workers=0", "trainer.progress=false", "optimizer=adamw", "optimizer.lr=0.01",
)  # fmt: skip


@pytest.fixture
def typed(
    program: Callable[..., Done], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., str]]:
    """`typed("train", ...)`: what the program prints, with the folders of docs/examples added as a user adds them."""
    shutil.copytree(EXAMPLES, tmp_path / "mine", ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.syspath_prepend(tmp_path / "mine")
    tiny_learner().save(tmp_path / "base")

    def run(command: str, *words: str) -> str:
        done = program(command, "--config-dir", str(tmp_path / "mine" / "conf"), *words)
        assert done.code == 0, done.err
        return done.out

    yield run
    for name in [name for name in sys.modules if name.partition(".")[0] == "dots"]:
        del sys.modules[name]


def test_a_task_family(typed: Callable[..., str], tmp_path: Path) -> None:
    """It is generated, trained, evaluated both ways, analysed, reinforced and drawn, and nothing else is edited."""
    typed("generate", "task=count_dots", "level=hard", "split=test", "num=4", "out=problems")
    rows = [json.loads(line) for line in (tmp_path / "problems" / "test" / "metadata.jsonl").read_text().splitlines()]
    assert all(row["answer"] == f"Answer: {row['text'].count('*')}" for row in rows) and len(rows) == 4

    chosen = ("task=count_dots", f"model.checkpoint={tmp_path / 'base'}", *SMALL)
    run = Path(typed("train", *chosen, "supervision=mix").splitlines()[-1])
    summary = json.loads((run / "summary.json").read_text())
    assert {(cell["level"], cell["view"]) for cell in summary["cells"]} == {
        (level, view) for level in ("simple", "hard") for view in ("text", "image")
    }
    out = typed("evaluate", f"run={run}", "evaluation.how=choose", "evaluation.num=6", "evaluation.levels=[hard]")
    answers = [
        json.loads(line)
        for path in Path(out.splitlines()[-1]).glob("predictions/hard-text.jsonl")
        for line in path.read_text().splitlines()
    ]
    assert len(answers) == 6 and all(re.fullmatch(r"Answer: [0-6]", answer["response"]) for answer in answers)

    assert "lost" in typed("analyze", f"run={run}", "what=failures") and (run / "analysis" / "failures.json").is_file()
    typed("analyze", f"run={run}", "what=attribution", "num=2")
    [level, _] = json.loads((run / "analysis" / "attribution.json").read_text())["results"]
    assert set(level["regions"]) == {"dots"}

    acting = (
        *(f"algorithm.nano.{key}" for key in ("updates=1", "groups=2", "group_size=2")),
        "algorithm.max_new_tokens=8",
    )
    run = Path(typed("train", *chosen, "supervision=mix", "algorithm=grpo", *acting).splitlines()[-1])
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["phase"] == "grpo"

    typed("gallery", "tasks=[count_dots]", "out=dots.html")
    assert (tmp_path / "dots.html").read_text().count("data:image/png;base64,") >= 2


@pytest.fixture
def changed(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """`changed(file, before, entry, words)`: run the program of a copy of the package in which `entry` stands there."""
    package = tmp_path / "package"
    weights = shutil.ignore_patterns("__pycache__", "*.safetensors")
    shutil.copytree(ROOT / "src" / "vlmreason", package / "src" / "vlmreason", ignore=weights)
    for name in ("conf", "experiments", "sweeps"):
        shutil.copytree(ROOT / name, package / name, ignore=shutil.ignore_patterns("results"))

    def run(file: str, before: str, entry: str, *words: str) -> subprocess.CompletedProcess[str]:
        path = package / "src" / "vlmreason" / file
        text = path.read_text()
        assert text.count(before) == 1
        path.write_text(text.replace(before, f"{before}\n    {entry}"))
        environment = {**os.environ, "PYTHONPATH": str(package / "src"), "VLMREASON_CACHE": ""}
        command = [sys.executable, "-m", "vlmreason", *words]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)

    return run


@pytest.mark.slow
def test_a_reward(changed: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    tiny_learner().save(tmp_path / "base")
    done = changed(
        "envs/rewards.py", "GENERAL: tuple[Reward, ...] = (",
        'Reward("silent", "1 where nothing is said", 0.0, lambda env, state, response, outcome: float(not response)),',
        "train", "task=number_line", "algorithm=grpo", "algorithm.rewards.silent=0.5", "supervision=none",
        f"model.checkpoint={tmp_path / 'base'}", *SMALL,
        *(f"algorithm.nano.{key}" for key in ("updates=1", "groups=2", "group_size=2")), "algorithm.max_new_tokens=4",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    [run] = tmp_path.glob("outputs/number_line-*")
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [key for key in lines[-1] if "silent" in key], lines[-1]


@pytest.mark.slow
def test_a_measure(changed: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path) -> None:
    """The number of responses that have an answer, off the summary of a record that is made up."""
    record = make_record(
        {("hard", "image"): "1010", ("hard", "text"): "1110"}, run="x", config=_config(), cost={"seconds": 1}
    )
    for cell in record.data["evaluations"][0]["cells"]:
        cell["row"]["readable"] = 3
    folder = tmp_path / "package" / "experiments"
    artifact = {**ARTIFACT, "paper": [], "seeds": [0], "measure": {"level": "hard", "what": "readable"}}
    write_study(folder, study=STUDY, fig1=artifact)
    target = folder / "made_up" / "results" / "nano" / "x.json"
    target.parent.mkdir(parents=True)
    target.write_text(json.dumps(record.data))
    done = changed(
        "studies/measures.py", "MEASURES: tuple[Entry, ...] = (",
        'Entry("readable", "responses with an answer", "run", readings.summary("readable")),',
        "figure", "experiment=made_up/fig1", "out=figures",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "made_up/fig1: 1 run" in done.stdout
    drawn = json.loads((tmp_path / "figures" / "made_up" / "fig1.json").read_text())
    assert 3.0 in [cell["estimate"]["mean"] for cell in drawn["cells"] if cell.get("estimate")]


def _config() -> dict[str, Any]:
    return compose_plain("train", "supervision=mix", "scale.num_examples=10", "seed=0")
