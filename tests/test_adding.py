"""What docs/adding.md promises, done in a temporary folder: one folder and one YAML make a whole task family."""

import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.program import Done
from support.tiny import tiny_learner

from vlmreason.assembly import catalog

EXAMPLES = Path(__file__).parents[1] / "docs" / "examples"
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
    catalog.use_conf_dirs([])
    for name in [name for name in sys.modules if name.partition(".")[0] == "dots"]:
        del sys.modules[name]


def test_a_task_family(typed: Callable[..., str], tmp_path: Path) -> None:
    """It is generated, trained, evaluated both ways, analysed, reinforced and drawn, and nothing else is edited."""
    typed("generate", "task=count_dots", "level=hard", "split=test", "num=4", "out=problems")
    rows = [json.loads(line) for line in (tmp_path / "problems" / "metadata.jsonl").read_text().splitlines()]
    assert all(row["answer"] == f"Answer: {row['text'].count('*')}" for row in rows) and len(rows) == 4

    chosen = ("task=count_dots", f"model.checkpoint={tmp_path / 'base'}", *SMALL)
    run = Path(typed("train", *chosen, "supervision=mix").splitlines()[-1])
    summary = json.loads((run / "summary.json").read_text())
    assert {(cell["level"], cell["view"]) for cell in summary["cells"]} == {
        (level, view) for level in ("simple", "hard") for view in ("text", "image")
    }
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
