"""A command's configuration composed as the command line composes it, checked, without running the command."""

from __future__ import annotations

import copy
import importlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from vlmreason.assembly import catalog, scales
from vlmreason.structure import first_line


def freeze(overrides: list[str], command: str) -> dict[str, Any]:
    """The configuration that `command` gets with these overrides, checked as the command checks it."""
    import hydra
    from hydra.errors import HydraException

    from vlmreason.assembly import errors

    try:
        errors.check_words(command, overrides)
        words = catalog.as_settings(command, overrides)
        cfg = hydra.compose(catalog.commands()[command], words)
    except (HydraException, OmegaConfBaseException) as error:
        raise errors.explain(command, overrides, error) from error
    plain = resolve(cfg, words)
    check(plain, command)
    return plain


def check(plain: dict[str, Any], command: str) -> None:
    """Whether `command` accepts a resolved configuration. Raises ValueError."""
    from vlmreason.assembly import build

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


def typed(words: Sequence[str]) -> dict[str, Any]:
    """Read settings that a user typed as `key=value`."""
    return {key: OmegaConf.create(f"v: {value}").v for key, _, value in (word.partition("=") for word in words)}


def overrides(settings: Mapping[str, Any]) -> list[str]:
    """Settings as words of `vlmreason train`."""
    return [f"{key}={override_value(_plain(value))}" for key, value in settings.items()]


class Composer:
    """Resolved configurations of `vlmreason train`.

    Composing and resolving take most of a figure's time: it is composed once per choice of groups and resolved once
    for all seeds, to which no other setting refers.
    """

    def __init__(self) -> None:
        self._bases: dict[tuple[str, ...], Any] = {}
        self._resolved: dict[tuple[str, ...], dict[str, Any]] = {}

    def config(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Raises ValueError for settings that do not exist."""
        words = tuple(overrides({key: value for key, value in settings.items() if key != "seed"}))
        if words not in self._resolved:
            self._resolved[words] = self._resolve(settings)
        return self._resolved[words] | ({"seed": settings["seed"]} if "seed" in settings else {})

    def _resolve(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        import hydra
        from hydra.errors import HydraException

        from vlmreason.assembly import errors

        groups = catalog.groups()
        choices = {key: value for key, value in settings.items() if key.partition("@")[0] in groups}
        values = {key: value for key, value in settings.items() if key not in choices}
        words, all_words = tuple(overrides(choices)), catalog.into_empty("train", overrides(settings))
        try:
            errors.check_words("train", all_words)
            if any(isinstance(value, Mapping) for value in values.values()) or any(w[0] in "+~" for w in all_words):
                return resolve(hydra.compose("train", all_words), all_words)
            if words not in self._bases:
                self._bases[words] = hydra.compose("train", list(words))
            cfg = copy.deepcopy(self._bases[words])
            for key, value in values.items():
                OmegaConf.update(cfg, key, value, merge=False)
        except (HydraException, OmegaConfBaseException) as error:
            raise errors.explain("train", all_words, error) from error
        return resolve(cfg, all_words)


def _plain(value: Any) -> Any:
    return [_plain(below) for below in value] if isinstance(value, (list, tuple)) else value


def check_scale_words(words: Sequence[str]) -> None:
    """Raises ValueError for settings of the scale, which is only chosen here."""
    for word in words:
        if word.startswith("scale."):
            key = word.partition("=")[0]
            raise ValueError(f"{key}: has no effect here; settings of the runs are written set='[{word}]'")


def resolve(cfg: DictConfig, overrides: list[str]) -> dict[str, Any]:
    """The configuration as plain containers with references replaced and the sizes of the scale chosen.

    Raises ValueError for a missing value, a number that is not finite and an override that has no effect.
    """
    try:
        plain = OmegaConf.to_container(cfg, resolve=True, throw_on_missing=True)
    except MissingMandatoryValue as error:
        raise ValueError(f"{error.full_key}: must be given ({error.full_key}=...)") from None
    except OmegaConfBaseException as error:
        if cfg.get("env") is None and "'env." in str(error):
            raise ValueError(f"{error.full_key}: of an environment's expert; choose one with env=...") from None
        raise ValueError(f"{error.full_key}: {first_line(error)}") from None
    assert isinstance(plain, dict)
    _check_finite(plain)
    return scales.choose_sizes({str(key): value for key, value in plain.items()}, overrides)


def _check_finite(value: object, where: str = "") -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}={value}: a finite number is expected")
    if isinstance(value, (dict, list)):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            _check_finite(below, f"{where}.{key}" if where else str(key))
