"""Which run a configuration is, and its directory.

A run is the hash of its resolved configuration without paths and launch settings: the same command finds
the same directory again and continues there.
"""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from vlmreason.answering.settings import EvaluationSettings
from vlmreason.files import (
    check_ordinary,
    first_process,
    hold,
    read_json,
    read_plain_yaml,
    write_json_atomic,
    write_text_atomic,
)
from vlmreason.models.api import Api
from vlmreason.models.nano.bases import BASES, FIRST
from vlmreason.models.networks.smarter_settings import SmarterSettings
from vlmreason.scale import Scale
from vlmreason.structure import nearest, speed_settings
from vlmreason.training.engine.settings import TrainerSettings
from vlmreason.training.reinforced.settings import ReinforcementSettings

PLACES = ("out", "logger", "launch")
"""Where a run is and how it is launched: groups and keys that are no part of what it computes."""

SMOKE = "smoke"
"""The key that says that a run is of the least size: it is true, or not there."""

CODE = "_target_"
"""Where the code of a choice lies: its group's `name` stands for what it is."""

GROUPS = ("task", "model", "supervision", "scale", "algorithm")
"""Groups that have a name in every configuration that has them."""

Config = Mapping[str, Any]


@functools.cache
def not_identity() -> frozenset[str]:
    """List the dotted places of settings that are no part of a run: PLACES, and what its own dataclass marks."""
    groups: dict[str, tuple[type, ...]] = {
        "trainer": (TrainerSettings,),
        "scale": (Scale,),
        "evaluation": (EvaluationSettings,),
        "algorithm": (ReinforcementSettings,),
        "model": (Api, SmarterSettings),
    }
    marked = {f"{group}.{name}" for group, kinds in groups.items() for kind in kinds for name in speed_settings(kind)}
    return frozenset({*PLACES, *marked})


def config_hash(cfg: Config) -> str:
    """Return 12 hexadecimal digits of a resolved configuration (`build.choose_sizes` applied)."""
    return digest(_identity(cfg))


def digest(value: object) -> str:
    """Hash plain data to 12 hexadecimal digits, whatever the order of its keys."""
    text = json.dumps(_canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=6).hexdigest()


def run_name(cfg: Config) -> str:
    """Return `<task>-<supervision>-<model>-s<seed>-<hash>`; parts that the configuration lacks are left out.

    The name of a run with `smoke=true` says so before the hash.
    """
    parts = [str(cfg[key]["name"]) for key in ("task", "supervision", "model") if key in cfg]
    if "seed" in cfg:
        parts.append(f"s{cfg['seed']}")
    if cfg.get(SMOKE):
        parts.append(SMOKE)
    return "-".join(re.sub(r"[^A-Za-z0-9_.]+", "_", part) for part in parts) + f"-{config_hash(cfg)}"


def run_directory(cfg: Config) -> Path:
    """Say where the run of this configuration is or will be."""
    return Path(cfg["out"]) / run_name(cfg)


def open_run(
    cfg: Config, model: Mapping[str, str] | Sequence[Mapping[str, str]] | None = None, base: str | None = None
) -> Path:
    """Make the run's directory with `config.yaml` and `provenance.json`, or find it again.

    `model`: where its weights come from (`Learner.source`), and `base`: what is there of them (`base_digest`), noted in
    provenance.json. A later start is added to `restarts` there. Of several processes of one run the first writes, and
    keeps others out until it ends. Raises ValueError when the directory holds another configuration, is in use, or
    began with another commit of the model or another base.
    """
    import yaml

    from vlmreason import provenance
    from vlmreason.models.vlm.hugging_face import check_source

    folder = run_directory(cfg)
    config_file, provenance_file = folder / "config.yaml", folder / "provenance.json"
    seeds = {"seed": int(cfg["seed"])} if "seed" in cfg else {}
    if config_file.exists():
        held = read_config(folder)
        difference = first_difference(_identity(held), _identity(cfg))
        if difference:
            raise ValueError(f"{folder}: holds another configuration: {difference}")
    if not first_process():
        return folder
    folder.mkdir(parents=True, exist_ok=True)
    if not hold(folder / "lock"):
        raise ValueError(f"{folder}: another process is working on this run")
    if not config_file.exists():
        write_text_atomic(config_file, yaml.safe_dump(_plain(cfg), sort_keys=False, allow_unicode=False))
    start = provenance.collect(seeds, config_hash(cfg)) | ({"model": _plain(model)} if model else {})
    start |= {"base": base} if base else {}
    if provenance_file.exists():
        try:
            record = read_json(provenance_file)
            record.setdefault("restarts", []).append(start)
        except (ValueError, AttributeError):
            raise ValueError(f"{provenance_file}: damaged; delete it to start a new record") from None
        check_source(record.get("model"), model)
        if base and record.get("base", base) != base:
            raise ValueError(
                f"{folder}: began with another base: the weights of model={cfg['model'].get('name')} have changed "
                "since; choose another out"
            )
        start = record
    write_json_atomic(provenance_file, start)
    return folder


def read_config(folder: Path) -> dict[str, Any]:
    """Return the configuration of a run directory. Raises ValueError when there is none or it is damaged."""
    path = folder / "config.yaml"
    if not path.exists():
        raise ValueError(f"{folder}: no run directory (config.yaml is missing)")
    data = read_plain_yaml(path)
    if not isinstance(data, dict):
        raise ValueError(f"{path}: damaged: a mapping is expected")
    for group in GROUPS:
        if group in data and not (isinstance(data[group], dict) and isinstance(data[group].get("name"), str)):
            raise ValueError(f"{path}: damaged: {group}: a mapping with a name is expected")
    try:
        return upgraded(data)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path}: damaged: algorithm and model of another form ({error})") from None


def upgraded(config: Config) -> dict[str, Any]:
    """Return a configuration of a run as it is written today: the policy without language is a model that PPO trains,
    and was an algorithm of its own; PPO's ratio and action were a response's before there was a choice."""
    algorithm = config.get("algorithm", {})
    if algorithm.get("name") == "cnn_ppo":
        network = {key: algorithm[key] for key in ("width", "grid")}
        base = {key: value for key, value in config["model"].items() if key != CODE and value is not None}
        kept = {key: value for key, value in algorithm.items() if key not in network}
        algorithm = {**kept, "name": "ppo", "attempts": 1, "thought_weight": 1.0, "max_new_tokens": None}
        config = {**config, "model": {"name": "cnn", **network, "base": base}}
    if algorithm.get("name") == "ppo":
        return {**config, "algorithm": {"ratio": "response", "credit": "response", **algorithm}}
    return dict(config)


def first_difference(held: object, wanted: object, where: str = "") -> str | None:
    """Return the first place where two plain values differ, as "task.trace is 'terse' there, 'verbose' here"."""
    if isinstance(held, Mapping) and isinstance(wanted, Mapping):
        for key in [*wanted, *(key for key in held if key not in wanted)]:
            place = f"{where}.{key}" if where else str(key)
            if key not in held or key not in wanted:
                return f"{place} is {'missing' if key not in held else 'given'} there"
            found = first_difference(held[key], wanted[key], place)
            if found:
                return found
        return None
    if _canonical(held) == _canonical(wanted):
        return None
    return f"{where} is {held!r} there, {wanted!r} here"


def difference_of_common(held: Config, wanted: Config, named: Mapping[str, Any]) -> list[str] | None:
    """Return the settings that only one of two runs has; None where a common one differs."""
    return difference_of_identities(identity(held), identity(wanted), named)


def identity(cfg: Config) -> dict[str, Any]:
    """Return what a run computes: its configuration without places, code and speed, in one form for equal values."""
    return {str(key): _canonical(value) for key, value in _identity(cfg).items()}


def difference_of_identities(held: Config, wanted: Config, named: Mapping[str, Any]) -> list[str] | None:
    """Compare as `difference_of_common`, of what `identity` makes of two configurations.

    A setting that only `wanted` has must not be `named`: a run made before the setting existed had its default; where
    that is null there is nothing to tell. What only `held` has may be a setting that is gone, but no group of settings:
    a phase or an algorithm that it ran. A smoke run is like no other.
    """
    only: list[str] = []

    def is_named(place: str) -> bool:
        return any(name == place or name.startswith(f"{place}.") for name in named)

    def same(a: Any, b: Any, place: str) -> bool:
        if not (isinstance(a, Mapping) and isinstance(b, Mapping)):
            return bool(a == b)
        for key in dict.fromkeys([*a, *b]):
            below = f"{place}.{key}" if place else str(key)
            if key in a and key in b:
                if not same(a[key], b[key], below):
                    return False
            elif isinstance(a.get(key), Mapping) or (key in b and is_named(below)) or below == SMOKE:
                return False
            elif key in a or b[key] is not None:
                only.append(below)
        return True

    return only if same(held, wanted, "") else None


def read_json_or_none(path: Path) -> Any:
    """Return the content of a JSON file; None where it is none."""
    try:
        return read_json(path)
    except ValueError:
        return None


def _identity(cfg: Config, where: str = "") -> dict[str, Any]:
    kept = {}
    for key, value in cfg.items():
        place = f"{where}{key}"
        if key != CODE and place not in not_identity():
            kept[key] = _identity(value, f"{place}.") if isinstance(value, Mapping) else value
    return kept


def _canonical(value: object) -> object:
    """1.0 and 1 are the same setting; so are lists and tuples."""
    if isinstance(value, Mapping):
        return {str(key): _canonical(below) for key, below in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(below) for below in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(below) for key, below in value.items()}
    return [_plain(below) for below in value] if isinstance(value, (list, tuple)) else value


def find_checkpoint(run: Path, phase: str | None = None) -> Path:
    """Return the model directory of a run after a phase (None: after the last).

    Raises ValueError naming the phases that there are, or the weights file that is damaged.
    """
    if not run.is_dir():
        raise ValueError(f"run={run}: there is no such directory")
    checkpoints = run / "checkpoints"
    found = [
        path.name
        for path in sorted(checkpoints.glob("[!.]*"))
        if any(path.glob("*.safetensors")) or (path / "api.json").is_file()  # a model behind an endpoint has no weights
    ]
    wanted = phase or "final"
    if wanted in found:
        for weights in (checkpoints / wanted).glob("*.safetensors"):
            _check_weights(weights)
        return checkpoints / wanted
    if phase is not None:
        phases = [name for name in found if name != "final"]
        raise ValueError(f"phase={phase}: {checkpoints} has {', '.join(phases) or 'none'}{nearest(phase, phases)}")
    if found:
        raise ValueError(f"run={run}: not finished; finish it, or choose phase={found[-1]}")
    raise ValueError(f"run={run}: there is no finished phase in it")


def checkpoint_digest(directory: Path) -> str:
    """Return a digest of the files that decide what a model answers: weights, settings, tokenizer."""
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(directory.glob("*")):
        if path.suffix in (".safetensors", ".json", ".jinja", ".model", ".txt") and path.is_file():
            digest.update(path.name.encode() + b"\0")
            with path.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "blake2b").digest())
    return digest.hexdigest()


def base_digest(model: Config) -> str | None:
    """Return the digest of the weights with which runs of a nano model begin; None of other models, and where they are
    not here.

    `model`: the group of a configuration; of a network the model that it sees with.
    """
    model = model.get("base") or model
    if model.get("name") not in BASES:
        return None
    directory = Path(model["checkpoint"]) if model.get("checkpoint") else BASES[model["name"]]
    return _digest_of(directory) if directory.is_dir() else None


def first_base(model: Config) -> str | None:
    """Return the digest of the base of runs that note none, as `base_digest`."""
    return FIRST.get(str((model.get("base") or model).get("name")))


@functools.cache
def _digest_of(directory: Path) -> str:
    return checkpoint_digest(directory)


def _check_weights(path: Path) -> None:
    """Raises ValueError where a file is cut off or no safetensors file; reads its header only."""
    try:
        check_ordinary(path)
        with safe_open(path, framework="numpy"):
            pass
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: the weights are damaged ({error})") from None
