"""`vlmreason score` as a program: one JSON object on stdout, or one sentence and a non-zero exit code."""

import json
import subprocess
import sys

import pytest

from vlmreason.assembly import build
from vlmreason.tasks.base import state_to_json


def score(*settings):
    command = [sys.executable, "-m", "vlmreason", "score", *settings]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


@pytest.fixture
def place(tmp_path):
    from omegaconf import OmegaConf

    from vlmreason.places import conf_dir

    scale = OmegaConf.to_container(OmegaConf.load(conf_dir() / "scale" / "nano.yaml"))
    task = build.load_task("table_readout", build.build_scale({"scale": scale}))
    problems = [task.sample(level, "test", index) for level in task.levels for index in range(3)]
    with (tmp_path / "metadata.jsonl").open("w") as metadata, (tmp_path / "answers.jsonl").open("w") as answers:
        for problem in problems:
            meta = state_to_json(problem.state)
            row = {"id": problem.id, "task": problem.task, "level": problem.level, "split": "test"}
            print(json.dumps(row | {"index": problem.index, "meta": meta}), file=metadata)
            print(json.dumps({"id": problem.id, "response": task.answer(problem.state)}), file=answers)
    return tmp_path


def test_summary_is_the_only_thing_on_stdout_and_lies_beside_the_predictions(place):
    done = score("task=table_readout", f"problems={place}/metadata.jsonl", f"predictions={place}/answers.jsonl")
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert list(summary)[:5] == ["task", "num", "correct", "accuracy", "ci_low"]
    assert summary["num"] == summary["correct"] == 6 and summary["answer_list"] == 1.0
    assert json.loads((place / "answers.summary.json").read_text()) == summary


def test_unusable_predictions_end_with_one_sentence_and_no_summary(place):
    (place / "answers.jsonl").write_bytes(b"\xff\xfe\x00garbage\n")
    done = score(f"problems={place}/metadata.jsonl", f"predictions={place}/answers.jsonl")
    assert done.returncode != 0 and done.stdout == ""
    assert "answers.jsonl:1: the line is damaged" in done.stderr and "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
