"""Training steps on two threads of a busy processor, with threads that wait asleep and with threads that spin.

    python benchmarks/waiting.py [steps]

Each side is a process of its own, by turns, as OpenMP reads the setting once; a third process keeps one core busy. A
step is a forward and backward pass of the nano model over 16 dialogues in float32.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from typing import Any

POLICIES = ("PASSIVE", "ACTIVE", "")  # "": OpenMP's own


def side(num_steps: int) -> None:
    """Print examples per second of wall time and CPU seconds of a step."""
    import torch
    import yaml

    from vlmreason.assembly.build import load_task, quieten
    from vlmreason.dialogue.build import build_dialogue
    from vlmreason.models.nano.model import NanoSettings, build_nano, read_vocabulary
    from vlmreason.models.vlm.learner import Learner
    from vlmreason.places import conf_dir
    from vlmreason.scale import Scale
    from vlmreason.structure import structure

    quieten()
    torch.set_num_threads(2)
    learner = Learner(*build_nano(NanoSettings(), read_vocabulary(), 0))
    scale = structure(Scale, yaml.safe_load((conf_dir() / "scale" / "nano.yaml").read_text()), "scale")
    task = load_task("table_readout", scale)
    some = [build_dialogue(task, task.sample("simple", "train", index), "image") for index in range(16)]
    batch = learner.processor.collate([learner.processor.encode(one) for one in some], 16)
    for number in range(num_steps + 1):
        if number == 1:  # the first one warms up
            started, used = time.perf_counter(), time.process_time()
        loss: Any = learner.token_losses(batch)[0].mean()
        loss.backward()
    wall, cpu = time.perf_counter() - started, time.process_time() - used
    print(json.dumps({"examples_per_s": len(some) * num_steps / wall, "cpu_s_per_step": cpu / num_steps}))


def main() -> None:
    """Run the sides by turns beside other work, and print their medians."""
    num_steps = int(sys.argv[1]) if len(sys.argv) > 1 else 10
    busy = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    found: dict[str, list[dict[str, float]]] = {policy: [] for policy in POLICIES}
    try:
        for _ in range(3):
            for policy in POLICIES:
                env = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "GOMP_", "KMP_"))}
                words = [sys.executable, __file__, "side", str(num_steps)]
                done = subprocess.run(
                    words, env=env | ({"OMP_WAIT_POLICY": policy} if policy else {}), capture_output=True, check=True
                )
                found[policy].append(json.loads(done.stdout))
    finally:
        busy.kill()
    for policy, rows in found.items():
        medians = {key: round(statistics.median(row[key] for row in rows), 3) for key in rows[0]}
        print(policy or "OpenMP's own", medians)


if __name__ == "__main__":
    side(int(sys.argv[2])) if sys.argv[1:2] == ["side"] else main()
