"""Send one batch through processor and model before hours are spent on a run.

Takes the settings of `train`. Prints a table with a verdict and an example on a terminal, else, or with json=true, one
JSON object per phase. Looks at placeholder and feature counts, whether the loss mask decodes to the
response, and the lengths against their limits; estimates the memory that each device needs; tells which phases
another run has trained already.

Examples:
  vlmreason check task=grid_navigation supervision=mix_plus
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

CONFIG = "check"


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/check.yaml and conf/train.yaml."""

    seed: int
    out: str
    num: int
    json: bool | None
    smoke: bool = False


def run(cfg: dict[str, Any]) -> None:
    """Print what was found of each phase; a fault ends with ValueError."""
    import json
    import math

    from vlmreason import runs
    from vlmreason.assembly import algorithms, beginnings, build

    own = build.settings(Settings, cfg)
    task, supervision, scale = build.build_task(cfg), build.build_supervision(cfg), build.build_scale(cfg)
    tasks = build.build_tasks(cfg)
    optimizer, trainer = build.build_optimizer(cfg), build.build_trainer(cfg)
    build.build_evaluation(cfg)
    import torch

    from vlmreason.data.loader import StepData
    from vlmreason.data.mixture import mixtures
    from vlmreason.models.vlm.learner import Learner
    from vlmreason.terminal import prints_json
    from vlmreason.training.engine import memory, strategies
    from vlmreason.training.engine.optimizers import phase_optimizers
    from vlmreason.training.supervised.check import Decoded, check_phase, decoded

    learner = build.build_learner(cfg)
    algorithms.build_stages(cfg, learner, runs.run_directory(cfg))
    optimizers = phase_optimizers(optimizer, supervision, learner)
    device = torch.device("cuda" if strategies.on_gpu(trainer.accelerator) else "cpu")
    ready = beginnings.find(cfg, learner.source)
    num = math.prod(strategies.processes(trainer.devices, trainer.num_nodes, trainer.accelerator))
    rows: list[dict[str, Any]] = []
    example: Decoded | None = None
    as_json = prints_json(own.json)
    for name, mixture in mixtures(supervision, task.name, own.seed).items():
        found = check_phase(learner, mixture, tasks, own.num, scale.max_length)
        size = supervision.phases[name].batch_size or scale.batch_size
        data = StepData(mixture, tasks, learner.processor, size, scale.micro_tokens, scale.max_length)
        train, kind = supervision.phase(name).train, optimizers[name].name
        if isinstance(learner, Learner):  # a network needs next to nothing
            found |= memory.report(learner, train, trainer, kind, num, data, device)
        rows.append(found | {"taken_from": ready.run if ready and name in ready.phases else None})
        if as_json:
            print(json.dumps(rows[-1]), flush=True)
        elif example is None:
            example = decoded(learner, mixture, tasks, scale.max_length)
    if not as_json:
        print(_table(rows, example))


_HEADER = ("phase", "examples", "pictures", "longest", "limit", "response", "loss", "chance", "memory, GB")
_KEYS = ("examples", "with_image", "longest", "max_length", "response_tokens", "loss", "chance")


def _table(rows: list[dict[str, Any]], example: Any) -> str:
    """Write what was found for people: a row per phase (lengths in tokens), one example, a verdict."""
    from vlmreason.terminal import columns, in_line

    if not rows:
        return "no phase of supervision to look at; the settings are in order"
    memory = [row.get("memory_gb", {}).get("total", "-") for row in rows]
    cells = [
        (row["phase"], *(str(row.get(key, "-")) for key in _KEYS), str(needed))
        for row, needed in zip(rows, memory, strict=True)
    ]
    lines = [columns(_HEADER, cells, left=1)]
    lines += [f"{row['phase']}: {row['taken_from']} has trained it already" for row in rows if row["taken_from"]]
    lines += [
        "",
        example.where,
        f"  prompt   {in_line(example.prompt, 11)}",
        f"  learned  {in_line(example.response, 11)}",
    ]
    large = [row for row in rows if "would_fit" in row]
    for row in large:
        lines.append(f"{row['phase']}: more than the {row['device_gb']} GB there are; {'; '.join(row['would_fit'])}")
    return "\n".join([*lines, "", "this does not fit" if large else "all is well: placeholders, mask, lengths, memory"])
