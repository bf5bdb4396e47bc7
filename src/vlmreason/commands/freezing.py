"""A command's configuration composed as the command line composes it, checked, without running the command."""

from __future__ import annotations

import importlib
import re
from typing import Any


def freeze(overrides: list[str], command: str) -> dict[str, Any]:
    """The configuration that `command` gets with these overrides, checked as the command checks it."""
    from hydra import compose
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    from vlmreason.commands import catalog, errors, runner

    try:
        errors.check_words(command, overrides)
        cfg = compose(catalog.commands()[command], overrides)
    except (HydraException, OmegaConfBaseException) as error:
        raise errors.explain(command, overrides, error) from error
    plain = runner.resolve(cfg, overrides)
    check(plain, command)
    return plain


def check(plain: dict[str, Any], command: str) -> None:
    """Whether `command` accepts a resolved configuration. Raises ValueError."""
    from vlmreason.commands import build, catalog

    module = importlib.import_module(catalog.module_name(command))
    build.settings(module.Settings, plain)
    build.build_tasks(plain)
    for part in (build.build_optimizer, build.build_trainer, build.build_evaluation, build.build_adapter):
        part(plain)
    if "algorithm" in plain:
        build.build_algorithm(plain)


def override_value(value: Any) -> str:
    """A plain value as it is written behind key= on the command line."""
    if isinstance(value, str):
        if re.fullmatch(r"[A-Za-z_][\w./-]*", value) and value.lower() not in ("null", "true", "false", "nan", "inf"):
            return value
        escaped = value.replace("\\'", "\\\\'").replace("'", "\\'")
        return f"'{escaped}'"
    if isinstance(value, list):
        return "[" + ",".join(map(override_value, value)) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{override_value(below)}" for key, below in value.items()) + "}"
    return "null" if value is None else str(value).lower()
