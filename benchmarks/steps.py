"""Training steps of the nano model on one thread: numbers below 1e-38 kept, as they are, and with compiled layers.

    python benchmarks/steps.py [rounds] [model]

A round is a forward and backward pass over 512 dialogues of table_readout, half of them with pictures, 32 at a time, in
float32. TorchInductor compiles the layers of the decoder. CPU seconds of this process; those of the compiler's own
processes are not in them, so wall time stands beside.
"""

from __future__ import annotations

import statistics
import sys
import time

import torch
import yaml

from vlmreason.assembly.build import load_task, quieten
from vlmreason.dialogue.build import build_dialogue
from vlmreason.models.nano.model import Nano
from vlmreason.places import conf_dir
from vlmreason.scale import Scale
from vlmreason.structure import structure

NUM, AT_ONCE = 512, 32


def main(num_rounds: int, model: str) -> None:
    """Print medians of the sides, their ratios, and what the first compiled round took."""
    quieten()
    torch.set_num_threads(1)
    learner = Nano(model).load()
    scale = structure(Scale, yaml.safe_load((conf_dir() / "scale" / "nano.yaml").read_text()), "scale")
    task = load_task("table_readout", scale)
    dialogues = [
        build_dialogue(task, task.sample("simple", "train", index), ("text", "image")[index % 2])
        for index in range(NUM)
    ]
    encoded = sorted(map(learner.processor.encode, dialogues), key=lambda one: len(one.input_ids))
    batches = [learner.processor.collate(encoded[begin : begin + AT_ONCE], 8) for begin in range(0, NUM, AT_ONCE)]

    def seconds() -> float:
        began = time.process_time()
        for batch in batches:
            learner.token_losses(batch)[0].sum().backward()
            learner.model.zero_grad()
        return time.process_time() - began

    rounds = []
    for _ in range(num_rounds):  # by turns
        torch.set_flush_denormal(False)
        kept = seconds()
        torch.set_flush_denormal(True)
        rounds.append((kept, seconds()))
    kept, plain = map(statistics.median, zip(*rounds, strict=True))
    for layer in learner.model.model.language_model.layers:
        layer.compile(dynamic=True)
    began = time.perf_counter()
    first, wall = seconds(), time.perf_counter() - began
    compiled = statistics.median(seconds() for _ in range(num_rounds))
    print(f"examples per CPU second: denormal numbers kept {NUM / kept:.1f}, as it is {NUM / plain:.1f}")
    print(f"{kept / plain:.2f} times; compiled {NUM / compiled:.1f}, {plain / compiled:.2f} times that")
    print(f"first compiled round: {first:.1f} CPU seconds, {wall:.1f} s in all")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 3, sys.argv[2] if len(sys.argv) > 2 else "nano")
