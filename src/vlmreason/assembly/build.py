"""From a composed configuration to the objects of the lower floors.

Configurations arrive as plain containers. Sections that belong to a lower floor are checked against that
floor's own dataclass through `section`.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from vlmreason import runs
from vlmreason.assembly import catalog, smoke
from vlmreason.assembly.scales import choose_sizes
from vlmreason.dialogue.build import ask
from vlmreason.models.contract import Example, NetworkSettings, Prompt
from vlmreason.scale import Scale
from vlmreason.structure import first_line, nearest, structure
from vlmreason.tasks.base import Task

Config = Mapping[str, Any]
T = TypeVar("T")


def settings(kind: type[T], cfg: Config) -> T:
    """Return the command's own keys (all that are no group) as its dataclass."""
    own = {key: value for key, value in cfg.items() if key not in catalog.groups()}
    return structure(kind, own)


def section(kind: type[T], cfg: Config, name: str) -> T:
    """Return one group's section as the dataclass of the floor that uses it."""
    return structure(kind, cfg[name], name)


def build_scale(cfg: Config) -> Scale:
    return section(Scale, cfg, "scale")


def build_task(cfg: Config) -> Task[Any]:
    """Return the task of the configuration (`choose_sizes` applied). Raises ValueError."""
    return make_task(cfg["task"], build_scale(cfg))


def load_task(name: str, scale: Scale, trace: str | None = None) -> Task[Any]:
    """Return a task by the name of its file in conf/task, as it is there; `trace` replaces its wording."""
    return make_task(task_config(name, scale, trace), scale)


def task_config(name: str, scale: Scale, trace: str | None = None) -> dict[str, Any]:
    """Return what `load_task` builds from: the file's content with the sizes of the scale chosen."""
    from omegaconf import OmegaConf

    group = _group_of_task(name)
    raw = OmegaConf.create({"scale": dataclasses.asdict(scale), group: catalog.file_content(group, name)})
    plain = OmegaConf.to_container(raw, resolve=True)
    assert isinstance(plain, dict)
    data: dict[str, Any] = choose_sizes({str(key): value for key, value in plain.items()}, [])["task"]
    return data | ({"trace": trace} if trace else {})


def beside(cfg: Config, name: str) -> dict[str, Any]:
    """Return what another task than the run's own is built from: its file's content, worded as the run's task.

    Of a task on the same things (`Task.splits_of`) with the same sizes: at those of the run's, and without what that
    holds out.
    """
    own: Config = cfg.get("task", {})
    found = task_config(name, build_scale(cfg), own.get("trace"))
    if not own or not same_things(own, found):
        return found
    return found | {key: own[key] for key in ("sizes", "held_out") if key in own and key in found}


def posed(cfg: Config, name: str | None) -> tuple[Task[Any], str, int]:
    """Return a task that a run is evaluated on, its own or the one of this name, the split and the number of
    problems."""
    own, evaluation = build_task(cfg), build_evaluation(cfg)
    task = own if name in (None, own.name) else make_task(beside(cfg, str(name)), build_scale(cfg))
    return task, evaluation.split, evaluation.num


def same_things(one: Config, other: Config) -> bool:
    """Tell whether two tasks are on the same things, with sizes of the same names."""
    whose = {_class(task, "task").splits_of or task["name"] for task in (one, other)}
    return len(whose) == 1 and one["sizes"].keys() == other["sizes"].keys()


def _group_of_task(name: str) -> str:
    """Where a task's file lies: conf/task or conf/env. Raises ValueError."""
    choices = catalog.groups()["task"]
    if name in choices:
        return "task"
    if name in catalog.groups().get("env", ()):
        return "env"
    raise ValueError(f"task={name}: no such choice; there are {', '.join(choices)}{nearest(name, choices)}")


def evaluated(task: Task[Any]) -> Task[Any]:
    """Return what is evaluated of a task: of an environment whole episodes."""
    from vlmreason.envs.base import Env
    from vlmreason.envs.episodes import Episodes

    return Episodes(task) if isinstance(task, Env) else task


def build_supervision(cfg: Config) -> Any:
    """Return the supervision of the configuration (vlmreason.supervision.Supervision)."""
    from vlmreason.supervision import Supervision

    return section(Supervision, cfg, "supervision")


def build_tasks(cfg: Config) -> dict[str, Task[Any]]:
    """Return every task that the supervision's data needs, by name; the run's own (if it has one) with its overrides.

    Raises ValueError where a part names a level that its task does not have.
    """
    supervision, scale = build_supervision(cfg), build_scale(cfg)
    own = build_task(cfg) if "task" in cfg else None
    run_task = own.name if own else None
    tasks = {
        name: own if own and name == own.name else make_task(beside(cfg, name), scale)
        for name in supervision.task_names(run_task)
    }
    levels = {name: task.levels for name, task in tasks.items()}
    supervision.check_levels(run_task, levels, {name: task.text_only for name, task in tasks.items()})
    supervision.check_conditions(run_task, {name for name, task in tasks.items() if not task.conditions()})
    return {name: task.asked_in("supervised") for name, task in tasks.items()}


def build_optimizer(cfg: Config) -> Any:
    """Return optimizer settings (vlmreason.training.engine.optimizers.OptimizerSettings)."""
    from vlmreason.training.engine.optimizers import OptimizerSettings

    return section(OptimizerSettings, cfg, "optimizer")


def build_trainer(cfg: Config) -> Any:
    """Return trainer settings (vlmreason.training.engine.settings.TrainerSettings); batch and lengths are the
    scale's."""
    from vlmreason.training.engine.settings import TrainerSettings

    scale = build_scale(cfg)
    sizes = {name: getattr(scale, name) for name in ("batch_size", "micro_tokens", "max_length")}
    return structure(TrainerSettings, {**cfg["trainer"], **sizes}, "trainer")


def build_model(cfg: Config) -> Any:
    """Return the settings of conf/model as the dataclass that `_target_` names; its `load` makes the learner.

    Those of a network hold the settings of the model that it sees with, a choice of conf/model too, as `base`.
    """
    return _model(cfg["model"])


def _model(section: Config) -> Any:
    data = {key: value for key, value in section.items() if key != "_target_"}
    if "base" in data:
        name, choices = str(data["base"].get("name")), catalog.groups()["model"]
        if name not in choices:
            raise ValueError(f"model.base.name={name}: allowed are {', '.join(choices)}{nearest(name, choices)}")
        data["base"] = _model({**catalog.tree_of(f"model/{name}"), **data["base"]})
        if isinstance(data["base"], NetworkSettings):
            raise ValueError(f"model.base.name={name}: a network does not see by itself")
    return structure(_class(section, "model"), data, "model")


def build_learner(cfg: Config, checkpoint: Path | None = None) -> Any:
    """Return the model of the configuration (vlmreason.models.contract), from `checkpoint` where it is given.

    With LoRA a checkpoint holds the adapters: the model below is that of the configuration.
    """
    quieten()
    model, adapter = build_model(cfg), build_adapter(cfg)
    if isinstance(model, NetworkSettings):
        _check_network(cfg)
        learner = model.load(checkpoint) if checkpoint else model.untrained(build_example(cfg))
    else:
        learner = model.load(checkpoint if adapter.name == "none" else None)
    learner.adapt(adapter, int(cfg.get("seed", 0)), checkpoint)
    if cfg.get("evaluation", {}).get("how") == "choose":
        learner.choose([], [])  # raises where the model can only write
    return learner


def build_processor(cfg: Config, checkpoint: Path) -> Any:
    """Return the processor of a saved model without its weights; None where the model's settings offer none."""
    quieten()
    model, adapted = build_model(cfg), build_adapter(cfg).name != "none"
    return model.processor(None if adapted else checkpoint) if hasattr(model, "processor") else None


def _check_network(cfg: Config) -> None:
    """Raises ValueError for what a small network cannot be trained with."""
    name, trainer, algorithm = cfg["model"]["name"], cfg.get("trainer", {}), cfg.get("algorithm", {})
    if trainer.get("gradient_checkpointing"):
        raise ValueError(f"trainer.gradient_checkpointing=true: has no effect with model={name}")
    if trainer.get("precision") == "bf16-true":
        raise ValueError(f"trainer.precision=bf16-true: with model={name} bf16-mixed and 32-true are allowed")
    if trainer.get("strategy") not in (None, "auto", "ddp"):
        raise ValueError(f"trainer.strategy={trainer['strategy']}: with model={name} auto and ddp are allowed")
    if algorithm.get("engine", "learner") != "learner":
        raise ValueError(f"algorithm.engine={algorithm['engine']}: with model={name} only learner is allowed")


def build_example(cfg: Config) -> Example:
    """Return what a network is made for: the first problem of the task or turn of the environment. Raises
    ValueError."""
    from vlmreason.envs.base import Env

    task, algorithm = build_task(cfg), cfg.get("algorithm", {})
    for level in algorithm.get("levels") or ():
        check_level(task, level, "algorithm.levels")
    level = (algorithm.get("levels") or task.levels)[0]
    state = task.start(level, "train", 0) if isinstance(task, Env) else task.sample(level, "train", 0).state
    options = task.options(state)
    if not options:
        raise ValueError(
            f"model={cfg['model']['name']}: {task.name} offers no options to choose from, its answers are text; a task "
            "or an environment with options is expected, as env=number_line"
        )
    views = cfg.get("evaluation", {}).get("views") or ["image"]
    view: Any = (
        cfg["env"]["view"] if "env" in cfg else algorithm.get("view") or (views[0] if len(views) == 1 else "image")
    )
    prompt = Prompt(*ask(task, state, view), kind=task.kind_of(state))
    return Example(prompt, options, int(cfg.get("seed", 0)), task.kinds(), task.option_boxes())


def build_adapter(cfg: Config) -> Any:
    """Return adapter settings (vlmreason.models.contract.AdapterSettings); nothing is adapted where there is no such
    group."""
    from vlmreason.models.contract import AdapterSettings

    return section(AdapterSettings, cfg, "adapter") if "adapter" in cfg else AdapterSettings()


def quieten() -> None:
    """Keep libraries to errors; VLMREASON_DEBUG=1 lets them talk."""
    import logging
    import warnings

    if os.environ.get("VLMREASON_DEBUG") == "1":
        return
    transformers_logging: Any = importlib.import_module("transformers.utils.logging")

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # each of its retries; the error says it at the end
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    logging.getLogger("lightning.fabric").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"(lightning|torch|transformers)\.")


def check_place(accelerator: str, where: str) -> None:
    """Raise ValueError where a GPU is asked for by the setting `where`, and there is none."""
    import torch

    if accelerator == "gpu" and not torch.cuda.is_available():
        raise ValueError(f"{where}=gpu: there is no GPU here")


def place(learner: Any, accelerator: str) -> None:
    """Move a learner's model to the device asked for: auto, cpu or gpu. Raises ValueError without a GPU."""
    import torch

    check_place(accelerator, "accelerator")
    if learner.model is None:
        return  # it runs elsewhere, behind an endpoint
    if accelerator == "cpu" or not torch.cuda.is_available():
        learner.model.to("cpu")
        return
    number = int(os.environ.get("LOCAL_RANK") or os.environ.get("SLURM_LOCALID") or 0)  # torchrun's, srun's
    learner.model.to(f"cuda:{number % torch.cuda.device_count()}")


def build_logger(cfg: Config, folder: Path) -> Any:
    """Return a function that makes the Lightning logger of the configuration when training begins."""
    import functools

    from vlmreason.training.engine.loggers import LoggerSettings, make_logger

    return functools.partial(make_logger, section(LoggerSettings, cfg, "logger"), folder)


def build_evaluation(cfg: Config) -> Any:
    """Return evaluation settings (vlmreason.answering.settings.EvaluationSettings); nulls are the scale's.

    Raises ValueError where the task is to be answered in a way that it does not allow.
    """
    from vlmreason.answering.choices import check_options
    from vlmreason.answering.settings import EvaluationSettings

    scale, data = build_scale(cfg), dict(cfg["evaluation"])
    chooses = data.get("how") == "choose"
    if chooses and data.get("max_new_tokens") is not None:
        raise ValueError(
            f"evaluation.max_new_tokens={data['max_new_tokens']}: has no effect with evaluation.how=choose, nothing is "
            "written"
        )
    for key, value in (("num", scale.num_problems), ("max_new_tokens", scale.max_response_tokens)):
        if data.get(key) is None:
            data[key] = value
    if data.get("conversion") == "auto":
        directly = not chooses and _answers_directly(cfg) and "image" in data["views"]
        data["conversion"] = "forbid" if directly else "free"
    found = structure(EvaluationSettings, data, "evaluation")
    if "task" in cfg and (chooses or found.levels):
        task = evaluated(build_task(cfg))
        if chooses:
            check_options(task, found)
        for level in found.levels or ():
            check_level(task, level, "evaluation.levels")
    return found


def _answers_directly(cfg: Config) -> bool:
    """Whether training shows pictures with direct answers."""
    return any("image" in part.views for one in build_supervision(cfg).phases.values() for part in one.parts.values())


def with_run(cfg: Config, trained: Config, overrides: list[str]) -> dict[str, Any]:
    """Return `cfg` with model, adapter and supervision of a trained run (its config.yaml).

    Task and scale are the run's too where none are chosen, and so are the sizes of another task on the same things; an
    environment is shown as it was in training. What is asked of a smoke run is of its size.
    """
    return smoke.asked_of(trained, _with_run(cfg, trained, overrides))


def _with_run(cfg: Config, trained: Config, overrides: list[str]) -> dict[str, Any]:
    merged = dict(cfg) | {key: trained[key] for key in ("model", "supervision", "adapter") if key in trained}
    if "task" not in merged and "env" in trained and not any(o.startswith("evaluation.views=") for o in overrides):
        merged["evaluation"] = merged["evaluation"] | {"views": [trained["env"]["view"]]}
    if "scale" not in merged:
        merged["scale"] = trained["scale"]
    if "task" not in merged:
        if merged["scale"]["name"] == trained["scale"]["name"]:
            return merged | {"task": trained["task"]}
        sizes = task_config(trained["task"]["name"], build_scale(merged))["sizes"]
        return merged | {"task": trained["task"] | {"sizes": sizes}}
    if "sizes" in merged["task"]:
        return merged
    merged = choose_sizes(merged, overrides)
    asked, own = merged["task"], trained["task"]
    if asked["name"] != own["name"] and merged["scale"]["name"] == trained["scale"]["name"] and same_things(own, asked):
        typed = {word.partition("=")[0].rpartition(".")[2] for word in overrides if word.startswith("task.")}
        kept = {key: value for key, value in asked["sizes"].items() if key in typed}
        merged["task"] = asked | {"sizes": {**own["sizes"], **kept}}
    return merged


def task_identity(cfg: Config) -> dict[str, Any]:
    """Return what decides a task's problems and texts beside its name: sizes, wording and further keys."""
    task = {key: value for key, value in cfg["task"].items() if key != "_target_"}
    return {"task_config": task | {"trace": task.get("trace") or cfg["scale"]["trace"]}}


def read_run(folder: Path) -> dict[str, Any]:
    """Return the configuration of a run directory, wherever it comes from.

    Its `_target_`s must be those of choices that there are (with --config-dir: of the user's own too): nothing that a
    file from elsewhere names is imported. Raises ValueError.
    """
    config = runs.read_config(folder)
    if missing := [group for group in runs.GROUPS[:4] if group not in config]:
        raise ValueError(f"{folder / 'config.yaml'}: damaged: {', '.join(missing)}: missing")
    for group in ("task", "model"):
        target = str(config.get(group, {}).get("_target_", ""))
        if not target.startswith("vlmreason.") and target not in catalog.targets(group).values():
            raise ValueError(
                f"{folder / 'config.yaml'}: {group}._target_={target}: no choice of conf/{group} has it; of your own "
                "code the folder must be named, --config-dir DIR"
            )
    return config


def evaluated_task(record: Config, folder: Path, trained: Config) -> Any:
    """Return the task of an evaluation.json as it was evaluated, whatever the run's own is. Raises ValueError."""
    name = str(record["task"])
    _group_of_task(name)
    target = catalog.targets("task")[name]
    try:
        task = build_task({"scale": trained["scale"], "task": {**record["task_config"], "_target_": target}})
    except (TypeError, KeyError):
        raise ValueError(f"{folder / 'evaluation.json'}: the file is damaged: task_config") from None
    if task.version != record["task_version"]:
        raise ValueError(
            f"{folder}: answers problems of version {record['task_version']} of {task.name}, and this is version "
            f"{task.version}; evaluate the run again"
        )
    return evaluated(task)


def check_level(task: Task[Any], level: str, where: str = "level") -> None:
    """Raise ValueError where the task does not have the level that the setting `where` names."""
    if level not in task.levels:
        raise ValueError(f"{where}={level}: {task.name} has {', '.join(task.levels)}{nearest(level, task.levels)}")


def make_task(data: Config, scale: Scale) -> Task[Any]:
    """Make a task from its section, with the sizes of the scale chosen. Raises ValueError."""
    kind = _class(data, "task")
    if not issubclass(kind, Task):
        raise ValueError(f"task._target_={data.get('_target_')}: a Task is expected")
    if data.get("name") != kind.name:
        raise ValueError(f"task.name={data.get('name')}: the task is called {kind.name}")
    further = {k: v for k, v in data.items() if k not in ("_target_", "name", "trace", "wording", "sizes")}
    task: Task[Any] = kind(
        sizes=structure(kind.sizes_type, data["sizes"], f"task.{scale.name}"),
        trace=data.get("trace") or scale.trace,
        wording=structure(dict[str, str], data.get("wording") or {}, "task.wording"),
        **further,
    )
    return task


def _class(data: Config, group: str) -> Any:
    """The class that a section names by `_target_`; of a choice that has moved since a file was written, by `name`."""
    from hydra.utils import get_class

    target, known = str(data.get("_target_", "vlmreason.")), catalog.targets(group)
    if target.startswith("vlmreason.") and target not in known.values():
        target = known.get(str(data.get("name")), target)
    try:
        return get_class(target)
    except Exception as error:
        raise ValueError(f"{group}._target_={target}: {first_line(error)}") from error
