"""CPU seconds of whole processes that draw from records: `python benchmarks/reports.py [checkout ...]`.

Cold: without a cache of drawn pictures; warm: with what the run before left there. Every command is run in turn for
each checkout (default: this one), pinned to one core where the system can; figures are medians of RUNS runs.
"""

from __future__ import annotations

import os
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

RUNS = 3
COMMANDS = [
    ["report", "study=s2h"],
    ["report", "study=rl4vlm"],
    ["report", "study=sft_vs_rl"],
    ["report", "study=beyond"],
    ["figure", "experiment=s2h/fig5"],
]


def cpu_seconds(checkout: Path, words: list[str], folder: Path, cache: Path) -> float:
    """User and system seconds of one process and those that it started."""
    environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "VLMREASON_CACHE": str(cache)}
    command = [sys.executable, "-m", "vlmreason", *words, f"out={folder / 'out'}", f"runs={folder / 'none'}"]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    checkouts = [Path(word).resolve() for word in sys.argv[1:]] or [Path(__file__).resolve().parents[1]]
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    print("| command | checkout | cold (s) | warm (s) |\n|---|---|---|---|")
    for words in COMMANDS:
        seconds: dict[Path, tuple[list[float], list[float]]] = {checkout: ([], []) for checkout in checkouts}
        for _ in range(RUNS):
            for checkout, (cold, warm) in seconds.items():
                with tempfile.TemporaryDirectory() as name:
                    folder = Path(name)
                    cold.append(cpu_seconds(checkout, words, folder, folder / "cache"))
                    warm.append(cpu_seconds(checkout, words, folder, folder / "cache"))
        for checkout, sides in seconds.items():
            figures = " | ".join(f"{statistics.median(side):.1f}" for side in sides)
            print(f"| `{' '.join(words)}` | {checkout.name} | {figures} |", flush=True)


if __name__ == "__main__":
    main()
