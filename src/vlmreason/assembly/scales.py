"""The sizes that a scale gives to tasks, environments and algorithms."""

from __future__ import annotations

from typing import Any

from vlmreason.assembly import catalog

_FREELY = (("how", "generate"), ("length", "free"), ("condition", "free"))
"""How a model is asked where nothing else is chosen, in settings that were not always there."""


def choose_sizes(cfg: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Return `cfg` with the sizes of the chosen scale in place of those of all scales: the task's under `task.sizes`,
    an algorithm's among its own keys. An environment becomes the task, and `env` keeps how it is shown; an `algorithm`
    that is supervised training alone is left out, and so is the engine of one that has the learner's.

    Raises ValueError where an override changes the sizes of another scale, or a task or an engine that is not used: it
    would have no effect.
    """
    if cfg.get("env") and "sizes" not in cfg.get("task", {}):
        cfg = _with_env(cfg, overrides)
    elif "env" in cfg and not cfg["env"]:
        cfg = {key: value for key, value in cfg.items() if key != "env"}
    if cfg.get("algorithm", {}).get("name") == "sft":
        cfg = {key: value for key, value in cfg.items() if key != "algorithm"}
    if "evaluation" in cfg:  # those that write freely are what they were before there were other ways
        kept = {key: value for key, value in cfg["evaluation"].items() if (key, value) not in _FREELY}
        cfg = cfg | {"evaluation": kept}
    if "algorithm" in cfg:  # of one task alone, in one phase: the runs that they were
        unset = {key for key in ("tasks", "text_first") if cfg["algorithm"].get(key, ()) is None}
        cfg = cfg | {"algorithm": {key: value for key, value in cfg["algorithm"].items() if key not in unset}}
    if "scale" not in cfg:
        return cfg
    scales, chosen = catalog.groups()["scale"], cfg["scale"]["name"]
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        group = key.partition(".")[0]
        for other in scales if group in ("task", "env", "algorithm") else ():
            if other != chosen and (key == f"{group}.{other}" or key.startswith(f"{group}.{other}.")):
                better = key.replace(f"{group}.{other}", f"{group}.{chosen}", 1)
                raise ValueError(f"{key}: has no effect at scale={chosen} (did you mean {better!r}?)")
    if "task" in cfg:
        task = dict(cfg["task"])
        if chosen not in task:
            raise ValueError(f"scale={chosen}: task {task.get('name')} has no sizes for it")
        task["sizes"] = task[chosen]
        cfg = cfg | {"task": {key: value for key, value in task.items() if key not in scales}}
    if "algorithm" in cfg and chosen in cfg["algorithm"]:
        kept = {key: value for key, value in cfg["algorithm"].items() if key not in scales}
        cfg = cfg | {"algorithm": kept | cfg["algorithm"][chosen]}
    return _without_vllm(cfg, overrides) if cfg.get("algorithm", {}).get("engine") == "learner" else cfg


def _without_vllm(cfg: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    """Runs whose rollouts the learner generates are the runs that they were before there was another engine."""
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key.startswith("algorithm.vllm"):
            raise ValueError(
                f"{key}: has no effect with algorithm.engine=learner (did you mean 'algorithm.engine=vllm'?)"
            )
    kept = {key: value for key, value in cfg["algorithm"].items() if key not in ("engine", "vllm")}
    return cfg | {"algorithm": kept}


def _with_env(cfg: dict[str, Any], overrides: list[str]) -> dict[str, Any]:
    for override in overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key == "task" or key.startswith("task."):
            raise ValueError(f"{override}: has no effect with env={cfg['env'].get('name')}, which takes its place")
        if key == "scale.num_examples" and cfg.get("supervision", {}).get("name") == "expert":
            better = f"env.start.{cfg['scale']['name']}"
            raise ValueError(f"{key}: has no effect with supervision=expert (did you mean {better!r}?)")
    env = dict(cfg["env"])
    env.pop("start", None)
    view, image = env.pop("view"), env.get("image")
    if isinstance(image, bool) and image != (view != "text"):
        alike = [
            name for name in catalog.groups()["env"] if catalog.file_content("env", name).get("name") == env["name"]
        ]
        raise ValueError(
            f"env.view={view}: does not go with env.image={str(image).lower()}, which says whether what is to be "
            f"recognized is seen in a picture; choose {' or '.join(f'env={name}' for name in alike)}"
        )
    return cfg | {"task": env, "env": {"name": env["name"], "view": view}}
