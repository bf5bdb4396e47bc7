"""A tiny untrained nano model, tasks at the nano sizes, and runs of a few steps, for the tests."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from support.sampled import TASKS as TASKS
from vlmreason import places
from vlmreason.assembly.build import load_task, quieten
from vlmreason.dialogue.build import Dialogue, build_dialogue
from vlmreason.models.contract import Prompt
from vlmreason.models.nano.model import NanoSettings, build_nano, read_vocabulary
from vlmreason.models.vlm.learner import Learner
from vlmreason.models.vlm.processor import Processor
from vlmreason.scale import Scale
from vlmreason.segments import VIEWS
from vlmreason.structure import structure
from vlmreason.supervision import Supervision
from vlmreason.tasks.base import Task
from vlmreason.training.engine.optimizers import OptimizerSettings
from vlmreason.training.engine.runner import train
from vlmreason.training.engine.settings import TrainerSettings

TRACES = ("terse", "verbose")
SIZES = NanoSettings(
    hidden_size=16, vision_layers=1, vision_heads=2, decoder_layers=2, decoder_heads=2, decoder_inner=16
)
ADAMW = OptimizerSettings("adamw", lr=1e-2)
TRAINER = TrainerSettings(
    batch_size=4,
    micro_tokens=600,
    max_length=1024,
    precision="32-true",
    accelerator="cpu",
    devices=1,
    num_workers=0,
    num_threads=1,
    log_every=1,
    checkpoint_every=3,
    progress=False,
)

quieten()
torch.set_num_threads(1)


@functools.cache
def scale() -> Scale:
    data = OmegaConf.to_container(OmegaConf.load(places.conf_dir() / "scale" / "nano.yaml"))
    return structure(Scale, data, "scale")


@functools.cache
def nano_task(name: str = "table_readout", trace: str | None = None) -> Task[Any]:
    return load_task(name, scale(), trace)


def tiny_learner(seed: int = 0) -> Learner:
    return Learner(*build_nano(SIZES, read_vocabulary(), seed))


def lively_learner() -> Learner:
    """Weights large enough that an untrained model does not repeat one token; responses end early, late, not at all."""
    made = tiny_learner(seed=3)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in made.model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(20)
        made.model.get_input_embeddings().weight[made.processor.eos_id] *= 1.5
    made.model.eval()
    return made


@functools.cache
def shared_learner() -> Learner:
    """One for all tests that leave it as it is."""
    return tiny_learner()


def processor() -> Processor:
    return shared_learner().processor


def dialogues(num: int, views: tuple[str, ...] = VIEWS, name: str = "table_readout") -> list[Dialogue]:
    """Problems of all levels, all views in turn."""
    task = nano_task(name)
    made = []
    for i in range(num):
        problem = task.sample(task.levels[i % len(task.levels)], "train", i)
        made.append(build_dialogue(task, problem, views[i % len(views)]))
    return made


def prompts(num: int, views: tuple[str, ...] = ("text", "image"), prefill: str = "") -> list[Prompt]:
    return [Prompt(d.prompt, d.image, prefill) for d in dialogues(num, views)]


def plan(**phases: Mapping[str, Any]) -> Supervision:
    """A supervision of phases given as data; one without parts gets all views of simple problems."""
    parts = {"simple": {"level": "simple", "views": ["text", "image", "image_via_text"]}}
    return structure(
        Supervision,
        {"name": "tiny", "phases": {name: {"parts": parts} | dict(phase) for name, phase in phases.items()}},
    )


TWO_PHASES = {
    "warmup": {
        "num_examples": 19,
        "train": ["language_model"],
        "parts": {"text": {"level": "simple", "views": ["text"]}},
    },
    "main": {"num_examples": 22, "optimizer": {"name": "muon", "muon_lr": 0.02, "lr": 0.005}},
}


def tiny_run(run_dir: Path, phases: Mapping[str, Mapping[str, Any]] = TWO_PHASES, **changes: Any) -> Path:
    """Train a fresh tiny model in `run_dir`; `changes`: keys of the trainer, or an argument of `train`."""
    arguments = {
        "seed": 0,
        "optimizer": ADAMW,
        "make_logger": lambda: False,
        "evaluate": None,
        "learner": None,
        "shared": None,
        "build": None,
    }
    arguments |= {key: changes.pop(key) for key in list(changes) if key in arguments}
    learner = arguments.pop("learner") or tiny_learner()
    settings = structure(TrainerSettings, vars(TRAINER) | changes)
    run_dir.mkdir(parents=True, exist_ok=True)
    tasks = {"table_readout": nano_task()}
    return train(learner, tasks, plan(**phases), "table_readout", settings=settings, run_dir=run_dir, **arguments)


def outcome(run_dir: Path) -> dict[str, bytes]:
    """The files of a finished run that must be the same byte for byte."""
    paths = [*run_dir.glob("checkpoints/*/model.safetensors"), run_dir / "metrics.jsonl"]
    return {str(path.relative_to(run_dir)): path.read_bytes() for path in paths}
