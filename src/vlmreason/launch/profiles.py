"""Where jobs run: `sweeps/profiles/<name>.yaml`, read into a frozen dataclass.

A profile is no part of a run's identity: the same run may begin on one machine and go on on another.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vlmreason.files import read_plain_yaml
from vlmreason.structure import nearest, structure

Trainer = dict[str, int | float | str | bool | None]


@dataclass(frozen=True)
class Local:
    """This machine. `parallel` jobs at a time; `threads` of the processor and GPUs for each."""

    kind: Literal["local"]
    parallel: int = 1
    threads: int | None = None
    gpus_per_job: int = 0
    trainer: Trainer = field(default_factory=dict)

    def __post_init__(self) -> None:
        _at_least(self, parallel=1, threads=1, gpus_per_job=0)

    @property
    def launch_trainer(self) -> Trainer:
        found: Trainer = {"progress": False}
        if self.threads:
            found["num_threads"] = self.threads
        if self.gpus_per_job:
            found["devices"] = self.gpus_per_job
        return found | self.trainer


@dataclass(frozen=True)
class Slurm:
    """A SLURM cluster; one array task is one job.

    `minutes` is the time limit; `signal_lead` seconds before it a job saves and goes back to the queue, at
    most `max_requeues` times. `tasks_per_node` null: one per GPU, or one. `modules` are loaded and `setup`
    lines run before Python starts, in the image `container` (Apptainer) if there is one. `srun` and `sbatch`
    take what has no key of its own.
    """

    kind: Literal["slurm"]
    minutes: int
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    nodes: int = 1
    gpus_per_node: int = 0
    tasks_per_node: int | None = None
    cpus_per_task: int = 1
    memory: str | None = None
    array_parallelism: int = 100
    signal_lead: int = 180
    max_requeues: int = 20
    modules: tuple[str, ...] = ()
    setup: tuple[str, ...] = ()
    container: str | None = None
    srun: tuple[str, ...] = ()
    sbatch: dict[str, str | int | bool] = field(default_factory=dict)
    trainer: Trainer = field(default_factory=dict)

    def __post_init__(self) -> None:
        _at_least(self, minutes=1, nodes=1, gpus_per_node=0, tasks_per_node=1, cpus_per_task=1, array_parallelism=1)
        _at_least(self, signal_lead=1, max_requeues=0)
        if self.signal_lead >= 60 * self.minutes:
            raise ValueError(f"signal_lead={self.signal_lead}: less than {60 * self.minutes} s is expected")

    @property
    def tasks(self) -> int:
        """Return processes of one job on one node."""
        return self.tasks_per_node or max(1, self.gpus_per_node)

    @property
    def launch_trainer(self) -> Trainer:
        return {"progress": False, "devices": self.tasks, "num_nodes": self.nodes, **self.trainer}


Profile = Local | Slurm


def read_profile(path: Path) -> Profile:
    """Return the profile in a YAML file. Raises ValueError."""
    return make_profile(read_plain_yaml(path, aliases=True), str(path))


def make_profile(data: Any, where: str) -> Profile:
    """Return the profile of a mapping; `where` begins the message of a ValueError."""
    kinds: dict[str, type[Local] | type[Slurm]] = {"local": Local, "slurm": Slurm}
    kind = data.get("kind") if isinstance(data, Mapping) else None
    if not isinstance(kind, str) or kind not in kinds:
        hint = nearest(str(kind), kinds)
        raise ValueError(f"{where}: kind={kind}: allowed are {', '.join(kinds)}{hint}")
    try:
        return structure(kinds[kind], data)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def _at_least(profile: object, **lowest: int) -> None:
    for name, low in lowest.items():
        value = getattr(profile, name)
        if value is not None and value < low:
            raise ValueError(f"{name}={value}: {low} or more is expected")
