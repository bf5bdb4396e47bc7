"""Steps per second of environments alone, and of rollouts side by side against one episode at a time.

    python benchmarks/rollout.py [checkpoint] [parallel]     # default: the shipped base, 64; a minute

The first table needs no model: a turn with its prompt and picture, on one core, in CPU time, as the median of several
repeats. The second plays NumberLine with a model, both ways in turns within one run; the ratio is of the medians. The
last lines are about finding the segments of long responses, on one core.
"""

import random
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import torch
from drawing import machine
from omegaconf import OmegaConf

from vlmreason.answering.rollout import Rollouts, Slots
from vlmreason.assembly.build import load_task, quieten
from vlmreason.envs.base import Env
from vlmreason.models.contract import Prompt
from vlmreason.models.nano.model import BASE, load_nano
from vlmreason.models.vlm.learner import Learner
from vlmreason.places import conf_dir
from vlmreason.scale import Scale
from vlmreason.segments import ANSWER, THOUGHT, Response, Segment
from vlmreason.structure import structure

REPEATS = 5
ENVS = ("number_line", "ez_points", "points24", "blackjack", "general_points", "virl")


def scale(name: str) -> Scale:
    return structure(Scale, OmegaConf.to_container(OmegaConf.load(conf_dir() / "scale" / f"{name}.yaml")), "scale")


def load_env(name: str, size: str) -> Env[Any]:
    env = load_task(name, scale(size))
    assert isinstance(env, Env)
    return env


def steps_per_second(env: Env[Any], num: int = 400) -> float:
    """Turns of expert and random play with prompt and picture, per second of CPU time."""
    rates, episode = [], 0
    for _ in range(REPEATS):
        started, done, rng = time.process_time(), 0, random.Random(0)
        while done < num:
            state, ended, episode = env.start(env.levels[0], "train", episode), False, episode + 1
            while not ended and done < num:
                response = env.expert(state) if rng.random() < 0.7 else "nothing"
                env.prompt(state, "image")
                env.draw(state)
                outcome = env.turn(state, response, rng)
                state, ended, done = outcome.state, outcome.done, done + 1
        rates.append(num / (time.process_time() - started))
    return statistics.median(rates)


def rollout_rate(learner: Learner, env: Env[Any], parallel: int, num: int) -> float:
    """Turns per second of wall time of `parallel` episodes side by side."""
    slots = Slots(Rollouts(env, env.levels[:1], "image", {}, 40, 0.5, 0, 128), parallel)
    started = time.perf_counter()
    slots.collect(learner, max(1, num // parallel), 0)
    return max(1, num // parallel) * parallel / (time.perf_counter() - started)


def encode_seconds(learner: Learner, num: int) -> float:
    """CPU seconds for `num` generated tokens in the segments of their response."""
    text = "(3,4) 17 (3,5) 9\n" * num
    ids = learner.processor.coder.follow([], text)[0][:num]
    half = len(learner.processor.decode(ids)) // 2
    times = []
    for _ in range(2 * REPEATS):
        started = time.process_time()
        learner.processor.encode_generated(
            Prompt("?", None), ids, lambda text: Response((Segment(THOUGHT, text[:half]), Segment(ANSWER, text[half:])))
        )
        times.append(time.process_time() - started)
    return statistics.median(times)


def main() -> None:
    quieten()
    torch.set_num_threads(1)
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else BASE
    parallel = int(sys.argv[2]) if len(sys.argv) > 2 else 64
    print(machine())
    print("environment      nano steps/s  paper steps/s")
    for name in ENVS:
        nano, paper = (steps_per_second(load_env(name, size)) for size in ("nano", "paper"))
        print(f"{name:16} {nano:12.0f} {paper:14.0f}")
    learner, env = Learner(*load_nano(directory)), load_env("number_line", "nano")
    one, many = [], []
    for _ in range(3):
        one.append(rollout_rate(learner, env, 1, 16))
        many.append(rollout_rate(learner, env, parallel, 4 * parallel))
    ratio = statistics.median(many) / statistics.median(one)
    print(f"rollouts: 1 at a time {statistics.median(one):.1f} steps/s, {parallel} side by side "
          f"{statistics.median(many):.1f} steps/s, {ratio:.1f} times")  # fmt: skip
    print(*(f"{num} generated tokens encoded in {1e3 * encode_seconds(learner, num):.1f} ms" for num in (400, 1600)),
          sep="\n")  # fmt: skip


if __name__ == "__main__":
    main()
