"""CPU seconds of updates of PPO on NumberLine at nano size: `python benchmarks/update.py CHECKPOINT [checkout ...]`.

CHECKPOINT: a model that knows the game's responses, as the start of a run has it (`vlmreason train env=number_line`). Every
checkout (default: this one) plays and trains the same updates in a process of its own, in turn, in float32 on one core;
figures are medians of RUNS processes, by part: generating, what lies around it, training.
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

RUNS, UPDATES, TURNS = 3, 2, 8
PARTS = ("generating", "training", "in all")


def measure(checkpoint: Path) -> dict[str, float]:
    """CPU seconds of an update by part: the mean over UPDATES, after one that is left out."""
    import torch

    from vlmreason.assembly import build, compose
    from vlmreason.models.nano.model import load_nano
    from vlmreason.models.vlm.learner import Learner
    from vlmreason.training.engine.phase import PhaseSettings

    torch.set_num_threads(1)
    build.quieten()
    settings = {"env": "number_line", "algorithm": "ppo", "scale.max_response_tokens": 20, "algorithm.nano.turns": TURNS}
    cfg = compose.Composer().config({"scale": "nano", **settings, "seed": 0})
    learner = Learner(*load_nano(checkpoint))
    module: Any = build.build_stages(cfg, learner, checkpoint.parent)[0].module(PhaseSettings("ppo"))
    module.setup("fit")
    optimizers = module.configure_optimizers()
    module.all_optimizers = lambda: optimizers
    module.manual_backward = lambda loss: loss.backward()
    play, sums = module.roll_out, dict.fromkeys(PARTS, 0.0)

    def timed() -> Any:
        started = time.process_time()
        turns = play()
        sums["generating"] += time.process_time() - started
        return turns

    module.roll_out = timed
    for update in range(1 + UPDATES):
        if update == 1:
            sums = dict.fromkeys(PARTS, 0.0)
        module.step = max(module.step, getattr(module.algorithm, "value_updates", 0))  # the policy moves in all
        started = time.process_time()
        module.training_step(None, 0)
        sums["in all"] += time.process_time() - started
    sums["training"] = sums["in all"] - sums["generating"]
    return {part: seconds / UPDATES for part, seconds in sums.items()} | {"reward": module.last["reward"]}


def main() -> None:
    if sys.argv[1] == "--inside":
        print(json.dumps(measure(Path(sys.argv[2]))))
        return
    checkpoint = Path(sys.argv[1]).resolve()
    checkouts = [Path(word).resolve() for word in sys.argv[2:]] or [Path(__file__).resolve().parents[1]]
    found: dict[Path, list[dict[str, float]]] = {checkout: [] for checkout in checkouts}
    for _ in range(RUNS):
        for checkout, runs in found.items():
            environment = os.environ | {"PYTHONPATH": str(checkout / "src"), "OMP_NUM_THREADS": "1"}
            command = [sys.executable, __file__, "--inside", str(checkpoint)]
            done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
            runs.append(json.loads(done.stdout.splitlines()[-1]))
    print("| checkout | " + " | ".join(f"{part} (s)" for part in PARTS) + " |\n|---|" + "---|" * len(PARTS))
    for checkout, runs in found.items():
        figures = (f"{statistics.median(run[part] for run in runs):.1f}" for part in PARTS)
        print(f"| {checkout.name} | {' | '.join(figures)} |")


if __name__ == "__main__":
    main()
