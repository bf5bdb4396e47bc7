"""CPU seconds of an update of PPO on NumberLine: `python benchmarks/update.py [RUNS] [checkout ...]`.

The nano model, 64 episodes of 8 turns side by side with pictures, responses of at most 20 tokens (the expert's have
15), 2 passes in 4 minibatches. Every checkout (default: this one) plays and trains the update in processes of its own
(RUNS, default 3), in turn, in float32 on one core; figures are medians, by part.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

PARTS = ("generating", "training", "in all")


def measure() -> dict[str, float]:
    """CPU seconds of an update by part."""
    import torch

    from vlmreason.assembly import algorithms, build, compose
    from vlmreason.models.nano.model import BASE, load_nano
    from vlmreason.models.vlm.learner import Learner
    from vlmreason.training.engine.phase import PhaseSettings

    torch.set_num_threads(1)
    build.quieten()
    settings = {"scale": "nano", "env": "number_line", "algorithm": "ppo", "scale.max_response_tokens": 20, "seed": 0}
    cfg = compose.Composer().config(settings)
    module: Any = algorithms.build_stages(cfg, Learner(*load_nano(BASE)), Path())[0].module(PhaseSettings("ppo"))
    module.setup("fit")
    optimizers = module.configure_optimizers()
    module.all_optimizers = lambda: optimizers
    module.manual_backward = lambda loss: loss.backward()
    module.step = getattr(module.algorithm, "value_updates", 0)  # from then on the policy moves
    play, seconds = module.roll_out, {}

    def timed() -> Any:
        started = time.process_time()
        turns = play()
        seconds["generating"] = time.process_time() - started
        return turns

    module.roll_out = timed
    started = time.process_time()
    module.training_step(None, 0)
    seconds["in all"] = time.process_time() - started
    seconds["training"] = seconds["in all"] - seconds["generating"]
    return seconds


def main() -> None:
    if sys.argv[1:] == ["--inside"]:
        print(json.dumps(measure()))
        return
    words = sys.argv[1:] or ["3"]
    checkouts = [Path(word).resolve() for word in words[1:]] or [Path(__file__).resolve().parents[1]]
    found: dict[Path, list[dict[str, float]]] = {checkout: [] for checkout in checkouts}
    for _ in range(int(words[0])):
        for checkout, runs in found.items():
            environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, __file__, "--inside"]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    print("| checkout | " + " | ".join(f"{part} (s)" for part in PARTS) + " |\n|---|" + "---|" * len(PARTS))
    for checkout, runs in found.items():
        figures = (f"{statistics.median(run[part] for run in runs):.1f}" for part in PARTS)
        print(f"| {checkout.name} | {' | '.join(figures)} |", flush=True)


if __name__ == "__main__":
    main()
