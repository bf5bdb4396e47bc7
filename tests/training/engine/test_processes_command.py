"""The command line with two processes: started by itself and by torchrun, killed, continued."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist
from support.tiny import tiny_learner

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/task").is_dir() or not dist.is_available(), reason="needs Linux and gloo"
)

OVERRIDES = [
    *("scale.num_examples=135", "scale.num_align=40", "scale.batch_size=9", "scale.micro_tokens=300"),
    *("optimizer=adamw", "optimizer.lr=1e-3", "optimizer.eps=1e-3", "trainer.precision=32-true"),
    *("trainer.accelerator=cpu", "trainer.num_workers=0", "trainer.num_threads=1", "trainer.log_every=1"),
    *("trainer.checkpoint_every=1", "trainer.progress=false"),
    *("evaluation.num=3", "evaluation.max_new_tokens=4", "evaluation.levels=[simple]"),
]


def words(folder: Path, *more: str) -> list[str]:
    return ["train", f"model.checkpoint={folder / 'base'}", f"out={folder / 'out'}", *OVERRIDES, *more]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@pytest.mark.slow
def test_killed_and_continued_by_torchrun(tmp_path: Path) -> None:
    tiny_learner().save(tmp_path / "base")
    command = [sys.executable, "-m", "vlmreason", *words(tmp_path, "trainer.devices=2")]
    options: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    run = subprocess.Popen(command, **options)
    deadline = time.monotonic() + 240
    while not list(tmp_path.glob("out/*/checkpoints/steps/main-*/state.json")):
        assert run.poll() is None and time.monotonic() < deadline, run.communicate()
        time.sleep(0.05)
    [child] = children(run.pid)
    os.kill(child, signal.SIGKILL)
    out, said = run.communicate(timeout=60)
    assert run.returncode == 130, said
    assert out == ""
    [sentence] = said.splitlines()
    assert sentence.startswith("vlmreason: another process of this run has died or cannot be reached: stopped in phase")
    [folder] = tmp_path.glob("out/table_readout-*")
    assert sentence.endswith(f"; the same command goes on in {folder}")

    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "vlmreason"]
    for _ in range(2):  # the second time nothing is left to do
        done = subprocess.run([*launcher, *words(tmp_path, "trainer.strategy=fsdp")], timeout=240, **options)
        assert done.returncode == 0, done.stderr
        assert done.stdout.count("accuracy") == 1, "one table"
        assert done.stdout.splitlines()[-1] == str(folder)
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    assert [(line["phase"], line["step"]) for line in lines] == [
        *(("align", step) for step in range(1, 6)), *(("main", step) for step in range(1, 16)),
    ]  # fmt: skip
    assert all(line["loss"] > 0 for line in lines)
    assert sorted(path.name for path in (folder / "predictions").iterdir()) == [
        "simple-image.jsonl", "simple-text.jsonl",
    ]  # fmt: skip
    assert json.loads((folder / "summary.json").read_text())["num"] == 6
    assert len(json.loads((folder / "provenance.json").read_text())["restarts"]) == 2
