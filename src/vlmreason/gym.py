"""Environments in Gymnasium's registry: importing this module registers one for each file of conf/env.

    import gymnasium
    import vlmreason.gym

    env = gymnasium.make("vlmreason/NumberLine-v0", render_mode="rgb_array")

An id is the file's name in capitals (`general_points_l`: `GeneralPointsL`) with the version of the episodes, from 0 on.
Those that play games of the user's (`alfworld`) are not there.
"""

from __future__ import annotations

import importlib
from typing import Any

import gymnasium

from vlmreason.assembly import catalog
from vlmreason.assembly.scales import choose_sizes
from vlmreason.envs.gym import GymEnv
from vlmreason.structure import check_choice

NAMESPACE = "vlmreason"
_OWN = {"_target_", "name", "view", "start", *catalog.groups()["scale"]}  # keys of a file that no setting changes


def ids() -> dict[str, str]:
    """Return the id of every environment that needs no data of the user's, by the name of its file."""
    found = {}
    for name in catalog.groups()["env"]:
        module, _, kind = catalog.tree_of(f"env/{name}")["_target_"].rpartition(".")
        env = getattr(importlib.import_module(module), kind)
        if not env.reads_files:
            found[name] = f"{NAMESPACE}/{''.join(word.capitalize() for word in name.split('_'))}-v{env.version - 1}"
    return found


def make(
    name: str,
    scale: str = "nano",
    level: str | None = None,
    split: str = "train",
    modality: str | None = None,
    render_mode: str | None = None,
    sizes: dict[str, Any] | None = None,
    **settings: Any,
) -> GymEnv:
    """Make the environment of a file of conf/env: what `gymnasium.make` calls with its further keys.

    level, split, modality, render_mode: as of `GymEnv`, modality None: as the file says. sizes: those of the scale that
    differ. settings: further keys of the file, as `penalty=-1`. Raises ValueError.
    """
    from vlmreason.assembly.build import build_task

    check_choice("scale", scale, catalog.groups()["scale"])
    section = catalog.tree_of(f"env/{name}")
    for key in settings:
        check_choice("setting", key, sorted(section.keys() - _OWN))
    section |= settings if modality is None else settings | {"view": modality}
    section[scale] = section[scale] | (sizes or {})
    config = choose_sizes({"scale": catalog.tree_of(f"scale/{scale}"), "env": section}, [])
    env: Any = build_task(config)
    return GymEnv(env, level, split, config["env"]["view"], render_mode)


def register() -> None:
    """Put every environment into Gymnasium's registry; those that are there stay."""
    for name, id in ids().items():
        if id not in gymnasium.registry:
            gymnasium.register(id, entry_point=f"{__name__}:make", kwargs={"name": name})


register()
