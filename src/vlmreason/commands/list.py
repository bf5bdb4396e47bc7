"""Name what there is to choose from, each with one line on what it is.

The first word says of what: tasks, envs, models, supervision, experiments; without one all are named.

Examples:
  vlmreason list
  vlmreason list tasks
  vlmreason list experiments json=true
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

CONFIG = "list"
ACTIONS = ("tasks", "envs", "models", "supervision", "experiments")
_GROUPS = {"tasks": "task", "envs": "env", "models": "model", "supervision": "supervision"}


@dataclass(frozen=True)
class Settings:
    """The command's own keys; see conf/list.yaml."""

    action: Literal["all", "tasks", "envs", "models", "supervision", "experiments"]
    json: bool


def run(cfg: dict[str, Any]) -> None:
    """Print the names."""
    import json

    from vlmreason.assembly import build
    from vlmreason.terminal import in_line

    own = build.settings(Settings, cfg)
    found = {kind: named(kind) for kind in (ACTIONS if own.action == "all" else (own.action,))}
    if own.json:
        print(json.dumps(found if own.action == "all" else found[own.action], indent=1))
        return
    for place, (kind, names) in enumerate(found.items()):
        if own.action == "all":
            print(f"{chr(10) * bool(place)}{kind}")
        width = max(map(len, names)) + 4
        for name, text in names.items():
            print(f"  {name:<{width - 2}}{in_line(text, width)}".rstrip())


def named(kind: str) -> dict[str, str]:
    """Return the choices of a kind with what the first line of each says."""
    from vlmreason.assembly import catalog
    from vlmreason.studies import artifacts

    if kind != "experiments":
        return {name: catalog.header(f"{_GROUPS[kind]}/{name}") for name in catalog.groups()[_GROUPS[kind]]}
    found = {}
    for name in artifacts.names():
        with (artifacts.folder() / f"{name}.yaml").open(encoding="utf-8") as file:
            found[name] = file.readline().lstrip("# ").strip()
    return found
