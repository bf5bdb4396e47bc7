"""The task folder of lmms-eval around an image folder: a YAML per level and split, and Python that scores as we do.

`lmms_eval --include_path FOLDER --tasks vlmreason_TASK_LEVEL_SPLIT` asks and scores; this package must be installed
there. `--log_samples` keeps the responses, which `vlmreason score` reads.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from vlmreason.files import plain, read_json, write_json, write_text_atomic
from vlmreason.tasks.base import Task

TASK_FILE = "task.json"

YAML = """\
task: {name}
dataset_path: imagefolder
dataset_kwargs:
  data_dir: {folder}
test_split: {split}
output_type: generate_until
doc_to_visual: !function utils.doc_to_visual
doc_to_text: !function utils.doc_to_text
doc_to_target: !function utils.doc_to_target
process_results: !function utils.process_results
generation_kwargs:
  max_new_tokens: {max_new_tokens}
  temperature: 0
  do_sample: false
metric_list:
  - metric: accuracy
    aggregation: !function utils.accuracy
    higher_is_better: true
  - metric: unparsed
    aggregation: !function utils.unparsed
    higher_is_better: false
metadata:
  version: {version}
"""

UTILS = '''\
"""Prompts and scores for lmms-eval, made by `vlmreason generate format=lmms_eval`."""

import json
from pathlib import Path

from vlmreason.assembly.build import build_task

TASK = build_task(json.loads(Path(__file__).with_name("task.json").read_text()))


def doc_to_visual(doc):
    return [doc["image"].convert("RGB")]


def doc_to_text(doc, lmms_eval_specific_kwargs=None):
    return doc["prompt_image"]


def doc_to_target(doc):
    return doc["answer"]


def process_results(doc, results):
    score = TASK.score(TASK.state_from_json(json.loads(doc["meta"])), results[0])
    found = {"id": doc["id"], "correct": score.correct, "parsed": score.parsed}
    return {"accuracy": found, "unparsed": found}


def accuracy(results):
    return sum(found["correct"] for found in results) / len(results)


def unparsed(results):
    return sum(not found["parsed"] for found in results) / len(results)
'''


def check_task(folder: Path, config: Mapping[str, Any]) -> None:
    """Raise ValueError where the folder's scorer is of another task than the configuration's."""
    path = folder / TASK_FILE
    if path.exists() and read_json(path) != _scored(config):
        raise ValueError(f"out={folder}: holds another task ({path} scores it); choose another folder")


def write_task(folder: Path, task: Task[Any], level: str, split: str, config: Mapping[str, Any]) -> Path:
    """Write YAML and Python of a level and split beside its pictures; return the YAML file."""
    write_json(folder / TASK_FILE, _scored(config))
    write_text_atomic(folder / "utils.py", UTILS)
    name = f"vlmreason_{task.name}_{level}_{split}"
    values = {"name": name, "split": split, "version": task.version}
    values["max_new_tokens"] = config["scale"]["max_response_tokens"]
    path = folder / f"{name}.yaml"
    write_text_atomic(path, YAML.format(folder=json.dumps(str(folder.resolve())), **values))
    return path


def _scored(config: Mapping[str, Any]) -> Any:
    """What the scorer is built from."""
    return plain({group: config[group] for group in ("scale", "task")})
