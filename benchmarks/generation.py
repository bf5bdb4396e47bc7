"""How much faster a batch of problems is answered than one problem after the other, with the same answers.

    python benchmarks/generation.py [num_problems] [batch_size] [checkpoint]     # default 64 32, two minutes

Batches that shrink as responses end, and those that wait for the longest. All ways take turns within one run; ratios
are of the medians. `checkpoint`: a run's checkpoints/final (the shipped base, which does not know when to stop,
otherwise). Exits with 1 where an answer differs.
"""

import statistics
import sys
import time
from pathlib import Path

import torch
from drawing import machine

from vlmreason.assembly.build import load_task, quieten
from vlmreason.models.contract import Generation, Prompt
from vlmreason.models.nano.model import BASE, load_nano
from vlmreason.models.vlm import generation
from vlmreason.models.vlm.learner import Learner
from vlmreason.places import conf_dir
from vlmreason.scale import Scale
from vlmreason.structure import structure
from vlmreason.tasks.base import Modality

REPEATS = 3
NEW_TOKENS = 200


def prompts(num: int) -> list[Prompt]:
    """Text and picture in turn, of all levels: prompts of different lengths."""
    import yaml

    scale = structure(Scale, yaml.safe_load((conf_dir() / "scale" / "nano.yaml").read_text()), "scale")
    task = load_task("table_readout", scale)
    made = []
    for index in range(num):
        state = task.sample(task.levels[index // 2 % len(task.levels)], "validation", index).state
        view: Modality = "image" if index % 2 else "text"
        made.append(Prompt(task.prompt(state, view), task.draw(state) if view == "image" else None))
    return made


def answer(learner: Learner, asked: list[Prompt], size: int) -> tuple[float, list[Generation]]:
    """Seconds and answers in batches of `size`."""
    begin = time.perf_counter()
    found = [a for i in range(0, len(asked), size) for a in learner.generate(asked[i : i + size], NEW_TOKENS)]
    return time.perf_counter() - begin, found


def main() -> None:
    num, size = (int(word) for word in (sys.argv[1:3] if len(sys.argv) > 2 else ("64", "32")))
    quieten()
    learner = Learner(*load_nano(Path(sys.argv[3]) if len(sys.argv) > 3 else BASE))
    learner.model.to("cuda" if torch.cuda.is_available() else "cpu")
    asked = prompts(num)
    answer(learner, asked[:2], 2)
    ways = {
        "one by one": (1, generation.STRETCH),
        f"batches of {size}": (size, generation.STRETCH),
        "none leaves early": (size, NEW_TOKENS),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    found: dict[str, list[Generation]] = {}
    for _ in range(REPEATS):
        for name, (batch, stretch) in ways.items():
            generation.STRETCH = stretch
            spent, found[name] = answer(learner, asked, batch)
            seconds[name].append(spent)
    print(f"{machine()}; torch {torch.__version__}, {torch.get_num_threads()} threads; {num} problems")
    medians = {name: statistics.median(some) for name, some in seconds.items()}
    expected = found["one by one"]
    differing = {name: sum(a != b for a, b in zip(expected, some, strict=True)) for name, some in found.items()}
    for name, median in medians.items():
        ratio = medians["one by one"] / median
        print(f"{name:<18} {num / median:8.2f} examples/s {ratio:6.2f} times, answers that differ: {differing[name]}")
    sys.exit(any(differing.values()))


if __name__ == "__main__":
    main()
