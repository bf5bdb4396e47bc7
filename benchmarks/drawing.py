"""How fast problems are made and drawn, per task, scale and level, on one core.

    python benchmarks/drawing.py            # all tasks, about a minute
    python benchmarks/drawing.py table      # those whose name contains "table"

problems/s: sampling, prompt, text form, chain of thought and answer. pictures/s: drawing into an array, before
any PNG encoding. Medians of several repeats in CPU time, so that other work on the machine disturbs little.
"""

import platform
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from vlmreason import places
from vlmreason.assembly import catalog
from vlmreason.assembly.build import load_task
from vlmreason.scale import Scale
from vlmreason.structure import structure
from vlmreason.tasks.base import Task

REPEATS = 5
SECONDS = 0.1  # CPU time of one repeat


def rate(work: Callable[[int], object]) -> float:
    """Calls per second of CPU time: the median of the repeats. `work` gets the number of the call."""
    work(0)
    rates, num = [], 1
    for _ in range(REPEATS):
        begin, first = time.process_time(), num
        while (spent := time.process_time() - begin) < SECONDS:
            work(num)
            num += 1
        rates.append((num - first) / spent)
    return statistics.median(rates)


def measure(task: Task[Any], level: str) -> tuple[float, float]:
    """Problems/s and pictures/s."""
    states = [task.sample(level, "train", index).state for index in range(64)]
    for state in states:
        task.draw(state)  # fills the cache of sprites

    def write(index: int) -> None:
        state = task.sample(level, "train", index).state
        task.prompt(state, "text")
        task.thought(state)
        task.answer(state)

    return rate(write), rate(lambda index: task.draw(states[index % len(states)]))


def machine() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.processor() or platform.machine()}, Python {platform.python_version()}, one core"


def main(wanted: str = "") -> None:
    print(machine())
    print(f"{'task':34}{'scale':8}{'level':12}{'problems/s':>12}{'pictures/s':>12}")
    for path in sorted(p for p in (places.conf_dir() / "task").glob("*.yaml") if wanted in p.stem):
        for scale in catalog.groups()["scale"]:
            sizes = OmegaConf.to_container(OmegaConf.load(places.conf_dir() / "scale" / f"{scale}.yaml"))
            task = load_task(path.stem, structure(Scale, sizes, "scale"))
            for level in task.levels:
                problems, pictures = measure(task, level)
                print(f"{path.stem:34}{scale:8}{level:12}{problems:12.0f}{pictures:12.0f}", flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
