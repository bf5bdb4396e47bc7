"""Write problems to files for other tools: pictures, texts, prompts, traces, answers.

  folder      Hugging Face image folder: <split>/metadata.jsonl and one PNG per problem; splits share a folder
  parquet     the same columns with the pictures in them, <level>/<split>/*.parquet, and a data-set card (README.md)
  lmms_eval   the image folder with the task folder of lmms-eval (--include_path): YAML, and Python that scores as we do
  llava       conversation JSON, the form that LLaVA-style trainers read
  vlmevalkit  TSV with base64 pictures, the form that VLMEvalKit evaluates
  own         as sets of the family are published: RAVEN's of raven (a level per folder), MARVEL's of irregular

Of an environment (task=number_line) num counts episodes, and every turn of its expert is written; not for the kits.
Uses all cores; an interrupted command continues where it stopped, with the same files as an unbroken one.

Examples:
  vlmreason generate task=table_readout level=hard split=test num=1000 out=tables
  vlmreason generate level=simple split=train num=120000 out=data/tables format=llava view=image_via_text
  vlmreason generate task=points24 split=train num=1000 out=data/points24 format=parquet
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from vlmreason.segments import View

CONFIG = "generate"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/generate.yaml."""

    level: str | None
    split: str
    num: int
    out: str
    format: Literal["folder", "parquet", "lmms_eval", "llava", "vlmevalkit", "own"]
    view: View | None
    workers: int | None


def run(cfg: dict[str, Any]) -> Path:
    """Fill the folder; returns the file of records, of lmms-eval the task's."""
    from vlmreason.assembly import build
    from vlmreason.data.export import export
    from vlmreason.data.formats import ExportSettings
    from vlmreason.data.lmms_eval import check_task, write_task
    from vlmreason.provenance import num_cores

    own = build.settings(Settings, cfg)
    task = build.build_task(cfg)
    level = task.levels[0] if own.level is None else own.level
    build.check_level(task, level)
    view = cfg["env"]["view"] if "env" in cfg and own.view is None and own.format == "llava" else own.view
    what = ExportSettings(level, own.split, own.num, own.format, view)
    identity = {"config": {"scale": cfg["scale"]["name"], **build.task_identity(cfg)}}
    if own.format == "lmms_eval":
        check_task(Path(own.out), cfg)
    workers = num_cores() if own.workers is None else own.workers
    try:
        written = export(task, what, Path(own.out), identity, workers)
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"interrupted; the same command continues in {own.out}") from None
    if own.format != "lmms_eval":
        return written
    return write_task(Path(own.out), task, level, own.split, cfg)
