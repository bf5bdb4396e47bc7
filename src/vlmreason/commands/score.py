"""Score responses against problems: accuracy with its interval, unparsed, cut off, the task's own parts.

Needs no model. Writes the summary beside the predictions and prints it: as a table on a terminal, else, or with
json=true, as one JSON object.

Predictions are JSON lines with `id` and `response`, a result sheet of VLMEvalKit (xlsx, csv, tsv) or the samples that
lmms-eval logs.

Examples:
  vlmreason score task=table_readout problems=tables/test/metadata.jsonl predictions=answers.jsonl
  vlmreason score task=table_readout problems=tables/test/metadata.jsonl predictions=model_tables.xlsx
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

CONFIG = "score"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/score.yaml."""

    problems: str
    predictions: str
    json: bool | None


def run(cfg: dict[str, Any]) -> None:
    """Print the summary; where it was written goes to stderr, so that stdout is a table or one JSON object."""
    import json
    import sys

    from vlmreason.assembly import build
    from vlmreason.evaluation.scoring import score_file
    from vlmreason.evaluation.table import format_table, verdict
    from vlmreason.terminal import prints_json

    own = build.settings(Settings, cfg)
    summary, path = score_file(build.build_task(cfg), Path(own.problems), Path(own.predictions))
    print(path, file=sys.stderr)
    if prints_json(own.json):
        print(json.dumps(summary.to_json(), allow_nan=False))
    else:
        print(f"{format_table(summary)}\n{verdict(summary)}")
