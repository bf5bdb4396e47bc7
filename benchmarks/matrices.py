"""How fast matrices are made at nano size with their picture and trace, per configuration, on one core.

    python benchmarks/matrices.py 150

CPU seconds of the first so many puzzles of training, after as many others; milliseconds a puzzle for each step.
"""

import gc
import itertools
import sys
import time

from omegaconf import OmegaConf

from vlmreason import places
from vlmreason.assembly.build import load_task
from vlmreason.scale import Scale
from vlmreason.structure import structure


def main(num: str = "150") -> None:
    sizes = OmegaConf.to_container(OmegaConf.load(places.conf_dir() / "scale" / "nano.yaml"))
    task = load_task("raven", structure(Scale, sizes, "scale"))
    gc.freeze()  # what is loaded: now and then a pass over it takes longer than a hundred puzzles
    print(f"{'level':12}{'puzzles/s':>10}{'sampling':>10}{'picture':>10}{'trace':>10}")
    for level in task.levels:
        for index in range(2 * int(num), 3 * int(num)):
            task.draw(task.sample(level, "train", index).state)  # fills the cache of sprites
        times = [time.process_time()]
        states = [task.sample(level, "train", index).state for index in range(int(num))]
        times.append(time.process_time())
        for work in (task.draw, task.thought):
            for state in states:
                work(state)
            times.append(time.process_time())
        spent = [1000 * (end - begin) / int(num) for begin, end in itertools.pairwise(times)]
        print(f"{level:12}{1000 / sum(spent):10.0f}" + "".join(f"{one:10.3f}" for one in spent), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
