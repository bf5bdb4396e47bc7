"""A run from its first step to a page: killed, resumed, evaluated, analysed, compared, exported, shown.

What it leaves is what docs/runs.md lists: every file of the directory has a row there.
"""

import json
import logging
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest
from support.program import runner

ROOT = Path(__file__).resolve().parents[1]
TABLE = (ROOT / "docs" / "runs.md").read_text().partition("| file | what it is |")[2].partition("\n\n")[0]
ROWS = [re.findall(r"^\| (.*?) \| (.*) \|$", line)[0] for line in TABLE.splitlines()[2:]]
SMALL = ("smoke=true", "trainer.accelerator=cpu", "trainer.precision=32-true", "trainer.num_threads=1",
         "trainer.num_workers=0")  # fmt: skip
EVALUATION = r"evaluations/[^/]+/(?=(?:predictions|scores|evaluation|summary)[./])"


def rows_of(file: str) -> Iterator[str]:
    """The rows of the list that name a file of a run directory; a file of a folder is named in the folder's own row."""
    for names, words in ROWS:
        for name in re.findall(r"`([^`]+)`", names):
            pattern = re.sub(r"<\w+>", "[^/]+", re.sub(r"\.(?!\+)", r"\\.", name))
            if name.endswith("/"):
                match = re.fullmatch(f"{pattern}([^/]+)", file)
                if match and any(fnmatch(match[1], one) for one in re.findall(r"`([\w*.]+)`", words)):
                    yield name
            elif re.fullmatch(f"(?:.*/)?{pattern}(?:/.*)?" if name.startswith(".") else pattern, file):
                yield name


def listed(file: str) -> bool:
    return any(rows_of(re.sub(EVALUATION, "", file)))


def test_the_list_is_strict() -> None:
    for file in ("config.yaml", "predictions/hard-image.jsonl", "checkpoints/final/model.safetensors", ".a.yaml.12.tmp",
                 "evaluations/a-b-n4-0/scores/hard-text.jsonl", "csv/version_0/metrics.csv",
                 "tensorboard/events.out.0"):  # fmt: skip
        assert listed(file), file
    for file in ("configXyaml", "predictions/hard.txt", "checkpoints/final/model.bin", "evaluations/a/config.yaml",
                 "checkpoints/model.safetensors", "notes.txt", "evaluations/a/b/summary.json"):  # fmt: skip
        assert not listed(file), file


def kill_after_a_checkpoint(folder: Path, *words: str) -> Path:
    """Start a run and kill it as soon as a state to resume from is there; returns its directory."""
    process = subprocess.Popen(
        [sys.executable, "-m", "vlmreason", *words], cwd=folder, stderr=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        end = time.monotonic() + 500
        while not (found := list(folder.glob("outputs/*-s0-*/checkpoints/steps/*/state.json"))):
            assert process.poll() is None and time.monotonic() < end, "there was nothing to kill"
            time.sleep(0.05)
    finally:
        process.kill()
        process.communicate()
    assert process.returncode == -signal.SIGKILL
    return found[0].parents[3]


@pytest.mark.slow
def test_every_file_of_a_run_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run_program = runner(monkeypatch, capsys)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])
    monkeypatch.chdir(tmp_path)

    def program(*words: str) -> list[str]:
        done = run_program(*words)
        assert done.code == 0, (words, done.err)
        return done.out.splitlines()

    run = kill_after_a_checkpoint(tmp_path, "train", *SMALL).relative_to(tmp_path)
    assert not (run / "summary.json").exists()
    assert program("train", *SMALL)[-1] == str(run)
    assert len(json.loads((run / "provenance.json").read_text())["restarts"]) == 1
    first, place = (run / "summary.json").read_bytes(), f"run={run}"
    program("evaluate", place, "evaluation.num=2")
    program("evaluate", place, "evaluation.conversion=force", "evaluation.views=[image]")
    table = program("evaluate", place, "phase=align", "evaluation.levels=[simple]")
    assert (run / "summary.json").read_bytes() == first
    assert len([line for line in table if line.startswith("table_readout-")]) == 4
    program("analyze", place, "what=failures")
    (other,) = program("train", *SMALL, "seed=1")[-1:]
    compared, _ = program("compare", f"{place},{other}", "out=compared.html")
    assert [row["num"] for row in json.loads(compared)] == [4] * 4 and Path("compared.html").stat().st_size > 5000
    program("export", place, "out=exported")
    assert any(line.startswith("  first difference: ") for line in program("show", place))
    program("figure", "experiment=s2h/fig5", "runs=outputs", "out=figures")
    files = sorted(path.relative_to(run).as_posix() for path in run.rglob("*") if path.is_file())
    assert len(files) > 40 and {"analysis/failures.json", "record.json"} < set(files)
    assert len({file.split("/")[1] for file in files if file.startswith("evaluations/")}) == 3
    assert not [file for file in files if not listed(file)]
