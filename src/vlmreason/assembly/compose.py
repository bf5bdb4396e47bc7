"""A command's configuration composed as the command line composes it, checked, without running the command."""

from __future__ import annotations

import importlib
import math
import re
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from vlmreason.assembly import catalog, direct, scales, smoke
from vlmreason.structure import first_line


def freeze(overrides: list[str], command: str) -> dict[str, Any]:
    """Return the configuration that `command` gets with these overrides, checked as the command checks it."""
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
    """Tell whether `command` accepts a resolved configuration. Raises ValueError."""
    from vlmreason.assembly import algorithms, build

    module = importlib.import_module(catalog.module_name(command))
    build.settings(module.Settings, plain)
    build.build_tasks(plain)
    parts = (build.build_optimizer, build.build_trainer, build.build_evaluation, build.build_model, build.build_adapter)
    for part in parts:
        part(plain)
    if "algorithm" in plain:
        algorithms.build_algorithm(plain)
    algorithms.check_apart(plain)


def override_value(value: Any) -> str:
    """Return a plain value as it is written behind key= on the command line."""
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
    """Return settings as words of `vlmreason train`."""
    return [f"{key}={override_value(_plain(value))}" for key, value in settings.items()]


def differences(words: Sequence[str]) -> str:
    """Say in one line in what a configuration is not the default one, by the words that were typed; the last of a key
    counts."""
    typed = {word.partition("=")[0].lstrip("+"): word for word in words if not word.startswith("-")}
    return f"by default, but for {' '.join(map(shlex.quote, typed.values()))}" if typed else "all by default"


class Composer:
    """Resolved configurations of `vlmreason train`, equal to those of the command line.

    Each choice of groups is composed once, directly where it can be, and resolved once for all seeds, to which no other
    setting refers.
    """

    def __init__(self) -> None:
        self._trees: dict[tuple[str, ...], dict[str, Any]] = {}
        self._resolved: dict[tuple[str, ...], dict[str, Any]] = {}

    def config(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """Raise ValueError for settings that do not exist."""
        without_seed = {key: value for key, value in settings.items() if key != "seed"}
        words = tuple(overrides(without_seed))
        if words not in self._resolved:
            try:
                self._resolved[words] = self._directly(without_seed, words)
            except direct.NotReadHereError:
                self._resolved[words] = _by_hydra(list(words))
        return self._resolved[words] | ({"seed": settings["seed"]} if "seed" in settings else {})

    def _directly(self, settings: Mapping[str, Any], words: Sequence[str]) -> dict[str, Any]:
        choices = direct.choices_of(settings)
        key = tuple(overrides(choices))
        if key not in self._trees:
            self._trees[key] = direct.tree(choices)
        values = {name: value for name, value in settings.items() if name not in choices}
        return checked(direct.resolved(self._trees[key], values), list(words))


def _by_hydra(words: list[str]) -> dict[str, Any]:
    import hydra
    from hydra.errors import HydraException

    from vlmreason.assembly import errors

    words = catalog.into_empty("train", words)
    try:
        errors.check_words("train", words)
        return resolve(hydra.compose("train", words), words)
    except (HydraException, OmegaConfBaseException) as error:
        raise errors.explain("train", words, error) from error


def _plain(value: Any) -> Any:
    return [_plain(below) for below in value] if isinstance(value, (list, tuple)) else value


def check_scale_words(words: Sequence[str]) -> None:
    """Raise ValueError for settings of the scale, which is only chosen here."""
    for word in words:
        if word.startswith("scale."):
            key = word.partition("=")[0]
            raise ValueError(f"{key}: has no effect here; settings of the runs are written set='[{word}]'")


def resolve(cfg: DictConfig, overrides: list[str]) -> dict[str, Any]:
    """Return the configuration as plain containers with references replaced and the sizes of the scale chosen.

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
    return checked({str(key): value for key, value in plain.items()}, overrides)


def checked(plain: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Choose the sizes of the scale in a resolved configuration, with smoke=true the least.

    Raises ValueError for a number that is not finite and an override that has no effect.
    """
    _check_finite(plain)
    return smoke.applied(scales.choose_sizes(plain, overrides))


def _check_finite(value: object, where: str = "") -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where}={value}: a finite number is expected")
    if isinstance(value, (dict, list)):
        for key, below in value.items() if isinstance(value, dict) else enumerate(value):
            _check_finite(below, f"{where}.{key}" if where else str(key))
