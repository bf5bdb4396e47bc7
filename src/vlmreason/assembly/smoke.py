"""A run of the least size that still has everything, `smoke=true`: every phase two steps, four problems of each kind.

Sizes are lowered behind the composition, whatever was chosen, and never raised. `smoke` stays in the configuration: it
is part of what the run is and of its directory's name. What is asked of such a run later, evaluations and analyses,
keeps to its sizes by the same mark; without it nothing is there, so that all other runs are what they were.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from vlmreason.runs import SMOKE
from vlmreason.structure import structure

STEPS = 2
PROBLEMS = 4
BATCH = 8
TOKENS = 32

_SCALE = {"num_examples": STEPS * BATCH, "num_align": STEPS * BATCH, "num_warmup": STEPS * BATCH, "batch_size": BATCH,
          "num_problems": PROBLEMS, "max_response_tokens": TOKENS}  # fmt: skip
_TRAINER = {"evaluate_num": PROBLEMS, "evaluate_every": 1, "log_every": 1, "checkpoint_every": 1, "snapshots": STEPS}
_ALGORITHM = {"updates": STEPS, "epochs": 1, "minibatches": 2, "parallel": 2, "turns": 2, "groups": 2, "group_size": 2,
              "evaluate_every": 1, "checkpoint_every": 1, "max_new_tokens": TOKENS, "value_updates": 1,
              "text_first": STEPS}  # fmt: skip
_EVALUATION = {"num": PROBLEMS, "max_new_tokens": TOKENS}
_ANALYSIS = {"num": PROBLEMS, "batch_size": 2}


def applied(cfg: dict[str, Any]) -> dict[str, Any]:
    """Return the configuration of a smoke run where it is one; else without the mark."""
    if not isinstance(cfg.get(SMOKE, False), bool):
        raise ValueError(f"smoke={cfg[SMOKE]}: true or false is expected")
    if not cfg.get(SMOKE):
        return {key: value for key, value in cfg.items() if key != SMOKE}
    if "action" in cfg:
        return cfg  # a sweep hands it to its runs
    cfg = asked_of(cfg, cfg)
    for group, limits in (("scale", _SCALE), ("trainer", _TRAINER), ("algorithm", _ALGORITHM)):
        if group in cfg:
            cfg[group] = _lowered(cfg[group], limits)
    if cfg.get("supervision", {}).get("phases"):
        cfg["supervision"] = cfg["supervision"] | {"phases": _phases(cfg)}
        if any(phase.get("marks") for phase in cfg["supervision"]["phases"].values()):
            cfg["trainer"] = cfg["trainer"] | {"marks": "warn"}  # no skill is learned in two steps
    return cfg


def asked_of(trained: Mapping[str, Any], cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is asked of a run, `cfg` with `evaluation`, at the size of a smoke run where it is one."""
    if not trained.get(SMOKE) or "evaluation" not in cfg:
        return dict(cfg)
    return {**cfg, "evaluation": _lowered(cfg["evaluation"], _EVALUATION)}


def analysis_of(trained: Mapping[str, Any], kind: type, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings of an analysis, `kind` with those that were chosen, at the size of a smoke run."""
    if not trained.get(SMOKE):
        return dict(chosen)
    defaults = {field.name: field.default for field in dataclasses.fields(kind) if field.name in _ANALYSIS}
    return {**chosen, **_lowered({**defaults, **chosen}, {name: _ANALYSIS[name] for name in defaults})}


def _lowered(section: Mapping[str, Any], limits: Mapping[str, int]) -> dict[str, Any]:
    """Numbers of a section that are above their limits lowered to these; null and 0 stay."""
    lower = {key: most for key, most in limits.items() if isinstance(section.get(key), int) and section[key] > most}
    return {**section, **lower}


def _phases(cfg: Mapping[str, Any]) -> dict[str, Any]:
    """Two steps of each phase: of as few examples as leave one for every part."""
    phases = {name: _phase(phase, cfg["scale"]["batch_size"]) for name, phase in cfg["supervision"]["phases"].items()}
    for name, phase in phases.items():
        most = cfg["supervision"]["phases"][name]["num_examples"]
        while not phase.get("captions") and phase["num_examples"] < most and not _serves_all(cfg, phases, name):
            phase["num_examples"] = min(2 * phase["num_examples"], most)
            phase["batch_size"] = -(-phase["num_examples"] // STEPS)
    return phases


def _phase(phase: Mapping[str, Any], batch_size: int) -> dict[str, Any]:
    marks = {
        name: _lowered({"num": PROBLEMS, **mark}, {"num": PROBLEMS}) for name, mark in phase.get("marks", {}).items()
    }
    if marks:
        phase = {**phase, "marks": marks, "mark_every": None}
    if phase.get("captions"):
        pictures = dict.fromkeys(phase["captions"], 1)
        return {**phase, "captions": pictures, "num_examples": STEPS * len(pictures)}
    size = min(phase.get("batch_size") or batch_size, BATCH)
    parts = {name: _lowered(part, {"distinct": 1}) for name, part in phase.get("parts", {}).items()}
    return {**phase, "parts": parts, "num_examples": min(phase["num_examples"], STEPS * size), "batch_size": size}


def _serves_all(cfg: Mapping[str, Any], phases: Mapping[str, Any], name: str) -> bool:
    from vlmreason.data.mixture import Mixture
    from vlmreason.supervision import Supervision

    supervision = structure(Supervision, {**cfg["supervision"], "phases": phases}, "supervision")
    task = cfg["task"]["name"] if "task" in cfg else None
    try:
        Mixture(supervision, name, task, cfg["seed"])
    except ValueError:
        return False
    return True
