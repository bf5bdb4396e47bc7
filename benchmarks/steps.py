"""Training steps of the nano model on one thread: numbers below 1e-38 kept, attention in steps, as is, and compiled.

    python benchmarks/steps.py [rounds] [model] [task]

A round is a forward and backward pass over 512 dialogues of a task, by default table_readout, half of them with
pictures, 32 at a time (8 of visual_analogy, whose are longer), in float32. TorchInductor compiles the layers of the
decoder. CPU seconds of this process; those of the compiler's own processes are not in them, so wall time stands beside.
"""

from __future__ import annotations

import statistics
import sys
import time
from typing import Any

import torch
import yaml

from vlmreason.assembly.build import load_task, quieten
from vlmreason.dialogue.build import build_dialogue
from vlmreason.models.nano.model import Nano
from vlmreason.places import conf_dir
from vlmreason.scale import Scale
from vlmreason.structure import structure
from vlmreason.training.engine.runner import compile_layers

NUM = 512


def main(num_rounds: int, model: str, name: str) -> None:
    """Print medians of the sides, their ratios, and what the first compiled round took."""
    quieten()
    torch.set_num_threads(1)
    learner = Nano(model).load()
    scale = structure(Scale, yaml.safe_load((conf_dir() / "scale" / "nano.yaml").read_text()), "scale")
    task, at_once = load_task(name, scale), 8 if name == "visual_analogy" else 32
    dialogues = [
        build_dialogue(task, task.sample("simple", "train", index), ("text", "image")[index % 2])
        for index in range(NUM)
    ]
    encoded = sorted(map(learner.processor.encode, dialogues), key=lambda one: len(one.input_ids))
    batches = [learner.processor.collate(encoded[begin : begin + at_once], 8) for begin in range(0, NUM, at_once)]

    def seconds() -> float:
        began = time.process_time()
        for batch in batches:
            loss: Any = learner.token_losses(batch)[0].sum()
            loss.backward()
            learner.model.zero_grad()
        return time.process_time() - began

    rounds = []
    for _ in range(num_rounds):  # by turns
        torch.set_flush_denormal(False)
        kept = seconds()
        torch.set_flush_denormal(True)
        learner.model.set_attn_implementation("eager")
        eager = seconds()
        learner.model.set_attn_implementation("sdpa")
        rounds.append((kept, eager, seconds()))
    kept, eager, plain = map(statistics.median, zip(*rounds, strict=True))
    compile_layers(learner)
    began = time.perf_counter()
    first, wall = seconds(), time.perf_counter() - began
    compiled = statistics.median(seconds() for _ in range(num_rounds))
    sides = {"denormal numbers kept": kept, "eager attention": eager, "as it is": plain, "compiled": compiled}
    print("examples per CPU second: " + ", ".join(f"{side} {NUM / one:.1f}" for side, one in sides.items()))
    print(f"first compiled round: {first:.1f} CPU seconds, {wall:.1f} s in all")


if __name__ == "__main__":
    words = [*sys.argv[1:], *("3", "nano", "table_readout")[len(sys.argv) - 1 :]]
    main(int(words[0]), words[1], words[2])
